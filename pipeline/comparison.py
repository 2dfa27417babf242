"""What a comparison found, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.outputs import write_csv, write_json
from pipeline.plots import draw_comparison
from pipeline.provenance import describe_environment
from pipeline.ranking import HeadResult
from pipeline.splitfiles import split_to_json
from pipeline.trials import Trial, TrialPlan, TrialResult

COMPARISON_SCHEMA = 1
RESULT_FILE = "comparison.json"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out of a comparison.

    Attributes
    ----------
    path : str
    heads : tuple of HeadResult
        Best first.
    n_clips, n_groups : int
        Tested, and the groups they are in.
    n_splits, n_seeds, n_trials : int
    n_reused : int
        Trials that an earlier attempt had finished.
    n_failed, n_excluded : int
        Clips of the store without embeddings, and in no part of the splits.
    leaks, groups_known : bool
        As in `pipeline.splits.Split`.
    seconds : float
    """

    path: str
    heads: tuple[HeadResult, ...]
    n_clips: int
    n_groups: int
    n_splits: int
    n_seeds: int
    n_trials: int
    n_reused: int
    n_failed: int
    n_excluded: int
    leaks: bool
    groups_known: bool
    seconds: float


def write_results(
    target: Path, comparison: Comparison, plan: TrialPlan, settings: dict[str, Any]
) -> None:
    """Write ``comparison.json``, ``comparison.csv`` and ``comparison.png`` into a folder."""
    ranked = [asdict(head) for head in comparison.heads]
    flat = [{**head, **head["accuracy"]} for head in ranked]
    columns = ["name", "mean", "low", "high", "balanced_accuracy", "macro_f1", "top5"]
    columns += ["calibration_error", "n_parameters", "train_seconds", "latency_ms", "n_trials"]
    write_csv(target / "comparison.csv", columns, [[row[c] for c in columns] for row in flat])
    subtitle = (
        f"{comparison.n_clips} clips of {comparison.n_groups} groups, "
        f"{comparison.n_splits} splits x {comparison.n_seeds} seeds"
    )
    scores = [(head.name, head.accuracy) for head in comparison.heads]
    draw_comparison(target / "comparison.png", scores, subtitle=subtitle, leaks=comparison.leaks)
    content = {
        "schema": COMPARISON_SCHEMA,
        **asdict(replace(comparison, heads=())),
        "heads": ranked,
        "classes": plan.classes,
        "store": plan.store_path,
        "settings": settings,
        "splits": [split_to_json(split) for split in plan.splits],
        **describe_environment(),
    }
    write_json(target / RESULT_FILE, content)


def write_predictions(
    target: Path,
    results: Mapping[Trial, TrialResult],
    plan: TrialPlan,
    groups: Mapping[str, str],
    labels: Mapping[str, str],
) -> None:
    """Write ``predictions.csv``: what every trial said of every clip it tested."""
    header = ["head", "seed", "fold", "clip_id", "group", "label", "predicted", "confidence"]
    rows = (
        [
            trial.head,
            trial.seed,
            trial.fold + 1,
            clip_id,
            groups[clip_id],
            labels[clip_id],
            plan.classes[predicted],
            confidence,
        ]
        for trial, result in results.items()
        for clip_id, predicted, confidence in zip(
            plan.splits[trial.fold].test, result.predicted, result.confidence, strict=True
        )
    )
    write_csv(target / "predictions.csv", header, rows)
