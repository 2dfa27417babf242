"""Reading one HDF5 file of embeddings, which `features.store.h5write` wrote once and whole.

The layout is described for other programs in ``docs/store-format.md``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.errors import StoreDamaged
from features.records import (
    ClipEmbedding,
    ClipRecord,
    FloatArray,
    IntArray,
    StoreHeader,
    VectorArray,
)
from features.store.cliptable import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    find_whole_rows,
    records_from_columns,
    table_digest,
    to_text,
)
from features.store.ranges import FrameRange, coalesce

FORMAT_NAME = "framehead-store"
FORMAT_VERSION = 1
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_MEND_HINT = (
    "restore the file from a copy, or save what is whole with framehead inspect STORE --repair "
    "and run extract-features again for the rest"
)

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
    merged_parts : tuple of str
        Names of the parts that the last merge put into this file.
    """

    path: Path
    header: StoreHeader
    clips: tuple[ClipRecord, ...]
    offsets: tuple[int, ...]
    history: tuple[dict[str, Any], ...]
    merged_parts: tuple[str, ...] = ()


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 files do, whole or not."""
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


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
        _require_our_format(file, path)
        columns = _read_columns(file)
        header_text = str(file.attrs["header"])
        history_text = str(file.attrs["history"])
        if file.attrs["table_sha256"] != table_digest(header_text, history_text, columns):
            raise StoreDamaged(
                f"The clip table of '{path}' must match its checksum, and does not: "
                "the file was changed or damaged.",
                hint=_MEND_HINT,
            )
        header = StoreHeader.from_json(header_text)
        history = tuple(json.loads(history_text))
        merged_parts = tuple(json.loads(str(file.attrs["merged_parts"])))
    offsets = tuple(int(offset) for offset in columns["offset"])
    clips = records_from_columns(columns)
    return StoreFile(path, header, clips, offsets, history, merged_parts)


def salvage_store_file(path: Path) -> tuple[StoreFile, int]:
    """Read what is whole of a damaged file's table of contents.

    The header must match the file's fingerprint, and a row its own checksum. Whether a
    row's frames are whole is for the caller to check.

    Parameters
    ----------
    path : Path

    Returns
    -------
    StoreFile
        With the whole rows only; without history if that is damaged.
    int
        Rows that are lost.

    Raises
    ------
    StoreDamaged
        If the HDF5 structure or the header is damaged, so that nothing can be trusted.
    """
    with _open_for_reading(path) as file:
        _require_our_format(file, path)
        columns = _read_columns(file)
        header = StoreHeader.from_json(str(file.attrs["header"]))
        if header.fingerprint != file.attrs["fingerprint"]:
            raise StoreDamaged(f"The header of '{path}' is damaged: nothing in it can be trusted.")
        try:
            history = tuple(json.loads(str(file.attrs["history"])))
        except ValueError:
            history = ()
        try:
            merged_parts = tuple(json.loads(str(file.attrs["merged_parts"])))
        except ValueError:
            merged_parts = ()
    whole = find_whole_rows(columns)
    kept = {name: [values[index] for index in whole] for name, values in columns.items()}
    offsets = tuple(int(offset) for offset in kept["offset"])
    found = StoreFile(path, header, records_from_columns(kept), offsets, history, merged_parts)
    return found, len(columns["clip_id"]) - len(whole)


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


def read_pieces(ranges: Iterable[FrameRange]) -> Iterator[ClipEmbedding]:
    """Yield the rows of many ranges in bounded memory, for `write_store_file`."""
    for piece in coalesce(ranges, most_frames=_COPY_FRAMES):
        yield read_frame_range(piece)


def _open_unlocked(path: Path) -> h5py.File:
    # A finished file never changes, and some network folders know no locks.
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as problem:
        # The caller's own program has it open with h5py's default: then we must, too.
        if "locking flag" not in str(problem):
            raise
        return h5py.File(path, "r")


def _require_our_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT_NAME:
        raise StoreDamaged(
            f"A store must be an HDF5 file made by extract-features. '{path}' is HDF5 "
            "but of another kind.",
            hint="give the file named by extract-features --out",
        )
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        raise StoreDamaged(
            f"This version of framehead reads store format {FORMAT_VERSION}. "
            f"'{path}' has format {version}.",
            hint="upgrade framehead: pip install --upgrade framehead",
        )


@contextmanager
def _open_for_reading(path: Path) -> Iterator[h5py.File]:
    try:
        file = _open_unlocked(path)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise StoreDamaged(
            f"A store must be a whole HDF5 file. Opening '{path}' "
            f"({path.stat().st_size if path.exists() else 0} bytes) failed: "
            f"{first_line(problem)}.",
            hint=f"it is truncated: {_MEND_HINT}"
            if is_hdf5(path)
            else "give the file named by extract-features --out; this is no HDF5 file",
        ) from problem
    try:
        yield file
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as problem:
        if isinstance(problem, StoreDamaged):
            raise
        raise StoreDamaged(
            f"Reading '{path}' failed: {first_line(problem)}.",
            hint=_MEND_HINT,
        ) from problem
    finally:
        file.close()


def _read_columns(file: h5py.File) -> dict[str, list[Any]]:
    table = file["clips"]
    columns: dict[str, list[Any]] = {
        name: [to_text(value) for value in table[name][()]] for name in TEXT_COLUMNS
    }
    columns.update({name: table[name][()].tolist() for name in NUMBER_COLUMNS})
    return columns


def first_line(problem: BaseException) -> str:
    """Return the first line of an error's text, or its kind if it has none."""
    text = str(problem).strip().splitlines()
    return text[0].rstrip(".") if text else type(problem).__name__
