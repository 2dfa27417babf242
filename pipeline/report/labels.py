"""The HTML pages of runs and comparisons whose clips may have several classes."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from features.store.store import Store
from features.system.files import read_json, stream_csv
from pipeline.report.figures import save_figure
from pipeline.report.pages import add_pictures, describe_page, write_page
from pipeline.report.plots import (
    draw_comparison,
    draw_cooccurrences,
    draw_curves,
    draw_latency,
    draw_precisions,
    draw_reliability,
)
from pipeline.runs.run import RUN_FILE, read_predictions, read_run
from pipeline.scores.intervals import Score
from pipeline.scores.metrics import ReliabilityBin
from pipeline.training.options import EpochReport

# Larger matrices are hard to read.
_MOST_PAIRED_CLASSES = 40
_MOST_PICTURES = 12
# What columns of predictions.csv begin with, before the name of a class.
_TRUE, _NAMED = "true:", "named:"


@dataclass(frozen=True, slots=True)
class NamedClip:
    """A test clip: its classes, and those that a head named, rightly or wrongly, or missed."""

    clip_id: str
    label: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def n_wrong(self) -> int:
        """Count the classes about which the head was wrong."""
        return len(self.wrong) + len(self.missed)


def write_label_run_report(
    folder: Path, store: Store, *, videos: str | Path | None = None, most_rows: int = 500
) -> None:
    """Write ``report.html`` of such a run and its plots; see `write_run_report`."""
    run = read_json(folder / RUN_FILE)
    scores = read_json(folder / "report.json")
    history = read_json(folder / "history.json")
    clips = list(map(_read_clip, read_predictions(read_run(folder))))
    head, summary, score = run["head"], run["summary"], scores["mean_average_precision"]
    title = (
        f"{head}: mean average precision {100 * score['mean']:.1f} % "
        f"[{100 * score['low']:.1f}, {100 * score['high']:.1f}], {score['n']} test clips"
    )
    save = partial(save_figure, title=title, leaks=run["leaks"])
    epochs = [EpochReport(**epoch) for epoch in history["epochs"]]
    curves = draw_curves(epochs, history["best_epoch"], accuracy="classes right at 0.5")
    precisions = draw_precisions(
        {row["label"]: (row["average_precision"], row["support"]) for row in scores["classes"]},
        score["n"],
    )
    pairs = scores["cooccurrences"]
    cooccurrences = []
    if len(run["classes"]) <= _MOST_PAIRED_CLASSES:
        for what, counts in pairs.items():
            figure = draw_cooccurrences(np.array(counts, dtype=np.int64), run["classes"])
            cooccurrences.append((what, save(figure, folder / f"cooccurrences-{what}.png")))
    is_long = len(clips) > most_rows
    shown = sorted(clips, key=lambda clip: -clip.n_wrong) if is_long else clips
    content = {
        "run": run,
        "summary": summary,
        "scores": scores,
        "score": score,
        "curves": save(curves, folder / "curves.png"),
        "precisions": save(precisions, folder / "precisions.png"),
        "cooccurrences": cooccurrences,
        "worst": add_pictures(_find_worst(clips), store, videos),
        "n_wrong": sum(clip.n_wrong > 0 for clip in clips),
        "clips": shown[:most_rows],
        "n_left_out": max(0, len(clips) - most_rows),
        "command": f"framehead predict {shlex.quote(summary['path'])} VIDEO...",
        **describe_page(
            run,
            header=run["store"]["header"],
            summary=summary,
            n_tested=summary["n_test"],
            is_multilabel=True,
        ),
    }
    write_page(folder, "run-labels.html", content)


def write_label_comparison_report(
    folder: Path, store: Store, *, videos: str | Path | None = None
) -> None:
    """Write ``report.html`` of such a comparison and its plots; see `write_comparison_report`."""
    comparison = read_json(folder / "comparison.json")
    heads = comparison["heads"]
    title = (
        f"{comparison['n_clips']} clips of {comparison['n_groups']} groups, "
        f"{comparison['n_splits']} splits x {comparison['n_seeds']} seeds"
    )
    save = partial(save_figure, title=title, leaks=comparison["leaks"])
    measure = "mean average precision"
    scores = {head["name"]: Score(**head["labels"]["mean_average_precision"]) for head in heads}
    save(draw_comparison(scores, measure=measure), folder / "comparison.png")
    latency = draw_latency(
        [(head["name"], scores[head["name"]], head["latency_ms"]) for head in heads],
        measure=measure,
    )
    reliability = draw_reliability(
        {
            head["name"]: (
                [ReliabilityBin(**item) for item in head["reliability"]],
                head["calibration_error"],
            )
            for head in heads
        },
        across="probability (counts of answers on top)",
        up="share that has the class",
    )
    content = {
        "comparison": comparison,
        "heads": heads,
        "classes": comparison["classes"],
        "splits": comparison["splits"],
        "settings_of": comparison["settings"],
        "store_path": comparison["store"],
        "latency": save(latency, folder / "latency.png"),
        "reliability": save(reliability, folder / "reliability.png"),
        "worst": add_pictures(_find_often_wrong(folder), store, videos),
        **describe_page(
            comparison,
            header=comparison["header"],
            summary=comparison,
            n_tested=comparison["n_clips"],
            is_multilabel=True,
        ),
    }
    write_page(folder, "comparison-labels.html", content)


def _find_often_wrong(folder: Path) -> list[NamedClip]:
    """Find the clips of which most classes are wrong in at least half of the trials."""
    answers: dict[str, list[NamedClip]] = defaultdict(list)
    for row in stream_csv(folder / "predictions.csv"):  # some columns for each class
        answers[row["clip_id"]].append(_read_clip(row))
    clips = []
    for clip_id, given in answers.items():
        often = {
            which: Counter(name for clip in given for name in getattr(clip, which))
            for which in ("wrong", "missed")
        }
        wrong, missed = (
            tuple(name for name, n in often[which].items() if 2 * n >= len(given))
            for which in ("wrong", "missed")
        )
        clips.append(NamedClip(clip_id, given[0].label, (), wrong, missed))
    return _find_worst(clips)


def _find_worst(clips: Iterable[NamedClip]) -> list[NamedClip]:
    wrong = [clip for clip in clips if clip.n_wrong]
    return sorted(wrong, key=lambda clip: (-clip.n_wrong, clip.clip_id))[:_MOST_PICTURES]


def _read_clip(row: dict[str, str]) -> NamedClip:
    names = [name.removeprefix(_TRUE) for name in row if name.startswith(_TRUE)]
    true = {name for name in names if row[f"{_TRUE}{name}"] == "1"}
    named = {name for name in names if row[f"{_NAMED}{name}"] == "1"}
    right, wrong, missed = (
        tuple(name for name in names if name in found)
        for found in (true & named, named - true, true - named)
    )
    return NamedClip(row["clip_id"], ", ".join(n for n in names if n in true), right, wrong, missed)
