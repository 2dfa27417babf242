"""Writing one HDF5 file of embeddings: under another name first, then renamed.

A file that exists is therefore a file that is complete. `features.store.hdf5` reads it; the
two are the only places that know h5py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.errors import OutputUnwritable, StoreDamaged
from features.records import ClipEmbedding, ClipRecord, StoreHeader
from features.store.cliptable import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    columns_from_records,
    table_digest,
    to_bytes,
)
from features.store.hdf5 import FORMAT_NAME, FORMAT_VERSION, first_line


def write_store_file(
    path: Path,
    header: StoreHeader,
    clips: Sequence[ClipRecord],
    pieces: Iterable[ClipEmbedding],
    history: Sequence[dict[str, Any]],
    *,
    merged_parts: Sequence[str] = (),
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
    merged_parts : sequence of str
        Names of the parts that this file replaces.

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
            # The table first: what a truncated file loses is then its last frames only.
            _write_table(file, header, clips, history)
            file.attrs["merged_parts"] = json.dumps(list(merged_parts))
            file.flush()
            _write_frames(file, header, total_frames, pieces)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except StoreDamaged:  # what is copied could not be read
        partial.unlink(missing_ok=True)
        raise
    except (OSError, RuntimeError) as problem:  # h5py raises both for a full disk
        partial.unlink(missing_ok=True)
        raise OutputUnwritable(
            f"The store must be writable. Writing '{path}' failed: {first_line(problem)}.",
            hint="free disk space or give another --out, then run the same command again: "
            "it goes on from the last commit",
        ) from problem
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder for syncing
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
