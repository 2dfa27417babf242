"""Sequences that several processes read, through files that all of them map into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.data.sequences import Sequences

_ARRAYS = ("vectors", "mask", "class_indices")
_IDS_FILE = "clip_ids.json"


@contextmanager
def shared_sequences(sequences: Sequences, parent: Path) -> Iterator[Path]:
    """Write sequences into a folder for as long as the context lasts.

    Parameters
    ----------
    sequences : Sequences
    parent : Path
        Folder to make it in; needs as much room as the padded arrays.

    Yields
    ------
    Path
        For `map_sequences`.
    """
    with TemporaryDirectory(prefix="shared-", dir=parent) as name:
        folder = Path(name)
        for array in _ARRAYS:
            np.save(folder / f"{array}.npy", getattr(sequences, array))
        (folder / _IDS_FILE).write_text(json.dumps(sequences.clip_ids), encoding="ascii")
        yield folder


def map_sequences(folder: Path) -> Sequences:
    """Open what `shared_sequences` wrote, without reading it.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Sequences
        Read-only; the system keeps one copy for all processes.
    """
    vectors, mask, class_indices = (
        np.load(folder / f"{array}.npy", mmap_mode="r") for array in _ARRAYS
    )
    clip_ids = tuple(json.loads((folder / _IDS_FILE).read_text(encoding="ascii")))
    return Sequences(vectors, mask, class_indices, clip_ids)
