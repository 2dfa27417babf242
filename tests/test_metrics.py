"""Scores: against their definitions, against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.scores.metrics import (
    balanced_accuracy,
    calibration_error,
    calibration_floor,
    count_confusions,
    hits_in_top,
    macro_f1,
    most_frequent,
    reliability_bins,
    report_scores,
    score_classes,
)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_their_definitions(pairs: list[tuple[int, int]]) -> None:
    """Also where classes are not tested, not predicted, or neither: without a warning."""
    truth, predicted = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    table = count_confusions(truth, predicted, 4)
    assert table.tolist() == [
        [pairs.count((row, column)) for column in range(4)] for row in range(4)
    ]
    hits, tested, named = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    recall = hits / np.maximum(tested, 1)
    f1 = 2 * hits / np.maximum(tested + named, 1)
    assert balanced_accuracy(truth, predicted) == pytest.approx(recall[tested > 0].mean())
    assert macro_f1(truth, predicted) == pytest.approx(f1[tested + named > 0].mean())
    scores = score_classes(truth, predicted, "abcd")
    assert [s.label for s in scores] == list("abcd")
    assert [s.precision for s in scores] == pytest.approx(hits / np.maximum(named, 1))
    assert [s.recall for s in scores] == pytest.approx(recall)
    assert [s.f1 for s in scores] == pytest.approx(f1)
    assert [s.support for s in scores] == tested.tolist()


def test_top_k_counts_the_most_probable() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    truth = np.array([1, 0, 1])
    assert hits_in_top(probabilities, truth, 1).tolist() == [False, False, False]
    assert hits_in_top(probabilities, truth, 2).tolist() == [True, False, True]
    assert hits_in_top(probabilities, truth, 5).all()


@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_top_k_is_that_of_scikit_learn(seed: int, n_classes: int, n_clips: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(n_classes), size=n_clips)
    truth = rng.integers(n_classes, size=n_clips)
    for k in range(1, n_classes):
        expected = reference.top_k_accuracy_score(
            truth, probabilities, k=k, labels=range(n_classes)
        )
        assert hits_in_top(probabilities, truth, k).mean() == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Bin (0.8, 0.9]: four clips, confidence 0.9, three right: gap 0.15. Bin (0.5, 0.6]: gap 0.4.
    bins = reliability_bins([0.9, 0.9, 0.9, 0.9, 0.6], [1, 1, 1, 0, 1])
    assert calibration_error(bins) == pytest.approx((4 * 0.15 + 0.4) / 5, abs=1e-12)
    assert calibration_error(reliability_bins([1.0, 1.0], [1, 1])) == 0
    assert calibration_error(reliability_bins([0.0, 1.0], [0, 1])) == 0


def test_reliability_by_hand() -> None:
    bins = reliability_bins([0.3, 0.62, 0.68, 0.7, 0.71, 1.0], [0, 1, 0, 1, 1, 1])
    assert [item.n for item in bins] == [0, 0, 1, 0, 0, 0, 3, 1, 0, 1]
    assert (bins[6].low, bins[6].high) == (0.6, 0.7)
    assert bins[6].confidence == pytest.approx(2 / 3)
    assert bins[6].accuracy == pytest.approx(2 / 3)
    assert (bins[0].confidence, bins[0].accuracy) == (None, None)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20)
)
@settings(max_examples=100, deadline=None)
def test_reliability_loses_no_prediction(pairs: list[tuple[float, bool]], n_bins: int) -> None:
    confidence, correct = zip(*pairs, strict=True)
    bins = reliability_bins(confidence, correct, n_bins=n_bins)
    assert len(bins) == n_bins
    assert sum(item.n for item in bins) == len(pairs)
    assert (bins[0].low, bins[-1].high) == (0, 1)
    for item in bins:
        if item.confidence is not None:
            assert item.low - 1e-9 <= item.confidence <= item.high + 1e-9
    hits = sum(item.n * item.accuracy for item in bins if item.accuracy is not None)
    assert hits == pytest.approx(sum(correct))
    # The binned gap is never larger than the gap of every prediction by itself.
    every = np.abs(np.array(confidence) - np.array(correct)).mean()
    assert 0 <= calibration_error(bins) <= every + 1e-9


def test_calibrated_heads_show_an_error_as_large_as_the_floor() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.4, 1.0, size=111)
    floor = calibration_floor(sure)
    errors = [calibration_error(reliability_bins(sure, rng.random(111) < sure)) for _ in range(300)]
    assert floor == pytest.approx(np.mean(errors), abs=0.004)
    assert 0.06 < floor < 0.12  # few clips: what looks miscalibrated may be noise
    assert calibration_floor(np.tile(sure, 100)) < floor / 5
    assert calibration_floor(np.ones(50)) == 0


def test_most_frequent_class() -> None:
    assert most_frequent([2, 0, 2, 1]) == 2
    assert most_frequent([3, 1, 3, 1]) == 1  # of equal ones the first


def test_report_of_few_classes_and_of_many() -> None:
    truth = np.array([0, 1, 2, 2])
    groups = ["a", "b", "c", "d"]
    few = report_scores(
        np.eye(3)[truth], truth, groups, ["x", "y", "z"], majority=0, by_facts=["x"] * 4
    )
    assert few["topk"] == {"top1": 1.0, "top2": 1.0}
    assert few["accuracy"]["mean"] == 1.0
    assert few["reliability"][-1] == {
        "low": 0.9,
        "high": 1.0,
        "n": 4,
        "confidence": 1.0,
        "accuracy": 1.0,
    }
    many = report_scores(
        np.eye(7)[truth], truth, groups, list("abcdefg"), majority=0, by_facts=["a"] * 4
    )
    assert list(many["topk"]) == ["top1", "top2", "top3", "top4", "top5"]
    assert sum(map(sum, many["confusions"])) == 4


def test_report_tells_what_a_constant_guess_would_get() -> None:
    truth = np.array([0] * 30 + [1] * 10)
    groups = [f"g{i}" for i in range(40)]
    # Right on every clip of the frequent class and on no other: as good as the guess.
    constant = report_scores(
        np.tile([0.9, 0.1], (40, 1)), truth, groups, "ab", majority=0, by_facts=["a"] * 40
    )
    assert (constant["majority_class"], constant["majority_accuracy"]) == ("a", 0.75)
    assert constant["accuracy"]["mean"] == 0.75
    assert not constant["above_majority"]
    by_facts = ["a"] * 30 + ["b"] * 10
    perfect = report_scores(np.eye(2)[truth], truth, groups, "ab", majority=0, by_facts=by_facts)
    assert perfect["above_majority"]
    # Whoever knows the files knows the classes.
    assert (perfect["facts_accuracy"], perfect["above_facts"]) == (1.0, False)
    # The training part decides what is named, not the test part.
    other = report_scores(np.eye(2)[truth], truth, groups, "ab", majority=1, by_facts=by_facts)
    assert (other["majority_class"], other["majority_accuracy"]) == ("b", 0.25)
