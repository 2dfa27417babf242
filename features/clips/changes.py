"""What an extraction has to do: which clips are new, changed, moved, unchanged, vanished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from features.places.places import hash_source, stat_source
from features.records import Clip, ClipOutcome, ClipRecord, SourceFile, split_clip_id


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """The clips of a folder compared with the rows of a store."""

    to_decode: tuple[Clip, ...]  # new, changed, or to be tried again
    already: tuple[ClipOutcome, ...]  # unchanged, also where they failed before
    changed: tuple[str, ...]  # ids whose file has other content than the store's row
    moved: Mapping[str, str]  # old id to new id
    vanished: tuple[str, ...]  # ids of rows whose file is gone; the rows stay


def plan_extraction(
    clips: Sequence[Clip], rows: Sequence[ClipRecord], *, retry_failed: bool = False
) -> ExtractionPlan:
    """Compare clips with the rows of a store, by content where size and time do not decide."""
    row_of = {row.clip_id: row for row in rows}
    compare = cache(is_unchanged)  # spans of one file ask the same
    ids = {clip.clip_id for clip in clips}
    lost = {row.clip_id: row for row in rows if row.clip_id not in ids}
    to_decode: list[Clip] = []
    already: list[ClipOutcome] = []
    changed: list[str] = []
    moved: dict[str, str] = {}
    for clip in clips:
        row = row_of.get(clip.clip_id)
        if row is None:
            row = _find_moved(clip, lost)
            if row is not None:
                moved[row.clip_id] = clip.clip_id
                del lost[row.clip_id]
        elif not compare(clip.path, row.source) or _has_other_rate(clip, row):
            changed.append(clip.clip_id)
            row = None
        if row is None or (row.status == "failed" and retry_failed):
            to_decode.append(clip)
        elif row.status == "failed":
            already.append(ClipOutcome(clip.clip_id, "failed", row.reason))
        else:
            already.append(ClipOutcome(clip.clip_id, "already", n_frames=row.n_frames))
    return ExtractionPlan(
        tuple(to_decode), tuple(already), tuple(changed), moved, tuple(sorted(lost))
    )


def is_unchanged(path: Path, source: SourceFile) -> bool:
    """Tell whether a file or folder still has the content that a row was made from."""
    now = stat_source(path)
    if now == replace(source, sha256=""):
        return True
    # Same size, other time: copied or touched perhaps; only the content can tell.
    return now.size_bytes == source.size_bytes > 0 and hash_source(path) == source.sha256


def update_row(row: ClipRecord, clips: Mapping[str, Clip], moved: Mapping[str, str]) -> ClipRecord:
    """Give a row the id, label, group and split that its clip has now, or mark it as not current.

    `clips` are those of the folder by id, `moved` has old ids and new ones.
    """
    clip = clips.get(moved.get(row.clip_id, row.clip_id))
    if clip is None:
        return replace(row, is_current=False)
    return replace(
        row,
        clip_id=clip.clip_id,
        label=clip.label,
        labels=clip.labels,
        group=clip.group,
        split=clip.split,
        is_current=True,
    )


def _has_other_rate(clip: Clip, row: ClipRecord) -> bool:
    """Tell whether the pictures of a clip have another frame rate now, and so other times."""
    is_known = clip.is_pictures and row.status == "done"
    return is_known and round(row.facts.fps_header - (clip.frame_rate or 0.0), 3) != 0


def _find_moved(clip: Clip, lost: Mapping[str, ClipRecord]) -> ClipRecord | None:
    size_bytes = stat_source(clip.path).size_bytes
    span = split_clip_id(clip.clip_id)[1]
    same_size = [
        row
        for row in lost.values()
        if row.source.size_bytes == size_bytes > 0 and split_clip_id(row.clip_id)[1] == span
    ]
    if not same_size:
        return None
    sha256 = hash_source(clip.path)
    return next((row for row in same_size if row.source.sha256 == sha256), None)
