"""Intervals and paired tests against simulations whose truth is known.

Every simulated case is one evaluation: groups drawn at random, clips within them, a head that
is right on each clip with a probability that belongs to the group. What is checked is how often
the interval holds the truth, and how often a test cries wolf. With the 1,000 cases of a soak the
share of a true 95 % scatters by 0.7 percentage points (one deviation), with 250 by 1.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from features.records import FloatArray
from pipeline.scores.intervals import accuracy_interval, difference_interval
from pipeline.scores.joint import Contender, judge_pairs
from pipeline.scores.paired import compare_pairs

# How many cases are simulated, and by how many percentage points the bounds are wider for few.
SIMULATED = pytest.mark.parametrize(
    ("n_cases", "slack"), [(250, 2), pytest.param(1000, 0, marks=pytest.mark.soak)]
)


@dataclass(frozen=True)
class Setting:
    """What is evaluated: `sizes` are clips per group, repeated as often as needed."""

    n_groups: int
    sizes: tuple[int, ...]
    accuracy: float
    correlation: float  # of two clips of one group
    n_seeds: int = 1

    def group_sizes(self) -> npt.NDArray[np.int64]:
        return np.resize(np.array(self.sizes), self.n_groups)

    def clip_groups(self) -> list[str]:
        numbers = np.repeat(np.arange(self.n_groups), self.group_sizes())
        return [f"g{number:03d}" for number in numbers]


def draw_group_chances(
    rng: np.random.Generator, n_groups: int, accuracy: float, correlation: float
) -> FloatArray:
    """Beta-distributed, so that mean and correlation are exact."""
    if correlation == 0:
        return np.full(n_groups, accuracy)
    strength = (1 - correlation) / correlation
    return rng.beta(accuracy * strength, (1 - accuracy) * strength, size=n_groups)


def draw_correct(rng: np.random.Generator, setting: Setting) -> FloatArray:
    chances = draw_group_chances(rng, setting.n_groups, setting.accuracy, setting.correlation)
    chances = np.repeat(chances, setting.group_sizes())
    if setting.n_seeds > 1:
        # Some clips are harder than others of their group, with every seed.
        chances = rng.beta(np.maximum(3 * chances, 1e-9), np.maximum(3 * (1 - chances), 1e-9))
    return rng.binomial(setting.n_seeds, chances) / setting.n_seeds


def measure_coverage(
    setting: Setting, n_cases: int = 1000, *, groups: list[str] | None = None
) -> float:
    """Percent of cases whose interval holds the true accuracy."""
    rng = np.random.default_rng(20)
    groups = setting.clip_groups() if groups is None else groups
    n_covered = 0
    for _ in range(n_cases):
        score = accuracy_interval(draw_correct(rng, setting), groups)
        n_covered += score.low <= setting.accuracy <= score.high
    return 100 * n_covered / n_cases


@SIMULATED
@pytest.mark.parametrize(
    "setting",
    [
        Setting(18, (2, 7), 0.75, 0.6),
        Setting(30, (4,), 0.55, 0.2),
        Setting(30, (4,), 0.75, 0.2, n_seeds=3),
        Setting(60, (3,), 0.9, 0.6),
        Setting(60, (2, 7), 0.55, 0.0),
        Setting(175, (4,), 0.97, 0.2),
    ],
    ids=str,
)
def test_interval_covers_the_truth_in_93_to_97_percent_of_cases(
    setting: Setting, n_cases: int, slack: int
) -> None:
    assert 93 - slack <= measure_coverage(setting, n_cases) <= 97 + slack


def test_interval_of_single_clips_covers_too_seldom() -> None:
    """So the simulations can fail: the same clips, without minding that groups exist."""
    setting = Setting(30, (4,), 0.75, 0.6)
    clips = [f"c{number:03d}" for number in range(len(setting.clip_groups()))]
    assert measure_coverage(setting, 400, groups=clips) < 85
    assert measure_coverage(setting, 400) > 92


@pytest.mark.parametrize("accuracy", [0.9, 0.97])
def test_interval_of_few_groups_errs_on_the_wide_side(accuracy: float) -> None:
    """With twelve groups and hardly a clip wrong, no interval of whole clips gets to 95 %."""
    assert 93 <= measure_coverage(Setting(12, (2,), accuracy, 0.2), 500) <= 100


@pytest.mark.soak
@pytest.mark.parametrize(
    ("n_groups", "most"), [(12, 98.0), (18, 97.7), (30, 97.2), (60, 96.7), (175, 96.2)]
)
def test_interval_covers_the_truth_on_the_whole_grid(n_groups: int, most: float) -> None:
    """The fewer groups, the more it errs on the wide side; never by much on the narrow one."""
    grid = product(((2,), (2, 7, 4)), (0.55, 0.75, 0.9, 0.97), (0.0, 0.2, 0.6), (1, 3))
    cells = [Setting(n_groups, *cell) for cell in grid]
    coverage = np.array([measure_coverage(cell) for cell in cells])
    for cell, percent in zip(cells, coverage, strict=True):
        print(f"{percent:5.1f} {cell}")
    assert coverage.min() >= 91.5
    assert 94.5 <= coverage.mean() <= most


@given(st.lists(st.integers(1, 7), min_size=1, max_size=60), st.data())
@settings(max_examples=100, deadline=None)
def test_perfect_score_is_worth_more_than_one_wrong_clip(
    sizes: list[int], data: st.DataObject
) -> None:
    groups = [f"g{number:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    perfect = accuracy_interval(np.ones(len(groups)), groups)
    assert (perfect.mean, perfect.high) == (1.0, 1.0)
    assert 0 < perfect.low < 1
    wrong = np.ones(len(groups))
    wrong[data.draw(st.integers(0, len(groups) - 1))] = 0
    score = accuracy_interval(wrong, groups)
    assert score.low <= perfect.low
    assert score.low <= score.mean <= score.high <= 1
    # Naming the other outcome mirrors the interval.
    mirrored = accuracy_interval(1 - wrong, groups)
    assert mirrored.low == pytest.approx(1 - score.high, abs=0.005)
    assert mirrored.high == pytest.approx(1 - score.low, abs=0.005)


def test_interval_is_wider_when_groups_fail_together() -> None:
    apart = np.tile([1, 1, 1, 0], 25)
    together = np.repeat([1, 1, 1, 0], 25)
    groups = [f"g{i // 5}" for i in range(100)]
    narrow, wide = (accuracy_interval(correct, groups) for correct in (apart, together))
    assert narrow.mean == wide.mean == 0.75
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_interval_does_not_depend_on_the_order_of_clips_or_the_names_of_groups() -> None:
    rng = np.random.default_rng(1)
    correct, groups = rng.random(40) < 0.7, [f"g{i // 4}" for i in range(40)]
    order = rng.permutation(40)
    assert accuracy_interval(correct, groups) == accuracy_interval(
        correct[order], [groups[i] for i in order]
    )
    assert accuracy_interval(correct, groups) == accuracy_interval(
        correct, [f"other{99 - i // 4}" for i in range(40)]
    )


def test_interval_of_one_group_says_nearly_nothing() -> None:
    score = accuracy_interval([1.0] * 50, ["a"] * 50)
    assert (score.low < 0.1, score.high) == (True, 1.0)


@SIMULATED
@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_interval_of_a_difference_covers_the_truth(
    correlation: float, n_cases: int, slack: int
) -> None:
    rng = np.random.default_rng(3)
    groups = [f"g{i // 4:02d}" for i in range(160)]
    n_covered = 0
    for _ in range(n_cases):
        a, b = draw_heads(rng, (0.85, 0.75), correlation, n_groups=40, n_cases=1)
        score = difference_interval(a[0], b[0], groups)
        n_covered += score.low <= 0.1 <= score.high
    assert 93 - slack <= 100 * n_covered / n_cases <= 97 + slack


def test_interval_of_no_difference_is_not_certain() -> None:
    score = difference_interval(np.zeros(80), np.zeros(80), [f"g{i // 4}" for i in range(80)])
    assert (score.mean, score.low) == (0, -score.high)
    assert 0.01 < score.high < 0.1
    opposite = difference_interval(np.ones(80), np.zeros(80), [f"g{i // 4}" for i in range(80)])
    assert opposite.low < opposite.high == 1


def draw_heads(
    rng: np.random.Generator,
    accuracies: tuple[float, ...],
    correlation: float,
    *,
    n_groups: int,
    n_cases: int,
    per_group: int = 4,
) -> tuple[FloatArray, ...]:
    """Draw what each head gets right: arrays of shape (n_cases, n_clips).

    A group is as hard for one head as for another in part: its difficulty is a normal number,
    half of it shared by the heads. The mean of a probit of a normal number is known.
    """
    spread = np.sqrt(correlation / (1 - correlation))
    shared = rng.normal(size=(n_cases, n_groups))
    heads = []
    for accuracy in accuracies:
        difficulty = np.sqrt(0.5) * (shared + rng.normal(size=(n_cases, n_groups)))
        location = special.ndtri(accuracy) * np.sqrt(1 + spread**2)
        chances = special.ndtr(location + spread * difficulty).repeat(per_group, axis=1)
        heads.append((rng.random(chances.shape) < chances).astype(float))
    return tuple(heads)


def judge_two(a: FloatArray, b: FloatArray, per_group: int = 4) -> FloatArray:
    """Test case by case, each pair of heads by itself; the heads know no luck in training."""
    groups = [f"g{i // per_group:03d}" for i in range(a.shape[1])]
    p_values: FloatArray = np.array(
        [
            judge_pairs(
                [Contender("a", one[np.newaxis]), Contender("b", other[np.newaxis])],
                [(0, 1)],
                groups,
                n_draws=2000,
            ).p_adjusted[0]
            for one, other in zip(a, b, strict=True)
        ]
    )
    return p_values


@SIMULATED
@pytest.mark.parametrize(("n_groups", "correlation"), [(12, 0.6), (18, 0.2), (60, 0.6)])
def test_paired_test_rejects_a_true_null_in_at_most_6_percent(
    n_groups: int, correlation: float, n_cases: int, slack: int
) -> None:
    rng = np.random.default_rng(7)
    a, b = draw_heads(rng, (0.8, 0.8), correlation, n_groups=n_groups, n_cases=n_cases)
    assert 2 - slack <= 100 * (judge_two(a, b) < 0.05).mean() <= 6 + slack


def test_paired_test_of_single_clips_rejects_a_true_null_too_often() -> None:
    """So the simulations can fail: the same clips, as if each were a group of its own."""
    rng = np.random.default_rng(7)
    a, b = draw_heads(rng, (0.8, 0.8), 0.6, n_groups=60, n_cases=150)
    assert 100 * (judge_two(a, b, per_group=1) < 0.05).mean() > 9


@pytest.mark.parametrize(
    ("accuracies", "found_percent"),
    # Measured with 1,000 cases: 67 and 92 %.
    [((0.85, 0.75), 60), ((0.95, 0.85), 87)],
)
def test_head_that_is_ten_points_better_is_found_in_most_cases(
    accuracies: tuple[float, float], found_percent: int
) -> None:
    """60 groups of 4 clips, correlation 0.2: few groups can show no small difference."""
    rng = np.random.default_rng(13)
    a, b = draw_heads(rng, accuracies, 0.2, n_groups=60, n_cases=300)
    assert 100 * (judge_two(a, b) < 0.05).mean() >= found_percent


def judge(rows: list[list[float]], **options: Any) -> tuple[list[float], list[float]]:
    """Test all pairs of heads that have one clip in each group."""
    heads = [Contender(str(i), np.array([row])) for i, row in enumerate(rows)]
    pairs = list(combinations(range(len(rows)), 2))
    found = judge_pairs(heads, pairs, [f"g{i:02d}" for i in range(len(rows[0]))], **options)
    return found.p_values.tolist(), found.p_adjusted.tolist()


def test_joint_test_by_hand() -> None:
    def one(differences: list[float]) -> float:
        (p_value,), (p_adjusted,) = judge([differences, [0.0] * len(differences)])
        assert p_value == p_adjusted
        return p_value

    assert one([1, 1, 1]) == pytest.approx(2 / 8, abs=0.001)
    assert one([1, 1, 1, 1, 1, 0, 0]) == pytest.approx(2 / 32, abs=0.001)
    assert one([1, -1]) == 1.0
    assert one([0, 0]) == 1.0
    assert one([1.0] * 40) < 0.001


def test_more_heads_do_not_ask_for_more_groups() -> None:
    """Seven groups: 2 of 128 patterns of signs are as extreme, among two heads or among twenty."""
    best, others = [1.0] * 7, [[0.0] * 7] * 19
    for n_others in (1, 19):
        p_values, p_adjusted = judge([best, *others[:n_others]])
        assert p_adjusted[0] == pytest.approx(p_values[0]) == pytest.approx(2 / 128, abs=0.001)


def test_planned_pairs_are_a_family_of_their_own() -> None:
    rng = np.random.default_rng(4)
    rows = (rng.random((12, 30)) < 0.5).astype(float).tolist()
    rows[0] = [1.0 if i % 3 else value for i, value in enumerate(rows[1])]  # better than the next
    pairs = list(combinations(range(12), 2))
    planned = [1 in pair for pair in pairs]
    assert judge(rows, planned=planned)[1][0] < judge(rows)[1][0]


def test_random_signs_agree_with_all_signs() -> None:
    rng = np.random.default_rng(19)
    values = rng.normal(size=13) + 0.3  # one group more than are tried exactly
    signs = np.array(list(product((-1.0, 1.0), repeat=13)))
    expected = (np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    assert judge([values.tolist(), [0.0] * 13])[0][0] == pytest.approx(expected, abs=0.02)


def test_luck_in_training_counts() -> None:
    """Two heads that differ on all 40 groups, but no more than their own trainings do."""
    groups = [f"g{i:02d}" for i in range(40)]
    level = np.array([[0.55], [0.75], [0.65]])
    a = Contender("a", np.repeat(level + 0.05, 40, axis=1))
    b = Contender("b", np.repeat(level, 40, axis=1))
    assert judge_pairs([a, b], [(0, 1)], groups).p_values[0] > 0.3
    steady = [
        Contender(c.name, np.repeat(c.hits.mean(axis=0)[np.newaxis], 3, axis=0)) for c in (a, b)
    ]
    assert judge_pairs(steady, [(0, 1)], groups).p_values[0] < 0.001


def test_pairs_are_those_of_all_heads() -> None:
    groups = [f"g{i:02d}" for i in range(12)]
    rows = {"a": np.ones(12), "b": np.repeat([1.0, 0.0], 6), "c": np.zeros(12)}
    heads = [Contender(name, np.array([row, row])) for name, row in rows.items()]
    pairs = compare_pairs(heads, groups, "b")
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.difference for pair in pairs] == [0.5, 1.0, 0.5]
    assert [pair.p_value for pair in pairs] == pytest.approx([2 / 64, 2 / 4096, 2 / 64], abs=0.001)
    assert [pair.is_told_apart for pair in pairs][1]
    assert all(pair.low < pair.difference <= pair.high for pair in pairs)
    assert compare_pairs(heads[:1], groups, "b") == ()


def test_heads_that_were_trained_once_are_never_called_better() -> None:
    groups = [f"g{i:02d}" for i in range(30)]
    heads = [Contender("a", np.ones((1, 30))), Contender("b", np.zeros((1, 30)))]
    (pair,) = compare_pairs(heads, groups, "b")
    assert (pair.p_value, pair.p_adjusted, pair.is_told_apart) == (None, None, False)
    assert pair.verdict == "a leads b by 100.0 points; one seed cannot tell whether it is better."


@pytest.mark.parametrize("n_groups", [5, 8, 40])
def test_what_is_found_is_what_lies_above_the_limit(n_groups: int) -> None:
    rng = np.random.default_rng(n_groups)
    groups = [f"g{i // 3:02d}" for i in range(3 * n_groups)]
    found = []
    for shift in np.linspace(0, 0.6, 60):
        a = (rng.random((3, 3 * n_groups)) < 0.35 + shift).astype(float)
        b = (rng.random((3, 3 * n_groups)) < 0.35).astype(float)
        test = judge_pairs([Contender("a", a), Contender("b", b)], [(0, 1)], groups)
        is_found = test.p_adjusted[0] < 0.05
        assert is_found == (abs(a.mean() - b.mean()) > test.least_found[0])
        found.append(is_found)
    # With five groups nothing is ever found, 2 of 32 patterns of signs being as extreme.
    assert any(found) == (n_groups > 5)
