"""A decode worker: a process that decodes clips and, on a CPU, embeds them as well.

It is started by `features.workers.pool` and talks over its standard input and output. A file
that crashes, hangs or bloats the decoder harms this process only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from features.backbone.litert import Engine, LiteRTEngine
from features.errors import EngineUnavailable, FrameHeadError, VideoUnreadable
from features.places.places import hash_source, stat_source
from features.records import FrameSampling, VideoFacts
from features.system.processes import claim_output, describe_problem
from features.video.decode import LACKS_MEMORY, WHOLE, Span, read_picture, read_spans
from features.video.frames import FrameBatch, import_cv2
from features.video.overlay import Caption, write_overlay
from features.video.source import import_av
from features.workers.protocol import receive_message, send_message

_ALIVE_SECONDS = 1.0
_FRAMES_PER_MESSAGE = 32
# A picture is a courtesy: nobody is kept waiting for one.
_MOST_PICTURE_SECONDS = 5.0
_last_hashed: dict[str, Any] = {}


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the parent closes the pipe: first the settings, then one per clip."""
    first = receive_message(requests)
    if first is None:
        return
    settings = first[0]
    try:
        import_cv2()
        import_av()
        engine = LiteRTEngine(Path(settings["model_path"])) if settings["model_path"] else None
    except (FrameHeadError, ImportError, OSError, ValueError) as problem:
        known = problem if isinstance(problem, FrameHeadError) else EngineUnavailable(str(problem))
        send_message(replies, {"kind": "broken", **describe_problem(known)})
        return
    _bound_memory(settings["memory_bytes"])
    send_message(replies, {"kind": "ready"})
    while (request := receive_message(requests)) is not None:
        _answer(request[0], settings, engine, replies)


def _answer(
    request: dict[str, Any], settings: dict[str, Any], engine: Engine | None, replies: IO[bytes]
) -> None:
    path = Path(os.fsdecode(bytes.fromhex(request["path_hex"])))
    alive = _Heartbeat(lambda: send_message(replies, {"kind": "alive"}))
    try:
        if "frame_index" in request:
            facts = _send_picture(path, request["frame_index"], settings["size_px"], replies)
        elif "caption" in request:
            target = Path(os.fsdecode(bytes.fromhex(request["overlay_hex"])))
            facts = write_overlay(
                path,
                target,
                Caption(**request["caption"]),
                on_progress=alive.beat,
                span=_read_span(request["spans"][0]),
                frame_rate=request.get("frame_rate"),
            )
        else:
            send_message(replies, {"kind": "hashed", **_describe_file(path, alive.beat)})
            facts = _send_frames(path, request, settings, engine, replies, alive)
    except (FrameHeadError, OSError, MemoryError, ArithmeticError, ValueError) as problem:
        reason = problem.message if isinstance(problem, FrameHeadError) else _say(problem)
        # Once memory has run out, what is left of it cannot be relied on.
        is_exhausted = isinstance(problem, MemoryError) or LACKS_MEMORY in reason
        send_message(replies, {"kind": "failed", "reason": reason, "is_exhausted": is_exhausted})
        return
    send_message(replies, {"kind": "end", **asdict(facts)})


def _send_frames(
    path: Path,
    request: dict[str, Any],
    settings: dict[str, Any],
    engine: Engine | None,
    replies: IO[bytes],
    alive: _Heartbeat,
) -> VideoFacts:
    sampling = FrameSampling(**settings["sampling"])
    most_frames = engine.batch_frames if engine else _FRAMES_PER_MESSAGE
    facts = VideoFacts()
    spans = [_read_span(span) for span in request["spans"]]
    lacking = set(range(len(spans)))
    for item in read_spans(
        path,
        spans,
        sampling,
        size_px=settings["size_px"],
        most_frames=most_frames,
        on_progress=alive.beat,
        frame_rate=request.get("frame_rate"),
    ):
        if isinstance(item, VideoFacts):
            facts = item
            continue
        number, batch = item
        lacking.discard(number)
        send_message(
            replies,
            {
                "kind": "frames",
                "span": number,
                "timestamps_seconds": batch.timestamps_seconds.tolist(),
                "frame_indices": batch.frame_indices.tolist(),
            },
            _rows(batch, engine, settings["dtype"]),
        )
        alive.beat()
    if lacking:
        raise VideoUnreadable(f"no frame between {spans[lacking.pop()]}")
    return facts


def _read_span(span: dict[str, Any] | None) -> Span:
    """Rebuild a part of a file: start, end (None: the file's end) and unit; None is the whole."""
    if span is None:
        return WHOLE
    return Span(span["start"], WHOLE.end if span["end"] is None else span["end"], span["unit"])


def _send_picture(path: Path, frame_index: int, most_px: int, replies: IO[bytes]) -> VideoFacts:
    started = time.monotonic()

    def stop_in_time() -> None:
        if time.monotonic() - started > _MOST_PICTURE_SECONDS:
            raise VideoUnreadable(f"it takes more than {_MOST_PICTURE_SECONDS:g} s to reach it")

    send_message(replies, {"kind": "hashed", **_describe_file(path, stop_in_time)})
    jpeg = read_picture(path, frame_index, most_px=most_px, on_progress=stop_in_time)
    message = {
        "kind": "frames",
        "span": 0,
        "timestamps_seconds": [],
        "frame_indices": [frame_index],
    }
    send_message(replies, message, jpeg)
    return VideoFacts()


def _rows(batch: FrameBatch, engine: Engine | None, dtype: str) -> Any:
    if engine is None:
        return batch.frames
    return engine.embed(batch.frames).astype(np.dtype(dtype), copy=False)


def _bound_memory(n_bytes: int) -> None:
    # Windows has no such limit. Address space is not bounded: what is mapped is not used.
    with suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


class _Heartbeat:
    """Says at most once a second that work goes on, so that a hang can be told from it."""

    def __init__(self, say_alive: Callable[[], None]) -> None:
        self._say_alive = say_alive
        self._last = time.monotonic()

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._last > _ALIVE_SECONDS:
            self._last = now
            self._say_alive()


def _describe_file(path: Path, beat: Callable[[], None]) -> dict[str, Any]:
    """Lay out a `SourceFile`, taken before decoding: a file that changes meanwhile is seen."""
    source = stat_source(path)
    known = (path, source)
    # Spans of one file come one after another.
    if _last_hashed.get("file") != known:
        _last_hashed.update(file=known, sha256=hash_source(path, beat))
    return {**asdict(source), "sha256": _last_hashed["sha256"]}


def _say(problem: Exception) -> str:
    if isinstance(problem, FileNotFoundError):
        return "the file does not exist"
    if isinstance(problem, MemoryError):
        return f"decoding {LACKS_MEMORY}"
    if isinstance(problem, OSError):
        return f"the file cannot be read: {problem.strerror or problem}"
    return f"decoding failed: {type(problem).__name__}: {problem}"


def main() -> None:
    """Serve on standard input and output, with every other output silenced."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    replies = claim_output()
    try:
        serve(sys.stdin.buffer, replies)
    except BrokenPipeError:
        os._exit(1)  # the parent is gone; there is nobody left to tell


if __name__ == "__main__":
    main()
