"""The command line: options, progress and exit codes; each command calls one function.

Standard output is the result, for people or with ``--json`` exactly one JSON object.
Standard error is everything else. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from features.errors import EXIT_FAILED, EXIT_SOME_CLIPS_FAILED
from pipeline.console import EpochLine, ErrorGroup, ProgressBar, TrialBar, print_result
from pipeline.options import (
    ACTION_NAMES,
    HEAD_NAMES,
    PATH,
    common_options,
    embed_options,
    fit_options,
    gib_to_bytes,
    report_options,
    split_options,
)


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


@cli.command("extract-features")
@click.argument("videos", type=PATH)
@click.option("--out", type=PATH, required=True, help="The store to write, an HDF5 file.")
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
    metavar="imagenet|builtin|PATH",
    help="Official weights; those that come with framehead, trained on drawings, which need no "
    "network; or a Keras HDF5 file without top.",
)
@click.option(
    "--alpha", type=float, help="Width of MobileNetV2.  [default: 1.0; with builtin 0.35]"
)
@click.option("--image-size", type=int, help="Input side, pixels.  [default: 224; with builtin 96]")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type in which embeddings are stored.",
)
@embed_options
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
    alpha: float | None,
    image_size: int | None,
    dtype: Any,
    engine: Any,
    workers: int | None,
    clip_timeout: float,
    clip_memory: float,
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
            memory_bytes=gib_to_bytes(clip_memory),
            retry_failed=retry_failed,
            overwrite=overwrite,
            on_progress=bar.update,
        )
    print_result(extract_to_json(summary), extract_to_text(summary), as_json=as_json)
    if summary.failures:
        ctx.exit(EXIT_SOME_CLIPS_FAILED)


@cli.command("make-sample")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--actors", type=int, default=12, show_default=True, help="People; each is a group.")
@click.option(
    "--takes", type=int, default=2, show_default=True, help="Clips of each person and action."
)
@click.option(
    "--actions",
    metavar="NAME,NAME...",
    help=f"Any of: {ACTION_NAMES}.  [default: all]",
)
@click.option("--size", type=int, default=120, show_default=True, help="Height of the pictures.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another one, other people.")
@common_options
def make_sample_command(
    folder: Path,
    actors: int,
    takes: int,
    actions: str | None,
    size: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw a folder of action clips, to try everything on without data of your own.

    The figures are drawn, not filmed: what a head learns on them says nothing about real
    video. Two pairs of actions differ only in the order of their frames: sit-down and
    stand-up, pick-up and put-down.
    """
    from features.drawing.actions import ACTIONS
    from features.drawing.sample import make_sample
    from features.extract import Progress
    from pipeline.rendersample import sample_to_json, sample_to_text

    names = [name.strip() for name in (actions or ",".join(ACTIONS)).split(",") if name.strip()]
    with ProgressBar(quiet=quiet) as bar:
        summary = make_sample(
            folder,
            n_actors=actors,
            n_takes=takes,
            actions=tuple(names),
            size_px=size,
            seed=seed,
            on_progress=lambda p: bar.update(Progress(p.n_clips, p.n_done, 0, None)),
        )
    print_result(sample_to_json(summary), sample_to_text(summary), as_json=as_json)


@cli.command("inspect")
@click.argument("store", type=PATH)
@click.option("--verify", is_flag=True, help="Compare every embedding with its checksum.")
@click.option(
    "--repair",
    is_flag=True,
    help="Save what is whole of a damaged store; the damaged file is kept beside it.",
)
@common_options
@click.pass_context
def inspect_command(
    ctx: click.Context, store: Path, verify: bool, repair: bool, as_json: bool, quiet: bool
) -> None:
    """Show what is in STORE, how it was made, and which clips failed and why."""
    from features.inspect import inspect_store
    from features.repair import repair_store
    from pipeline.render import inspect_to_json, inspect_to_text, repair_to_text

    if repair:
        click.echo(repair_to_text(repair_store(store)), err=True)
    summary = inspect_store(store, verify=verify)
    print_result(inspect_to_json(summary), inspect_to_text(summary), as_json=as_json)
    if summary.damaged:
        ctx.exit(EXIT_FAILED)


@cli.command("train-head")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="The run to write, a folder.")
@click.option("--head", default="lstm", show_default=True, help=f"One of: {HEAD_NAMES}.")
@split_options
@click.option(
    "--test-fraction",
    type=float,
    help="Share of the clips held out for testing, in whole groups; only where no split is "
    "given.  [default: 0.2]",
)
@click.option(
    "--val-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the training clips that early stopping watches, in whole groups.",
)
@fit_options
@click.option("--threads", type=int, help="Processor threads at most.  [default: all]")
@report_options
@click.option(
    "--tensorboard", is_flag=True, help="Write TensorBoard logs into the run, in tensorboard/."
)
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


@cli.command("compare-heads")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="The comparison to write, a folder.")
@click.option(
    "--heads",
    default="mean-linear,lstm,gru",
    show_default=True,
    metavar="NAME,NAME...",
    help=f"Any of: {HEAD_NAMES}.",
)
@click.option("--seeds", type=int, default=3, show_default=True, help="Seeds per head and split.")
@click.option(
    "--folds",
    type=int,
    help="Folds of whole groups; not with --split or --test-lists.  [default: the store's own "
    "split if it names a test part, else 5]",
)
@split_options
@click.option(
    "--val-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the training clips that early stopping watches, in whole groups.",
)
@fit_options
@click.option("--jobs", type=int, help="Processes.  [default: one per core, at most 8]")
@report_options
@click.option("--overwrite", is_flag=True, help="Replace a comparison that stands there.")
@common_options
def compare_heads_command(
    store: Path, out: Path, heads: str, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Train several heads on the same splits of STORE, and rank them.

    Every accuracy comes with its 95 % interval over groups, every head with a paired test
    against the best one. A comparison that was killed goes on when it is started again.
    """
    from pipeline.compare import compare_heads
    from pipeline.render import compare_to_json, compare_to_text

    names = [name.strip() for name in heads.split(",") if name.strip()]
    with TrialBar(quiet=quiet) as bar:
        comparison = compare_heads(store, out, heads=names, on_trial=bar.update, **options)
    print_result(compare_to_json(comparison), compare_to_text(comparison), as_json=as_json)


@cli.command("export-embeddings")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="File, or folder for the projector.")
@click.option(
    "--format",
    type=click.Choice(["npz", "csv", "parquet", "projector"]),
    help="[default: what the suffix of --out says]",
)
@click.option(
    "--level",
    type=click.Choice(["frame", "clip"]),
    help="One row per frame, or per clip: the mean over its frames.  [default: frame; with "
    "--head clip]",
)
@click.option(
    "--head",
    "run",
    type=PATH,
    metavar="RUN",
    help="A trained head: export what its last layer classifies, one vector per clip.",
)
@click.option("--overwrite", is_flag=True, help="Replace what stands there.")
@common_options
def export_embeddings_command(
    store: Path, out: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Write the embeddings in STORE in a format that other programs read."""
    from pipeline.export import export_embeddings
    from pipeline.render import export_to_json, export_to_text

    summary = export_embeddings(store, out, **options)
    print_result(export_to_json(summary), export_to_text(summary), as_json=as_json)


@cli.command("predict")
@click.argument("run", type=PATH)
@click.argument("videos", type=PATH, nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--weights",
    type=PATH,
    help="Where the backbone's weights lie now.  [default: where they lay]",
)
@embed_options
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
    clip_memory: float,
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
            memory_bytes=gib_to_bytes(clip_memory),
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
