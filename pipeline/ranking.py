"""From finished trials to a ranking of heads, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, IntArray
from pipeline.metrics import (
    Score,
    balanced_accuracy,
    bootstrap_interval,
    calibration_error,
    count_confusions,
    macro_f1,
)
from pipeline.splits import Split
from pipeline.trials import Trial, TrialResult

# Up to this many differing groups all sign patterns are tried, beyond it random ones.
_MOST_EXACT_GROUPS = 14
_RANDOM_FLIPS = 20_000
# The chance of a false alarm that people commonly accept.
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A head against the best one, on the same clips.

    Attributes
    ----------
    other : str
        The best head.
    difference : float
        Accuracy of the best head minus that of this one.
    p_value : float
        Two-sided, by flipping the signs of whole groups.
    p_adjusted : float
        After Holm's correction for all heads compared.
    verdict : str
        One sentence.
    """

    other: str
    difference: float
    p_value: float
    p_adjusted: float
    verdict: str


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
    top5 : float or None
        None for five classes or fewer.
    n_parameters : int
    train_seconds, latency_ms : float
        Medians over trials, several of which ran side by side.
    n_trials : int
    against_best : PairedTest or None
        None for the best head itself.
    """

    name: str
    accuracy: Score
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    top5: float | None
    n_parameters: int
    train_seconds: float
    latency_ms: float
    n_trials: int
    against_best: PairedTest | None = None


def rank_heads(
    results: Mapping[Trial, TrialResult],
    splits: Sequence[Split],
    class_indices: Mapping[str, int],
    groups: Mapping[str, str],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[HeadResult, ...]:
    """Summarise trials by head, best first.

    Parameters
    ----------
    results : mapping of Trial to TrialResult
        Every head with the same seeds and splits.
    splits : sequence of Split
        Their test parts do not overlap.
    class_indices : mapping of str to int
        Clip id to true class.
    groups : mapping of str to str
        Clip id to group.
    classes : sequence of str
    seed : int, default 0
        Of bootstrap and random sign flips.

    Returns
    -------
    tuple of HeadResult
        By accuracy; of equal ones the smaller head comes first.
    """
    ids = [clip_id for split in splits for clip_id in split.test]
    truth = np.array([class_indices[clip_id] for clip_id in ids], dtype=np.int64)
    clip_groups = [groups[clip_id] for clip_id in ids]
    names = list(dict.fromkeys(trial.head for trial in results))
    correct: dict[str, FloatArray] = {}
    summaries = []
    for name in names:
        pooled = _pool(results, name, len(splits))
        hits = pooled["predicted"] == truth
        correct[name] = hits.mean(axis=0)
        tables = [count_confusions(truth, row, len(classes)) for row in pooled["predicted"]]
        mine = [result for trial, result in results.items() if trial.head == name]
        pairs = zip(pooled["confidence"], hits, strict=True)
        summaries.append(
            HeadResult(
                name=name,
                accuracy=bootstrap_interval(correct[name], clip_groups, seed=seed),
                balanced_accuracy=float(np.mean([balanced_accuracy(t) for t in tables])),
                macro_f1=float(np.mean([macro_f1(t) for t in tables])),
                calibration_error=float(np.mean([calibration_error(c, h) for c, h in pairs])),
                top5=float(pooled["in_top5"].mean()) if len(classes) > 5 else None,
                n_parameters=mine[0].n_parameters,
                train_seconds=float(np.median([result.train_seconds for result in mine])),
                latency_ms=float(np.median([result.latency_ms for result in mine])),
                n_trials=len(mine),
            )
        )
    summaries.sort(key=lambda head: (-head.accuracy.mean, head.n_parameters))
    return _with_tests(summaries, correct, clip_groups, seed)


def flip_test(differences: npt.ArrayLike, *, seed: int = 0) -> float:
    """Test whether paired differences could be chance, by flipping their signs.

    Parameters
    ----------
    differences : array of float, shape (n_groups,)
        One per group: what one head got right more than the other.
    seed : int, default 0
        Of the random flips, used beyond 14 groups that differ.

    Returns
    -------
    float
        Two-sided p-value: the share of sign patterns whose sum is at least as far from 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.abs(values) > 1e-12]
    if len(values) == 0:
        return 1.0
    observed = abs(values.sum()) - 1e-9
    if len(values) <= _MOST_EXACT_GROUPS:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
        return float((np.abs(signs @ values) >= observed).mean())
    rng = np.random.default_rng(seed)
    n_extreme = 0
    for _ in range(20):
        flips = rng.choice((-1.0, 1.0), size=(_RANDOM_FLIPS // 20, len(values)))
        n_extreme += int((np.abs(flips @ values) >= observed).sum())
    # The observed pattern is one of the possible ones, so p is never 0.
    return (n_extreme + 1) / (_RANDOM_FLIPS + 1)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being many, by Holm's step-down method.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the same order.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _pool(
    results: Mapping[Trial, TrialResult], head: str, n_splits: int
) -> dict[str, npt.NDArray[Any]]:
    """Line up the test parts of all splits: arrays of shape (n_seeds, n_tested_clips)."""
    found = {(t.seed, t.fold): result for t, result in results.items() if t.head == head}
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


def _with_tests(
    ranked: Sequence[HeadResult],
    correct: Mapping[str, FloatArray],
    clip_groups: Sequence[str],
    seed: int,
) -> tuple[HeadResult, ...]:
    best, others = ranked[0], ranked[1:]
    _, membership = np.unique(np.asarray(clip_groups, dtype=object), return_inverse=True)
    p_values = [
        flip_test(_group_sums(correct[best.name] - correct[head.name], membership), seed=seed)
        for head in others
    ]
    tested = [best]
    for head, p_value, p_adjusted in zip(others, p_values, adjust_p_values(p_values), strict=True):
        difference = best.accuracy.mean - head.accuracy.mean
        verdict = _say(best.name, head.name, difference, p_adjusted)
        test = PairedTest(best.name, difference, p_value, p_adjusted, verdict)
        fields = {name: getattr(head, name) for name in HeadResult.__slots__}
        tested.append(HeadResult(**{**fields, "against_best": test}))
    return tuple(tested)


def _group_sums(differences: FloatArray, membership: IntArray) -> FloatArray:
    return np.bincount(membership, weights=differences).astype(np.float64)


def _say(best: str, other: str, difference: float, p_adjusted: float) -> str:
    if difference == 0:
        return f"{best} and {other} got equally many clips right."
    points = f"{100 * difference:.1f} points"
    if p_adjusted < _ALPHA:
        return f"{best} is better than {other} by {points} (p = {p_adjusted:.3g})."
    return f"{best} leads {other} by {points}, which may be chance (p = {p_adjusted:.2g})."
