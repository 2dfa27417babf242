"""The command line: options, progress and exit codes; each command calls one function.

Standard output is the result, for people or with ``--json`` exactly one JSON object.
Standard error is everything else. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from features.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_CLIPS_FAILED,
    FrameHeadError,
    Interrupted,
)

if TYPE_CHECKING:
    from features.extract import Progress

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PathType = click.Path(path_type=Path)
_DEBUG = "framehead.debug"


class _Group(click.Group):
    """Turns framehead's errors into one line, a hint and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FrameHeadError as problem:
            if ctx.meta.get(_DEBUG):
                raise
            _complain(problem)
            ctx.exit(problem.exit_code)
        except KeyboardInterrupt:
            _complain(Interrupted("Interrupted.", hint="run the same command again to go on"))
            ctx.exit(EXIT_INTERRUPTED)


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # The meta dictionary is shared by all contexts of one invocation.
    ctx.meta[_DEBUG] = value


def _complain(problem: FrameHeadError) -> None:
    from features.text import printable

    click.echo(f"Error: {printable(problem.message)}", err=True)
    if problem.hint:
        click.echo(f"Hint: {printable(problem.hint)}", err=True)


def _common_options(command: _Command) -> _Command:
    """Add the options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on standard error."),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_remember_debug,
            help="Show tracebacks.",
        ),
    ):
        command = option(command)
    return command


def _print_result(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    # ASCII-only JSON carries any file name, also one that is not UTF-8.
    click.echo(json.dumps(result, ensure_ascii=True) if as_json else text)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done, 1 failed, 2 usage, 3 finished but some clips failed (they "
    "are listed), 130 interrupted.",
)
@click.version_option(package_name="framehead", prog_name="framehead")
def cli() -> None:
    """Recognise actions from precomputed features.

    Embed a folder of videos once, train and compare lightweight heads in seconds.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("framehead").setLevel(logging.INFO)


@cli.command("extract-features")
@click.argument("videos", type=_PathType)
@click.option("--out", type=_PathType, required=True, help="The store to write, an HDF5 file.")
@click.option(
    "--labels",
    default="folder",
    show_default=True,
    metavar="folder|FILE.csv",
    help="Take labels from class folders, or from a CSV with the columns path, label, group, "
    "split.",
)
@click.option(
    "--group-regex",
    metavar="REGEX",
    help="What names the group in a clip's path, its first parenthesis. By default inferred from "
    "the file names of UCF101, KTH, HMDB51, NTU and Kinetics.",
)
@click.option("--frames", type=int, help="Evenly spaced frames per clip.  [default: 20]")
@click.option("--fps", type=float, help="Instead: frames per second of video.")
@click.option("--stride", type=int, help="Instead: every n-th frame.")
@click.option("--all-frames", is_flag=True, help="Instead: every frame.")
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|PATH",
    help="Official weights, or a Keras HDF5 file without top.",
)
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Width of MobileNetV2.")
@click.option("--image-size", type=int, default=224, show_default=True, help="Input side, pixels.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type in which embeddings are stored.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "litert", "keras"]),
    default="auto",
    show_default=True,
    help="What executes the backbone: auto is Keras on a GPU, else LiteRT.",
)
@click.option("--workers", type=int, help="Decode processes.  [default: one per core]")
@click.option(
    "--clip-timeout",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds without progress after which a clip is given up.",
)
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed before.")
@click.option("--overwrite", is_flag=True, help="Delete the store first.")
@_common_options
@click.pass_context
def extract_features_command(
    ctx: click.Context,
    videos: Path,
    out: Path,
    labels: str,
    group_regex: str | None,
    frames: int | None,
    fps: float | None,
    stride: int | None,
    all_frames: bool,
    weights: str,
    alpha: float,
    image_size: int,
    dtype: Any,
    engine: Any,
    workers: int | None,
    clip_timeout: float,
    retry_failed: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Embed every clip of the folder VIDEOS, once.

    Running it again decodes only what is new or changed. A clip that cannot be read
    never stops the run: it is listed at the end, and the exit code is 3.
    """
    from features.extract import extract_features
    from features.sampling import choose_sampling
    from pipeline.render import extract_to_json, extract_to_text

    sampling = choose_sampling(n_frames=frames, fps=fps, stride=stride, all_frames=all_frames)
    with _ProgressBar(quiet=quiet) as bar:
        summary = extract_features(
            videos,
            out,
            labels=None if labels == "folder" else labels,
            group_regex=group_regex,
            sampling=sampling,
            weights=weights,
            alpha=alpha,
            size_px=image_size,
            dtype=dtype,
            engine=engine,
            n_workers=workers,
            stall_seconds=clip_timeout,
            retry_failed=retry_failed,
            overwrite=overwrite,
            on_progress=bar.update,
        )
    _print_result(extract_to_json(summary), extract_to_text(summary), as_json=as_json)
    if summary.failures:
        ctx.exit(EXIT_SOME_CLIPS_FAILED)


@cli.command("inspect")
@click.argument("store", type=_PathType)
@click.option("--verify", is_flag=True, help="Compare every embedding with its checksum.")
@_common_options
@click.pass_context
def inspect_command(
    ctx: click.Context, store: Path, verify: bool, as_json: bool, quiet: bool
) -> None:
    """Show what is in STORE, how it was made, and which clips failed and why."""
    from features.inspect import inspect_store
    from pipeline.render import inspect_to_json, inspect_to_text

    summary = inspect_store(store, verify=verify)
    _print_result(inspect_to_json(summary), inspect_to_text(summary), as_json=as_json)
    if summary.damaged:
        ctx.exit(EXIT_FAILED)


class _ProgressBar:
    """Clips, frames per second and time left on standard error, if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._is_disabled = True if quiet else None
        self._bar: Any = None

    def __enter__(self) -> _ProgressBar:
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


def main() -> None:
    """Run the command line."""
    cli(prog_name="framehead")


if __name__ == "__main__":
    main()
