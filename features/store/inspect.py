"""What is in a store: counts by class, settings, failures, and damage on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.records import ClipRecord, StoreHeader
from features.store.store import (
    done_clips,
    find_damage,
    is_multilabel,
    open_store,
    parts_folder,
)


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What `inspect_store` found.

    Attributes
    ----------
    path : Path
    header : StoreHeader
    history : tuple of dict
        Date, engine and versions of each extraction.
    clips_done, clips_failed : int
    clips_left_out : int
        Kept, but no longer in the folder or CSV.
    frames : int
        Embedded frames.
    size_bytes : int
        Of all files of the store.
    n_parts : int
        Commits not merged; above 0 in an unfinished store.
    labels, groups, splits : mapping of str to int
        Clips that are done, by value; "" is unknown. A clip of several classes counts in each.
    several, nothing : int or None
        Clips of several classes, and of none of them; None where every clip has one.
    failures : tuple of ClipRecord
        Clips that failed.
    notes : tuple of ClipRecord
        Clips that are done but odd.
    damaged : tuple of str or None
        Ids of clips that fail their checksum; None if that was not asked for.
    """

    path: Path
    header: StoreHeader
    history: tuple[dict[str, Any], ...]
    clips_done: int
    clips_failed: int
    clips_left_out: int
    frames: int
    size_bytes: int
    n_parts: int
    labels: Mapping[str, int]
    groups: Mapping[str, int]
    splits: Mapping[str, int]
    failures: tuple[ClipRecord, ...]
    notes: tuple[ClipRecord, ...]
    damaged: tuple[str, ...] | None
    several: int | None = None
    nothing: int | None = None


def inspect_store(path: str | Path, *, verify: bool = False) -> StoreSummary:
    """Describe a store, finished or not.

    Parameters
    ----------
    path : str or Path
    verify : bool, default False
        Also read every embedding and compare it with its checksum.

    Returns
    -------
    StoreSummary

    Raises
    ------
    StoreNotFound, StoreDamaged, StoreMismatch
        See `features.store.store.open_store`.
    """
    store = open_store(path, allow_unfinished=True)
    done = done_clips(store)
    files = [store.path, *parts_folder(store.path).glob("part-*.h5")]
    return StoreSummary(
        path=store.path,
        header=store.header,
        history=store.history,
        clips_done=len(done),
        clips_failed=sum(clip.status == "failed" for clip in store.clips),
        clips_left_out=sum(not clip.is_current for clip in store.clips),
        frames=sum(clip.n_frames for clip in done),
        size_bytes=sum(file.stat().st_size for file in files if file.exists()),
        n_parts=store.n_parts,
        labels=_count(
            label for clip in done for label in (clip.classes if clip.is_labelled else ("",))
        ),
        groups=_count(clip.group for clip in done),
        splits=_count(clip.split for clip in done),
        failures=tuple(clip for clip in store.clips if clip.status == "failed"),
        notes=tuple(clip for clip in done if clip.reason),
        damaged=find_damage(store) if verify else None,
        several=sum(len(clip.classes) > 1 for clip in done) if is_multilabel(store) else None,
        nothing=sum(clip.labels == () for clip in done) if is_multilabel(store) else None,
    )


def _count(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
