"""What a comparison found, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from features.records import StoreHeader
from pipeline.compare.ranking import HeadResult
from pipeline.compare.trials import Trial, TrialPlan, TrialResult
from pipeline.runs.outputs import write_csv, write_json
from pipeline.runs.provenance import describe_environment
from pipeline.scores.paired import HeadPair
from pipeline.splits.files import split_to_json, write_split
from pipeline.splits.leaks import NearDuplicate

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
    pairs : tuple of HeadPair
        Every pair of heads.
    verdicts : tuple of str
        What the tests found, in sentences.
    majority_classes : tuple of str
        What a constant guess would name: the most frequent class of the training part.
        Several if the splits differ in it.
    majority_accuracy : float
        Of this guess, on the same test clips.
    n_clips, n_groups : int
        Tested, and the groups they are in.
    n_splits, n_seeds, n_trials : int
    n_reused : int
        Trials that an earlier attempt had finished.
    n_failed, n_excluded : int
        Clips of the store without embeddings, and in no part of the splits.
    leaks, groups_known : bool
        As in `pipeline.splits.split.Split`.
    seconds : float
    near_duplicates : tuple of NearDuplicate
        Test clips that seem to be the same recording as a clip that their split trains on.
    n_near_duplicates : int
        How many test clips those are.
    """

    path: str
    heads: tuple[HeadResult, ...]
    pairs: tuple[HeadPair, ...]
    verdicts: tuple[str, ...]
    majority_classes: tuple[str, ...]
    majority_accuracy: float
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
    near_duplicates: tuple[NearDuplicate, ...] = ()
    n_near_duplicates: int = 0


def write_results(
    target: Path,
    comparison: Comparison,
    plan: TrialPlan,
    settings: dict[str, Any],
    header: StoreHeader,
) -> None:
    """Write ``comparison.json`` and ``comparison.csv`` into a folder.

    Beside them, ``splits/fold-1.json`` ...: each split as a file for ``train-head --split``.
    """
    ranked = [asdict(head) for head in comparison.heads]
    flat = [{**head, **head["accuracy"]} for head in ranked]
    columns = ["name", "mean", "low", "high", "balanced_accuracy", "macro_f1", "top5"]
    columns += ["calibration_error", "n_parameters", "train_seconds", "latency_ms", "backwards"]
    columns += ["shuffled", "n_trials"]
    write_csv(target / "comparison.csv", columns, [[row[c] for c in columns] for row in flat])
    content = {
        "schema": COMPARISON_SCHEMA,
        **asdict(replace(comparison, heads=())),
        "heads": ranked,
        "classes": plan.classes,
        "store": plan.store_path,
        "header": asdict(header),
        "settings": settings,
        "splits": [split_to_json(split) for split in plan.splits],
        **describe_environment(),
    }
    (target / "splits").mkdir(exist_ok=True)
    for number, split in enumerate(plan.splits, start=1):
        write_split(target / "splits" / f"fold-{number}.json", split)
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
