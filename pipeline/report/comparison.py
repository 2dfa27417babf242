"""The HTML page of a comparison, and the pictures beside it: all from the comparison's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.store.store import Store
from pipeline.report.confused import Answer, find_confused, picture_confused
from pipeline.report.pages import as_markup, write_page
from pipeline.report.plots import (
    Caption,
    draw_comparison,
    draw_confusions,
    draw_latency,
    draw_reliability,
)
from pipeline.report.run import PAGE_FILE, bins_from_json, confused_to_page, describe_page
from pipeline.runs.outputs import read_csv, read_json
from pipeline.scores.intervals import Score
from pipeline.scores.metrics import count_confusions

# Matrices of many classes are large; beyond this the page would be slow to open.
_MANY_CLASSES = 25
_MOST_LARGE_MATRICES = 4


def write_comparison_report(
    folder: Path, store: Store, *, videos: str | Path | None = None
) -> None:
    """Write ``report.html`` of a comparison, and its pictures as PNG files.

    Every number on the page is taken from the comparison's JSON and CSV files.

    Parameters
    ----------
    folder : Path
        The comparison's folder, with ``comparison.json`` and ``predictions.csv``.
    store : Store
        What the heads were trained on.
    videos : str or Path, optional
        As in `pipeline.report.run.write_run_report`.
    """
    comparison = read_json(folder / "comparison.json")
    heads, classes = comparison["heads"], comparison["classes"]
    answers: dict[str, list[Answer]] = {head["name"]: [] for head in heads}
    for row in read_csv(folder / "predictions.csv"):
        answer = Answer(row["clip_id"], row["label"], row["predicted"], float(row["confidence"]))
        answers[row["head"]].append(answer)
    every_answer = [answer for given in answers.values() for answer in given]
    worst = find_confused(every_answer)
    caption = Caption(
        f"{comparison['n_clips']} clips of {comparison['n_groups']} groups, "
        f"{comparison['n_splits']} splits x {comparison['n_seeds']} seeds",
        comparison["leaks"],
    )
    scores = [(head["name"], Score(**head["accuracy"])) for head in heads]
    draw_comparison(folder / "comparison.png", scores, caption)
    points = [
        (name, score, head["latency_ms"]) for (name, score), head in zip(scores, heads, strict=True)
    ]
    latency = draw_latency(folder / "latency.png", points, caption)
    panels = {head["name"]: (bins_from_json(head), head["calibration_error"]) for head in heads}
    reliability = draw_reliability(folder / "reliability.png", panels, caption)
    most = len(heads) if len(classes) <= _MANY_CLASSES else _MOST_LARGE_MATRICES
    confusions = [
        (head["name"], as_markup(_draw_pooled(folder, head["name"], answers, classes, caption)))
        for head in heads[:most]
    ]
    content = {
        "comparison": comparison,
        "heads": heads,
        "classes": classes,
        "splits": comparison["splits"],
        "settings_of": comparison["settings"],
        "store_path": comparison["store"],
        "latency": as_markup(latency),
        "reliability": as_markup(reliability),
        "confusions": confusions,
        "n_matrices_left_out": len(heads) - len(confusions),
        "worst": confused_to_page(worst, picture_confused(worst, store, videos)),
        "n_ever_wrong": len({answer.clip_id for answer in every_answer if not answer.is_right}),
        **describe_page(comparison, comparison["header"]),
    }
    write_page(folder / PAGE_FILE, "comparison.html", content)


def _draw_pooled(
    folder: Path,
    name: str,
    answers: dict[str, list[Answer]],
    classes: Sequence[str],
    caption: Caption,
) -> str:
    index = {label: number for number, label in enumerate(classes)}
    truth, predicted = (
        np.array([index[getattr(answer, which)] for answer in answers[name]], dtype=np.int64)
        for which in ("label", "predicted")
    )
    table: Any = count_confusions(truth, predicted, len(classes))
    titled = Caption(f"{name}: {caption.text}", caption.leaks)
    # A head's name may hold a colon, which no file name may on Windows.
    path = folder / f"confusion-{name.replace(':', '-')}.png"
    return draw_confusions(path, table, classes, titled)
