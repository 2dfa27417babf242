"""Decode workers side by side, each in a process of its own that may die.

One thread drives one worker process. A worker that crashes or stops making progress
fails the clip it was at and is replaced. Results come out of a bounded queue, so that
decoding never runs far ahead of whoever takes them.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from features import errors
from features.errors import EngineUnavailable, FrameHeadError
from features.protocol import receive_message, send_message
from features.records import Clip, FrameSampling, VectorDtype, VideoFacts

DEFAULT_MEMORY_BYTES = 2 * 2**30

_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker does with a clip.

    Attributes
    ----------
    sampling : FrameSampling
    size_px : int
    model_path : Path or None
        LiteRT model with which the worker embeds; None to send frames instead.
    dtype : {"float16", "float32"}
        Type of the embeddings that a worker sends.
    stall_seconds : float
        A clip without progress for this long is given up.
    memory_bytes : int
        Most memory that a worker may take for data, where the system can bound it.
    """

    sampling: FrameSampling
    size_px: int
    model_path: Path | None
    dtype: VectorDtype
    stall_seconds: float
    memory_bytes: int = DEFAULT_MEMORY_BYTES


@dataclass(frozen=True, slots=True, repr=False)
class ClipRows:
    """Some consecutive rows of a clip: embeddings, or frames still to be embedded."""

    clip: Clip
    rows: npt.NDArray[Any]
    timestamps_seconds: list[float]
    frame_indices: list[int]


@dataclass(frozen=True, slots=True)
class ClipEnd:
    """The end of a clip.

    Attributes
    ----------
    clip : Clip
    sha256 : str
        Of the file; empty if it could not be read.
    facts : VideoFacts
    failure : str
        Why the clip failed; empty if it did not. Its rows, if any came, are void.
    """

    clip: Clip
    sha256: str
    facts: VideoFacts
    failure: str


def decode_clips(
    clips: Sequence[Clip], settings: WorkerSettings, *, n_workers: int
) -> Generator[ClipRows | ClipEnd, None, None]:
    """Decode clips in parallel.

    Parameters
    ----------
    clips : sequence of Clip
    settings : WorkerSettings
    n_workers : int
        Processes, at least 1.

    Yields
    ------
    ClipRows or ClipEnd
        For each clip its rows in order and then one `ClipEnd`; clips interleave.

    Raises
    ------
    FrameHeadError
        If no worker can work at all, for instance because OpenCV is broken.
    """
    pool = _Pool(clips, settings, min(n_workers, len(clips)))
    try:
        yield from pool.results()
    finally:
        pool.stop()


class _Pool:
    """The threads, their processes, and the queues between them and the caller."""

    def __init__(self, clips: Sequence[Clip], settings: WorkerSettings, n_workers: int) -> None:
        self._settings = settings
        self._tasks: queue.SimpleQueue[Clip] = queue.SimpleQueue()
        self._n_clips = len(clips)
        for clip in clips:
            self._tasks.put(clip)
        self._results: queue.Queue[ClipRows | ClipEnd | FrameHeadError | None] = queue.Queue(
            4 * n_workers
        )
        self._is_stopping = threading.Event()
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._drive, daemon=True) for _ in range(n_workers)
        ]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[ClipRows | ClipEnd]:
        n_threads_ended = n_clips_ended = 0
        while n_threads_ended < len(self._threads):
            item = self._results.get()
            if item is None:
                n_threads_ended += 1
            elif isinstance(item, FrameHeadError):
                raise item
            else:
                n_clips_ended += isinstance(item, ClipEnd)
                yield item
        if n_clips_ended != self._n_clips:
            raise EngineUnavailable(
                f"Every clip must end. Of {self._n_clips} only {n_clips_ended} did: please report "
                "this."
            )

    def stop(self) -> None:
        self._is_stopping.set()
        with self._lock:
            for worker in self._workers:
                worker.kill()
        for thread in self._threads:
            while thread.is_alive():
                with suppress(queue.Empty):  # a thread may wait for room in the queue
                    self._results.get_nowait()
                thread.join(0.02)

    def _drive(self) -> None:
        worker: _Worker | None = None
        try:
            while not self._is_stopping.is_set():
                try:
                    clip = self._tasks.get_nowait()
                except queue.Empty:
                    break
                if worker is None:
                    worker = self._start_worker()
                for item in worker.decode(clip):
                    self._results.put(item)
                if not worker.is_usable:
                    self._drop(worker)
                    worker = None
        except FrameHeadError as problem:
            self._report(problem)
        except Exception as problem:
            # The end of a thread: what is not passed on here nobody would ever see.
            self._report(
                EngineUnavailable(
                    f"A decode worker could not be started or driven: {problem}.",
                    hint="lower --workers if the system's limits on processes or open files are "
                    "low",
                )
            )
        finally:
            if worker is not None:
                self._drop(worker)
            self._results.put(None)

    def _report(self, problem: FrameHeadError) -> None:
        if not self._is_stopping.is_set():
            self._results.put(problem)

    def _start_worker(self) -> _Worker:
        worker = _Worker(self._settings)
        with self._lock:
            self._workers.add(worker)
            if self._is_stopping.is_set():
                worker.kill()
        worker.greet()
        return worker

    def _drop(self, worker: _Worker) -> None:
        worker.close()
        with self._lock:
            self._workers.discard(worker)


