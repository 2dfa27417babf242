"""From finished trials to a ranking of heads, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, IntArray
from pipeline.compare.trials import Trial, TrialResult
from pipeline.scores.intervals import Score, bootstrap_interval
from pipeline.scores.labels import LabelScores
from pipeline.scores.metrics import (
    ReliabilityBin,
    balanced_accuracy,
    calibration_error,
    macro_f1,
    most_frequent,
    reliability_bins,
)
from pipeline.scores.paired import HeadPair, compare_pairs, summarise_pairs
from pipeline.splits.split import Split

# The simplest head: whatever is not better is not worth its time.
BASELINE = "mean-linear"


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What a comparison found out about one head.

    Attributes
    ----------
    name : str
    accuracy : Score
        Over the tested clips, averaged over seeds; interval by bootstrap over groups.
    balanced_accuracy, macro_f1, calibration_error : float
        Of all test parts together, averaged over seeds.
    reliability : tuple of ReliabilityBin
        Of all test parts and seeds together.
    above_majority : bool
        Whether the whole interval lies above the accuracy of always naming the most
        frequent class.
    top5 : float or None
        None for five classes or fewer.
    backwards, shuffled : float
        Accuracies on the same clips in another order of frames, see `pipeline.scores.frameorder`.
    n_parameters : int
    train_seconds, latency_ms : float
        Medians over trials, several of which ran side by side.
    n_trials : int
    labels : LabelScores or None
        Scores where clips may have several classes, averaged over seeds; None where every clip
        has one. Heads are ranked by their mean average precision then, `accuracy` is the share of
        clips of which every class is right, and the other scores count answers about one class.
    """

    name: str
    accuracy: Score
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    above_majority: bool
    top5: float | None
    backwards: float
    shuffled: float
    n_parameters: int
    train_seconds: float
    latency_ms: float
    n_trials: int
    labels: LabelScores | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """How heads compare, best first, with every pair tested and all this in sentences.

    The majority classes are the most frequent ones of the training parts, each once; their
    accuracy is that of always naming them.
    """

    heads: tuple[HeadResult, ...]
    pairs: tuple[HeadPair, ...]
    majority_classes: tuple[str, ...]
    majority_accuracy: float
    verdicts: tuple[str, ...]


def rank_heads(
    results: Mapping[Trial, TrialResult],
    splits: Sequence[Split],
    class_indices: Mapping[str, int],
    groups: Mapping[str, str],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> Ranking:
    """Summarise trials by head and test every pair of heads.

    Best first; of equal heads the smaller one. Every head has the same seeds and splits, and
    test parts do not overlap.
    """
    ids = [clip_id for split in splits for clip_id in split.test]
    truth = np.array([class_indices[clip_id] for clip_id in ids], dtype=np.int64)
    clip_groups = [groups[clip_id] for clip_id in ids]
    constants = [most_frequent([class_indices[i] for i in split.train]) for split in splits]
    guesses = np.repeat(constants, [len(split.test) for split in splits])
    majority_accuracy = float((guesses == truth).mean())
    majority_classes = tuple(dict.fromkeys(classes[index] for index in constants))
    correct: dict[str, FloatArray] = {}
    summaries = []
    for name in dict.fromkeys(trial.head for trial in results):
        mine = {trial: result for trial, result in results.items() if trial.head == name}
        pooled = _pool(mine, len(splits))
        hits = pooled["predicted"] == truth
        correct[name] = hits.mean(axis=0)
        accuracy = bootstrap_interval(correct[name], clip_groups, seed=seed)
        summaries.append(
            _summarise(
                name, list(mine.values()), pooled, truth, classes, accuracy, majority_accuracy
            )
        )
    summaries.sort(key=lambda head: (-head.accuracy.mean, head.n_parameters))
    names = [head.name for head in summaries]
    pairs = compare_pairs(names, correct, clip_groups, seed=seed)
    verdicts = [
        *summarise_pairs(names, pairs, BASELINE),
        *_judge_against_guess(summaries, majority_classes),
    ]
    return Ranking(tuple(summaries), pairs, majority_classes, majority_accuracy, tuple(verdicts))


def _summarise(
    name: str,
    results: Sequence[TrialResult],
    pooled: Mapping[str, npt.NDArray[Any]],
    truth: IntArray,
    classes: Sequence[str],
    accuracy: Score,
    majority_accuracy: float,
) -> HeadResult:
    rows = pooled["predicted"]
    hits = rows == truth
    bins = [reliability_bins(c, h) for c, h in zip(pooled["confidence"], hits, strict=True)]
    return HeadResult(
        name=name,
        accuracy=accuracy,
        balanced_accuracy=float(np.mean([balanced_accuracy(truth, row) for row in rows])),
        macro_f1=float(np.mean([macro_f1(truth, row) for row in rows])),
        calibration_error=float(np.mean([calibration_error(item) for item in bins])),
        reliability=reliability_bins(pooled["confidence"].ravel(), hits.ravel()),
        above_majority=accuracy.low > majority_accuracy,
        top5=float(pooled["in_top5"].mean()) if len(classes) > 5 else None,
        backwards=_average(results, "backwards"),
        shuffled=_average(results, "shuffled"),
        n_parameters=results[0].n_parameters,
        train_seconds=float(np.median([result.train_seconds for result in results])),
        latency_ms=float(np.median([result.latency_ms for result in results])),
        n_trials=len(results),
    )


def _average(results: Sequence[TrialResult], name: str) -> float:
    values = [getattr(result, name) for result in results]
    return float(np.average(values, weights=[len(result.predicted) for result in results]))


def _judge_against_guess(
    heads: Sequence[HeadResult], majority_classes: Sequence[str]
) -> tuple[str, ...]:
    below = [head.name for head in heads if not head.above_majority]
    if not below:
        return ()
    guess = " or ".join(f"'{label}'" for label in majority_classes)
    if len(below) == len(heads) > 1:
        return (f"No head is better than always naming {guess}.",)
    verb = "is" if len(below) == 1 else "are"
    return (f"{', '.join(below)} {verb} not better than always naming {guess}.",)


def _pool(results: Mapping[Trial, TrialResult], n_splits: int) -> dict[str, npt.NDArray[Any]]:
    """Line up one head's test parts of all splits: arrays of shape (n_seeds, n_tested_clips)."""
    found = {(trial.seed, trial.fold): result for trial, result in results.items()}
    seeds = sorted({seed for seed, _ in found})
    return {
        name: np.array(
            [
                [value for fold in range(n_splits) for value in getattr(found[seed, fold], name)]
                for seed in seeds
            ]
        )
        for name in ("predicted", "confidence", "in_top5")
    }
