"""The HTML page of a run, and the pictures beside it: everything from the run's own files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import VideosNotFound
from features.records import IntArray, StoreHeader
from features.store.store import Store
from features.video.pictures import Picture
from pipeline.report.confused import Answer, ConfusedClip, find_confused, picture_confused
from pipeline.report.pages import as_markup, picture_to_uri, write_page
from pipeline.report.plots import Caption, draw_confusions, draw_curves, draw_reliability
from pipeline.runs.outputs import read_json
from pipeline.runs.run import RUN_FILE, read_predictions, read_run
from pipeline.scores.metrics import ReliabilityBin
from pipeline.splits.leaks import NearDuplicate, describe_near_duplicates
from pipeline.training.options import EpochReport

PAGE_FILE = "report.html"
GROUPS_UNKNOWN = (
    "Groups unknown: every clip counts as its own group. If several clips come from one source "
    "video, this accuracy is too high; say what belongs together with --group-regex or a CSV"
)
# A page with more rows would be slow to open, and nobody would read it.
_MOST_ROWS = 500
_MOST_PAIRS = 10


def write_run_report(folder: Path, store: Store, *, videos: str | Path | None = None) -> None:
    """Write ``report.html`` of a run, and its pictures as PNG files.

    Every number on the page is taken from the run's JSON and CSV files.

    Parameters
    ----------
    folder : Path
        The run's folder, with all other files.
    store : Store
        What the head was trained on.
    videos : str or Path, optional
        Where the video folder lies now; by default where the store says it lay. Clips whose
        file is not there, or has changed, are shown without a picture.
    """
    run = read_json(folder / RUN_FILE)
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
    worst = find_confused(answers)
    accuracy = scores["accuracy"]
    caption = Caption(
        f"{run['head']}: accuracy {100 * accuracy['mean']:.1f} % "
        f"[{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}], "
        f"{accuracy['n']} test clips",
        run["leaks"],
    )
    epochs = [EpochReport(**epoch) for epoch in history["epochs"]]
    curves = draw_curves(folder / "curves.png", epochs, history["best_epoch"], caption)
    confusions = np.array(scores["confusions"], dtype=np.int64)
    confusion = draw_confusions(folder / "confusion.png", confusions, run["classes"], caption)
    panels = {run["head"]: (bins_from_json(scores), scores["calibration_error"])}
    reliability = draw_reliability(folder / "reliability.png", panels, caption)
    shown = sorted(answers, key=lambda answer: answer.is_right) if _is_long(answers) else answers
    content = {
        "run": run,
        "summary": run["summary"],
        "scores": scores,
        "accuracy": accuracy,
        "curves": as_markup(curves),
        "confusion": as_markup(confusion),
        "pairs": _worst_pairs(confusions, run["classes"]),
        "reliability": as_markup(reliability),
        "worst": confused_to_page(worst, picture_confused(worst, store, videos)),
        "n_wrong": sum(not answer.is_right for answer in answers),
        "clips": shown[:_MOST_ROWS],
        "n_left_out": max(0, len(answers) - _MOST_ROWS),
        "command": f"framehead predict {shlex.quote(run['summary']['path'])} VIDEO...",
        **describe_page(run, run["store"]["header"]),
    }
    write_page(folder / PAGE_FILE, "run.html", content)


def require_videos(videos: str | Path | None) -> None:
    """Check that the video folder that was named is one, before anything is trained.

    Parameters
    ----------
    videos : str or Path, optional

    Raises
    ------
    VideosNotFound
        If it is no folder.
    """
    if videos is not None and not Path(videos).is_dir():
        raise VideosNotFound(
            f"--videos must be the folder that the store was made from. '{videos}' is no folder.",
            hint="give the folder named in extract-features, or leave --videos out",
        )


def describe_page(content: Mapping[str, Any], header: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what the pages of runs and of comparisons both show.

    Parameters
    ----------
    content : mapping
        What ``run.json`` or ``comparison.json`` holds.
    header : mapping
        The store's, as these files hold it.

    Returns
    -------
    dict
    """
    made = StoreHeader.from_json(json.dumps(header))
    backbone = made.backbone
    summary = content.get("summary", content)
    near_duplicates = describe_near_duplicates(
        [NearDuplicate(**pair) for pair in summary["near_duplicates"]],
        summary["n_near_duplicates"],
        summary.get("n_test", summary.get("n_clips")),
    )
    return {
        "leaks": content["leaks"],
        "near_duplicates": near_duplicates,
        "groups_known": content["groups_known"],
        "groups_unknown": GROUPS_UNKNOWN.partition(": ")[2],
        "versions": content["versions"],
        "created": content["created"],
        "platform": content["platform"],
        "backbone": f"{backbone.name} alpha {backbone.alpha:g}, {backbone.size_px} px",
        "sampling": str(made.sampling),
    }


def confused_to_page(
    clips: Sequence[ConfusedClip], pictures: Mapping[str, Picture]
) -> list[dict[str, Any]]:
    """Lay out confused clips with their pictures.

    Parameters
    ----------
    clips : sequence of ConfusedClip
    pictures : mapping of str to Picture
        By clip id.

    Returns
    -------
    list of dict
    """
    return [
        {
            **{name: getattr(clip, name) for name in ConfusedClip.__slots__},
            "image": picture_to_uri(pictures.get(clip.clip_id)),
            "problem": pictures[clip.clip_id].problem if clip.clip_id in pictures else "",
        }
        for clip in clips
    ]


def bins_from_json(scores: Mapping[str, Any]) -> list[ReliabilityBin]:
    """Rebuild reliability bins from a report or a head's result."""
    return [ReliabilityBin(**item) for item in scores["reliability"]]


def _worst_pairs(confusions: IntArray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Find which classes are most often taken for which; the matrix of many is hard to read."""
    wrong = confusions - np.diag(np.diag(confusions))
    cells = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    rows, columns = np.unravel_index(cells, wrong.shape)
    return [
        {
            "label": classes[row],
            "predicted": classes[column],
            "n": int(wrong[row, column]),
            "support": int(confusions[row].sum()),
        }
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]


def _is_long(answers: Sequence[Answer]) -> bool:
    return len(answers) > _MOST_ROWS
