"""What a store file is: one HDF5 file of a clip table and all frames, written once and whole.

Nothing else in the house knows h5py. The layout is described for other programs in
``docs/store-format.md``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import accumulate, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.errors import OutputUnwritable, StoreDamaged
from features.records import (
    ClipEmbedding,
    ClipRecord,
    FloatArray,
    IntArray,
    SourceFile,
    StoreHeader,
    VectorArray,
    VideoFacts,
)
from features.system.files import whole_file

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_FORMAT_NAME = "framehead-store"
_FORMAT_VERSION = 1

# Columns of the clip table, each with its place in a ClipRecord; the order is part of the
# checksums. Two more are computed: "offset" and, over all others, "row_crc32".
_TEXT_COLUMNS = {
    **{name: name for name in ("clip_id", "label", "group", "split", "status", "reason")},
    "source_sha256": "source.sha256",
}
_NUMBER_COLUMNS: dict[str, tuple[str, type[np.generic]]] = {
    "offset": ("", np.int64),
    "n_frames": ("n_frames", np.int64),
    "crc32": ("crc32", np.uint32),
    "source_size_bytes": ("source.size_bytes", np.int64),
    "source_mtime_ns": ("source.mtime_ns", np.int64),
    "n_frames_header": ("facts.n_frames_header", np.int64),
    "n_frames_decoded": ("facts.n_frames_decoded", np.int64),
    "fps_header": ("facts.fps_header", np.float64),
    "width_px": ("facts.width_px", np.int64),
    "height_px": ("facts.height_px", np.int64),
    "is_current": ("is_current", np.uint8),
    "row_crc32": ("", np.uint32),
}
# What is odd about a video is kept as part of the clip's reason.
_FACTS = tuple(field.name for field in fields(VideoFacts) if field.name != "note")
# Only in stores with a clip that is a span of its file; NaN where a clip has no such bound.
_SPAN_COLUMNS = ("start_seconds", "end_seconds")
# Only where clips may have several classes: a JSON list of them, or nothing if they are unknown.
_LABELS_COLUMN = "labels"

_MEND_HINT = (
    "restore the file from a copy, or save what is whole with framehead inspect STORE --repair "
    "and run extract-features again for the rest"
)

# Enough to amortise a read, little enough to keep merging in bounded memory.
_COPY_FRAMES = 8192

_Columns = dict[str, list[Any]]

# What h5py and NumPy raise when bytes of a file are wrong: a group or a type where an array was,
# sizes beyond all memory.
_DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Consecutive rows of one file: `n_frames` of them from `offset` on."""

    path: Path
    offset: int
    n_frames: int

    @property
    def end(self) -> int:
        """The row behind the last one."""
        return self.offset + self.n_frames


@dataclass(frozen=True, slots=True)
class StoreFile:
    """The table of contents of one file of embeddings."""

    path: Path
    header: StoreHeader
    clips: tuple[ClipRecord, ...]
    ranges: tuple[FrameRange, ...]  # where the frames of each clip are
    history: tuple[dict[str, Any], ...]  # one entry per extraction that wrote into it
    merged_parts: tuple[str, ...]  # names of the parts that the last merge took in


def coalesce(ranges: Iterable[FrameRange], *, most_frames: int | None = None) -> list[FrameRange]:
    """Join ranges that follow each other, so that each is one read of at most `most_frames`."""
    joined: list[FrameRange] = []
    for item in ranges:
        last = joined[-1] if joined else None
        if last and last.path == item.path and last.end == item.offset:
            joined[-1] = FrameRange(last.path, last.offset, last.n_frames + item.n_frames)
        elif item.n_frames:
            joined.append(item)
    if most_frames is None:
        return joined
    return [
        FrameRange(item.path, start, min(most_frames, item.end - start))
        for item in joined
        for start in range(item.offset, item.end, most_frames)
    ]


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 files do, whole or not."""
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def clip_crc32(
    vectors: VectorArray, timestamps_seconds: FloatArray, frame_indices: IntArray
) -> int:
    """Checksum one clip's arrays, one after another, in the types in which they are stored."""
    crc = zlib.crc32(np.ascontiguousarray(vectors).data)
    crc = zlib.crc32(np.ascontiguousarray(timestamps_seconds, dtype=np.float64).data, crc)
    return zlib.crc32(np.ascontiguousarray(frame_indices, dtype=np.int64).data, crc)


def is_whole(record: ClipRecord, frames: FrameRange) -> bool:
    """Tell whether a clip's frames can be read and match its checksum."""
    if record.status == "failed":
        return True
    try:
        piece = read_frame_range(frames)
    except StoreDamaged:
        return False
    crc = clip_crc32(piece.vectors, piece.timestamps_seconds, piece.frame_indices)
    return crc == record.crc32 and len(piece.vectors) == record.n_frames


