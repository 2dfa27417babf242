"""Helper processes: one of our modules, run in a process of its own that may crash or hang.

Not multiprocessing: that would import the caller's main module once more, which breaks
scripts without a main guard, and notebooks. Nothing is forked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from features.errors import FrameHeadError

_ROOT = str(Path(__file__).resolve().parents[2])
_NO_WORDS = "no reason given"


class Helper:
    """A running process of ours with pipes to its standard input and output.

    What it writes to standard error goes to a file that never fills up, and is read only
    when somebody wants to know how the process ended.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                _command(module, arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **(environment or {})},
                # Ctrl-C in a terminal reaches a whole process group; the parent handles it alone.
                start_new_session=True,
            )
        except OSError:
            self._said.close()
            raise
        assert self._process.stdin is not None  # noqa: S101 - Popen was asked for both
        assert self._process.stdout is not None  # noqa: S101
        self.requests: IO[bytes] = self._process.stdin
        self.replies: IO[bytes] = self._process.stdout

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the end and return the exit code, which is negative after a signal."""
        return self._process.wait(timeout=seconds)

    def kill(self) -> None:
        """End the process at once; whoever waits for a reply sees the pipe close."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and free what belongs to it."""
        self.kill()
        for stream in (self.requests, self.replies, self._said):
            with suppress(OSError):
                stream.close()

    def how_it_ended(self) -> str:
        """Say how the process ended, with the last line that it wrote to standard error."""
        try:
            code = self.wait(5)
            how = f"exit code {code}"
        except subprocess.TimeoutExpired:
            code, how = 0, "its pipe closed"
        if code < 0:
            return _name_signal(-code)
        words = self.last_words()
        return how + (f" ({words})" if words else "")

    def last_words(self) -> str:
        """Return the last line that the process wrote to standard error, or nothing."""
        self._said.seek(0)
        return _last_line(self._said.read())


@dataclass(frozen=True, slots=True)
class Finished:
    """How a helper process ended; `fault` is empty if nothing went wrong."""

    code: int
    output: str
    fault: str
    is_late: bool = False


def run_helper(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    limit_seconds: float | None = None,
) -> Finished:
    """Run the `main` of one of our modules to its end, and kill it at the time limit."""
    try:
        finished = subprocess.run(
            _command(module, arguments),
            capture_output=True,
            env={**os.environ, **(environment or {})},
            timeout=limit_seconds,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Finished(-signal.SIGTERM, "", f"no answer within {limit_seconds:g} s", is_late=True)
    output = finished.stdout.decode("utf-8", "replace").strip()
    fault = ""
    if finished.returncode < 0:
        fault = f"the process was killed by {_name_signal(-finished.returncode)}"
    elif finished.returncode:
        fault = _last_line(finished.stderr) or _NO_WORDS
    return Finished(finished.returncode, output, fault)


def claim_output() -> IO[bytes]:
    """Keep standard output for answers: what libraries print goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def describe_problem(problem: FrameHeadError) -> dict[str, str]:
    """Lay an error out for another process, see `rebuild_problem`."""
    return {
        "error": type(problem).__name__,
        "message": problem.message,
        "hint": problem.hint,
    }


def rebuild_problem(fields: Mapping[str, str], otherwise: type[FrameHeadError]) -> FrameHeadError:
    """Rebuild an error that another process described; an unknown kind becomes `otherwise`."""
    from features import errors

    kind = getattr(errors, fields["error"], otherwise)
    rebuilt: FrameHeadError = kind(fields["message"], hint=fields.get("hint", ""))
    return rebuilt


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    # -P keeps the working directory, where anything may lie, out of the import path.
    code = f"import sys; sys.path.insert(0, {_ROOT!r}); from {module} import main; main()"
    return [sys.executable, "-P", "-c", code, *arguments]


def _name_signal(number: int) -> str:
    with suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
