"""The command line: options, progress and exit codes; each command calls one function.

Standard output is the result, for people or with ``--json`` exactly one JSON object.
Standard error is everything else. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from features.errors import EXIT_FAILED, EXIT_SOME_CLIPS_FAILED
from pipeline.console import EpochLine, ErrorGroup, ProgressBar, common_options, print_result

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PathType = click.Path(path_type=Path)
# Written out, because the registry imports NumPy; a test compares the two.
_HEADS = "mean-linear, mlp, lstm, bilstm, gru, bigru, lstm-attention"


@click.group(
    cls=ErrorGroup,
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


def _embed_options(command: _Command) -> _Command:
    """Add the options that say how clips are decoded and embedded."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(["auto", "litert", "keras"]),
                default="auto",
                show_default=True,
                help="What executes the backbone: auto is Keras on a GPU, else LiteRT.",
            ),
            click.option("--workers", type=int, help="Decode processes.  [default: one per core]"),
            click.option(
                "--clip-timeout",
                type=float,
                default=60.0,
                show_default=True,
                help="Seconds without progress after which a clip is given up.",
            ),
        )
    ):
        command = option(command)
    return command


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
@_embed_options
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed before.")
@click.option("--overwrite", is_flag=True, help="Delete the store first.")
@common_options
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
    with ProgressBar(quiet=quiet) as bar:
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
    print_result(extract_to_json(summary), extract_to_text(summary), as_json=as_json)
    if summary.failures:
        ctx.exit(EXIT_SOME_CLIPS_FAILED)


@cli.command("inspect")
@click.argument("store", type=_PathType)
@click.option("--verify", is_flag=True, help="Compare every embedding with its checksum.")
@common_options
@click.pass_context
def inspect_command(
    ctx: click.Context, store: Path, verify: bool, as_json: bool, quiet: bool
) -> None:
    """Show what is in STORE, how it was made, and which clips failed and why."""
    from features.inspect import inspect_store
    from pipeline.render import inspect_to_json, inspect_to_text

    summary = inspect_store(store, verify=verify)
    print_result(inspect_to_json(summary), inspect_to_text(summary), as_json=as_json)
    if summary.damaged:
        ctx.exit(EXIT_FAILED)


def _split_options(command: _Command) -> _Command:
    """Add the options that say who is trained on and who is tested."""
    for option in reversed(
        (
            click.option(
                "--split",
                type=_PathType,
                help="A split file that an earlier run wrote, split.json in its folder.",
            ),
            click.option(
                "--test-lists",
                type=_PathType,
                metavar="DIR",
                help="Folder of the official UCF101 or HMDB51 lists.",
            ),
            click.option(
                "--fold", type=int, default=1, show_default=True, help="Which official split."
            ),
            click.option(
                "--group-regex",
                metavar="REGEX",
                help="What names the group in a clip's path, its first parenthesis; instead of "
                "the store's groups.",
            ),
            click.option(
                "--allow-leaks",
                is_flag=True,
                help="Accept a split in which a group stands on both sides; every result is "
                "then marked LEAKY.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Of all chance."),
        )
    ):
        command = option(command)
    return command


def _fit_options(command: _Command) -> _Command:
    """Add the options that say how a head is trained."""
    for option in reversed(
        (
            click.option(
                "--epochs", type=int, default=100, show_default=True, help="Epochs at most."
            ),
            click.option(
                "--patience",
                type=int,
                default=12,
                show_default=True,
                help="Epochs without a lower validation loss after which training stops.",
            ),
            click.option(
                "--batch-size", type=int, default=16, show_default=True, help="Clips per step."
            ),
            click.option(
                "--learning-rate", type=float, default=1e-3, show_default=True, help="Of AdamW."
            ),
            click.option("--units", type=int, help="Width of the head.  [default: the head's own]"),
            click.option(
                "--dropout", type=float, help="Share of dropped values.  [default: the head's own]"
            ),
            click.option(
                "--class-weights",
                type=click.Choice(["none", "balanced"]),
                default="none",
                show_default=True,
                help="Weigh every class as if it had equally many clips.",
            ),
        )
    ):
        command = option(command)
    return command


@cli.command("train-head")
@click.argument("store", type=_PathType)
@click.option("--out", type=_PathType, required=True, help="The run to write, a folder.")
@click.option("--head", default="lstm", show_default=True, help=f"One of: {_HEADS}.")
@_split_options
@click.option(
    "--test-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the clips held out for testing, in whole groups.",
)
@click.option(
    "--val-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the training clips that early stopping watches, in whole groups.",
)
@_fit_options
@click.option("--threads", type=int, help="Processor threads at most.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace a run that stands there.")
@common_options
def train_head_command(store: Path, out: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train a head on the embeddings in STORE, and test it once.

    The split is, in this order: --split, --test-lists, the split column of the store, or
    whole groups cut off at random. Early stopping watches a validation part cut from the
    training groups; the test part is looked at once, at the end.
    """
    from pipeline.render import train_to_json, train_to_text
    from pipeline.train import train_head

    with EpochLine(quiet=quiet) as line:
        summary = train_head(store, out, on_epoch=line.update, **options)
    print_result(train_to_json(summary), train_to_text(summary), as_json=as_json)


@cli.command("predict")
@click.argument("run", type=_PathType)
@click.argument("videos", type=_PathType, nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--weights",
    type=_PathType,
    help="Where the backbone's weights lie now.  [default: where they lay]",
)
@_embed_options
@common_options
@click.pass_context
def predict_command(
    ctx: click.Context,
    run: Path,
    videos: tuple[Path, ...],
    weights: Path | None,
    engine: Any,
    workers: int | None,
    clip_timeout: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify video files, or all of a folder, with the head of RUN."""
    from pipeline.predict import predict_videos
    from pipeline.render import predict_to_json, predict_to_text

    with ProgressBar(quiet=quiet) as bar:
        summary = predict_videos(
            run,
            videos,
            weights=weights,
            engine=engine,
            n_workers=workers,
            stall_seconds=clip_timeout,
            on_progress=bar.update,
        )
    print_result(predict_to_json(summary), predict_to_text(summary), as_json=as_json)
    if summary.failures:
        ctx.exit(EXIT_SOME_CLIPS_FAILED)


def main() -> None:
    """Run the command line."""
    cli(prog_name="framehead")


if __name__ == "__main__":
    main()
