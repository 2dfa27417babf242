"""``train-head``: one head on a store, tested once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from features.system.text import printable
from pipeline.commands.console import (
    HEAD_HELP,
    PATH,
    EpochLine,
    NamingOption,
    common_options,
    describe_clips,
    list_labels,
    options_from,
    overwrite_option,
    print_result,
    seed_option,
    videos_option,
)
from pipeline.heads.registry import HEADS, HeadOptions
from pipeline.runs.run import RunSummary
from pipeline.scores.labels import LabelScores
from pipeline.splits.choose import SplitOptions
from pipeline.training.options import FitOptions
from pipeline.training.train import train_head


@click.command("train-head")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write the run to.")
@click.option(
    "--head",
    default="logreg",
    show_default=True,
    cls=NamingOption,
    names=HEADS,
    help="One of: {names}. " + HEAD_HELP,
)
@options_from(SplitOptions, "split")
@seed_option
@options_from(FitOptions, "fit")
@options_from(HeadOptions, "head_options")
@click.option("--threads", type=int, help="Maximum number of processor threads.  [default: all]")
@videos_option
@click.option(
    "--tensorboard", is_flag=True, help="Write TensorBoard logs into the run, in tensorboard/."
)
@overwrite_option("Replace an existing run as soon as the new one is complete.")
@common_options
def command(
    store: Path,
    out: Path,
    head: str,
    head_options: HeadOptions,
    split: SplitOptions,
    fit: FitOptions,
    seed: int,
    threads: int | None,
    videos: Path | None,
    tensorboard: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a head on the embeddings in STORE, and test it once.

    The split is the first of these: --split, --test-lists, the split column of the store, or
    whole groups held out at random. Early stopping watches a validation part made of other
    groups than the training part; the test part is looked at once, at the end.
    """
    with EpochLine(quiet=quiet) as line:
        summary = train_head(
            store,
            out,
            head=head,
            head_options=head_options,
            split=split,
            fit=fit,
            seed=seed,
            threads=threads,
            videos=videos,
            tensorboard=tensorboard,
            overwrite=overwrite,
            on_epoch=line.update,
        )
    print_result(asdict(summary), to_text(summary), as_json=as_json)


def to_text(summary: RunSummary) -> str:
    """Tell how a head does on the test part."""
    mark = "LEAKY " if summary.leaks else ""
    lines = [
        *(
            _label_lines(summary, summary.labels, mark)
            if summary.labels
            else _score_lines(summary, mark)
        ),
        _training_line(summary),
        f"with the frames backwards {summary.backwards:.1%}, shuffled {summary.shuffled:.1%}",
    ]
    lines += describe_clips(summary, summary.n_test)
    if summary.leaks:
        lines.append("LEAKY: groups stand on both sides of the split; do not report this accuracy")
    if not summary.is_new:
        lines.append("Trained before with the same settings; nothing was done")
    lines.append(f"Run: {printable(summary.path)}")
    return "\n".join(lines)


def _score_lines(summary: RunSummary, mark: str) -> list[str]:
    return [
        f"{summary.head}: {mark}accuracy {summary.accuracy:.1%} "
        f"(95 % interval of this one trained model {summary.low:.1%} to {summary.high:.1%}) on "
        f"{summary.n_test} test clips",
        f"balanced accuracy {summary.balanced_accuracy:.1%}, macro-F1 {summary.macro_f1:.3f}",
        *_guess_lines(summary),
    ]


def _label_lines(summary: RunSummary, scores: LabelScores, mark: str) -> list[str]:
    """Tell the scores where clips may have several classes."""
    found = scores.mean_average_precision
    lines = [
        f"{summary.head}: {mark}mean average precision {found.mean:.1%} (95 % interval of this "
        f"one trained model {found.low:.1%} to {found.high:.1%}) on {summary.n_test} test clips",
        f"at thresholds chosen on the validation clips: micro-F1 {scores.micro_f1:.3f}, macro-F1 "
        f"{scores.macro_f1:.3f}, all classes of a clip right {scores.exact_match:.1%}",
        f"random probabilities would get {scores.chance:.1%}",
    ]
    if found.low <= scores.chance:
        lines.append(f"{summary.head} is not better than that")
    return lines


def _training_line(summary: RunSummary) -> str:
    first = f"trained on {summary.n_train} clips, "
    if HEADS[summary.head.partition(":")[0]].fit is None:
        first += (
            f"stopped by {summary.n_val} validation clips after {summary.epochs_run} epochs (best "
            f"{summary.best_epoch}), "
        )
    if summary.is_refitted:
        first += f"then again with the {summary.n_val} validation clips, "
    if summary.n_members > 1:
        first += f"the mean of {summary.n_members} seeds, "
    return first + f"{summary.seconds:.1f} s"


def _guess_lines(summary: RunSummary) -> list[str]:
    guess = f"always naming {list_labels([summary.majority_class])}"
    lines = [f"{guess} would get {summary.majority_accuracy:.1%}"]
    if not summary.above_majority:
        lines.append(f"{summary.head} is not better than {guess}")
    if summary.facts_accuracy is not None:
        lines.append(
            "file facts alone (frame rate, size, duration, bytes, repeated frames) get "
            f"{summary.facts_accuracy:.1%}"
        )
        if not summary.above_facts:
            lines.append(
                f"{summary.head} is not better than that: how the classes were recorded may be all "
                "that it has learned"
            )
    return lines
