"""What all commands share: error messages, progress, and printing results."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from features.errors import (
    EXIT_INTERRUPTED,
    FrameHeadError,
    Interrupted,
    OutputUnwritable,
)
from features.system.text import printable
from pipeline.commands.sharedoptions import is_debugging

if TYPE_CHECKING:
    from features.extract import Progress
    from pipeline.compare.compare import TrialProgress
    from pipeline.training.options import EpochReport


class ErrorGroup(click.Group):
    """Turns framehead's errors into one line, a hint and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see `click.Group.invoke`."""
        try:
            return super().invoke(ctx)
        except FrameHeadError as problem:
            if is_debugging(ctx):
                raise
            _complain(problem)
            ctx.exit(problem.exit_code)
        except KeyboardInterrupt:
            _complain(Interrupted("Interrupted.", hint="run the same command again to go on"))
            ctx.exit(EXIT_INTERRUPTED)


def _complain(problem: FrameHeadError) -> None:
    click.echo(f"Error: {printable(problem.message)}", err=True)
    if problem.hint:
        click.echo(f"Hint: {printable(problem.hint)}", err=True)


def print_result(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result to standard output, as one JSON object or as text."""
    # ASCII-only JSON carries any file name, also one that is not UTF-8.
    try:
        click.echo(json.dumps(result, ensure_ascii=True) if as_json else text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader had enough: click ends quietly
    except OSError as problem:
        raise OutputUnwritable(
            f"Standard output must be writable. Writing the result failed: {problem}."
        ) from problem


class ProgressBar:
    """Clips, frames per second and time left on standard error, if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._is_disabled = True if quiet else None
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show an extraction's `Progress`."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.n_clips,
                unit="clip",
                file=sys.stderr,
                disable=self._is_disabled,
                smoothing=0.05,
            )
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        if progress.n_frames:
            self._bar.set_postfix_str(f"{progress.n_frames / elapsed:.0f} frames/s", refresh=False)
        self._bar.update(progress.n_finished - self._bar.n)


class EpochLine:
    """The newest epoch's losses on standard error, if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._is_shown = sys.stderr.isatty() and not quiet

    def update(self, report: EpochReport) -> None:
        """Show an `EpochReport` in place of the one before."""
        if self._is_shown:
            text = (
                f"epoch {report.epoch}: loss {report.loss:.3f}, val_loss {report.val_loss:.3f}, "
                f"val_accuracy {report.val_accuracy:.1%}"
            )
            click.echo(f"\r{text:<70}", nl=False, err=True)

    def __enter__(self) -> EpochLine:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_shown:
            click.echo(err=True)


class TrialBar:
    """Trials and time left on standard error, if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._is_disabled = True if quiet else None
        self._bar: Any = None

    def __enter__(self) -> TrialBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: TrialProgress) -> None:
        """Show a `TrialProgress`."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.n_trials,
                initial=progress.n_done - 1,
                unit="trial",
                file=sys.stderr,
                disable=self._is_disabled,
            )
        self._bar.set_postfix_str(progress.trial.head, refresh=False)
        self._bar.update(progress.n_done - self._bar.n)
