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
from pipeline.commands.console import EpochLine, ErrorGroup, ProgressBar, TrialBar, print_result
from pipeline.commands.options import (
    compare_options,
    demo_options,
    export_options,
    extract_options,
    predict_options,
    sample_options,
    train_options,
)
from pipeline.commands.sharedoptions import (
    PATH,
    common_options,
    embed_options,
    fit_options,
    gib_to_bytes,
    report_options,
    split_options,
)
from pipeline.doctor.versions import version_option


@click.group(
    cls=ErrorGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done, 1 failed, 2 usage, 3 finished but some clips failed (they "
    "are listed), 130 interrupted.",
)
@version_option
def cli() -> None:
    """Recognise actions from precomputed features.

    Embed a folder of videos once, train and compare lightweight heads in seconds.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("framehead").setLevel(logging.INFO)


@cli.command("extract-features")
@click.argument("videos", type=PATH)
@extract_options
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
    from features.video.sampling import choose_sampling
    from pipeline.commands.render import extract_to_json, extract_to_text

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
@sample_options
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
    from features.extract import Progress
    from pipeline.commands.rendersample import sample_to_json, sample_to_text
    from pipeline.demo.drawing.actions import ACTIONS
    from pipeline.demo.drawing.sample import make_sample

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


@cli.command("demo")
@demo_options
@common_options
def demo_command(
    out: Path, weights: str | None, actors: int, seed: int, as_json: bool, quiet: bool
) -> None:
    """Show everything on clips that are drawn for it: no data, no account, two minutes.

    Draws actors, embeds their clips, trains mean-linear and lstm:centred, groups apart, compares
    them, and predicts actors never seen, with reports and overlay videos. Interrupted, it
    goes on when started again.
    """
    from pipeline.commands.renderdemo import DemoProgress, demo_to_json, demo_to_text
    from pipeline.demo.demo import run_demo

    with DemoProgress(quiet=quiet) as progress:
        summary = run_demo(
            out, weights=weights, n_actors=actors, seed=seed, on_event=progress.update
        )
    print_result(demo_to_json(summary), demo_to_text(summary), as_json=as_json)


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
    from features.store.inspect import inspect_store
    from features.store.repair import repair_store
    from pipeline.commands.render import inspect_to_json, inspect_to_text, repair_to_text

    if repair:
        click.echo(repair_to_text(repair_store(store)), err=True)
    summary = inspect_store(store, verify=verify)
    print_result(inspect_to_json(summary), inspect_to_text(summary), as_json=as_json)
    if summary.damaged:
        ctx.exit(EXIT_FAILED)


@cli.command("train-head")
@click.argument("store", type=PATH)
@train_options
@split_options
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
    from pipeline.commands.renderheads import train_to_json, train_to_text
    from pipeline.training.train import train_head

    with EpochLine(quiet=quiet) as line:
        summary = train_head(store, out, on_epoch=line.update, **options)
    print_result(train_to_json(summary), train_to_text(summary), as_json=as_json)


@cli.command("compare-heads")
@click.argument("store", type=PATH)
@compare_options
@split_options
@fit_options
@click.option("--jobs", type=int, help="Processes.  [default: one per core, at most 8]")
@report_options
@click.option("--overwrite", is_flag=True, help="Replace a comparison that stands there.")
@common_options
def compare_heads_command(
    store: Path, out: Path, heads: str, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Train several heads on the same splits of STORE, and rank them.

    Every accuracy comes with its 95 % interval over groups, every pair of heads with a test
    of whether it differs by more than chance. A comparison that was killed goes on when it
    is started again.
    """
    from pipeline.commands.renderheads import compare_to_json, compare_to_text
    from pipeline.compare.compare import compare_heads

    names = [name.strip() for name in heads.split(",") if name.strip()]
    with TrialBar(quiet=quiet) as bar:
        comparison = compare_heads(store, out, heads=names, on_trial=bar.update, **options)
    print_result(compare_to_json(comparison), compare_to_text(comparison), as_json=as_json)


@cli.command("export-embeddings")
@click.argument("store", type=PATH)
@export_options
@click.option("--overwrite", is_flag=True, help="Replace what stands there.")
@common_options
def export_embeddings_command(
    store: Path, out: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Write the embeddings in STORE in a format that other programs read."""
    from pipeline.commands.renderheads import export_to_json, export_to_text
    from pipeline.export.export import export_embeddings

    summary = export_embeddings(store, out, **options)
    print_result(export_to_json(summary), export_to_text(summary), as_json=as_json)


@cli.command("predict")
@click.argument("run", type=PATH)
@click.argument("videos", type=PATH, nargs=-1, required=True, metavar="VIDEO...")
@predict_options
@embed_options
@common_options
@click.pass_context
def predict_command(
    ctx: click.Context,
    run: Path,
    videos: tuple[Path, ...],
    weights: Path | None,
    overlay: Path | None,
    overwrite: bool,
    engine: Any,
    workers: int | None,
    clip_timeout: float,
    clip_memory: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify video files, or all of a folder, with the head of RUN."""
    from pipeline.commands.renderheads import predict_to_json, predict_to_text
    from pipeline.runs.predict import predict_videos

    with ProgressBar(quiet=quiet) as bar:
        summary = predict_videos(
            run,
            videos,
            weights=weights,
            engine=engine,
            n_workers=workers,
            stall_seconds=clip_timeout,
            memory_bytes=gib_to_bytes(clip_memory),
            overlay=overlay,
            overwrite=overwrite,
            on_progress=bar.update,
        )
    print_result(predict_to_json(summary), predict_to_text(summary), as_json=as_json)
    if summary.failures:
        ctx.exit(EXIT_SOME_CLIPS_FAILED)


@cli.command("doctor")
@common_options
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool, quiet: bool) -> None:
    """Look for the usual faults of this machine, and say what mends each."""
    from pipeline.commands.renderdoctor import doctor_to_json, doctor_to_text
    from pipeline.doctor.doctor import examine_machine

    checks = examine_machine()
    print_result(doctor_to_json(checks), doctor_to_text(checks), as_json=as_json)
    ctx.exit(EXIT_FAILED if any(check.status == "broken" for check in checks) else 0)


@cli.command("weights")
@common_options
def weights_command(as_json: bool, quiet: bool) -> None:
    """Show which weights lie on this machine, and whether they are whole."""
    from pipeline.commands.renderdoctor import weights_to_json, weights_to_text
    from pipeline.doctor.weights import list_weights

    summary, _ = list_weights()
    print_result(weights_to_json(summary), weights_to_text(summary), as_json=as_json)


def main() -> None:
    """Run the command line."""
    cli(prog_name="framehead")


if __name__ == "__main__":
    main()
