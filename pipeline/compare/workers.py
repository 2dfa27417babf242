"""Worker processes that run the trials of a comparison side by side."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from features import errors
from features.errors import FrameHeadError, OptionInvalid, TrainingFailed
from features.workers.pool import default_n_workers
from pipeline.compare.trials import Trial
from pipeline.training.threads import thread_environment

# Each worker holds the backend and the store's clips: about a gigabyte.
_MOST_DEFAULT_JOBS = 8


def require_jobs(jobs: int | None) -> None:
    """Refuse a number of worker processes below 1.

    Parameters
    ----------
    jobs : int or None

    Raises
    ------
    OptionInvalid
    """
    if jobs is not None and jobs < 1:
        raise OptionInvalid(f"--jobs must be at least 1. Received: {jobs}.")


def choose_jobs(jobs: int | None, n_trials: int) -> int:
    """Say how many worker processes to use.

    Parameters
    ----------
    jobs : int or None
        What the user asked for, at least 1; None for one per usable core, at most 8.
    n_trials : int

    Returns
    -------
    int
        No more than there are trials, at least 1.

    Raises
    ------
    OptionInvalid
        If `jobs` is below 1.
    """
    require_jobs(jobs)
    wanted = min(default_n_workers(), _MOST_DEFAULT_JOBS) if jobs is None else jobs
    return max(1, min(wanted, n_trials))


def run_trials(
    plan_path: Path, sequences: Path, trials: Sequence[Trial], *, jobs: int
) -> Iterator[Trial]:
    """Run trials in worker processes; their results are files in the plan's folder.

    Parameters
    ----------
    plan_path : Path
        See `pipeline.compare.trials.write_plan`.
    sequences : Path
        All clips, see `pipeline.data.sharing.shared_sequences`.
    trials : sequence of Trial
    jobs : int
        Processes, each with its share of the cores.

    Yields
    ------
    Trial
        As each is finished.

    Raises
    ------
    TrainingFailed
        If a worker cannot be started, dies, or says what is no answer.
    FrameHeadError
        What a trial raised, in its own kind.
    """
    waiting: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
    for trial in [*trials, *[None] * jobs]:
        waiting.put(trial)
    finished: queue.SimpleQueue[Trial | FrameHeadError] = queue.SimpleQueue()
    workers: list[_Worker] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(jobs):
            workers.append(_Worker(plan_path, sequences, max(1, default_n_workers() // jobs)))
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
                    f"A trial must end with an answer. {trial.file_name} ended with "
                    f"{type(problem).__name__}: {problem}."
                )
            )
            return
        finished.put(trial)


class _Worker:
    """One worker process, seen from its parent."""

    def __init__(self, plan_path: Path, sequences: Path, n_threads: int) -> None:
        root = str(Path(__file__).resolve().parents[2])
        # Not multiprocessing: that would import the caller's main module once more, which
        # breaks scripts without a main guard, and notebooks. -P keeps the working
        # directory, where anything may lie, out of the import path.
        code = f"import sys; sys.path.insert(0, {root!r}); "
        code += "from pipeline.compare.trials import main; main()"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `close`
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, str(plan_path), str(sequences)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                encoding="ascii",
                env={
                    **os.environ,
                    **thread_environment(n_threads),
                    # Several processes share a GPU: none may take all of its memory.
                    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
                    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                },
                # Ctrl-C in a terminal reaches a whole process group; the parent handles it alone.
                start_new_session=True,
            )
        except OSError as problem:
            self._said.close()
            raise TrainingFailed(
                f"A worker process must start. Starting '{sys.executable}' failed: {problem}.",
                hint="use fewer --jobs",
            ) from problem

    def run(self, trial: Trial) -> None:
        """Run one trial, and raise what it raised."""
        line = ""
        if self._process.stdin is not None and self._process.stdout is not None:
            with suppress(OSError, ValueError):
                self._process.stdin.write(json.dumps(asdict(trial)) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
        if not line:
            raise TrainingFailed(
                f"A worker process must survive its trials. At {trial.file_name} it ended with "
                f"{self._process.wait()}: {self._last_words()}",
                hint="run the same command again, finished trials are kept; use fewer --jobs "
                "if memory ran out",
            )
        answer = json.loads(line)
        if answer["kind"] == "failed":
            kind = getattr(errors, answer["error"], TrainingFailed)
            raise kind(answer["message"], hint=answer.get("hint", ""))

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the streams of a process that has ended; `run` must not be running."""
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing."