class _Worker:
    """One worker process, seen from its parent."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._has_stalled = False
        self._chatter = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        here = str(Path(__file__).resolve().parent.parent)
        # Not multiprocessing: that would import the caller's main module once more, which
        # breaks scripts without a main guard, and notebooks.
        code = f"import sys; sys.path.insert(0, {here!r}); from features.worker import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # FFmpeg and XNNPACK chatter; only a crash makes it worth reading.
            stderr=self._chatter,
            # Ctrl-C in a terminal reaches a whole process group; the parent handles it alone.
            start_new_session=True,
        )

    @property
    def is_usable(self) -> bool:
        """Whether the next clip may be given to it."""
        return not self._has_stalled and self._process.poll() is None

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
            self._send(message)
            reply = self._receive(_START_SECONDS)
        if reply is None:
            raise EngineUnavailable(
                f"A decode worker must start. It ended with {self._how_it_ended()}.",
                hint="check that 'python -c \"import cv2\"' works, and that memory is free",
            )
        if reply[0]["kind"] == "broken":
            kind = getattr(errors, reply[0]["error"], EngineUnavailable)
            raise kind(reply[0]["message"], hint=reply[0]["hint"])

    def decode(self, clip: Clip) -> Iterator[ClipRows | ClipEnd]:
        """Decode one clip; ends with a `ClipEnd` whatever happens to the process."""
        sha256 = ""
        with suppress(OSError):  # a dead process shows itself at the first read
            self._send({"path_hex": os.fsencode(clip.path).hex()})
        while (reply := self._receive(self._settings.stall_seconds)) is not None:
            message, rows = reply
            kind = message.pop("kind")
            if kind == "frames" and rows is not None:
                yield ClipRows(clip, rows, **message)
            elif kind == "hashed":
                sha256 = message["sha256"]
            elif kind == "failed":
                if message["is_exhausted"]:
                    self.kill()
                yield ClipEnd(clip, sha256, VideoFacts(), message["reason"])
                return
            elif kind == "end":
                yield ClipEnd(clip, sha256, VideoFacts(**message), "")
                return
        ended = self._how_it_ended()
        self.kill()
        if self._has_stalled:
            reason = f"decoding made no progress for {self._settings.stall_seconds:g} s"
        else:
            reason = f"the decoder crashed with {ended}"
        yield ClipEnd(clip, sha256, VideoFacts(), reason)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def close(self) -> None:
        """End the process and free what belongs to it."""
        self.kill()
        self._chatter.close()

    def _send(self, message: dict[str, Any]) -> None:
        stream = self._process.stdin
        if stream is not None:
            send_message(stream, message)

    def _receive(self, seconds: float) -> tuple[dict[str, Any], npt.NDArray[Any] | None] | None:
        # Killing the process is what ends a read that waits for it.
        watchdog = threading.Timer(seconds, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            stream = self._process.stdout
            return None if stream is None else receive_message(stream)
        except ValueError:  # closed by kill() from another thread
            return None
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        self._has_stalled = True
        self._process.kill()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "its pipe closed"
        if code >= 0:
            self._chatter.seek(0)
            lines = self._chatter.read().decode(errors="replace").strip().splitlines()
            return f"exit code {code}" + (f" ({lines[-1]})" if lines else "")
        with suppress(ValueError):
            return f"signal {-code} ({signal.Signals(-code).name})"
        return f"signal {-code}"


def default_n_workers() -> int:
    """Return how many workers keep this machine busy: one per usable core."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
