"""What all commands share: options made from dataclasses, progress, errors, printed results."""

from __future__ import annotations

import _thread
import inspect
import json
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from features.errors import (
    EXIT_INTERRUPTED,
    EXIT_SOME_CLIPS_FAILED,
    EXIT_TERMINATED,
    FrameHeadError,
    Interrupted,
    OutputUnwritable,
)
from features.system.plugins import load_plugins
from features.system.text import format_count, printable

if TYPE_CHECKING:
    from features.extract import Progress
    from pipeline.compare.compare import Comparison, TrialProgress
    from pipeline.runs.run import RunSummary
    from pipeline.training.options import EpochReport

SCHEMA = 1
MOST_LISTED = 20
PATH = click.Path(path_type=Path)

HEAD_HELP = (
    "Append what the head is to see: :motion, what changes from frame to frame; :both, this and "
    "the embeddings; :centred, the embeddings and how they differ from their clip's mean; :tempo, "
    "how fast frames change for how much the clip varies; :mixed, this and the embeddings."
)

seed_option = click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of random splits, initial weights, dropout and the order of clips.",
)

videos_option = click.option(
    "--videos",
    type=PATH,
    metavar="DIR",
    help="Where the video folder is now, for the pictures in report.html.  [default: where it "
    "was when the store was made]",
)

_Command = TypeVar("_Command", bound=Callable[..., Any])
_DEBUG = "framehead.debug"
_TERMINATED = "framehead.terminated"
_REPEAT_SECONDS = 0.1


def options_from(
    source: Callable[..., Any], name: str, *, without: Collection[str] = ()
) -> Callable[[_Command], _Command]:
    """Add one option for each parameter of a frozen dataclass, or of a function.

    The command gets what `source` makes of them as its argument `name`. A parameter
    ``n_frames`` or ``frames`` becomes ``--frames``, unless the field's metadata names another
    flag; the first sentence of its numpydoc description is the help, and a sentence
    "By default ..." the default.
    """
    described = _read_descriptions(source)
    metadata: dict[str, Mapping[str, Any]] = {}
    if is_dataclass(source):
        metadata = {f.name: f.metadata for f in fields(source)}
    hints = get_type_hints(source)
    parameters = [p for p in inspect.signature(source).parameters.values() if p.name not in without]

    def decorate(command: _Command) -> _Command:
        def build(ctx: click.Context, values: dict[str, Any]) -> Any:
            return source(**{p.name: values.pop(p.name) for p in parameters})

        wrapped: Any = _collecting(command, name, build)
        for parameter in reversed(parameters):
            about = metadata.get(parameter.name, {})
            flag = about.get("flag", f"--{parameter.name.removeprefix('n_').replace('_', '-')}")
            option = _make_option(parameter, flag, hints[parameter.name], about, described)
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def common_options(command: _Command) -> _Command:
    """Add the options that every command has."""
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
        ),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_remember_debug,
            help="Show the traceback of an error.",
        ),
        click.option(
            "--plugin",
            metavar="MODULE",
            multiple=True,
            expose_value=False,
            is_eager=True,
            callback=_load_plugins,
            help="Module that registers heads, export or annotation formats: its name, or a .py "
            "file. May be given several times, or in FRAMEHEAD_PLUGINS.",
        ),
    ):
        command = option(command)
    return command


def overwrite_option(what: str) -> Callable[[_Command], _Command]:
    """Add ``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help=what)


class NamingOption(click.Option):
    """An option whose help names what is registered when help is asked for, plug-ins' too.

    "{names}" in its help stands for names with commas, in its metavar for names with bars.
    """

    def __init__(self, *arguments: Any, names: Collection[str], **settings: Any) -> None:
        self.names, self.template = names, settings["help"]
        self.metavar_template = settings.get("metavar")
        super().__init__(*arguments, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the flag and the help with the names of now; see `click.Option`."""
        load_plugins()  # those of the environment, which nobody may have loaded before --help
        self.help = self.template.replace("{names}", ", ".join(self.names))
        if self.metavar_template:
            self.metavar = self.metavar_template.replace("{names}", "|".join(self.names))
        return super().get_help_record(ctx)


