"""One decode worker, seen from its parent: a process that may crash, hang or be killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from features.errors import EngineUnavailable
from features.places.places import is_there
from features.records import Clip, FrameSampling, SourceFile, VectorDtype, VideoFacts
from features.system.processes import Helper, rebuild_problem
from features.video.overlay import Caption
from features.workers.protocol import receive_message, send_message

_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker does with a clip.

    Attributes
    ----------
    model_path : Path or None
        LiteRT model with which the worker embeds; None to send frames instead.
    picture_of : mapping of str to int
        Clips, by id, of which a JPEG of one frame is wanted instead, and which frame.
    overlay_of : mapping of str to (Path, Caption)
        Clips, by id, of which a copy with a band is wanted instead: where to write it, and
        what the band says.
    """

    sampling: FrameSampling
    size_px: int
    model_path: Path | None
    dtype: VectorDtype
    stall_seconds: float
    memory_bytes: int
    picture_of: Mapping[str, int] = field(default_factory=dict)
    overlay_of: Mapping[str, tuple[Path, Caption]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class ClipRows:
    """Some consecutive rows of a clip: embeddings, frames to be embedded, or a JPEG's bytes."""

    clip: Clip
    rows: npt.NDArray[Any]
    timestamps_seconds: list[float]
    frame_indices: list[int]


@dataclass(frozen=True, slots=True)
class ClipEnd:
    """The end of a clip: its file as decoding began, and why it failed, if it did.

    A failed clip's rows, if any came, are void.
    """

    clip: Clip
    source: SourceFile
    facts: VideoFacts
    failure: str


class DecodeWorker:
    """One worker process, seen from its parent."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._has_stalled = False
        self._helper = Helper("features.workers.main")

    @property
    def is_usable(self) -> bool:
        """Whether the next clip may be given to it."""
        return not self._has_stalled and self._helper.is_running

    def greet(self) -> None:
        """Send the settings and wait until the worker is ready."""
        settings = self._settings
        message = {
            "sampling": asdict(settings.sampling),
            "size_px": settings.size_px,
            "model_path": str(settings.model_path or ""),
            "dtype": settings.dtype,
            "memory_bytes": settings.memory_bytes,
        }
        reply = None
        with suppress(OSError):
            send_message(self._helper.requests, message)
            reply = self._receive(_START_SECONDS)
        if reply is None:
            raise EngineUnavailable(
                f"A decode worker must start. It ended with {self._helper.how_it_ended()}.",
                hint="check that 'python -c \"import cv2\"' works, and that memory is free",
            )
        if reply[0]["kind"] == "broken":
            raise rebuild_problem(reply[0], EngineUnavailable)

    def decode(self, clip: Clip) -> Iterator[ClipRows | ClipEnd]:
        """Decode one clip; ends with a `ClipEnd` whatever happens to the process."""
        request = _request([clip])
        if clip.clip_id in self._settings.picture_of:
            request["frame_index"] = self._settings.picture_of[clip.clip_id]
        if clip.clip_id in self._settings.overlay_of:
            target, caption = self._settings.overlay_of[clip.clip_id]
            request["overlay_hex"] = os.fsencode(target).hex()
            request["caption"] = asdict(caption)
        yield from self._ask(request, [clip])

    def decode_together(self, clips: Sequence[Clip]) -> list[ClipRows | ClipEnd] | None:
        """Decode spans of one file in one pass; None if that fails, so that each must be tried."""
        items = list(self._ask(_request(clips), clips))
        failures = [item.failure for item in items if isinstance(item, ClipEnd) and item.failure]
        return items if len(failures) == 0 else None

    def _ask(self, request: dict[str, Any], clips: Sequence[Clip]) -> Iterator[ClipRows | ClipEnd]:
        source = SourceFile(0, 0, "")
        with suppress(OSError):  # a dead process shows itself at the first read
            send_message(self._helper.requests, request)
        while (reply := self._receive(self._settings.stall_seconds)) is not None:
            message, rows = reply
            kind = message.pop("kind")
            if kind == "frames" and rows is not None:
                yield ClipRows(clips[message.pop("span")], rows, **message)
            elif kind == "hashed":
                source = SourceFile(**message)
            elif kind == "failed":
                if message["is_exhausted"]:
                    self.kill()
                yield from (_failed(clip, source, message["reason"]) for clip in clips)
                return
            elif kind == "end":
                facts = VideoFacts(**message)
                yield from (ClipEnd(clip, source, facts, "") for clip in clips)
                return
        ended = self._helper.how_it_ended()
        self.kill()
        if self._has_stalled:
            reason = f"decoding made no progress for {self._settings.stall_seconds:g} s"
        else:
            reason = f"the decoder crashed with {ended}"
        yield from (_failed(clip, source, reason) for clip in clips)

    def kill(self) -> None:
        """End the process at once; whoever waits for it sees its pipe close."""
        self._helper.kill()

    def close(self) -> None:
        """End the process and free what belongs to it."""
        self._helper.close()

    def _receive(self, seconds: float) -> tuple[dict[str, Any], npt.NDArray[Any] | None] | None:
        # Killing the process is what ends a read that waits for it.
        watchdog = threading.Timer(seconds, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            return receive_message(self._helper.replies)
        except ValueError:  # closed by another thread
            return None
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        self._has_stalled = True
        self._helper.kill()


def _request(clips: Sequence[Clip]) -> dict[str, Any]:
    """Ask for a clip, or for spans of one file."""
    request: dict[str, Any] = {"path_hex": os.fsencode(clips[0].path).hex()}
    if clips[0].frame_rate is not None:
        request["frame_rate"] = clips[0].frame_rate
    request["spans"] = [
        {
            "start": clip.start_seconds if clip.start_frame is None else clip.start_frame,
            "end": clip.end_seconds if clip.start_frame is None else clip.end_frame,
            "unit": "seconds" if clip.start_frame is None else "frames",
        }
        if clip.is_span
        else None
        for clip in clips
    ]
    return request


def _failed(clip: Clip, source: SourceFile, reason: str) -> ClipEnd:
    # A file that went away meanwhile is to be tried again as soon as it is back.
    known = source if is_there(clip.path) else SourceFile(0, 0, "")
    return ClipEnd(clip, known, VideoFacts(), reason)
