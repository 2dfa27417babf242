"""The HTML page of a run and the plots beside it, made from the run's own files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.records import IntArray
from features.store.store import Store
from features.system.files import read_json
from pipeline.report.figures import save_figure
from pipeline.report.labels import write_label_run_report
from pipeline.report.pages import Answer, add_pictures, describe_page, find_confused, write_page
from pipeline.report.plots import draw_confusions, draw_curves, draw_reliability
from pipeline.runs.run import RUN_FILE, read_predictions, read_run
from pipeline.scores.metrics import ReliabilityBin
from pipeline.training.options import EpochReport


def write_run_report(
    folder: Path, store: Store, *, videos: str | Path | None = None, most_rows: int = 500
) -> None:
    """Write ``report.html`` of a run and its plots, with at most `most_rows` test clips listed.

    `videos` says where the video folder is now; by default it is where the store says.
    """
    run = read_json(folder / RUN_FILE)
    if run["summary"].get("labels"):
        write_label_run_report(folder, store, videos=videos, most_rows=most_rows)
        return
    scores = read_json(folder / "report.json")
    history = read_json(folder / "history.json")
    answers = [
        Answer(
            row["clip_id"],
            row["label"],
            row["predicted"],
            float(row[f"probability:{row['predicted']}"]),
        )
        for row in read_predictions(read_run(folder))
    ]
    head, classes, summary, accuracy = (
        run["head"],
        run["classes"],
        run["summary"],
        scores["accuracy"],
    )
    title = (
        f"{head}: accuracy {100 * accuracy['mean']:.1f} % "
        f"[{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}], "
        f"{accuracy['n']} test clips"
    )
    save = partial(save_figure, title=title, leaks=run["leaks"])
    epochs = [EpochReport(**epoch) for epoch in history["epochs"]]
    confusions = np.array(scores["confusions"], dtype=np.int64)
    bins = [ReliabilityBin(**item) for item in scores["reliability"]]
    reliability = draw_reliability({head: (bins, scores["calibration_error"])})
    is_long = len(answers) > most_rows
    shown = sorted(answers, key=lambda answer: answer.is_right) if is_long else answers
    content = {
        "run": run,
        "summary": summary,
        "scores": scores,
        "accuracy": accuracy,
        "curves": save(draw_curves(epochs, history["best_epoch"]), folder / "curves.png"),
        "confusion": save(draw_confusions(confusions, classes), folder / "confusion.png"),
        "pairs": _worst_pairs(confusions, classes),
        "reliability": save(reliability, folder / "reliability.png"),
        "worst": add_pictures(find_confused(answers), store, videos),
        "n_wrong": sum(not answer.is_right for answer in answers),
        "clips": shown[:most_rows],
        "n_left_out": max(0, len(answers) - most_rows),
        "command": f"framehead predict {shlex.quote(summary['path'])} VIDEO...",
        **describe_page(
            run, header=run["store"]["header"], summary=summary, n_tested=summary["n_test"]
        ),
    }
    write_page(folder, "run.html", content)


def _worst_pairs(
    confusions: IntArray, classes: Sequence[str], most: int = 10
) -> list[dict[str, Any]]:
    """Find which classes are most often taken for which; the matrix of many is hard to read."""
    wrong = confusions - np.diag(np.diag(confusions))
    cells = np.argsort(-wrong, axis=None, kind="stable")[:most]
    return [
        {
            "label": classes[row],
            "predicted": classes[column],
            "n": int(wrong[row, column]),
            "support": int(confusions[row].sum()),
        }
        for row, column in zip(*np.unravel_index(cells, wrong.shape), strict=True)
        if wrong[row, column]
    ]
