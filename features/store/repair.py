"""Saving what is whole of a damaged store."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import StoreDamaged
from features.records import ClipRecord
from features.store.commit import lock_store
from features.store.h5write import write_store_file
from features.store.hdf5 import (
    HDF5_SIGNATURE,
    StoreFile,
    clip_crc32,
    read_frame_range,
    read_pieces,
    salvage_store_file,
)
from features.store.ranges import FrameRange
from features.store.store import open_store, parts_folder


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """What a repair saved.

    Attributes
    ----------
    path : Path
    n_kept : int
        Clips that are whole, failed ones included.
    n_lost : int
        Clips that are not; extract-features embeds them anew.
    set_aside : tuple of Path
        The damaged files, kept under other names.
    """

    path: Path
    n_kept: int
    n_lost: int
    set_aside: tuple[Path, ...]


def repair_store(path: str | Path) -> RepairSummary:
    """Write a damaged store anew with the clips that are whole.

    Files without damage stay as they are. A damaged one is kept beside the store, with
    ``.damaged`` behind its name.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    RepairSummary

    Raises
    ------
    StoreNotFound
        If there is no store.
    StoreDamaged
        If nothing can be saved of the store's only file.
    StoreBusy, OutputUnwritable
        If it cannot be written.
    """
    store_path = Path(path)
    if not _files(store_path):
        open_store(store_path)  # says that there is none, and how to make it
    with lock_store(store_path):
        files = _files(store_path)
        n_kept = n_lost = 0
        set_aside = []
        for file in files:
            readable = _extend_truncated(file)
            try:
                found, lost_here = _find_whole(readable)
                n_kept += len(found.clips)
                n_lost += lost_here
                if lost_here or readable != file:
                    set_aside.append(_replace(file, found, beside=store_path))
            except StoreDamaged:
                if len(files) == 1:
                    raise
                # How many clips it held nobody can tell.
                set_aside.append(file.rename(_name_aside(file, beside=store_path)))
            finally:
                if readable != file:
                    readable.unlink()
        return RepairSummary(store_path, n_kept, n_lost, tuple(set_aside))


def _files(path: Path) -> list[Path]:
    parts = sorted(parts_folder(path).glob("part-*.h5"))
    return [file for file in (path, *parts) if file.is_file()]


def _find_whole(readable: Path) -> tuple[StoreFile, int]:
    """Return the clips of a file that are whole, and how many are not."""
    found, n_lost = salvage_store_file(readable)
    rows = [
        (record, offset)
        for record, offset in zip(found.clips, found.offsets, strict=True)
        if record.status == "failed" or _is_whole(readable, record, offset)
    ]
    n_lost += len(found.clips) - len(rows)
    whole = replace(
        found,
        clips=tuple(record for record, _ in rows),
        offsets=tuple(offset for _, offset in rows),
    )
    return whole, n_lost


def _replace(file: Path, found: StoreFile, *, beside: Path) -> Path:
    """Write the whole clips in place of a damaged file; returns where that one went."""
    ranges = [
        FrameRange(found.path, offset, clip.n_frames)
        for clip, offset in zip(found.clips, found.offsets, strict=True)
    ]
    # The damaged file keeps its name until the new one takes it: a kill in between must not
    # leave no store at all.
    aside = _name_aside(file, beside=beside)
    shutil.copy2(file, aside)
    write_store_file(
        file,
        found.header,
        found.clips,
        read_pieces(ranges),
        found.history,
        merged_parts=found.merged_parts,
    )
    return aside


def _is_whole(file: Path, record: ClipRecord, offset: int) -> bool:
    try:
        piece = read_frame_range(FrameRange(file, offset, record.n_frames))
    except StoreDamaged:
        return False
    crc = clip_crc32(piece.vectors, piece.timestamps_seconds, piece.frame_indices)
    return len(piece.vectors) == record.n_frames and crc == record.crc32


def _extend_truncated(file: Path) -> Path:
    """Copy a truncated file and fill it with zeros up to its length, so that HDF5 opens it."""
    with file.open("rb") as stream:
        start = stream.read(48)
    # Version 0 of the superblock, which h5py writes, keeps the file's length at byte 40.
    if not start.startswith(HDF5_SIGNATURE) or len(start) < 48 or start[8] != 0:
        return file
    (full_size,) = struct.unpack_from("<Q", start, 40)
    size = file.stat().st_size
    # A damaged length must not fill the disk; the filling itself is sparse.
    if not size < full_size <= 1000 * size:
        return file
    copy = file.with_name(f"{file.name}.extended.partial")
    shutil.copyfile(file, copy)
    with copy.open("r+b") as stream:
        stream.truncate(full_size)
    return copy


def _name_aside(file: Path, *, beside: Path) -> Path:
    """Name a damaged file's place beside the store, out of the parts that merging clears."""
    name = beside.name if file == beside else f"{beside.name}.{file.stem}"
    number = 1
    while (aside := beside.with_name(f"{name}.damaged{number}")).exists():
        number += 1
    return aside