def read_store_file(path: Path) -> StoreFile:
    """Read a file's table of contents; StoreDamaged if it is not whole or none of ours."""
    with _open_for_reading(path) as file:
        columns = _read_columns(file, path)
        header_text, history_text = str(file.attrs["header"]), str(file.attrs["history"])
        if file.attrs["table_sha256"] != _digest_table(header_text, history_text, columns):
            raise StoreDamaged(
                f"The clip table of '{path}' must match its checksum, and does not: "
                "the file was changed or damaged.",
                hint=_MEND_HINT,
            )
        return StoreFile(
            path,
            StoreHeader.from_json(header_text),
            *_lay_out_rows(path, columns),
            tuple(json.loads(history_text)),
            tuple(json.loads(str(file.attrs["merged_parts"]))),
        )


def salvage_store_file(path: Path) -> tuple[StoreFile, int]:
    """Read what is whole of a damaged file's table of contents, and count the rows that are not.

    The header must match the file's fingerprint and each row its own checksum, else they are
    not trusted; whether a row's frames are whole is for the caller to check.
    """
    with _open_for_reading(path) as file:
        columns = _read_columns(file, path)
        header = StoreHeader.from_json(str(file.attrs["header"]))
        if header.fingerprint != file.attrs["fingerprint"]:
            raise StoreDamaged(f"The header of '{path}' is damaged: nothing in it can be trusted.")
        lists: dict[str, tuple[Any, ...]] = {"history": (), "merged_parts": ()}
        for name in lists:
            with suppress(ValueError, TypeError):
                lists[name] = tuple(json.loads(str(file.attrs[name])))
    crcs = zip(_checksum_rows(columns), columns["row_crc32"], strict=True)
    whole = [index for index, (now, then) in enumerate(crcs) if now == then]
    kept = {name: [values[index] for index in whole] for name, values in columns.items()}
    found = StoreFile(path, header, *_lay_out_rows(path, kept), **lists)
    return found, len(columns["clip_id"]) - len(whole)


def read_frame_range(frames: FrameRange) -> ClipEmbedding:
    """Read consecutive frames of one file, in the stored types."""
    rows = slice(frames.offset, frames.end)
    with _open_for_reading(frames.path) as file:
        return ClipEmbedding(
            vectors=file["embeddings"][rows],
            timestamps_seconds=file["timestamps_seconds"][rows],
            frame_indices=file["frame_indices"][rows],
        )


def read_vectors_into(ranges: Iterable[FrameRange], target: VectorArray) -> None:
    """Read embeddings one after another straight into an array, without a copy."""
    start = 0
    for path, pieces in groupby(ranges, key=attrgetter("path")):
        with _open_for_reading(path) as file:
            embeddings = file["embeddings"]
            for piece in pieces:
                stop = start + piece.n_frames
                rows = np.s_[piece.offset : piece.end]
                embeddings.read_direct(target, rows, np.s_[start:stop])
                start = stop


def read_pieces(ranges: Iterable[FrameRange]) -> Iterator[ClipEmbedding]:
    """Yield the frames of many ranges in bounded memory, for `write_store_file`."""
    return map(read_frame_range, coalesce(ranges, most_frames=_COPY_FRAMES))


def write_store_file(
    path: Path,
    header: StoreHeader,
    clips: Sequence[ClipRecord],
    pieces: Iterable[ClipEmbedding],
    history: Sequence[dict[str, Any]],
    *,
    merged_parts: Sequence[str] = (),
) -> None:
    """Write a file of embeddings, complete or not at all, in place of one that is there.

    The pieces hold the frames of all clips in their order, cut anywhere. OutputUnwritable if the
    folder is not writable or the disk is full.
    """
    try:
        with whole_file(path, sync=True) as partial, _creating(partial) as file:
            # The table first: what a truncated file loses is then its last frames only.
            datasets = _write_table(file, header, clips, history)
            file.attrs["merged_parts"] = json.dumps(list(merged_parts))
            file.flush()  # before datasets are closed: what fails in that is not raised
            datasets.clear()
            _write_frames(file, header, sum(clip.n_frames for clip in clips), pieces)
    except StoreDamaged:  # what is copied could not be read
        raise
    except (OSError, RuntimeError) as problem:  # h5py raises both for a full disk
        raise OutputUnwritable(
            f"The store must be writable. Writing '{path}' failed: {_first_line(problem)}.",
            hint=_lock_hint(problem)
            or "free disk space or give another --out, then run the same command again: "
            "it goes on from the last commit",
        ) from problem


