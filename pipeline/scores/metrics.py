"""Scores of a head on its test part: overall, by class, among the first k, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import IntArray
from pipeline.scores.intervals import bootstrap_interval

# People ask for the first few guesses only.
_MOST_GUESSES = 5


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class was told apart.

    Attributes
    ----------
    label : str
    precision, recall, f1 : float
        0 where undefined.
    support : int
        Clips of this class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of about equal confidence.

    Attributes
    ----------
    low, high : float
        Ends of the bin; the lower one is outside, except 0.
    n : int
        Predictions in the bin.
    confidence, accuracy : float or None
        Means of these predictions; None if there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def count_confusions(truth: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Count the clips of each class by what they were taken for.

    Parameters
    ----------
    truth, predicted : ndarray of int64, shape (n_clips,)
        Class indices.
    n_classes : int

    Returns
    -------
    ndarray of int64, shape (n_classes, n_classes)
        Row: truth. Column: prediction.
    """
    cells = np.bincount(truth * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def score_classes(confusions: IntArray, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    """Compute precision, recall and F1 of every class.

    Parameters
    ----------
    confusions : ndarray of int64, shape (n_classes, n_classes)
        See `count_confusions`.
    classes : sequence of str

    Returns
    -------
    tuple of ClassScore
        In the order of `classes`.
    """
    hits = np.diag(confusions)
    support, named = confusions.sum(axis=1), confusions.sum(axis=0)
    precision = hits / np.maximum(named, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + named, 1)
    return tuple(
        ClassScore(label, float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
    )


def balanced_accuracy(confusions: IntArray) -> float:
    """Average the recall of the classes that occur.

    Parameters
    ----------
    confusions : ndarray of int64, shape (n_classes, n_classes)

    Returns
    -------
    float
        As in scikit-learn.
    """
    support = confusions.sum(axis=1)
    present = support > 0
    return float((np.diag(confusions)[present] / support[present]).mean())


def macro_f1(confusions: IntArray) -> float:
    """Average the F1 of the classes that occur in truth or prediction.

    Parameters
    ----------
    confusions : ndarray of int64, shape (n_classes, n_classes)

    Returns
    -------
    float
        As scikit-learn's ``f1_score(average="macro", zero_division=0)``.
    """
    total = confusions.sum(axis=1) + confusions.sum(axis=0)
    present = total > 0
    return float((2 * np.diag(confusions)[present] / total[present]).mean())


def most_frequent(class_indices: npt.ArrayLike) -> int:
    """Find the class that a constant guess should name.

    Parameters
    ----------
    class_indices : array of int, shape (n_clips,)
        Of the training part; at least one.

    Returns
    -------
    int
        Of equally frequent classes the first.
    """
    return int(np.bincount(np.asarray(class_indices, dtype=np.int64)).argmax())


def hits_in_top(probabilities: npt.NDArray[Any], truth: IntArray, k: int) -> npt.NDArray[np.bool_]:
    """Tell which clips have their class among the k most probable.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n_clips, n_classes)
    truth : ndarray of int64, shape (n_clips,)
    k : int
        At least 1.

    Returns
    -------
    ndarray of bool, shape (n_clips,)
        Of equally probable classes the first ones count.
    """
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    hits: npt.NDArray[np.bool_] = (ranked == truth[:, np.newaxis]).any(axis=1)
    return hits


def reliability_bins(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, n_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Sort predictions by confidence and tell how often those of each bin are right.

    Parameters
    ----------
    confidence : array of float, shape (n_predictions,)
        Probability of the predicted class.
    correct : array of bool, shape (n_predictions,)
    n_bins : int, default 10
        Bins of equal width.

    Returns
    -------
    tuple of ReliabilityBin, length n_bins
        From 0 to 1, the empty ones as well.
    """
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
    """Measure by how much the confidence of predictions misses their accuracy.

    The expected calibration error of Guo et al., "On Calibration of Modern Neural
    Networks" (ICML 2017).

    Parameters
    ----------
    bins : sequence of ReliabilityBin
        See `reliability_bins`.

    Returns
    -------
    float
        In [0, 1]; 0 is perfect.
    """
    gaps = [
        item.n * abs(item.confidence - item.accuracy)
        for item in bins
        if item.confidence is not None and item.accuracy is not None
    ]
    return sum(gaps) / sum(item.n for item in bins)


def report_scores(
    probabilities: npt.NDArray[Any],
    truth: IntArray,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    majority: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Gather every score of one head on its test part.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n_clips, n_classes)
    truth : ndarray of int64, shape (n_clips,)
    groups : sequence of str, length n_clips
    classes : sequence of str
    majority : int
        Index of the most frequent class of the training part, see `most_frequent`.
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    dict
        JSON-ready: ``accuracy`` (mean, low, high, n), ``balanced_accuracy``, ``macro_f1``,
        ``topk`` (``top1`` to ``top5``, below the number of classes), ``calibration_error``,
        ``reliability`` (bins), ``majority_class`` and the ``majority_accuracy`` of always
        naming it, ``above_majority`` (whether the whole interval of the accuracy is),
        ``classes``, ``confusions``.
    """
    predicted = probabilities.argmax(axis=1)
    confusions = count_confusions(truth, predicted, len(classes))
    correct = predicted == truth
    accuracy = bootstrap_interval(correct, groups, seed=seed)
    majority_accuracy = float((truth == majority).mean())
    bins = reliability_bins(probabilities.max(axis=1), correct)
    return {
        "accuracy": asdict(accuracy),
        "balanced_accuracy": balanced_accuracy(confusions),
        "macro_f1": macro_f1(confusions),
        "topk": {
            f"top{k}": float(hits_in_top(probabilities, truth, k).mean())
            for k in range(1, min(_MOST_GUESSES, len(classes) - 1) + 1)
        },
        "calibration_error": calibration_error(bins),
        "reliability": [asdict(item) for item in bins],
        "majority_class": classes[majority],
        "majority_accuracy": majority_accuracy,
        "above_majority": accuracy.low > majority_accuracy,
        "classes": [asdict(score) for score in score_classes(confusions, classes)],
        "confusions": confusions.tolist(),
    }
