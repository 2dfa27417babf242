"""The HTML page of a comparison and the plots beside it, made from the comparison's files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from features.records import IntArray
from features.store.store import Store
from features.system.files import read_csv, read_json
from pipeline.report.figures import save_figure
from pipeline.report.labels import write_label_comparison_report
from pipeline.report.pages import Answer, add_pictures, describe_page, find_confused, write_page
from pipeline.report.plots import (
    draw_comparison,
    draw_confusions,
    draw_latency,
    draw_reliability,
)
from pipeline.scores.intervals import Score
from pipeline.scores.metrics import ReliabilityBin, count_confusions

# Matrices of many classes are large; beyond this the page would be slow to open.
_MANY_CLASSES = 25
_MOST_LARGE_MATRICES = 4


def write_comparison_report(
    folder: Path, store: Store, *, videos: str | Path | None = None
) -> None:
    """Write ``report.html`` of a comparison and its plots; `videos` as in `write_run_report`."""
    comparison = read_json(folder / "comparison.json")
    if comparison.get("is_multilabel"):
        write_label_comparison_report(folder, store, videos=videos)
        return
    heads, classes = comparison["heads"], comparison["classes"]
    answers: dict[str, list[Answer]] = defaultdict(list)
    for row in read_csv(folder / "predictions.csv"):
        answer = Answer(row["clip_id"], row["label"], row["predicted"], float(row["confidence"]))
        answers[row["head"]].append(answer)
    every_answer = [answer for head in heads for answer in answers[head["name"]]]
    title = (
        f"{comparison['n_clips']} clips of {comparison['n_groups']} groups, "
        f"{comparison['n_splits']} splits x {comparison['n_seeds']} seeds"
    )
    save = partial(save_figure, leaks=comparison["leaks"])
    scores = {head["name"]: Score(**head["accuracy"]) for head in heads}
    save(draw_comparison(scores), folder / "comparison.png", title=title)
    latency = draw_latency([(h["name"], scores[h["name"]], h["latency_ms"]) for h in heads])
    reliability = draw_reliability(
        {
            head["name"]: (
                [ReliabilityBin(**item) for item in head["reliability"]],
                head["calibration_error"],
            )
            for head in heads
        }
    )
    confusions = []
    for name in list(scores)[: _MOST_LARGE_MATRICES if len(classes) > _MANY_CLASSES else None]:
        matrix = draw_confusions(_pool_confusions(answers[name], classes), classes)
        # A head's name may hold a colon, which no file name may on Windows.
        path = folder / f"confusion-{name.replace(':', '-')}.png"
        confusions.append((name, save(matrix, path, title=f"{name}: {title}")))
    content = {
        "comparison": comparison,
        "heads": heads,
        "classes": classes,
        "splits": comparison["splits"],
        "settings_of": comparison["settings"],
        "store_path": comparison["store"],
        "latency": save(latency, folder / "latency.png", title=title),
        "reliability": save(reliability, folder / "reliability.png", title=title),
        "confusions": confusions,
        "n_matrices_left_out": len(heads) - len(confusions),
        "worst": add_pictures(find_confused(every_answer), store, videos),
        "n_ever_wrong": len({answer.clip_id for answer in every_answer if not answer.is_right}),
        **describe_page(
            comparison,
            header=comparison["header"],
            summary=comparison,
            n_tested=comparison["n_clips"],
        ),
    }
    write_page(folder, "comparison.html", content)


def _pool_confusions(answers: Sequence[Answer], classes: Sequence[str]) -> IntArray:
    index = {label: number for number, label in enumerate(classes)}
    truth, predicted = (
        np.array([index[getattr(answer, which)] for answer in answers], dtype=np.int64)
        for which in ("label", "predicted")
    )
    return count_confusions(truth, predicted, len(classes))
