"""The store: embeddings of many clips, and how they were made.

A finished store is one HDF5 file. While an extraction runs, each commit is a small file of the
same format in the folder ``STORE.h5.parts``; at the end all of them are merged into the one
file, which replaces the old one in a single rename. Killing the process at any instant
therefore loses only clips that were not committed, and a reader always sees the file and the
parts as one store.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import (
    OutputExists,
    StoreMismatch,
    StoreNotFound,
    StoreUnfinished,
)
from features.records import DECODER_NAMES, ClipEmbedding, ClipRecord, StoreHeader
from features.store.hdf5 import (
    FrameRange,
    StoreFile,
    coalesce,
    is_hdf5,
    is_whole,
    read_frame_range,
    read_store_file,
    read_vectors_into,
)


@dataclass(frozen=True, slots=True)
class Store:
    """A store that is open for reading.

    Attributes
    ----------
    path : Path
        As the user names it, also while only its parts exist.
    header : StoreHeader
        How its embeddings were made.
    clips : tuple of ClipRecord
        Sorted by `clip_id`, failed clips included.
    ranges : tuple of FrameRange
        Where the embeddings of each clip lie, aligned with `clips`.
    history : tuple of dict
        One entry per extraction that added to the store.
    n_parts : int
        Part files not yet merged; above 0 while an extraction runs or after it was
        killed.
    """

    path: Path
    header: StoreHeader
    clips: tuple[ClipRecord, ...]
    ranges: tuple[FrameRange, ...]
    history: tuple[dict[str, Any], ...]
    n_parts: int

    def __repr__(self) -> str:
        """Show the size instead of the rows."""
        return f"Store({str(self.path)!r}, clips={len(self.clips)}, n_parts={self.n_parts})"


@dataclass(frozen=True, slots=True, repr=False)
class Embeddings:
    """Embeddings of several clips, one clip after another.

    Attributes
    ----------
    vectors : ndarray of float16 or float32, shape (total_frames, embedding_dim)
    starts : ndarray of int64, shape (n_clips + 1,)
        Clip `i` owns the rows ``starts[i]:starts[i + 1]``.
    """

    vectors: npt.NDArray[np.floating[Any]]
    starts: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        """Show shapes instead of numbers."""
        return f"Embeddings(n_clips={len(self.starts) - 1}, vectors={self.vectors.shape})"


def parts_folder(path: Path) -> Path:
    """Return the folder of the commits of an unfinished extraction."""
    return path.with_name(f"{path.name}.parts")


def open_store(path: str | Path, *, allow_unfinished: bool = False) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    path : str or Path
        The file given to ``extract-features --out``.
    allow_unfinished : bool, default False
        Open it also while an extraction runs or after one was killed, with every clip
        that was committed. Results on such a part of the clips would mislead, so that
        it must be asked for.

    Returns
    -------
    Store

    Raises
    ------
    StoreNotFound
        If there is neither the file nor parts of it.
    StoreUnfinished
        If there are commits that are not merged, unless `allow_unfinished`.
    StoreDamaged
        If a file is truncated or fails its checksum.
    StoreMismatch
        If parts were made with other settings than the file.
    """
    store_path = Path(path)
    files = _read_files(store_path)
    if not files:
        is_folder = store_path.is_dir()
        raise StoreNotFound(
            "A store must be an HDF5 file made by extract-features. "
            f"'{store_path}' {'is a folder' if is_folder else 'does not exist'}.",
            hint="give the file named by extract-features --out"
            if is_folder
            else f"make it: framehead extract-features VIDEOS --out '{store_path}'",
        )
    header = files[0].header
    for file in files[1:]:
        require_same_settings(header, file.header, where=str(file.path))
    n_parts = len(files) - int(files[0].path == store_path)
    if n_parts and not allow_unfinished:
        raise StoreUnfinished(
            f"A store must be finished before it is used. '{store_path}' has {n_parts} commits "
            "of an extraction that was interrupted or still runs.",
            hint="run the same extract-features command again: it goes on where it was",
        )
    # A later commit of the same clip stands for the newer content.
    newest = {
        record.clip_id: (record, place)
        for file in files
        for record, place in zip(file.clips, file.ranges, strict=True)
    }
    rows = [newest[clip_id] for clip_id in sorted(newest)]
    history: list[dict[str, Any]] = []
    for file in files:
        history.extend(entry for entry in file.history if entry not in history)
    return Store(
        path=store_path,
        header=header,
        clips=tuple(record for record, _ in rows),
        ranges=tuple(frames for _, frames in rows),
        history=tuple(history),
        n_parts=n_parts,
    )


def done_clips(store: Store) -> tuple[ClipRecord, ...]:
    """Return the clips that have embeddings and are still wanted.

    Parameters
    ----------
    store : Store

    Returns
    -------
    tuple of ClipRecord
        Sorted by `clip_id`; without those that the last extraction did not find.
    """
    return tuple(clip for clip in store.clips if is_usable(clip))


def is_multilabel(store: Store) -> bool:
    """Tell whether clips of a store may have several classes each."""
    return any(clip.labels is not None for clip in done_clips(store))


def is_usable(clip: ClipRecord) -> bool:
    """Tell whether a clip has embeddings and the last extraction still found it."""
    return clip.status == "done" and clip.is_current


