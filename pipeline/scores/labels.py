"""Scores where clips may have several classes: average precision, and F1 at thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import LABEL_JOINT, FloatArray
from pipeline.scores.intervals import Score, accuracy_interval

# Where no validation clip has a class, and nothing can be chosen.
DEFAULT_THRESHOLD = 0.5

# Leaving each of more groups out takes long, and says little more than derivatives.
_MOST_LEFT_OUT = 100

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one class was found: scores are 0 where undefined, `support` counts its clips.

    `average_precision` is None for a class that no test clip has.
    """

    label: str
    average_precision: float | None
    threshold: float
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Scores on the test part where clips may have several classes.

    Attributes
    ----------
    mean_average_precision : Score
        Mean of the average precisions of the classes that test clips have, with its 95 %
        interval over groups. It is about test parts of this size: with few clips of a class,
        average precision is higher on average than with many.
    chance : float
        The mean average precision that random probabilities get on average.
    micro_f1, macro_f1 : float
        At the thresholds, over all answers, and as mean over the same classes.
    exact_match : float
        Share of the clips of which every class is right.
    average_precisions : dict of str to float
        By class, without those in `untested`.
    untested : tuple of str
        Classes that no test clip has.
    """

    mean_average_precision: Score
    chance: float
    micro_f1: float
    macro_f1: float
    exact_match: float
    average_precisions: dict[str, float]
    untested: tuple[str, ...]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> LabelScores:
        """Rebuild scores from their JSON."""
        score = Score(**fields["mean_average_precision"])
        names = tuple(fields["untested"])
        return cls(**{**fields, "mean_average_precision": score, "untested": names})


def average_precisions(truth: Array, probabilities: Array) -> FloatArray:
    """Compute the average precision of every class; NaN for one that no clip has.

    As scikit-learn's `average_precision_score`: precision averaged over the clips that have the
    class, each at its own probability.
    """
    found: FloatArray = _precisions_and_slopes(truth, probabilities)[0]
    return found


def mean_average_precision(truth: Array, probabilities: Array) -> float:
    """Average over the classes that any clip has; 0 if there is none."""
    found = average_precisions(truth, probabilities)
    return float(np.nanmean(found)) if not np.isnan(found).all() else 0.0


def clip_credits(
    truth: Array,
    probabilities: Array,
    groups: Sequence[str],
    *,
    most_left_out: int = _MOST_LEFT_OUT,
) -> FloatArray:
    """Say what each clip contributes to the mean average precision; they average to it.

    Intervals and tests that resample groups of accuracies apply to these numbers. What a group
    contributes is what changes if it is left out, as in the jackknife of Tukey (1958). Among the
    clips of a group, and of more than `most_left_out` groups, it is the derivative by the clip's
    weight, the infinitesimal jackknife of Jaeckel (1972), which is quicker. It takes rare classes
    for more certain than they are: of two equally good heads on 15 or 40 groups, tests of 5 % found
    one better in 5 to 8 % of cases by it, and in 2 to 4 % by leaving groups out.

    Simulated as in ``tests/test_multilabel.py``, with 12 to 100 groups of 4 clips, four classes
    that 15 or 35 % of the clips have, and mean average precisions from chance to .95, the 95 %
    interval covers the mean over test parts of that size in 93 to 98 % of cases.
    """
    found, slopes = _precisions_and_slopes(truth, probabilities)
    if np.isnan(found).all():
        return np.zeros(len(truth))
    mean, n_clips = float(np.nanmean(found)), len(truth)
    credits: FloatArray = mean + n_clips * np.nanmean(slopes, axis=1)
    names, membership, sizes = np.unique(
        np.asarray(groups, dtype=object), return_inverse=True, return_counts=True
    )
    if not 1 < len(names) <= most_left_out:
        return credits
    changes = np.array(
        [
            (n_clips - sizes[number])
            * (mean - mean_average_precision(truth[kept], probabilities[kept]))
            for number in range(len(names))
            for kept in [membership != number]
        ]
    )
    changes -= sizes * changes.sum() / n_clips
    before = np.bincount(membership, weights=credits - mean)
    credits += ((changes - before) / sizes)[membership]
    return credits


def choose_thresholds(truth: Array, probabilities: Array) -> tuple[float, ...]:
    """Choose from which probability on a class counts as named: where its F1 is highest.

    For validation clips, never for test clips. A threshold lies half-way between two
    probabilities; without any clip of the class it is `DEFAULT_THRESHOLD`.
    """
    return tuple(
        _choose_threshold(truth[:, column] == 1, probabilities[:, column].astype(np.float64))
        for column in range(truth.shape[1])
    )


def micro_f1(truth: Array, named: Array) -> float:
    """Compute F1 over all classes of all clips together; 0 where undefined."""
    hits = np.logical_and(truth, named).sum()
    total = (truth != 0).sum() + (named != 0).sum()
    return float(2 * hits / total) if total else 0.0


def macro_f1(truth: Array, named: Array) -> float:
    """Average the F1 of the classes that any clip has; 0 if there is none."""
    tested = np.flatnonzero(truth.any(axis=0))
    return float(np.mean([micro_f1(truth[:, c], named[:, c]) for c in tested] or [0.0]))


def macro_recall(truth: Array, named: Array) -> float:
    """Average the recall of the classes that any clip has; 0 if there is none."""
    tested = np.flatnonzero(truth.any(axis=0))
    recalls = np.logical_and(truth, named)[:, tested].sum(axis=0) / (truth != 0)[:, tested].sum(0)
    return float(recalls.mean()) if len(tested) else 0.0


def most_frequent_labels(truth: Array) -> Array:
    """Find the most frequent combination of classes; of equally frequent ones the first."""
    counts = Counter(map(tuple, truth.astype(int).tolist()))
    return np.array(max(sorted(counts), key=counts.__getitem__))


def join_labels(row: Array, classes: Sequence[str]) -> str:
    """Write the classes of one clip as one text."""
    return LABEL_JOINT.join(name for name, is_in in zip(classes, row, strict=True) if is_in)


def answer_columns(classes: Sequence[str]) -> list[str]:
    """Name the columns of `describe_answer`."""
    whats = ("true", "named", "probability")
    return ["label", "predicted", *(f"{what}:{name}" for what in whats for name in classes)]


def describe_answer(
    truth: Array, named: Array, probabilities: Array, classes: Sequence[str]
) -> list[str]:
    """Write the answer about one clip as a row of a table."""
    texts = [join_labels(row, classes) for row in (truth, named)]
    marks = [str(int(value)) for row in (truth, named) for value in row]
    return [*texts, *marks, *(f"{value:.6g}" for value in probabilities)]


def count_cooccurrences(rows: Array) -> Array:
    """Count the clips that have both of two classes; on the diagonal, those that have one."""
    numbers = rows.astype(np.float64)  # their product is far quicker than that of integers
    both: Array = (numbers.T @ numbers).astype(np.int64)
    return both


def report_label_scores(
    probabilities: Array,
    truth: Array,
    groups: Sequence[str],
    classes: Sequence[str],
    thresholds: Sequence[float],
    *,
    majority: Array,
) -> tuple[dict[str, Any], LabelScores]:
    """Gather every score of one head on its test part, as JSON and in short.

    All arrays have shape (n_clips, n_classes); `majority` is the `most_frequent_labels` of the
    training part.
    """
    named = probabilities >= np.asarray(thresholds)
    right = (named == (truth == 1)).all(axis=1)
    precisions = average_precisions(truth, probabilities)
    scores = LabelScores(
        mean_average_precision=accuracy_interval(
            clip_credits(truth, probabilities, groups), groups
        ),
        chance=chance_precision(truth),
        micro_f1=micro_f1(truth, named),
        macro_f1=macro_f1(truth, named),
        exact_match=float(right.mean()),
        average_precisions={
            name: float(value)
            for name, value in zip(classes, precisions, strict=True)
            if not np.isnan(value)
        },
        untested=tuple(c for c, value in zip(classes, precisions, strict=True) if np.isnan(value)),
    )
    rows = [
        _score_class(name, float(precision), float(threshold), truth[:, column], named[:, column])
        for column, (name, precision, threshold) in enumerate(
            zip(classes, precisions, thresholds, strict=True)
        )
    ]
    content = {
        **asdict(scores),
        "accuracy": asdict(accuracy_interval(right, groups)),
        "balanced_accuracy": macro_recall(truth, named),
        "majority_class": join_labels(majority, classes),
        "majority_accuracy": float((truth == majority).all(axis=1).mean()),
        "above_chance": scores.mean_average_precision.low > scores.chance,
        "classes": [asdict(row) for row in rows],
        "cooccurrences": {
            "true": count_cooccurrences(truth).tolist(),
            "named": count_cooccurrences(named).tolist(),
        },
    }
    return content, scores


def chance_precision(truth: Array) -> float:
    """Return the mean average precision that random probabilities get on average."""
    n_true = truth.sum(axis=0)
    expected = [random_precision(len(truth), int(n)) for n in n_true if n]
    return float(np.mean(expected)) if expected else 0.0


def random_precision(n_clips: int, n_true: int) -> float:
    """Return the average precision of a class in random order, on average.

    Above the share of clips that have it, the more so the fewer clips there are; by Bestgen,
    "Exact expected average precision of the random baseline for system evaluation", Prague
    Bulletin of Mathematical Linguistics 103, 2015.
    """
    harmonic = float((1 / np.arange(1, n_clips + 1)).sum())
    others = (n_true - 1) / max(1, n_clips - 1)
    return (others * (n_clips - harmonic) + harmonic) / n_clips


def _score_class(
    label: str, precision: float, threshold: float, truth: Array, named: Array
) -> LabelScore:
    hits = int(np.logical_and(truth, named).sum())
    n_named, n_true = int((named != 0).sum()), int((truth != 0).sum())
    return LabelScore(
        label,
        None if np.isnan(precision) else precision,
        threshold,
        hits / n_named if n_named else 0.0,
        hits / n_true if n_true else 0.0,
        micro_f1(truth, named),
        n_true,
    )


def _choose_threshold(truth: Array, probabilities: FloatArray) -> float:
    if not truth.any():
        return DEFAULT_THRESHOLD
    values, place = np.unique(probabilities, return_inverse=True)
    # With the threshold at each of the values: clips named, and those of them that are right.
    n_named = np.bincount(place, minlength=len(values))[::-1].cumsum()[::-1]
    hits = np.bincount(place, weights=truth, minlength=len(values))[::-1].cumsum()[::-1]
    # Of equal ones the highest.
    scores = 2 * hits / (n_named + truth.sum())
    best = int(np.flatnonzero(np.isclose(scores, scores.max()))[-1])
    below = values[best - 1] if best else 0.0
    return float((values[best] + below) / 2)


def _precisions_and_slopes(truth: Array, probabilities: Array) -> tuple[FloatArray, FloatArray]:
    """Return the average precisions, and their derivatives by the clips' weights."""
    n_clips, n_classes = truth.shape
    found = np.full(n_classes, np.nan)
    slopes = np.full((n_clips, n_classes), np.nan)
    for column in range(n_classes):
        if truth[:, column].any():
            found[column], slopes[:, column] = _follow(truth[:, column], probabilities[:, column])
    return found, slopes


def _follow(truth: Array, probabilities: Array) -> tuple[float, FloatArray]:
    _, ranks = np.unique(-probabilities.astype(np.float64), return_inverse=True)
    is_true = (truth != 0).astype(np.float64)
    # Clips of equal probability are named together: per rank, all clips and those of the class.
    n_here = np.bincount(ranks).astype(np.float64)
    hits_here = np.bincount(ranks, weights=is_true)
    n_named, hits = n_here.cumsum(), hits_here.cumsum()
    precision = hits / n_named
    n_true = is_true.sum()
    mean = float((precision * hits_here).sum() / n_true)
    # A further clip of the class lifts the precision of its rank and of those below, and any
    # further clip lowers it.
    lifts = (hits_here / n_named)[::-1].cumsum()[::-1]
    lowers = (hits_here * hits / n_named**2)[::-1].cumsum()[::-1]
    of_class = precision[ranks] - mean + lifts[ranks]
    slope: FloatArray = (is_true * of_class - lowers[ranks]) / n_true
    return mean, slope
