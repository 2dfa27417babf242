"""Scores of a head on its test part: overall, by class, among the first k, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import IntArray
from pipeline.scores.intervals import accuracy_interval
from pipeline.scores.joint import Contender
from pipeline.scores.paired import compare_with_guesses
from pipeline.scores.shortcuts import FILE_FACTS

# People ask for the first few guesses only.
_MOST_GUESSES = 5
# Calibrated heads that are drawn.
_CALIBRATED = 200
_CALIBRATED_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class was told apart: scores are 0 where undefined, `support` counts its clips."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions whose confidence is above `low`, or 0, and at most `high`."""

    low: float
    high: float
    n: int
    # Means of these predictions; None if there are none.
    confidence: float | None
    accuracy: float | None


def count_confusions(truth: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Count the clips of each class (row) by what they were taken for (column)."""
    from sklearn.metrics import confusion_matrix

    counts: IntArray = confusion_matrix(truth, predicted, labels=np.arange(n_classes))
    return counts


def score_classes(
    truth: IntArray, predicted: IntArray, classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    """Compute precision, recall and F1 of every class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        truth, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def balanced_accuracy(truth: IntArray, predicted: IntArray) -> float:
    """Average the recall of the classes that are tested."""
    from sklearn.metrics import recall_score

    # `balanced_accuracy_score` is the same, and warns of predicted classes that are not tested.
    tested = np.unique(truth)
    return float(recall_score(truth, predicted, labels=tested, average="macro", zero_division=0))


def macro_f1(truth: IntArray, predicted: IntArray) -> float:
    """Average the F1 of the classes that are tested or predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", zero_division=0))


def most_frequent(class_indices: npt.ArrayLike) -> int:
    """Find the class that a constant guess should name; of equally frequent ones the first."""
    return int(np.bincount(np.asarray(class_indices, dtype=np.int64)).argmax())


def hits_in_top(probabilities: npt.NDArray[Any], truth: IntArray, k: int) -> npt.NDArray[np.bool_]:
    """Tell which clips have their class among the k most probable.

    Of equally probable classes the first ones count, as in `argmax`; scikit-learn's
    `top_k_accuracy_score` counts the last ones.
    """
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    hits: npt.NDArray[np.bool_] = (ranked == truth[:, np.newaxis]).any(axis=1)
    return hits


def reliability_bins(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, n_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Sort predictions into bins of equal width by the probability of the predicted class."""
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    # Confidences are rounded to 6 digits when stored; the ends of bins are safe from that.
    bins = np.clip(np.ceil(sure * n_bins - 1e-9).astype(int) - 1, 0, n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    sums = (np.bincount(bins, weights=values, minlength=n_bins) for values in (sure, right))
    return tuple(
        ReliabilityBin(
            low=number / n_bins,
            high=(number + 1) / n_bins,
            n=int(n),
            confidence=float(total_sure / n) if n else None,
            accuracy=float(total_right / n) if n else None,
        )
        for number, (n, total_sure, total_right) in enumerate(zip(counts, *sums, strict=True))
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Measure by how much the confidence of predictions misses their accuracy; 0 is perfect.

    The expected calibration error of Guo et al., "On Calibration of Modern Neural
    Networks" (ICML 2017).
    """
    gaps = [
        item.n * abs(item.confidence - item.accuracy)
        for item in bins
        if item.confidence is not None and item.accuracy is not None
    ]
    return sum(gaps) / sum(item.n for item in bins)


def calibration_floor(confidence: npt.ArrayLike, *, n_bins: int = 10) -> float:
    """Say which calibration error a perfectly calibrated head would show on so many clips.

    Chance alone keeps the share of right answers in a bin from its mean confidence, the more so
    the fewer clips there are. Here it is drawn whether each clip is right, with the probability
    that the head gives (Bröcker and Smith, "Increasing the reliability of reliability
    diagrams", Weather and Forecasting 22, 2007).
    """
    sure = np.asarray(confidence, dtype=float)
    bins = np.clip(np.ceil(sure * n_bins - 1e-9).astype(int) - 1, 0, n_bins - 1)
    is_in = np.eye(n_bins)[bins]  # (n_clips, n_bins)
    rng = np.random.default_rng(0)
    excess = [
        ((rng.random((_CALIBRATED_AT_ONCE, len(sure))) < sure) - sure) @ is_in
        for _ in range(_CALIBRATED // _CALIBRATED_AT_ONCE)
    ]
    return float(np.abs(np.concatenate(excess)).sum(axis=1).mean() / len(sure))


def report_scores(
    probabilities: npt.NDArray[Any],
    truth: IntArray,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    majority: int,
    by_facts: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Gather every score of one trained head on its test part, ready for JSON.

    `probabilities` have shape (n_clips, n_classes), `majority` is the `most_frequent` class of
    the training part, and `by_facts` are the answers of `guess_by_facts`.
    """
    predicted = probabilities.argmax(axis=1)
    correct = predicted == truth
    confidence = probabilities.max(axis=1)
    bins = reliability_bins(confidence, correct)
    facts_right = np.array([classes[index] for index in truth]) == np.array(by_facts)
    head, constant, facts = (
        Contender(name, right[np.newaxis].astype(np.float64))
        for name, right in (
            ("", correct),
            (classes[majority], truth == majority),
            (FILE_FACTS, facts_right),
        )
    )
    against = compare_with_guesses([head], [constant, facts], groups, seed=seed)
    return {
        "accuracy": asdict(accuracy_interval(correct, groups)),
        "balanced_accuracy": balanced_accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted),
        "topk": {
            f"top{k}": float(hits_in_top(probabilities, truth, k).mean())
            for k in range(1, min(_MOST_GUESSES, len(classes) - 1) + 1)
        },
        "calibration_error": calibration_error(bins),
        "calibration_floor": calibration_floor(confidence),
        "reliability": [asdict(item) for item in bins],
        "majority_class": classes[majority],
        "majority_accuracy": float(constant.hits.mean()),
        "above_majority": against[0].is_told_apart,
        "facts_accuracy": float(facts.hits.mean()),
        "above_facts": against[1].is_told_apart,
        "classes": [asdict(score) for score in score_classes(truth, predicted, classes)],
        "confusions": count_confusions(truth, predicted, len(classes)).tolist(),
    }
