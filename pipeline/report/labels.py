"""The HTML pages of runs and comparisons whose clips may have several classes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.store.store import Store
from features.system.files import read_json
from pipeline.report.figures import save_figure
from pipeline.report.pages import add_pictures, describe_page, write_page
from pipeline.report.plots import draw_cooccurrences, draw_curves, draw_precisions
from pipeline.runs.run import RUN_FILE, read_predictions, read_run
from pipeline.training.options import EpochReport

# Larger matrices are hard to read.
_MOST_PAIRED_CLASSES = 40
_MOST_PICTURES = 12
_PREFIX = "true:"


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
    clips = _read_clips(read_predictions(read_run(folder)), run["thresholds"])
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


def _find_worst(clips: Iterable[NamedClip]) -> list[NamedClip]:
    wrong = [clip for clip in clips if clip.n_wrong]
    return sorted(wrong, key=lambda clip: (-clip.n_wrong, clip.clip_id))[:_MOST_PICTURES]


def _read_clips(rows: Iterable[dict[str, str]], thresholds: Sequence[float]) -> list[NamedClip]:
    return [_read_clip(row, thresholds) for row in rows]


def _read_clip(row: dict[str, Any], thresholds: Sequence[float]) -> NamedClip:
    names = [name.removeprefix(_PREFIX) for name in row if name.startswith(_PREFIX)]
    true = {name for name in names if row[f"{_PREFIX}{name}"] == "1"}
    named = {
        name
        for name, threshold in zip(names, thresholds, strict=True)
        if float(row[f"probability:{name}"]) >= threshold
    }
    right, wrong, missed = (
        tuple(name for name in names if name in found)
        for found in (true & named, named - true, true - named)
    )
    return NamedClip(row["clip_id"], ", ".join(n for n in names if n in true), right, wrong, missed)
