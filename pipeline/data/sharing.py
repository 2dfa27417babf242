"""Sequences that several processes read, through files that all of them map into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from features.system.files import private_folder
from pipeline.data.sequences import Sequences

# Begins the names of folders of shared sequences.
SHARED_NAME = "shared"

_ARRAYS = ("vectors", "mask", "class_indices")
_TARGETS_FILE = "targets.npy"
_IDS_FILE = "clip_ids.json"


@contextmanager
def shared_sequences(sequences: Sequences, parent: Path) -> Iterator[Path]:
    """Write sequences into a folder inside `parent` for as long as the context lasts.

    It needs as much room as the padded arrays; what killed comparisons left goes first.
    """
    with private_folder(parent / SHARED_NAME) as folder:
        for array in _ARRAYS:
            np.save(folder / f"{array}.npy", getattr(sequences, array))
        if sequences.targets is not None:
            np.save(folder / _TARGETS_FILE, sequences.targets)
        (folder / _IDS_FILE).write_text(json.dumps(sequences.clip_ids), encoding="ascii")
        yield folder


def map_sequences(folder: Path) -> Sequences:
    """Open what `shared_sequences` wrote, without reading it: the system keeps one copy for all."""
    vectors, mask, class_indices = (
        np.load(folder / f"{array}.npy", mmap_mode="r") for array in _ARRAYS
    )
    clip_ids = tuple(json.loads((folder / _IDS_FILE).read_text(encoding="ascii")))
    path = folder / _TARGETS_FILE
    targets = np.load(path, mmap_mode="r") if path.exists() else None
    return Sequences(vectors, mask, class_indices, clip_ids, targets)
