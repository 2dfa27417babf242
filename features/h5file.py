"""One HDF5 file of embeddings: written once and whole, then only read.

The only place that knows h5py. A file is written under a temporary name, synced
to disk and renamed, so that a file which exists is a file which is complete.
The layout is described for other programs in ``docs/store-format.md``.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.cliptable import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    columns_from_records,
    records_from_columns,
    table_digest,
    to_bytes,
    to_text,
)
from features.errors import OutputUnwritable, StoreDamaged
from features.records import (
    ClipEmbedding,
    ClipRecord,
    FloatArray,
    IntArray,
    StoreHeader,
    VectorArray,
)

FORMAT_NAME = "framehead-store"
FORMAT_VERSION = 1

# Enough to amortise a read, little enough to keep merging in bounded memory.
_COPY_FRAMES = 8192


@dataclass(frozen=True, slots=True)
class StoreFile:
    """The table of contents of one file of embeddings.

    Attributes
    ----------
    path : Path
    header : StoreHeader
    clips : tuple of ClipRecord
    offsets : tuple of int
        Row of each clip's first embedding in this file.
    history : tuple of dict
        What wrote the clips: date, engine and versions, one entry per extraction.
    """

    path: Path
    header: StoreHeader
    clips: tuple[ClipRecord, ...]
    offsets: tuple[int, ...]
    history: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Consecutive rows of one file: `n_frames` of them from `offset` on."""

    path: Path
    offset: int
    n_frames: int


def clip_crc32(
    vectors: VectorArray, timestamps_seconds: FloatArray, frame_indices: IntArray
) -> int:
    """Checksum one clip's arrays, in the types in which they are stored.

    Parameters
    ----------
    vectors : ndarray of float16 or float32, shape (n_frames, embedding_dim)
    timestamps_seconds : ndarray of float64, shape (n_frames,)
    frame_indices : ndarray of int64, shape (n_frames,)

    Returns
    -------
    int
        CRC-32 over the three buffers, in that order.
    """
    crc = zlib.crc32(np.ascontiguousarray(vectors).data)
    crc = zlib.crc32(np.ascontiguousarray(timestamps_seconds, dtype=np.float64).data, crc)
    return zlib.crc32(np.ascontiguousarray(frame_indices, dtype=np.int64).data, crc)


def write_store_file(
    path: Path,
    header: StoreHeader,
    clips: Sequence[ClipRecord],
    pieces: Iterable[ClipEmbedding],
    history: Sequence[dict[str, Any]],
) -> None:
    """Write a file of embeddings, complete or not at all.

    Parameters
    ----------
    path : Path
        Where the file shall stand; one that stands there is replaced.
    header : StoreHeader
    clips : sequence of ClipRecord
        Rows of the table; `n_frames` of each says how many embeddings it owns.
    pieces : iterable of ClipEmbedding
        The embeddings of all clips in the order of `clips`, cut anywhere.
    history : sequence of dict
        JSON-ready entries that say what wrote the clips.

    Raises
    ------
    OutputUnwritable
        If the folder is not writable or the disk is full. Nothing at `path` changes.
    """
    total_frames = sum(clip.n_frames for clip in clips)
    # Temporary files do not end in .h5, so a reader of a folder never meets one.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            _write_frames(file, header, total_frames, pieces)
            _write_table(file, header, clips, history)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as problem:  # h5py raises both for a full disk
        partial.unlink(missing_ok=True)
        raise OutputUnwritable(
            f"The store must be writable. Writing '{path}' failed: {_first_line(problem)}.",
            hint="free disk space or give another --out, then run the same command again: "
            "it goes on from the last commit",
        ) from problem
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_store_file(path: Path) -> StoreFile:
    """Read the table of contents of a file of embeddings.

    Parameters
    ----------
    path : Path

    Returns
    -------
    StoreFile

    Raises
    ------
    StoreDamaged
        If the file is not one of ours, is truncated, or its table fails its checksum.
    """
    with _open_for_reading(path) as file:
        if file.attrs.get("format") != FORMAT_NAME:
            raise StoreDamaged(
                f"A store must be an HDF5 file made by extract-features. '{path}' is HDF5 "
                "but of another kind.",
                hint="give the file named by extract-features --out",
            )
        version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise StoreDamaged(
                f"This version of framehead reads store format {FORMAT_VERSION}. "
                f"'{path}' has format {version}.",
                hint="upgrade framehead: pip install --upgrade framehead",
            )
        columns = _read_columns(file)
        header_text = str(file.attrs["header"])
        history_text = str(file.attrs["history"])
        if file.attrs["table_sha256"] != table_digest(header_text, history_text, columns):
            raise StoreDamaged(
                f"The clip table of '{path}' must match its checksum, and does not: "
                "the file was changed or damaged.",
                hint="restore the file from a copy, or delete it and run extract-features again",
            )
    records = records_from_columns(columns)
    return StoreFile(
        path=path,
        header=StoreHeader.from_json(header_text),
        clips=records,
        offsets=tuple(int(offset) for offset in columns["offset"]),
        history=tuple(json.loads(history_text)),
    )


def read_frame_range(frames: FrameRange) -> ClipEmbedding:
    """Read consecutive embeddings of one file.

    Parameters
    ----------
    frames : FrameRange

    Returns
    -------
    ClipEmbedding
        In the stored types.

    Raises
    ------
    StoreDamaged
        If the file cannot be read.
    """
    rows = slice(frames.offset, frames.offset + frames.n_frames)
    with _open_for_reading(frames.path) as file:
        return ClipEmbedding(
            vectors=file["embeddings"][rows],
            timestamps_seconds=file["timestamps_seconds"][rows],
            frame_indices=file["frame_indices"][rows],
        )


