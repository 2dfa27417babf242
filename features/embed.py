"""Clips in, embeddings out: the part of stage 1 that extraction and prediction share."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from features.backbone.converted import convert_backbone
from features.backbone.engines import EngineChoice, EnginePlan, KerasEngine
from features.backbone.litert import Engine
from features.backbone.weights import BackboneFiles
from features.errors import OptionInvalid, SamplingError
from features.records import (
    Clip,
    ClipEmbedding,
    ClipRecord,
    EmbeddedClip,
    FrameArray,
    FrameSampling,
    StoreHeader,
    VectorArray,
    VectorDtype,
    VideoFacts,
)
from features.system.machine import usable_cores
from features.video.source import USUAL_RATE
from features.workers.pool import decode_clips
from features.workers.process import ClipEnd, ClipRows, WorkerSettings

_N_BUFFERS = 3
_NO_ROWS = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How clips are decoded and embedded: speed and limits, never values.

    Attributes
    ----------
    engine : {"auto", "litert", "keras"}, default "auto"
        What executes the backbone; auto is Keras on a GPU, otherwise LiteRT.
    n_workers : int, optional
        Number of processes that decode. At least 1. By default one per core.
    stall_seconds : float, default 60
        Give up on a clip after this many seconds without progress. Above 0, at most a day.
    memory_gib : float, default 2
        Memory limit of each decoding process in GiB; a clip that needs more fails. From 0.0625
        to 1024.

    Raises
    ------
    OptionInvalid
        If a value is out of range.
    """

    engine: EngineChoice = "auto"
    n_workers: int | None = None
    stall_seconds: float = field(default=60.0, metadata={"flag": "--clip-timeout"})
    memory_gib: float = field(default=2.0, metadata={"flag": "--clip-memory"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_workers is not None and self.n_workers < 1:
            raise OptionInvalid(
                f"--workers must be at least 1. Received: workers={self.n_workers}."
            )
        if not 0 < self.stall_seconds <= 86_400:
            raise OptionInvalid(
                "--clip-timeout must be above 0 and at most 86400 seconds. "
                f"Received: {self.stall_seconds}."
            )
        if not 2**-4 <= self.memory_gib <= 1024:
            raise OptionInvalid(
                "--clip-memory must be at least 0.0625 and at most 1024 GiB. "
                f"Received: {self.memory_gib:g}."
            )

    def count_workers(self) -> int:
        """Return how many decode processes run."""
        return self.n_workers or usable_cores()

    @property
    def memory_bytes(self) -> int:
        """Most memory that one decode process may take."""
        return int(self.memory_gib * 2**30)


def embed_clips(
    clips: Sequence[Clip],
    header: StoreHeader,
    backbone: BackboneFiles,
    engine: EnginePlan,
    options: EmbedOptions,
) -> Generator[EmbeddedClip, None, None]:
    """Decode and embed clips, in parallel and in bounded memory.

    Clips come in the order in which they finish; one that cannot be read comes as failed, with
    the reason. Raises only if nothing can be embedded at all. Close it to stop the workers.
    """
    settings = WorkerSettings(
        sampling=header.sampling,
        size_px=header.backbone.size_px,
        model_path=convert_backbone(backbone.spec, backbone.weights_path)
        if engine.name == "litert"
        else None,
        dtype=header.dtype,
        stall_seconds=options.stall_seconds,
        memory_bytes=options.memory_bytes,
    )
    keras_engine = KerasEngine(backbone) if engine.name == "keras" else None
    events = decode_clips(clips, settings, n_workers=options.count_workers())
    try:
        embedded = (
            events if keras_engine is None else embed_rows(events, keras_engine, header.dtype)
        )
        yield from _assemble(embedded, header.sampling)
    finally:
        events.close()


def require_frame_rates(clips: Iterable[Clip], sampling: FrameSampling) -> None:
    """Refuse to choose by time among pictures whose frame rate is unknown."""
    for clip in clips:
        if not clip.is_pictures or clip.frame_rate is not None:
            continue
        if sampling.strategy == "fps" or clip.start_seconds is not None:
            what = f"{sampling}" if sampling.strategy == "fps" else "a span in seconds"
            raise SamplingError(
                "Pictures have no times without a frame rate. Received: "
                f"{what} for '{clip.clip_id}', of which it is unknown.",
                hint="give --frame-rate, or the column fps in the annotation file; or choose "
                "frames with --frames or --stride",
            )


def embed_rows(
    events: Iterable[ClipRows | ClipEnd], engine: Engine, dtype: VectorDtype
) -> Iterator[ClipRows | ClipEnd]:
    """Turn rows that are frames into rows that are embeddings, in the same order.

    The engine always gets full batches, whichever clips the frames belong to, except for the
    last one. While it works on one, the next is filled; a frame is copied once.
    """
    waiting: deque[ClipRows | ClipEnd] = deque()
    with _Batches(engine) as batches:
        for event in events:
            if isinstance(event, ClipRows):
                batches.add(event.rows)
                event = replace(event, rows=_NO_ROWS)  # their frames are in the batches
            waiting.append(event)
            yield from _take_finished(waiting, batches, dtype)
        batches.finish()
        yield from _take_finished(waiting, batches, dtype)


def _take_finished(
    waiting: deque[ClipRows | ClipEnd], batches: _Batches, dtype: VectorDtype
) -> Iterator[ClipRows | ClipEnd]:
    while waiting:
        event = waiting[0]
        if isinstance(event, ClipRows):
            n_rows = len(event.frame_indices)
            if n_rows > batches.n_embedded:
                return
            event = replace(event, rows=batches.take(n_rows).astype(dtype, copy=False))
        waiting.popleft()
        yield event


class _Batches:
    """Frames on their way through an engine, which works in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1)
        self._running: deque[Future[VectorArray]] = deque()
        # One that is filled, one that waits for the engine, one that the engine is at.
        self._buffers: deque[FrameArray] = deque()
        self._n_filled = 0
        self._embedded: deque[VectorArray] = deque()
        self.n_embedded = 0

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, frames: FrameArray) -> None:
        """Copy frames into batches, and hand full ones to the engine."""
        size = self._engine.batch_frames
        if not self._buffers:
            shape = (size, *frames.shape[1:])
            self._buffers.extend(np.empty(shape, np.uint8) for _ in range(_N_BUFFERS))
        start = 0
        while start < len(frames):
            n = min(size - self._n_filled, len(frames) - start)
            self._buffers[0][self._n_filled : self._n_filled + n] = frames[start : start + n]
            self._n_filled += n
            start += n
            if self._n_filled == size:
                self._submit()
        self._collect(most_running=_N_BUFFERS - 1)

    def finish(self) -> None:
        """Embed what is left."""
        if self._n_filled:
            self._submit()
        self._collect(most_running=0)

    def take(self, n: int) -> VectorArray:
        """Take the vectors of the next frames, which must have been embedded."""
        self.n_embedded -= n
        parts: list[VectorArray] = []
        while n:
            first = self._embedded.popleft()
            parts.append(first[:n])
            if len(first) > n:
                self._embedded.appendleft(first[n:])
            n -= len(parts[-1])
        return np.concatenate(parts)

    def _submit(self) -> None:
        # Before the next buffer is filled, the engine must be through with it.
        self._running.append(
            self._thread.submit(self._engine.embed, self._buffers[0][: self._n_filled])
        )
        self._buffers.rotate(-1)
        self._n_filled = 0
        self._collect(most_running=_N_BUFFERS - 1)

    def _collect(self, *, most_running: int) -> None:
        while self._running and (len(self._running) > most_running or self._running[0].done()):
            vectors = self._running.popleft().result()
            self._embedded.append(vectors)
            self.n_embedded += len(vectors)


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
        labels=clip.labels,
        group=clip.group,
        split=clip.split,
        status="failed" if end.failure else "done",
        reason=end.failure or _note(end, rows, sampling),
        n_frames=0 if embedding is None else len(embedding.vectors),
        source=end.source,
        facts=end.facts,
        start_seconds=_in_seconds(clip.start_seconds, clip.start_frame, end.facts),
        end_seconds=_in_seconds(clip.end_seconds, clip.end_frame, end.facts),
    )
    return EmbeddedClip(record, embedding)


def _in_seconds(seconds: float | None, frame: int | None, facts: VideoFacts) -> float | None:
    """Give a bound of a span in seconds, for a frame number by the rate as times are counted."""
    if frame is None:
        return seconds
    return frame / (facts.fps_header if facts.fps_header > 0 else float(USUAL_RATE))


def _note(end: ClipEnd, rows: list[ClipRows], sampling: FrameSampling) -> str:
    """Say what is odd about a clip that is done; the empty text if nothing is."""
    facts = end.facts
    notes = []
    n_embedded = sum(len(item.frame_indices) for item in rows)
    if sampling.strategy == "uniform" and n_embedded < sampling.value:
        notes.append(f"fewer frames than the {sampling.value:g} asked for")
    if facts.note:
        notes.append(facts.note)
    n_there, what = facts.n_frames_decoded, "frames decode"
    if end.clip.is_span:
        n_there, what = n_embedded, "frames of the span are embedded"
    return f"{n_there} {what}, {'; '.join(notes)}" if notes else ""
