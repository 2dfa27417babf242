"""Clips in, embeddings out: the part of stage 1 that extraction and prediction share."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np

from features.backbone.engines import EnginePlan, KerasEngine, litert_model_path
from features.backbone.weights import BackboneFiles
from features.batching import embed_rows
from features.errors import OptionInvalid
from features.records import (
    Clip,
    ClipEmbedding,
    ClipRecord,
    EmbeddedClip,
    FrameSampling,
    StoreHeader,
    VideoFacts,
)
from features.workers.pool import decode_clips, default_n_workers
from features.workers.process import DEFAULT_MEMORY_BYTES, ClipEnd, ClipRows, WorkerSettings

DEFAULT_STALL_SECONDS = 60.0


def embed_clips(
    clips: Sequence[Clip],
    header: StoreHeader,
    backbone: BackboneFiles,
    engine: EnginePlan,
    *,
    n_workers: int | None = None,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Generator[EmbeddedClip, None, None]:
    """Decode and embed clips, in parallel and in bounded memory.

    Parameters
    ----------
    clips : sequence of Clip
    header : StoreHeader
        Sampling, size and stored type.
    backbone : BackboneFiles
        The backbone that `header` describes.
    engine : EnginePlan
        From `features.backbone.engines.choose_engine`.
    n_workers : int, optional
        Decode processes, at least 1; by default one per core.
    stall_seconds : float, default 60
        A clip whose decoding makes no progress for this long fails.
    memory_bytes : int, default 2 GiB
        Most memory that one decode process may take; a clip that needs more fails.

    Yields
    ------
    EmbeddedClip
        One per clip, in the order in which they finish. A clip that cannot be read is
        yielded as failed, with the reason.

    Raises
    ------
    FrameHeadError
        If nothing can be embedded at all: OpenCVBroken, EngineUnavailable,
        WeightsUnreadable, OutputUnwritable.
    """
    settings = WorkerSettings(
        sampling=header.sampling,
        size_px=header.backbone.size_px,
        model_path=litert_model_path(backbone) if engine.name == "litert" else None,
        dtype=header.dtype,
        stall_seconds=stall_seconds,
        memory_bytes=memory_bytes,
    )
    keras_engine = KerasEngine(backbone) if engine.name == "keras" else None
    events = decode_clips(clips, settings, n_workers=n_workers or default_n_workers())
    try:
        embedded = (
            events if keras_engine is None else embed_rows(events, keras_engine, header.dtype)
        )
        yield from _assemble(embedded, header.sampling)
    finally:
        events.close()


def require_limits(stall_seconds: float, memory_bytes: int) -> None:
    """Check the limits that guard decoding.

    Parameters
    ----------
    stall_seconds : float
        Above 0 and at most a day.
    memory_bytes : int
        At least 64 MiB and at most 1 TiB.

    Raises
    ------
    OptionInvalid
        If one is out of range.
    """
    if not 0 < stall_seconds <= 86_400:
        raise OptionInvalid(
            f"--clip-timeout must be above 0 and at most 86400 seconds. Received: {stall_seconds}."
        )
    if not 64 * 2**20 <= memory_bytes <= 2**40:
        raise OptionInvalid(
            "--clip-memory must be at least 0.0625 and at most 1024 GiB. "
            f"Received: {memory_bytes / 2**30:g}."
        )


def _assemble(
    events: Iterable[ClipRows | ClipEnd], sampling: FrameSampling
) -> Iterator[EmbeddedClip]:
    rows_of: dict[str, list[ClipRows]] = {}
    for event in events:
        if isinstance(event, ClipRows):
            rows_of.setdefault(event.clip.clip_id, []).append(event)
            continue
        rows = rows_of.pop(event.clip.clip_id, [])
        yield _finish_clip(event, [] if event.failure else rows, sampling)


def _finish_clip(end: ClipEnd, rows: list[ClipRows], sampling: FrameSampling) -> EmbeddedClip:
    clip = end.clip
    embedding = None
    if not end.failure:
        embedding = ClipEmbedding(
            vectors=np.concatenate([item.rows for item in rows]),
            timestamps_seconds=np.concatenate(
                [np.asarray(item.timestamps_seconds, np.float64) for item in rows]
            ),
            frame_indices=np.concatenate(
                [np.asarray(item.frame_indices, np.int64) for item in rows]
            ),
        )
    record = ClipRecord(
        clip_id=clip.clip_id,
        label=clip.label,
        group=clip.group,
        split=clip.split,
        status="failed" if end.failure else "done",
        reason=end.failure or _note(end.facts, sampling),
        n_frames=0 if embedding is None else len(embedding.vectors),
        source=end.source,
        facts=end.facts,
    )
    return EmbeddedClip(record, embedding)


def _note(facts: VideoFacts, sampling: FrameSampling) -> str:
    """Say what is odd about a clip that is done; the empty text if nothing is."""
    notes = []
    if sampling.strategy == "uniform" and facts.n_frames_decoded < sampling.value:
        notes.append(f"fewer frames than the {sampling.value:g} asked for")
    if facts.note:
        notes.append(facts.note)
    return f"{facts.n_frames_decoded} frames decode, {'; '.join(notes)}" if notes else ""
