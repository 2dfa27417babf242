"""Decode workers side by side, each in a process of its own that may die.

One thread drives one worker process. A worker that crashes or stops making progress
fails the clip it was at and is replaced. Results come out of a bounded queue, so that
decoding never runs far ahead of whoever takes them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby

from features.errors import EngineUnavailable, FrameHeadError
from features.records import Clip
from features.workers.process import ClipEnd, ClipRows, DecodeWorker, WorkerSettings

# Of spans that are decoded in one pass, chosen frames wait for each other.
_GROUP_BYTES = 64 * 2**20
_FRAMES_AT_ONCE = 32


def decode_clips(
    clips: Sequence[Clip], settings: WorkerSettings, *, n_workers: int
) -> Generator[ClipRows | ClipEnd, None, None]:
    """Decode clips in parallel: of each its rows in order, then one `ClipEnd`; clips interleave."""
    pool = _Pool(clips, settings, min(n_workers, len(clips)))
    try:
        yield from pool.results()
    finally:
        pool.stop()


def _group(
    clips: Sequence[Clip], settings: WorkerSettings, n_workers: int
) -> Iterator[Sequence[Clip]]:
    """Put spans of one file together: few enough for memory, and for every worker some."""
    sampling = settings.sampling
    n_frames = int(sampling.value) if sampling.strategy == "uniform" else _FRAMES_AT_ONCE
    most = max(1, _GROUP_BYTES // (n_frames * 3 * settings.size_px**2 or 1))
    most = min(most, -(-len(clips) // max(n_workers, 1)))
    if settings.picture_of or settings.overlay_of:
        most = 1
    for _, same in groupby(clips, lambda clip: clip.path if clip.is_span else clip.clip_id):
        waiting = list(same)
        for start in range(0, len(waiting), most):
            yield waiting[start : start + most]


class _Pool:
    """The threads, their processes, and the queues between them and the caller."""

    def __init__(self, clips: Sequence[Clip], settings: WorkerSettings, n_workers: int) -> None:
        self._settings = settings
        self._tasks: queue.SimpleQueue[Sequence[Clip]] = queue.SimpleQueue()
        self._n_clips = len(clips)
        for group in _group(clips, settings, n_workers):
            self._tasks.put(group)
        self._results: queue.Queue[ClipRows | ClipEnd | FrameHeadError | None] = queue.Queue(
            4 * n_workers
        )
        self._is_stopping = threading.Event()
        self._workers: set[DecodeWorker] = set()
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
                f"Every clip must be finished. Only {n_clips_ended} of {self._n_clips} were: "
                "please report this."
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
        worker: DecodeWorker | None = None
        try:
            while not self._is_stopping.is_set():
                try:
                    group = self._tasks.get_nowait()
                except queue.Empty:
                    break
                if worker is None:
                    worker = self._start_worker()
                items: Iterable[ClipRows | ClipEnd] | None
                if len(group) == 1:
                    items = worker.decode(group[0])
                else:
                    items = worker.decode_together(group)
                for item in items or ():
                    self._results.put(item)
                for clip in group if items is None else ():
                    self._tasks.put([clip])
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

    def _start_worker(self) -> DecodeWorker:
        worker = DecodeWorker(self._settings)
        with self._lock:
            self._workers.add(worker)
            if self._is_stopping.is_set():
                worker.kill()
        try:
            worker.greet()
        except BaseException:
            self._drop(worker)
            raise
        return worker

    def _drop(self, worker: DecodeWorker) -> None:
        worker.close()
        with self._lock:
            self._workers.discard(worker)