class ErrorGroup(click.Group):
    """Turns framehead's errors into one line, a hint and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see `click.Group.invoke`."""
        try:
            with _ending_like_an_interrupt(ctx):
                return super().invoke(ctx)
        except FrameHeadError as problem:
            if ctx.meta.get(_DEBUG):
                raise
            _complain(problem)
            stopped = isinstance(problem, Interrupted) and ctx.meta.get(_TERMINATED)
            ctx.exit(EXIT_TERMINATED if stopped else problem.exit_code)
        except KeyboardInterrupt:
            _complain(Interrupted("Interrupted."))
            ctx.exit(EXIT_TERMINATED if ctx.meta.get(_TERMINATED) else EXIT_INTERRUPTED)


class _ending_like_an_interrupt:  # noqa: N801 - a context manager, read as a verb
    """Lets a polite request to end, SIGTERM, do what Ctrl-C does: commit and clean up.

    Either may arrive where Python drops exceptions, such as in a callback of a weak reference;
    it is repeated then.
    """

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self._before: Any = None
        self._hook_before = sys.unraisablehook
        self._repeating: threading.Timer | None = None

    def __enter__(self) -> None:
        try:
            self._before = signal.signal(signal.SIGTERM, self._stop)
        except ValueError:  # not in the main thread: somebody else handles signals
            return
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._repeat_dropped

    def __exit__(self, *exception: object) -> None:
        if self._before is None:
            return
        if self._repeating is not None:
            self._repeating.cancel()
        sys.unraisablehook = self._hook_before
        signal.signal(signal.SIGTERM, self._before)

    def _repeat_dropped(self, dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            self._hook_before(dropped)
            return
        number = signal.SIGINT
        if self._ctx.meta.get(_TERMINATED):
            number = signal.SIGTERM
            signal.signal(number, self._stop)
        # Not at once: here it would be dropped as well.
        self._repeating = threading.Timer(_REPEAT_SECONDS, _thread.interrupt_main, [number])
        self._repeating.daemon = True
        self._repeating.start()

    def _stop(self, number: int, frame: types.FrameType | None) -> None:
        # Once: what cleans up must not be interrupted by a second request.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._ctx.meta[_TERMINATED] = True
        raise KeyboardInterrupt


def print_result(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result to standard output, as one JSON object or as text."""
    # ASCII-only JSON carries any file name, also one that is not UTF-8.
    try:
        out = json.dumps({"schema": SCHEMA, **result}, ensure_ascii=True) if as_json else text
        click.echo(out)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader had enough: click ends quietly
    except OSError as problem:
        raise OutputUnwritable(
            f"Standard output must be writable. Writing the result failed: {problem}."
        ) from problem


def exit_for_failures(failures: Sequence[Any]) -> None:
    """End with the exit code that says that some clips failed, if any did."""
    if failures:
        click.get_current_context().exit(EXIT_SOME_CLIPS_FAILED)


def list_names(text: str) -> tuple[str, ...]:
    """Read names that stand in one option, with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def list_some(texts: Sequence[str]) -> list[str]:
    """Indent the first lines of a list, and say how many more there are."""
    lines = [f"  {printable(text)}" for text in texts[:MOST_LISTED]]
    if len(texts) > MOST_LISTED:
        lines.append(f"  and {len(texts) - MOST_LISTED} more, all listed with --json")
    return lines


def describe_clips(result: RunSummary | Comparison, n_test: int) -> list[str]:
    """Say which clips a result is not about, and which ones make it look better than it is."""
    from pipeline.splits.choose import NOBODY_TESTED
    from pipeline.splits.leaks import describe_near_duplicates
    from pipeline.splits.split import describe_class_gaps

    lines = []
    if NOBODY_TESTED in result.split_method:
        lines.append(f"split: {printable(result.split_method)}")
    if result.n_missing:
        lines.append(
            f"{format_count(result.n_missing, 'clip')} of the split file without embeddings in "
            f"the store, left out (split: {printable(result.split_method)})"
        )
    if result.n_excluded:
        lines.append(f"{format_count(result.n_excluded, 'clip')} of the store in no part")
    if result.n_failed:
        lines.append(f"{format_count(result.n_failed, 'clip')} of the store without embeddings")
    if result.n_unlabelled:
        lines.append(
            f"{format_count(result.n_unlabelled, 'clip')} of the store without a label, left out"
        )
    lines += describe_class_gaps(
        result.classes_without, result.n_classes, is_multilabel=result.is_multilabel
    )
    lines += result.group_doubts
    text = describe_near_duplicates(result.near_duplicates, result.n_near_duplicates, n_test)
    return [*lines, text] if text else lines


def list_labels(labels: Sequence[str]) -> str:
    """Name classes in a sentence."""
    return " or ".join(f"'{printable(label)}'" for label in labels)


class ProgressBar:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, *, quiet: bool, unit: str = "clip") -> None:
        self._is_disabled = True if quiet else None
        self._unit = unit
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show an extraction's `Progress`: clips, frames per second and time left."""
        self.show(progress.n_finished, progress.n_clips)
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        if progress.n_frames:
            self._bar.set_postfix_str(f"{progress.n_frames / elapsed:.0f} frames/s", refresh=False)

    def update_trial(self, progress: TrialProgress) -> None:
        """Show a comparison's `TrialProgress`: trials and time left."""
        self.show(progress.n_done, progress.n_trials, n_before=progress.n_done - 1)
        self._bar.set_postfix_str(progress.trial.head, refresh=False)

    def show(self, n_done: int, n_all: int, *, n_before: int = 0) -> None:
        """Show how many of all are done; `n_before` were when the first call came."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=n_all,
                initial=n_before,
                unit=self._unit,
                file=sys.stderr,
                disable=self._is_disabled,
                smoothing=0.05,
            )
        self._bar.update(n_done - self._bar.n)


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


def _complain(problem: FrameHeadError) -> None:
    click.echo(f"Error: {printable(problem.message)}", err=True)
    if problem.hint:
        click.echo(f"Hint: {printable(problem.hint)}", err=True)


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # The meta dictionary is shared by all contexts of one invocation.
    ctx.meta[_DEBUG] = value


def _load_plugins(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if not ctx.resilient_parsing:
        load_plugins(value)


def _collecting(
    command: Any, name: str, build: Callable[[click.Context, dict[str, Any]], Any]
) -> Any:
    """Wrap a command so that `build` takes its share of the options and gives one argument."""

    def collect(**values: Any) -> Any:
        values[name] = build(click.get_current_context(), values)
        return command(**values)

    collect.__doc__ = command.__doc__
    collect.__name__ = command.__name__
    if hasattr(command, "__click_params__"):
        collect.__click_params__ = command.__click_params__  # type: ignore[attr-defined]
    return collect


def _make_option(
    parameter: inspect.Parameter,
    flag: str,
    annotation: Any,
    about: Mapping[str, Any],
    described: Mapping[str, str],
) -> Callable[[Any], Any]:
    text = described.get(parameter.name, "")
    first = re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
    shown = re.search(r"By default (.*?)\.(?:\s|$)", text)
    default = parameter.default
    # By identity: a default of 0 is one that is shown.
    has_default = not any(default is none for none in (None, False, inspect.Parameter.empty))
    return click.option(
        flag,
        parameter.name,
        default=", ".join(default) if isinstance(default, tuple) else default,
        show_default=has_default,
        help=first + (f"  [default: {shown[1]}]" if shown and not has_default else ""),
        metavar=about.get("metavar"),
        **_option_type(annotation),
    )


def _option_type(annotation: Any) -> dict[str, Any]:
    kinds = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(kinds[0]) is Literal:
        return {"type": click.Choice(list(get_args(kinds[0])))}
    if get_origin(kinds[0]) is tuple:
        return {"type": str, "callback": lambda ctx, parameter, value: list_names(value)}
    if bool in kinds:
        return {"is_flag": True}
    if str in kinds:
        return {"type": str}
    return {"type": PATH} if Path in kinds else {"type": kinds[0]}


def _read_descriptions(source: Callable[..., Any]) -> dict[str, str]:
    """Read what a numpydoc docstring says of each parameter or attribute."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(source) or "").splitlines()[2:]:
        entry = re.match(r"(\w+(?:, \w+)*) :", line)
        if entry:
            names = entry[1].split(", ")
        elif line.startswith("    ") and names:
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        elif line:
            names = []
    return found
