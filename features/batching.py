"""Batches across clips: frames of many clips in, one engine call, embeddings out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from features.backbone.litert import Engine
from features.records import FrameArray, VectorDtype
from features.workers.process import ClipEnd, ClipRows


def embed_rows(
    events: Iterable[ClipRows | ClipEnd], engine: Engine, dtype: VectorDtype
) -> Iterator[ClipRows | ClipEnd]:
    """Turn rows that are frames into rows that are embeddings.

    The engine always gets full batches, whichever clips the frames belong to, except
    for the last one. Order is kept.

    Parameters
    ----------
    events : iterable of ClipRows or ClipEnd
        With rows of uint8 frames (n, size_px, size_px, 3).
    engine : Engine
    dtype : {"float16", "float32"}
        Type of the embeddings.

    Yields
    ------
    ClipRows or ClipEnd
        The same events, with rows of shape (n, embedding_dim).
    """
    waiting: deque[ClipRows | ClipEnd] = deque()
    n_waiting = 0
    for event in events:
        waiting.append(event)
        if isinstance(event, ClipRows):
            n_waiting += len(event.rows)
        if n_waiting >= engine.batch_frames:
            yield from _embed(waiting, engine, dtype)
            waiting.clear()
            n_waiting = 0
    yield from _embed(waiting, engine, dtype)


def _embed(
    waiting: Iterable[ClipRows | ClipEnd], engine: Engine, dtype: VectorDtype
) -> Iterator[ClipRows | ClipEnd]:
    frames: list[FrameArray] = [item.rows for item in waiting if isinstance(item, ClipRows)]
    if frames:
        joined = np.concatenate(frames)
        size = engine.batch_frames
        vectors = np.concatenate(
            [engine.embed(joined[start : start + size]) for start in range(0, len(joined), size)]
        ).astype(dtype, copy=False)
    start = 0
    for item in waiting:
        if isinstance(item, ClipEnd):
            yield item
            continue
        stop = start + len(item.rows)
        yield replace(item, rows=vectors[start:stop])
        start = stop