def _write_frames(
    file: h5py.File, header: StoreHeader, total_frames: int, pieces: Iterable[ClipEmbedding]
) -> None:
    # Contiguous layout: reading it back is one sequential read, as with numpy.load.
    dim = header.backbone.embedding_dim
    # The small arrays get their place before the large one, again for truncated files.
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    small = {"shape": (total_frames,), "dcpl": early}
    timestamps = file.create_dataset("timestamps_seconds", dtype=np.float64, **small)
    indices = file.create_dataset("frame_indices", dtype=np.int64, **small)
    embeddings = file.create_dataset("embeddings", (total_frames, dim), dtype=header.dtype)
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
    file.flush()


def _write_table(
    file: h5py.File,
    header: StoreHeader,
    clips: Sequence[ClipRecord],
    history: Sequence[dict[str, Any]],
) -> list[h5py.Dataset]:
    columns = _lay_out_columns(clips)
    table = file.create_group("clips")
    datasets = []
    for name in (*_TEXT_COLUMNS, *_present_labels(columns)):
        # Bytes, not str: a file name need not be UTF-8 and must come back as it was.
        values = [text.encode("utf-8", "surrogateescape") for text in columns[name]]
        dtype = h5py.string_dtype("utf-8")
        data = np.array(values, dtype=object)
        datasets.append(table.create_dataset(name, data=data, dtype=dtype))
    for name, (_, kind) in _NUMBER_COLUMNS.items():
        datasets.append(table.create_dataset(name, data=np.asarray(columns[name], dtype=kind)))
    for name in _present_spans(columns):
        data = np.asarray(columns[name], dtype=np.float64)
        datasets.append(table.create_dataset(name, data=data))
    header_text = header.to_json()
    history_text = json.dumps(list(history), sort_keys=True)
    file.attrs["format"] = _FORMAT_NAME
    file.attrs["format_version"] = _FORMAT_VERSION
    file.attrs["header"] = header_text
    file.attrs["fingerprint"] = header.fingerprint
    file.attrs["history"] = history_text
    file.attrs["table_sha256"] = _digest_table(header_text, history_text, columns)
    return datasets


def _lay_out_columns(clips: Sequence[ClipRecord]) -> _Columns:
    """Make one list per column; offsets count the frames in the order given."""
    places = {**_TEXT_COLUMNS, **{name: place for name, (place, _) in _NUMBER_COLUMNS.items()}}
    columns = {name: list(map(attrgetter(place), clips)) for name, place in places.items() if place}
    columns["is_current"] = list(map(int, columns["is_current"]))
    if any(clip.start_seconds is not None for clip in clips):
        for name in _SPAN_COLUMNS:
            bounds = map(attrgetter(name), clips)
            columns[name] = [math.nan if bound is None else bound for bound in bounds]
    if any(clip.labels is not None for clip in clips):
        named = [clip.labels for clip in clips]
        columns[_LABELS_COLUMN] = [
            "" if labels is None else json.dumps(labels, ensure_ascii=False) for labels in named
        ]
    columns["offset"] = list(accumulate(columns["n_frames"], initial=0))[:-1]
    columns["row_crc32"] = _checksum_rows(columns)
    return columns


def _lay_out_rows(
    path: Path, columns: _Columns
) -> tuple[tuple[ClipRecord, ...], tuple[FrameRange, ...]]:
    """Rebuild what `_lay_out_columns` took apart: the clips, and where their frames are."""
    source_names = ("source_size_bytes", "source_mtime_ns", "source_sha256")
    plain_names = ("clip_id", "label", "group", "split", "status", "reason", "n_frames")
    clips = map(
        ClipRecord,
        *(columns[name] for name in plain_names),
        map(SourceFile, *(columns[name] for name in source_names)),
        map(VideoFacts, *(columns[name] for name in _FACTS)),
        columns["crc32"],
        map(bool, columns["is_current"]),
        *(_read_bounds(columns, name) for name in _SPAN_COLUMNS),
        _read_labels(columns),
    )
    places = zip(columns["offset"], columns["n_frames"], strict=True)
    return tuple(clips), tuple(FrameRange(path, *place) for place in places)


def _read_columns(file: h5py.File, path: Path) -> _Columns:
    _require_our_format(file, path)
    table = file["clips"]
    labels = [_LABELS_COLUMN] if _LABELS_COLUMN in table else []
    columns: _Columns = {
        name: [value.decode("utf-8", "surrogateescape") for value in table[name][()]]
        for name in (*_TEXT_COLUMNS, *labels)
    }
    present = [name for name in _SPAN_COLUMNS if name in table]
    columns.update({name: table[name][()].tolist() for name in (*_NUMBER_COLUMNS, *present)})
    return columns


