"""Paired tests: which heads differ by more than chance on the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from features.records import FloatArray
from pipeline.scores.intervals import difference_interval

# Up to this many differing groups all sign patterns are tried, beyond it random ones.
_MOST_EXACT_GROUPS = 14
_RANDOM_FLIPS = 20_000
_FLIPS_AT_ONCE = 1000
# The chance of a false alarm that people commonly accept.
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class HeadPair:
    """Two heads on the same clips.

    Attributes
    ----------
    a, b : str
        Names of the heads; `a` is ranked above `b`.
    difference : float
        Accuracy of `a` minus that of `b`.
    low, high : float
        Its 95 % interval, not corrected for the number of pairs.
    p_value : float
        Two-sided, by a permutation test that flips whole groups.
    p_adjusted : float
        After Holm's correction for all pairs of the comparison.
    verdict : str
        One sentence.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    verdict: str

    @property
    def is_told_apart(self) -> bool:
        """Whether `a` is better than `b` by more than chance."""
        return self.difference > 0 and self.p_adjusted < _ALPHA


def compare_pairs(
    names: Sequence[str],
    correct: Mapping[str, FloatArray],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[HeadPair, ...]:
    """Test every pair of heads, in the order of `names`, best first.

    `correct` says of each head and clip whether it was right, or the share of runs in which it
    was. Pairs without the best head are tested as well: which head is best was found on the
    same clips, so a test that is told which one it was would be biased.
    """
    pairs = list(combinations(names, 2))
    if not pairs:
        return ()
    _, membership = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    differences = [correct[a] - correct[b] for a, b in pairs]
    by_group = [np.bincount(membership, weights=values) for values in differences]
    p_values = flip_tests(np.column_stack(by_group), seed=seed)
    found = []
    for (a, b), values, p_value, p_adjusted in zip(
        pairs, differences, p_values, adjust_p_values(p_values), strict=True
    ):
        score = difference_interval(values, groups, seed=seed)
        verdict = _say(a, b, score.mean, p_adjusted)
        found.append(
            HeadPair(a, b, score.mean, score.low, score.high, p_value, p_adjusted, verdict)
        )
    return tuple(found)


def flip_tests(differences: npt.ArrayLike, *, seed: int = 0) -> list[float]:
    """Test whether paired differences could be chance, by flipping the signs of groups.

    Fisher's randomisation test for pairs ("The Design of Experiments", 1935, section 21),
    with whole groups as units: clips of one group are right and wrong together. Takes what one
    head got right of each group more than the other, shape (n_groups, n_tests), and returns
    two-sided p-values: the share of sign patterns whose sum is at least as far from 0.
    `scipy.stats.permutation_test` gives the same where all patterns are tried, but takes 25
    times as long or more.
    """
    columns = np.asarray(differences, dtype=np.float64)
    p_values = np.ones(columns.shape[1])
    differing = (np.abs(columns) > 1e-12).sum(axis=0)
    observed = np.abs(columns.sum(axis=0)) - 1e-9
    for test in np.flatnonzero((differing > 0) & (differing <= _MOST_EXACT_GROUPS)):
        values = columns[np.abs(columns[:, test]) > 1e-12, test]
        patterns = np.arange(2 ** len(values))[:, np.newaxis] >> np.arange(len(values))
        p_values[test] = (np.abs(_signs(patterns) @ values) >= observed[test]).mean()
    many = np.flatnonzero(differing > _MOST_EXACT_GROUPS)
    if len(many):
        rng = np.random.default_rng(seed)
        n_extreme = np.zeros(len(many))
        for _ in range(_RANDOM_FLIPS // _FLIPS_AT_ONCE):
            flips = rng.integers(2, size=(_FLIPS_AT_ONCE, len(columns)), dtype=np.int8)
            sums = np.abs(_signs(flips) @ columns[:, many])
            n_extreme += (sums >= observed[many]).sum(axis=0)
        # The observed pattern is one of the possible ones, so p is never 0.
        p_values[many] = (n_extreme + 1) / (_RANDOM_FLIPS + 1)
    return [float(value) for value in p_values]


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being many, by Holm's step-down method.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979: the chance of any false alarm stays below that of a single test.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def summarise_pairs(
    names: Sequence[str], pairs: Sequence[HeadPair], baseline: str
) -> tuple[str, ...]:
    """Say in plain sentences which heads are better than which, the baseline among them or not."""
    told_apart = [pair for pair in pairs if pair.is_told_apart]
    sentences = []
    for name in names:
        beaten = [
            f"{pair.b} by {_points(pair.difference)} (p = {pair.p_adjusted:.2g})"
            for pair in told_apart
            if pair.a == name
        ]
        if beaten:
            sentences.append(f"{name} is better than {', '.join(beaten)}.")
    takes_part = len(names) > 1 and baseline in names
    if takes_part and all(pair.b != baseline for pair in told_apart):
        sentences.append(f"No head is better than {baseline} here.")
    if pairs and not told_apart:
        sentences.append("No head is better than another here.")
    return tuple(sentences)


def _signs(bits: npt.NDArray[np.integer]) -> FloatArray:
    return 2 * (bits & 1).astype(np.float64) - 1


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _say(a: str, b: str, difference: float, p_adjusted: float) -> str:
    if abs(difference) < 1e-12:
        return f"{a} and {b} got equally many clips right."
    if p_adjusted < _ALPHA:
        return f"{a} is better than {b} by {_points(difference)} (p = {p_adjusted:.2g})."
    return f"{a} leads {b} by {_points(difference)}, which may be chance (p = {p_adjusted:.2g})."
