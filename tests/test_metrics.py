"""Scores: against scikit-learn, by hand, and honest about what few clips can say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.metrics import (
    balanced_accuracy,
    bootstrap_interval,
    calibration_error,
    count_confusions,
    hits_in_top,
    macro_f1,
    report_scores,
    score_classes,
)
from pipeline.ranking import adjust_p_values, flip_test


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:.*not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    table = count_confusions(truth, predicted, 4)
    expected = reference.confusion_matrix(truth, predicted, labels=range(4))
    np.testing.assert_array_equal(table, expected)
    assert balanced_accuracy(table) == pytest.approx(
        reference.balanced_accuracy_score(truth, predicted)
    )
    assert macro_f1(table) == pytest.approx(
        reference.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, predicted, labels=range(4), zero_division=0
    )
    scores = score_classes(table, "abcd")
    assert [s.precision for s in scores] == pytest.approx(precision)
    assert [s.recall for s in scores] == pytest.approx(recall)
    assert [s.f1 for s in scores] == pytest.approx(f1)
    assert [s.support for s in scores] == support.tolist()


def test_top_k_counts_the_most_probable() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    truth = np.array([1, 0, 1])
    assert hits_in_top(probabilities, truth, 1).tolist() == [False, False, False]
    assert hits_in_top(probabilities, truth, 2).tolist() == [True, False, True]
    assert hits_in_top(probabilities, truth, 5).all()


def test_calibration_error_by_hand() -> None:
    # Bin (0.8, 0.9]: four clips, confidence 0.9, three right: gap 0.15. Bin (0.5, 0.6]: gap 0.4.
    confidence = [0.9, 0.9, 0.9, 0.9, 0.6]
    assert calibration_error(confidence, [1, 1, 1, 0, 1]) == pytest.approx(
        (4 * 0.15 + 0.4) / 5, abs=1e-12
    )
    assert calibration_error([1.0, 1.0], [1, 1]) == 0
    assert calibration_error([0.0, 1.0], [0, 1]) == 0


def test_all_right_is_not_certain() -> None:
    groups = [f"g{i // 2}" for i in range(24)]
    score = bootstrap_interval(np.ones(24), groups)
    assert (score.mean, score.high, score.n) == (1.0, 1.0, 24)
    assert score.low == pytest.approx(0.025 ** (1 / 12))  # Clopper-Pearson, 12 of 12 groups
    nothing = bootstrap_interval(np.zeros(24), groups)
    assert nothing.low == 0.0
    assert nothing.high == pytest.approx(1 - 0.025 ** (1 / 12))


def test_interval_is_wider_when_groups_fail_together() -> None:
    apart = np.tile([1, 1, 1, 0], 25)
    together = np.repeat([1, 1, 1, 0], 25)
    groups = [f"g{i // 5}" for i in range(100)]
    narrow, wide = (bootstrap_interval(correct, groups) for correct in (apart, together))
    assert narrow.mean == wide.mean == 0.75
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(15)], 3).tolist()
    covered = 0
    for _ in range(200):
        chance = rng.beta(0.8 * 2, 0.2 * 2, size=15)  # groups differ: correlation 1/3
        correct = rng.random(45) < np.repeat(chance, 3)
        score = bootstrap_interval(correct, groups, n_resamples=300)
        covered += score.low <= 0.8 <= score.high
    assert covered >= 186  # 95 % would be 190; binomial noise of three deviations is 9


def test_interval_does_not_depend_on_the_order_of_clips_beyond_the_seed() -> None:
    groups = ["b", "a", "b", "c"]
    assert bootstrap_interval([1, 0, 1, 1], groups, seed=1) == bootstrap_interval(
        [1, 0, 1, 1], groups, seed=1
    )
    one = bootstrap_interval([1.0, 0.5], ["a", "a"])
    assert 0 <= one.low <= one.mean <= one.high <= 1


def test_flip_test_by_hand() -> None:
    assert flip_test([1, 1, 1]) == pytest.approx(2 / 8)
    assert flip_test([1, 1, 1, 1, 1, 0, 0]) == pytest.approx(2 / 32)
    assert flip_test([1, -1]) == 1.0
    assert flip_test([0, 0]) == 1.0


def test_flip_test_with_many_groups() -> None:
    assert flip_test(np.ones(40)) < 0.001
    balanced = np.tile([1.0, -1.0], 20)
    balanced[0] = 3.0
    # Sum 2 of 39 units and one of 3: normal approximation of the two-sided p-value.
    expected = math.erfc((2 - 1) / math.sqrt(39 + 9) / math.sqrt(2))
    assert flip_test(balanced) == pytest.approx(expected, abs=0.03)


def test_holm_by_hand() -> None:
    assert adjust_p_values([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_p_values([]) == []


def test_report_has_top5_only_where_it_says_something() -> None:
    truth = np.array([0, 1, 2])
    few = report_scores(np.eye(3), truth, ["a", "b", "c"], ["x", "y", "z"])
    assert few["top5"] is None
    assert few["accuracy"]["mean"] == 1.0
    many = report_scores(np.eye(7)[:3], truth, ["a", "b", "c"], list("abcdefg"))
    assert many["top5"] == 1.0
    assert sum(map(sum, many["confusions"])) == 3
