"""Worker processes that run the trials of a comparison side by side."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from features.errors import FrameHeadError, OptionInvalid, TrainingFailed
from features.system.machine import usable_cores
from features.system.processes import Helper, rebuild_problem
from pipeline.compare.trials import Trial
from pipeline.training.threads import thread_environment

# Each worker holds the backend and the store's clips: about a gigabyte.
_MOST_DEFAULT_JOBS = 8


def require_jobs(jobs: int | None) -> None:
    """Refuse a number of worker processes below 1."""
    if jobs is not None and jobs < 1:
        raise OptionInvalid(f"--jobs must be at least 1. Received: {jobs}.")


def choose_jobs(jobs: int | None, n_trials: int) -> int:
    """Say how many worker processes to use: by default one per usable core, at most 8."""
    require_jobs(jobs)
    wanted = min(usable_cores(), _MOST_DEFAULT_JOBS) if jobs is None else jobs
    return max(1, min(wanted, n_trials))


def run_trials(
    plan_path: Path, sequences: Path, trials: Sequence[Trial], *, jobs: int
) -> Generator[Trial, None, None]:
    """Run trials in worker processes, and yield each when its result is in the plan's folder.

    `sequences` is the folder of `shared_sequences`. Raises what a trial raised, in its own kind,
    or TrainingFailed if a worker cannot be started, dies, or says what is no answer.
    """
    waiting: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
    for trial in [*trials, *[None] * jobs]:
        waiting.put(trial)
    finished: queue.SimpleQueue[Trial | FrameHeadError] = queue.SimpleQueue()
    workers: list[_Worker] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(jobs):
            workers.append(_Worker(plan_path, sequences, max(1, usable_cores() // jobs)))
            thread = threading.Thread(
                target=_drive, args=(workers[-1], waiting, finished), daemon=True
            )
            thread.start()
            threads.append(thread)
        for _ in trials:
            outcome = finished.get()
            if isinstance(outcome, FrameHeadError):
                raise outcome
            yield outcome
    finally:
        for worker in workers:
            worker.kill()
        # Their workers dead, the threads end by themselves; until then they use the streams.
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.close()


def _drive(
    worker: _Worker,
    waiting: queue.SimpleQueue[Trial | None],
    finished: queue.SimpleQueue[Trial | FrameHeadError],
) -> None:
    while (trial := waiting.get()) is not None:
        try:
            worker.run(trial)
        except FrameHeadError as problem:
            finished.put(problem)
            return
        except Exception as problem:
            # Whatever it is: were nothing put, the consumer would wait for ever.
            finished.put(
                TrainingFailed(
                    f"A trial must give a result. {trial.file_name} ended with "
                    f"{type(problem).__name__}: {problem}."
                )
            )
            return
        finished.put(trial)


class _Worker:
    """One worker process, seen from its parent."""

    def __init__(self, plan_path: Path, sequences: Path, n_threads: int) -> None:
        # Several processes share a GPU: none may take all of its memory.
        shared_gpu = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        try:
            self._helper = Helper(
                "pipeline.compare.trials",
                str(plan_path),
                str(sequences),
                environment={**thread_environment(n_threads), **shared_gpu},
            )
        except OSError as problem:
            raise TrainingFailed(
                f"A worker process must start. Starting it failed: {problem}.",
                hint="use fewer --jobs",
            ) from problem
        self.kill = self._helper.kill
        self.close = self._helper.close

    def run(self, trial: Trial) -> None:
        """Run one trial, and raise what it raised."""
        line = b""
        with suppress(OSError, ValueError):
            self._helper.requests.write(json.dumps(asdict(trial)).encode() + b"\n")
            self._helper.requests.flush()
            line = self._helper.replies.readline()
        if not line:
            raise TrainingFailed(
                f"A worker process must survive its trials. At {trial.file_name} it ended with "
                f"{self._helper.how_it_ended()}.",
                hint="run the same command again, finished trials are kept unless --overwrite is "
                "given; use fewer --jobs if memory ran out",
            )
        answer = json.loads(line)
        if answer["kind"] == "failed":
            raise rebuild_problem(answer, TrainingFailed)