def _read_bounds(columns: _Columns, name: str) -> list[float | None]:
    bounds = columns.get(name) or [math.nan] * len(columns["clip_id"])
    return [None if math.isnan(bound) else bound for bound in bounds]


def _read_labels(columns: _Columns) -> list[tuple[str, ...] | None]:
    texts = columns.get(_LABELS_COLUMN) or [""] * len(columns["clip_id"])
    return [tuple(json.loads(text)) if text else None for text in texts]


def _present_labels(columns: _Columns) -> list[str]:
    return [_LABELS_COLUMN] if _LABELS_COLUMN in columns else []


def _present_spans(columns: _Columns) -> list[str]:
    return [name for name in _SPAN_COLUMNS if name in columns]


def _column_order(columns: _Columns) -> list[str]:
    optional = [*_present_spans(columns), *_present_labels(columns)]
    return [*_TEXT_COLUMNS, *_NUMBER_COLUMNS, *optional]


def _checksum_rows(columns: _Columns) -> list[int]:
    names = [name for name in _column_order(columns) if name != "row_crc32"]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [zlib.crc32(json.dumps(row).encode()) for row in rows]


def _digest_table(header_text: str, history_text: str, columns: _Columns) -> str:
    """Return the SHA-256 of everything in a file that is not an array of frames."""
    ordered = [columns[name] for name in _column_order(columns)]
    text = json.dumps([header_text, history_text, ordered])
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _open_for_reading(path: Path) -> Iterator[h5py.File]:
    """Open a file of ours; whatever goes wrong while it is read is StoreDamaged."""
    try:
        file = _open_unlocked(path)
    except FileNotFoundError:
        raise
    except _DAMAGE as problem:
        raise StoreDamaged(
            f"A store must be a whole HDF5 file. Opening '{path}' "
            f"({path.stat().st_size if path.exists() else 0} bytes) failed: "
            f"{_first_line(problem)}.",
            hint=_lock_hint(problem) or f"it is truncated: {_MEND_HINT}"
            if is_hdf5(path)
            else "give the file named by extract-features --out; this is no HDF5 file",
        ) from problem
    try:
        yield file
    except StoreDamaged:
        raise
    except _DAMAGE as problem:
        raise StoreDamaged(
            f"Reading '{path}' failed: {_first_line(problem)}.", hint=_MEND_HINT
        ) from problem
    finally:
        file.close()


def _open_unlocked(path: Path) -> h5py.File:
    # A finished file never changes, and some network folders know no locks.
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as problem:
        # The caller's own program has it open with h5py's default: then we must, too.
        if "locking flag" not in str(problem):
            raise
        return h5py.File(path, "r")


@contextmanager
def _creating(path: Path) -> Iterator[h5py.File]:
    # Nobody else knows of a file that is not in its place yet.
    file = h5py.File(path, "w", locking=False)
    try:
        yield file
        file.close()
    except BaseException:
        _write_nowhere(file, path)
        with suppress(OSError, RuntimeError):
            file.close()
        raise


def _write_nowhere(file: h5py.File, path: Path) -> None:
    """Let a file that is given up be closed although the disk is full.

    One that HDF5 cannot close crashes the process when it ends.
    """
    # Without files in memory, on other systems, there may be room enough now.
    with suppress(OSError, AttributeError, ValueError):
        os.truncate(path, 0)
        nowhere = os.memfd_create("given-up")
        os.dup2(nowhere, file.id.get_vfd_handle())
        os.close(nowhere)


def _lock_hint(problem: BaseException) -> str:
    """Say how to go on where HDF5 was told to lock on a file system without locks."""
    told = os.environ.get("HDF5_USE_FILE_LOCKING", "")
    if "unable to lock file" not in str(problem) or not told:
        return ""
    return (
        f"the environment has HDF5_USE_FILE_LOCKING={told}, and this file system has no locks: "
        "unset it, or set it to FALSE"
    )


def _require_our_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != _FORMAT_NAME:
        raise StoreDamaged(
            f"A store must be an HDF5 file made by extract-features. '{path}' is HDF5 "
            "but of another kind.",
            hint="give the file named by extract-features --out",
        )
    version = int(file.attrs["format_version"])
    if version != _FORMAT_VERSION:
        raise StoreDamaged(
            f"This version of framehead reads store format {_FORMAT_VERSION}. "
            f"'{path}' has format {version}.",
            hint="upgrade framehead: pip install --upgrade framehead",
        )


def _first_line(problem: BaseException) -> str:
    if reason := re.search(r"error message = '([^']+)'", str(problem)):
        return reason[1]  # the system's own words, behind much of HDF5's
    text = str(problem).strip().splitlines()
    return text[0].rstrip(".") if text else type(problem).__name__
