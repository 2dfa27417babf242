"""Scores of a head: point values, intervals that respect groups, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, IntArray

# Resamples are drawn in blocks, so that memory does not grow with the number of groups.
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True, slots=True)
class Score:
    """A mean with its interval.

    Attributes
    ----------
    mean, low, high : float
    n : int
        Clips behind the mean.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Show percent, as people read it."""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


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


def calibration_error(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, n_bins: int = 10
) -> float:
    """Measure by how much the confidence of predictions misses their accuracy.

    The expected calibration error of Guo et al., "On Calibration of Modern Neural
    Networks" (ICML 2017), with bins of equal width.

    Parameters
    ----------
    confidence : array of float, shape (n_clips,)
        Probability of the predicted class.
    correct : array of bool, shape (n_clips,)
    n_bins : int, default 10

    Returns
    -------
    float
        In [0, 1]; 0 is perfect.
    """
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    bins = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(sure))


def bootstrap_interval(
    correct: npt.ArrayLike,
    groups: Sequence[str],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Score:
    """Estimate accuracy and how far it can be trusted, resampling whole groups.

    Clips of one group succeed and fail together, so groups are what was drawn at random.
    A percentile bootstrap alone would be certain where every clip is right, and is too
    narrow for few groups. The interval is therefore the hull of the bootstrap's and of
    Korn and Graubard's ("Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data", Survey Methodology 24, 1998): Clopper
    and Pearson's exact interval for as many independent clips as the variance between
    groups says there are; one per group if that variance is zero.

    Parameters
    ----------
    correct : array of bool or float, shape (n_clips,)
        Whether each clip was right, or the share of runs in which it was.
    groups : sequence of str, length n_clips
    seed : int, default 0
    n_resamples : int, default 2000
    level : float, default 0.95
        Confidence level, above 0 and below 1.

    Returns
    -------
    Score
    """
    right = np.asarray(correct, dtype=np.float64)
    _, membership = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    hits = np.bincount(membership, weights=right).astype(np.float64)
    sizes = np.bincount(membership).astype(np.float64)
    means = _resample_means(hits, sizes, np.random.default_rng(seed), n_resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    exact_low, exact_high = _exact_interval(hits, sizes, tail)
    mean = float(right.mean())
    return Score(mean, float(min(low, exact_low)), float(max(high, exact_high)), len(right))


def _resample_means(
    hits: FloatArray, sizes: FloatArray, rng: np.random.Generator, n_resamples: int
) -> FloatArray:
    n_groups = len(hits)
    block = max(1, min(n_resamples, _BLOCK_CELLS // n_groups))
    means = []
    for start in range(0, n_resamples, block):
        drawn = rng.integers(n_groups, size=(min(block, n_resamples - start), n_groups))
        means.append(hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def _exact_interval(hits: FloatArray, sizes: FloatArray, tail: float) -> tuple[float, float]:
    # SciPy comes with scikit-learn; only its functions without compilation cost are used.
    from scipy import special

    n_groups, n_clips = len(hits), float(sizes.sum())
    mean = float(hits.sum()) / n_clips
    residuals = hits - mean * sizes
    variance = float(np.square(residuals).sum()) / n_clips**2 * n_groups / max(n_groups - 1, 1)
    if variance > 0 and n_groups > 1 and n_clips > 1:
        few = special.stdtrit(n_clips - 1, tail) / special.stdtrit(n_groups - 1, tail)
        n_effective = min(n_clips, mean * (1 - mean) / variance * few**2)
    else:
        n_effective = float(n_groups)
    wins = mean * n_effective
    losses = n_effective - wins
    low = float(special.betaincinv(wins, losses + 1, tail)) if wins > 0 else 0.0
    high = float(special.betaincinv(wins + 1, losses, 1 - tail)) if losses > 0 else 1.0
    return low, high


def report_scores(
    probabilities: npt.NDArray[Any],
    truth: IntArray,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Gather every score of one head on its test part.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n_clips, n_classes)
    truth : ndarray of int64, shape (n_clips,)
    groups : sequence of str, length n_clips
    classes : sequence of str
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    dict
        JSON-ready: ``accuracy`` (mean, low, high, n), ``balanced_accuracy``, ``macro_f1``,
        ``top5`` (None for five classes or fewer), ``calibration_error``, ``classes``,
        ``confusions``.
    """
    predicted = probabilities.argmax(axis=1)
    confusions = count_confusions(truth, predicted, len(classes))
    correct = predicted == truth
    has_top5 = len(classes) > 5
    return {
        "accuracy": asdict(bootstrap_interval(correct, groups, seed=seed)),
        "balanced_accuracy": balanced_accuracy(confusions),
        "macro_f1": macro_f1(confusions),
        "top5": float(hits_in_top(probabilities, truth, 5).mean()) if has_top5 else None,
        "calibration_error": calibration_error(probabilities.max(axis=1), correct),
        "classes": [asdict(score) for score in score_classes(confusions, classes)],
        "confusions": confusions.tolist(),
    }
