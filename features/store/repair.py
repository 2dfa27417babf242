"""Saving what is whole of a damaged store."""

from __future__ import annotations

import filecmp
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import StoreDamaged
from features.store.commit import lock_store
from features.store.hdf5 import (
    HDF5_SIGNATURE,
    StoreFile,
    is_whole,
    read_pieces,
    salvage_store_file,
    write_store_file,
)
from features.store.store import open_store, parts_folder
from features.system.files import report_unwritable, whole_file


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """What a repair saved.

    Attributes
    ----------
    path : Path
        The store.
    n_kept : int
        Clips that are whole, failed ones included.
    n_lost : int
        Clips that are not; ``extract-features`` embeds them anew.
    set_aside : tuple of Path
        The damaged files, kept under other names.
    """

    path: Path
    n_kept: int
    n_lost: int
    set_aside: tuple[Path, ...]


def repair_store(path: str | Path) -> RepairSummary:
    """Write a damaged store anew with the clips that are whole.

    Files without damage stay as they are; a damaged one is kept beside the store, with
    ``.damaged`` and a number behind its name.

    Parameters
    ----------
    path : str or Path
        The file given to ``extract-features --out``.

    Returns
    -------
    RepairSummary

    Raises
    ------
    StoreNotFound
        If there is no store.
    StoreDamaged
        If the store is one file of which nothing can be saved.
    StoreBusy
        If another process is writing to it.
    OutputUnwritable
        If the files cannot be written or renamed.
    """
    store_path = Path(path)
    if not _files(store_path):
        open_store(store_path)  # says that there is none, and how to make it
    with lock_store(store_path), report_unwritable(store_path):
        files = _files(store_path)
        n_kept = n_lost = 0
        set_aside = []
        for file in files:
            try:
                with _readable(file, store_path) as readable:
                    found, n_lost_here = _find_whole(readable)
                    n_kept += len(found.clips)
                    n_lost += n_lost_here
                    if n_lost_here or readable != file:
                        set_aside.append(_replace(file, found, store_path))
            except StoreDamaged:
                if len(files) == 1:
                    raise
                # How many clips it held nobody can tell.
                set_aside.append(file.rename(_name_aside(file, store_path)))
        return RepairSummary(store_path, n_kept, n_lost, tuple(set_aside))


def _files(path: Path) -> list[Path]:
    parts = sorted(parts_folder(path).glob("part-*.h5"))
    return [file for file in (path, *parts) if file.is_file()]


@contextmanager
def _readable(file: Path, store_path: Path) -> Iterator[Path]:
    """Give a file that HDF5 opens: of a truncated one a copy, with zeros up to its length."""
    with file.open("rb") as stream:
        start = stream.read(48)
    size = full_size = file.stat().st_size
    # Version 0 of the superblock, which h5py writes, keeps the file's length at byte 40.
    if start.startswith(HDF5_SIGNATURE) and len(start) == 48 and start[8] == 0:
        (full_size,) = struct.unpack_from("<Q", start, 40)
    # A damaged length must not fill the disk; the filling itself is sparse.
    if not size < full_size <= 1000 * size:
        yield file
        return
    folder = parts_folder(store_path)
    folder.mkdir(exist_ok=True)
    copy = folder / "truncated.partial"  # a name that `lock_store` clears after a kill
    try:
        shutil.copyfile(file, copy)
        with copy.open("r+b") as stream:
            stream.truncate(full_size)
        yield copy
    finally:
        copy.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # if it holds no commits


def _find_whole(readable: Path) -> tuple[StoreFile, int]:
    """Return the clips of a file that are whole, and how many are not."""
    found, n_lost = salvage_store_file(readable)
    rows = list(zip(found.clips, found.ranges, strict=True))
    whole = [row for row in rows if is_whole(*row)]
    clips, ranges = tuple(clip for clip, _ in whole), tuple(place for _, place in whole)
    return replace(found, clips=clips, ranges=ranges), n_lost + len(rows) - len(whole)


def _replace(file: Path, found: StoreFile, store_path: Path) -> Path:
    """Write the whole clips in place of a damaged file; returns where that one went."""
    # It keeps its name until the new one takes it: a kill in between must not leave no store.
    aside = _name_aside(file, store_path)
    if not aside.exists():
        try:
            aside.hardlink_to(file)
        except OSError:  # a disk without links
            with whole_file(aside) as partial:
                shutil.copy2(file, partial)
    write_store_file(
        file,
        found.header,
        found.clips,
        read_pieces(found.ranges),
        found.history,
        merged_parts=found.merged_parts,
    )
    return aside


def _name_aside(file: Path, store_path: Path) -> Path:
    """Name a damaged file's place beside the store, where it may be already after a kill."""
    name = store_path.name if file == store_path else f"{store_path.name}.{file.stem}"
    number = 1
    while (aside := store_path.with_name(f"{name}.damaged{number}")).exists():
        if filecmp.cmp(file, aside):
            break
        number += 1
    return aside