def read_embeddings(
    store: Store, clips: Sequence[ClipRecord] | None = None, *, dtype: str | None = None
) -> Embeddings:
    """Read the embeddings of many clips into one array.

    Parameters
    ----------
    store : Store
    clips : sequence of ClipRecord, optional
        Rows of `store`, in the order wanted. By default those that are done and current,
        sorted by `clip_id`.
    dtype : {"float16", "float32"}, optional
        Type to convert to; by default the stored one.

    Returns
    -------
    Embeddings

    Raises
    ------
    StoreDamaged
        If a file cannot be read.
    """
    rows = zip(store.clips, store.ranges, strict=True)
    if clips is None:
        ranges = [place for clip, place in rows if is_usable(clip)]
    else:
        by_id = {clip.clip_id: place for clip, place in rows}
        ranges = [by_id[clip.clip_id] for clip in clips]
    starts = np.zeros(len(ranges) + 1, dtype=np.int64)
    np.cumsum([item.n_frames for item in ranges], out=starts[1:])
    stored = np.empty(
        (int(starts[-1]), store.header.backbone.embedding_dim), dtype=store.header.dtype
    )
    read_vectors_into(coalesce(ranges), stored)
    return Embeddings(stored if dtype is None else stored.astype(dtype, copy=False), starts)


def read_clip(store: Store, clip_id: str) -> ClipEmbedding:
    """Read one clip: embeddings, timestamps and frame indices.

    Parameters
    ----------
    store : Store
    clip_id : str

    Returns
    -------
    ClipEmbedding
        In the stored types; no rows if the clip failed.

    Raises
    ------
    KeyError
        If the store has no such clip.
    StoreDamaged
        If the file cannot be read.
    """
    for record, place in zip(store.clips, store.ranges, strict=True):
        if record.clip_id == clip_id:
            return read_frame_range(place)
    raise KeyError(clip_id)


def find_damage(store: Store) -> tuple[str, ...]:
    """Return the ids of the clips whose arrays are unreadable or fail their checksum."""
    rows = zip(store.clips, store.ranges, strict=True)
    return tuple(clip.clip_id for clip, place in rows if not is_whole(clip, place))


def require_same_settings(have: StoreHeader, want: StoreHeader, *, where: str) -> None:
    """Raise StoreMismatch, naming every setting that differs, if embeddings cannot be mixed."""
    if have.fingerprint == want.fingerprint:
        return
    differences = "; ".join(
        f"{name}: store {mine}, asked {theirs}"
        for name, mine, theirs in _differing_fields(have, want)
    )
    raise StoreMismatch(
        "All embeddings of a store must be made in the same way. "
        f"'{where}' has fingerprint {have.fingerprint[:12]}, the settings asked for have "
        f"{want.fingerprint[:12]} ({differences}).",
        hint=_how_to_match(have, want, where),
    )


def _how_to_match(have: StoreHeader, want: StoreHeader, where: str) -> str:
    if (have.decoder, want.decoder) == ("opencv", "pyav"):
        return (
            "stores made by OpenCV can be used, but not added to or mixed with others; to redo "
            f"this one: framehead extract-features VIDEOS --out '{where}' --overwrite"
        )
    if [name for name, *_ in _differing_fields(have, want)] == ["backbone.model_sha256"]:
        return (
            "delete the int8 file that framehead weights lists, to quantise it anew; if that gives "
            "no other, copy the file of this name from the machine where the store was made"
        )
    return "repeat the store's settings, give another --out, or --overwrite to start anew"


def remove_store(path: Path) -> None:
    """Delete a store and its parts, if there are any; OutputExists if it is no HDF5 file."""
    if path.is_file() and not is_hdf5(path):
        raise OutputExists(
            f"--overwrite replaces only a store. '{path}' is a file of another kind.",
            hint="give another --out, or delete that file yourself",
        )
    # The parts first: without the file, those that it has taken in would count again.
    shutil.rmtree(parts_folder(path), ignore_errors=True)
    path.unlink(missing_ok=True)


def _read_files(path: Path) -> list[StoreFile]:
    """Read the file and its parts as they were at one moment, while a writer may merge them."""
    while True:
        before = _identify(path)
        with suppress(FileNotFoundError):  # a part was merged away: the file now holds it
            files = [read_store_file(path)] if before else []
            merged = files[0].merged_parts if files else ()
            parts = sorted(parts_folder(path).glob("part-*.h5"))
            # Parts that were taken in are still there if the merge was killed.
            files += [read_store_file(part) for part in parts if part.name not in merged]
            if _identify(path) == before:
                return files


def _identify(path: Path) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        if path.is_file():
            facts = path.stat()
            return facts.st_ino, facts.st_mtime_ns
    return None


def _differing_fields(have: Any, want: Any, prefix: str = "") -> Iterable[tuple[str, Any, Any]]:
    for item in fields(have):
        mine, theirs = getattr(have, item.name), getattr(want, item.name)
        if is_dataclass(mine) and not hasattr(mine, "strategy"):
            yield from _differing_fields(mine, theirs, prefix=f"{item.name}.")
        elif mine != theirs:
            yield (
                f"{prefix}{item.name}",
                DECODER_NAMES.get(mine, mine),
                DECODER_NAMES.get(theirs, theirs),
            )
