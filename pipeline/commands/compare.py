"""``compare-heads``: several heads on the same splits, ranked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from features.system.text import format_count, format_table, printable
from pipeline.commands.console import (
    HEAD_HELP,
    PATH,
    NamingOption,
    ProgressBar,
    common_options,
    describe_clips,
    list_names,
    options_from,
    overwrite_option,
    print_result,
    seed_option,
    videos_option,
)
from pipeline.compare.compare import Comparison, compare_heads
from pipeline.heads.registry import HEADS, HeadOptions
from pipeline.splits.choose import SplitOptions
from pipeline.training.options import FitOptions


@click.command("compare-heads")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write the comparison to.")
@click.option(
    "--heads",
    default="mean-linear,logreg,lstm,gru",
    show_default=True,
    metavar="NAME,NAME...",
    cls=NamingOption,
    names=HEADS,
    help="Any of: {names}. " + HEAD_HELP,
)
@click.option(
    "--seeds", type=int, default=3, show_default=True, help="Number of seeds per head and split."
)
@click.option(
    "--folds",
    type=int,
    help="Number of folds, cut in whole groups; not with --split or --test-lists.  [default: the "
    "store's own split if it names a test part, else 5]",
)
@options_from(SplitOptions, "split", without=("test_fraction",))
@seed_option
@options_from(FitOptions, "fit", without=("calibration",))
@options_from(HeadOptions, "head_options")
@click.option("--jobs", type=int, help="Number of processes.  [default: one per core, at most 8]")
@videos_option
@overwrite_option("Replace an existing comparison as soon as the new one is complete.")
@common_options
def command(
    store: Path,
    out: Path,
    heads: str,
    seeds: int,
    folds: int | None,
    head_options: HeadOptions,
    split: SplitOptions,
    fit: FitOptions,
    seed: int,
    jobs: int | None,
    videos: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train several heads on the same splits of STORE, and rank them.

    Every accuracy has a 95 % interval over groups and seeds, and every pair of heads is tested
    for a difference beyond chance; with one seed there is no such test. Beside the heads stands
    what the facts of the files alone give away, such as frame rate and size. A comparison that
    was interrupted continues when it is run again. One that is finished can be given further
    heads or seeds.
    """
    with ProgressBar(quiet=quiet, unit="trial") as bar:
        comparison = compare_heads(
            store,
            out,
            heads=list_names(heads),
            seeds=seeds,
            folds=folds,
            head_options=head_options,
            split=split,
            fit=fit,
            seed=seed,
            jobs=jobs,
            videos=videos,
            overwrite=overwrite,
            on_trial=bar.update_trial,
        )
    print_result(asdict(comparison), to_text(comparison), as_json=as_json)


def to_text(comparison: Comparison) -> str:
    """Tell how heads compare, best first."""
    if comparison.is_multilabel:
        return _labels_to_text(comparison)
    rows = [
        [
            head.name,
            f"{head.accuracy.mean:.1%}",
            f"{head.accuracy.low:.1%} to {head.accuracy.high:.1%}",
            f"{head.balanced_accuracy:.1%}",
            f"{head.macro_f1:.3f}",
            f"{head.calibration_error:.3f} ({head.calibration_floor:.3f})",
            str(head.n_parameters),
            f"{head.train_seconds:.1f}",
            f"{head.latency_ms:.2f}",
        ]
        for head in comparison.heads
    ]
    rows += [
        [
            printable(guess.name),
            f"{guess.accuracy.mean:.1%}",
            f"{guess.accuracy.low:.1%} to {guess.accuracy.high:.1%}",
            *[""] * 6,
        ]
        for guess in comparison.guesses
    ]
    header = [
        "head",
        "accuracy",
        "95 % interval",
        "balanced",
        "macro-F1",
        "ECE (noise)",
        "parameters",
        "train s",
        "ms/clip",
    ]
    lines = [
        *(["LEAKY: groups stand on both sides of the split"] if comparison.leaks else []),
        format_table(header, rows),
        "",
        _describe_size(comparison),
        *(printable(verdict) for verdict in comparison.verdicts),
    ]
    lines += _closing_lines(comparison)
    return "\n".join(lines)


def _labels_to_text(comparison: Comparison) -> str:
    """Tell how heads compare where clips may have several classes."""
    scores = [head.labels for head in comparison.heads if head.labels is not None]
    rows = [
        [
            head.name,
            f"{found.mean_average_precision.mean:.1%}",
            f"{found.mean_average_precision.low:.1%} to {found.mean_average_precision.high:.1%}",
            f"{found.micro_f1:.3f}",
            f"{found.macro_f1:.3f}",
            f"{found.exact_match:.1%}",
            f"{head.calibration_error:.3f}",
            str(head.n_parameters),
            f"{head.train_seconds:.1f}",
            f"{head.latency_ms:.2f}",
        ]
        for head, found in zip(comparison.heads, scores, strict=True)
    ]
    header = ["head", "mAP", "95 % interval", "micro-F1", "macro-F1", "all right", "ECE"]
    lines = [
        *(["LEAKY: groups stand on both sides of the split"] if comparison.leaks else []),
        format_table([*header, "parameters", "train s", "ms/clip"], rows),
        "mAP is the mean average precision; F1 and clips with all classes right are at thresholds "
        "chosen on the validation parts",
        "",
        _describe_size(comparison),
        f"Random probabilities would get {scores[0].chance:.1%}",
        *(printable(verdict) for verdict in comparison.verdicts),
        *_closing_lines(comparison),
    ]
    return "\n".join(lines)


def _describe_size(comparison: Comparison) -> str:
    return (
        f"{comparison.n_clips} clips of {format_count(comparison.n_groups, 'group')}, "
        f"{format_count(comparison.n_splits, 'split')} x "
        f"{format_count(comparison.n_seeds, 'seed')}, "
        f"{format_count(comparison.n_trials, 'trial')} ({comparison.n_reused} from before) in "
        f"{comparison.seconds:.0f} s"
    )


def _closing_lines(comparison: Comparison) -> list[str]:
    """Tell of the order of frames, of clips that are left out or doubtful, and the place."""
    orders = [f"{h.name} {h.backwards:.1%} / {h.shuffled:.1%}" for h in comparison.heads]
    return [
        f"With the frames backwards / shuffled: {', '.join(orders)}",
        *describe_clips(comparison, comparison.n_clips),
        f"Comparison: {printable(comparison.path)}",
    ]
