"""Paired tests: which heads differ by more than chance on the same clips, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from features.system.text import format_count
from pipeline.scores.intervals import difference_interval
from pipeline.scores.joint import ALPHA, Contender, judge_pairs


@dataclass(frozen=True, slots=True)
class HeadPair:
    """Two heads on the same clips, or a head and a guess.

    Attributes
    ----------
    a, b : str
        Names of the heads; `a` is ranked above `b`.
    difference : float
        Accuracy of `a` minus that of `b`.
    low, high : float
        Its 95 % interval, not corrected for the number of pairs.
    p_value : float or None
        Two-sided, by a permutation test that flips whole groups. None if the heads were trained
        once: how much of the difference is luck in training is not known then.
    p_adjusted : float or None
        Corrected for all pairs that were tested together.
    least_found : float or None
        No difference below this could have been told from chance. None if none could at all, or
        the heads were trained once.
    verdict : str
        One sentence.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_value: float | None
    p_adjusted: float | None
    least_found: float | None
    verdict: str

    @property
    def is_told_apart(self) -> bool:
        """Whether `a` is better than `b` by more than chance."""
        return self.difference > 0 and self.p_adjusted is not None and self.p_adjusted < ALPHA


def compare_pairs(
    contenders: Sequence[Contender], groups: Sequence[str], baseline: str, *, seed: int = 0
) -> tuple[HeadPair, ...]:
    """Test every pair of heads, best first; those with the baseline are a family of their own.

    Pairs without the best head are tested as well: which head is best was found on the
    same clips, so a test that is told which one it was would be biased.
    """
    pairs = list(combinations(range(len(contenders)), 2))
    planned = [baseline in (contenders[i].name, contenders[j].name) for i, j in pairs]
    return _test(contenders, pairs, groups, planned, seed, are_heads=True)


def compare_with_guesses(
    heads: Sequence[Contender],
    guesses: Sequence[Contender],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[HeadPair, ...]:
    """Test every head against every guess, which is `b`, all together.

    Heads that were trained once are tested as the trained models that they are.
    """
    pairs = [(i, len(heads) + j) for j in range(len(guesses)) for i in range(len(heads))]
    together = [*heads, *guesses]
    return _test(together, pairs, groups, [True] * len(pairs), seed, are_heads=False)


def _test(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
    planned: Sequence[bool],
    seed: int,
    *,
    are_heads: bool,
) -> tuple[HeadPair, ...]:
    if not pairs:
        return ()
    is_tested = not are_heads or all(len(contender.hits) > 1 for contender in contenders)
    test = judge_pairs(contenders, pairs, groups, planned=planned, seed=seed) if is_tested else None
    found = []
    for number, (i, j) in enumerate(pairs):
        one, other = contenders[i], contenders[j]
        overlap = max(one.overlap, other.overlap)
        score = difference_interval(one.hits, other.hits, groups, overlap=overlap)
        p_adjusted = None if test is None else float(test.p_adjusted[number])
        can_be_found = test is not None and test.least_found[number] <= 1
        found.append(
            HeadPair(
                a=one.name,
                b=other.name,
                difference=score.mean,
                low=score.low,
                high=score.high,
                p_value=None if test is None else float(test.p_values[number]),
                p_adjusted=p_adjusted,
                least_found=float(test.least_found[number]) if test and can_be_found else None,
                verdict=_say(one, other, score.mean, p_adjusted, is_guess=not are_heads),
            )
        )
    return tuple(found)


def summarise_pairs(
    names: Sequence[str], pairs: Sequence[HeadPair], baseline: str, *, n_groups: int
) -> tuple[str, ...]:
    """Say in plain sentences which heads are better than which, and what could not be found."""
    if not pairs:
        return ()
    if any(pair.p_adjusted is None for pair in pairs):
        return (
            "Every head was trained with one seed. How much of a difference is luck in training "
            "is not known, so no head is called better than another; --seeds 3 tells.",
        )
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
    if baseline in names and all(pair.b != baseline for pair in told_apart):
        sentences.append(f"No head is better than {baseline} here.")
    if not told_apart:
        sentences.append("No head is better than another here.")
    if len(told_apart) < len(pairs):
        sentences.append(_say_limit(len(names), pairs, n_groups))
    return tuple(sentences)


def judge_guesses(pairs: Sequence[HeadPair]) -> tuple[str, ...]:
    """Say which heads are not better than which guess."""
    sentences = []
    for guess in dict.fromkeys(pair.b for pair in pairs):
        mine = [pair for pair in pairs if pair.b == guess]
        below = [pair.a for pair in mine if not pair.is_told_apart]
        if len(below) == len(mine) > 1:
            sentences.append(f"No head is better than {guess}.")
        elif below:
            verb = "is" if len(below) == 1 else "are"
            sentences.append(f"{', '.join(below)} {verb} not better than {guess}.")
    return tuple(sentences)


def _say_limit(n_heads: int, pairs: Sequence[HeadPair], n_groups: int) -> str:
    given = f"With {format_count(n_groups, 'group')} and {n_heads} heads"
    least = sorted(pair.least_found for pair in pairs if pair.least_found is not None)
    if not least:
        return f"{given} no difference could have been found, however large."
    middle = float(np.median([*least, *[1.0] * (len(pairs) - len(least))]))
    text = f"{given} a difference below {_points(least[0])} could not have been found"
    if len(pairs) > 1 and middle > least[0] + 0.0005:
        text += f", and for half of the pairs none below {_points(middle)}"
    return f"{text}."


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _say(
    one: Contender, other: Contender, difference: float, p_adjusted: float | None, *, is_guess: bool
) -> str:
    ranked = (one.name, other.name) if difference >= 0 else (other.name, one.name)
    points = _points(abs(difference))
    if abs(difference) < 1e-12:
        return f"{one.name} and {other.name} got equally many clips right."
    lead = f"{ranked[0]} leads {ranked[1]} by {points}"
    if p_adjusted is None:
        return f"{lead}; one seed cannot tell whether it is better."
    if p_adjusted >= ALPHA:
        return f"{lead}, which may be chance (p = {p_adjusted:.2g})."
    if is_guess and len(one.hits) == 1:
        return f"{lead} (p = {p_adjusted:.2g}), as trained with this seed."
    return f"{ranked[0]} is better than {ranked[1]} by {points} (p = {p_adjusted:.2g})."