def read_vectors_into(ranges: Sequence[FrameRange], target: VectorArray) -> None:
    """Read embeddings straight into an array, file by file, without a copy.

    Parameters
    ----------
    ranges : sequence of FrameRange
        In the order in which they shall stand in `target`.
    target : ndarray of float, shape (sum of n_frames, embedding_dim), C order
        Filled in place; HDF5 converts the stored type.

    Raises
    ------
    StoreDamaged
        If a file cannot be read.
    """
    start = 0
    index = 0
    while index < len(ranges):
        path = ranges[index].path
        with _open_for_reading(path) as file:
            embeddings = file["embeddings"]
            while index < len(ranges) and ranges[index].path == path:
                piece = ranges[index]
                if piece.n_frames:
                    embeddings.read_direct(
                        target,
                        np.s_[piece.offset : piece.offset + piece.n_frames],
                        np.s_[start : start + piece.n_frames],
                    )
                start += piece.n_frames
                index += 1


def coalesce(ranges: Iterable[FrameRange], *, most_frames: int | None = None) -> list[FrameRange]:
    """Join ranges that follow each other in one file, so that each is one read.

    Parameters
    ----------
    ranges : iterable of FrameRange
    most_frames : int, optional
        Cut longer ranges into pieces of at most this many frames.

    Returns
    -------
    list of FrameRange
        The same rows in the same order.
    """
    joined: list[FrameRange] = []
    for item in ranges:
        last = joined[-1] if joined else None
        if last and last.path == item.path and last.offset + last.n_frames == item.offset:
            joined[-1] = FrameRange(last.path, last.offset, last.n_frames + item.n_frames)
        elif item.n_frames:
            joined.append(item)
    if most_frames is None:
        return joined
    return [
        FrameRange(item.path, start, min(most_frames, item.offset + item.n_frames - start))
        for item in joined
        for start in range(item.offset, item.offset + item.n_frames, most_frames)
    ]


def read_pieces(ranges: Iterable[FrameRange]) -> Iterator[ClipEmbedding]:
    """Yield the rows of many ranges in bounded memory, for `write_store_file`."""
    for piece in coalesce(ranges, most_frames=_COPY_FRAMES):
        yield read_frame_range(piece)


@contextmanager
def _open_for_reading(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise StoreDamaged(
            f"A store must be a whole HDF5 file. Opening '{path}' "
            f"({path.stat().st_size if path.exists() else 0} bytes) failed: "
            f"{_first_line(problem)}.",
            hint="it is truncated or not HDF5: restore it from a copy, or delete it and run "
            "extract-features again",
        ) from problem
    try:
        yield file
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as problem:
        if isinstance(problem, StoreDamaged):
            raise
        raise StoreDamaged(
            f"Reading '{path}' failed: {_first_line(problem)}.",
            hint="the file is damaged: restore it from a copy, or delete it and run "
            "extract-features again",
        ) from problem
    finally:
        file.close()


def _write_frames(
    file: h5py.File, header: StoreHeader, total_frames: int, pieces: Iterable[ClipEmbedding]
) -> None:
    # Contiguous layout: reading it back is one sequential read, as with numpy.load.
    dim = header.backbone.embedding_dim
    embeddings = file.create_dataset("embeddings", (total_frames, dim), dtype=header.dtype)
    timestamps = file.create_dataset("timestamps_seconds", (total_frames,), dtype=np.float64)
    indices = file.create_dataset("frame_indices", (total_frames,), dtype=np.int64)
    start = 0
    for piece in pieces:
        stop = start + len(piece.vectors)
        if stop == start:
            continue
        embeddings[start:stop] = piece.vectors
        timestamps[start:stop] = piece.timestamps_seconds
        indices[start:stop] = piece.frame_indices
        start = stop
    if start != total_frames:
        raise ValueError(
            f"The pieces must hold the {total_frames} frames that the clip table names. "
            f"Received: {start}."
        )


def _write_table(
    file: h5py.File,
    header: StoreHeader,
    clips: Sequence[ClipRecord],
    history: Sequence[dict[str, Any]],
) -> None:
    columns = columns_from_records(clips)
    table = file.create_group("clips")
    for name in TEXT_COLUMNS:
        # Bytes, not str: a file name need not be UTF-8 and must come back as it was.
        values = np.array([to_bytes(text) for text in columns[name]], dtype=object)
        table.create_dataset(name, data=values, dtype=h5py.string_dtype("utf-8"))
    for name, dtype in NUMBER_COLUMNS.items():
        table.create_dataset(name, data=np.asarray(columns[name], dtype=dtype))
    header_text = header.to_json()
    history_text = json.dumps(list(history), sort_keys=True)
    file.attrs["format"] = FORMAT_NAME
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["header"] = header_text
    file.attrs["fingerprint"] = header.fingerprint
    file.attrs["history"] = history_text
    file.attrs["table_sha256"] = table_digest(header_text, history_text, columns)


def _read_columns(file: h5py.File) -> dict[str, list[Any]]:
    table = file["clips"]
    columns: dict[str, list[Any]] = {
        name: [to_text(value) for value in table[name][()]] for name in TEXT_COLUMNS
    }
    columns.update({name: table[name][()].tolist() for name in NUMBER_COLUMNS})
    return columns


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder for syncing
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip().splitlines()
    return text[0].rstrip(".") if text else type(problem).__name__
