"""Which rows of which file: pure arithmetic on where embeddings lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Consecutive rows of one file: `n_frames` of them from `offset` on."""

    path: Path
    offset: int
    n_frames: int


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
