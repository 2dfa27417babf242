"""Intervals and verdicts against simulated comparisons in which heads really train."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from simulated_heads import (
    World,
    draw_samples,
    measure_coverage,
    measure_false_alarms,
    measure_power,
)
from stage2_helpers import make_clips, write_store

from features.records import FloatArray
from features.store.store import open_store
from features.system.files import read_csv
from pipeline.compare.compare import compare_heads
from pipeline.scores.intervals import accuracy_interval
from pipeline.scores.joint import Contender, judge_pairs
from pipeline.scores.winner import accuracy_of_winner
from pipeline.splits.choose import SplitOptions, choose_split

# How many cases are simulated, and by how many percentage points the bounds are wider for few.
SIMULATED = pytest.mark.parametrize(
    ("n_cases", "slack"), [(150, 5.0), pytest.param(1500, 1.0, marks=pytest.mark.soak)]
)

COVERED = [
    World(n_groups, signal=signal, n_seeds=n_seeds, features=(n_features,), **kind)
    for n_groups in (7, 10, 20, 40, 100, 200)
    for signal in (0.0, 1.0, 2.0)
    for n_features, n_seeds in ((0, 1), (24, 1), (24, 3))
    for kind in (
        {"dim": 16},
        {"dim": 120},
        {"n_classes": 4},
        {"sizes": (1, 2, 3, 8), "mixed": True},
        {"n_folds": 1, "sizes": (1, 2, 7)},
    )
]


@SIMULATED
@pytest.mark.parametrize(
    "world",
    [
        World(40, signal=0.0, n_seeds=1, features=(0,)),
        World(40, signal=1.0),
        World(40, n_folds=1, signal=1.0, n_seeds=1),
    ],
    ids=str,
)
def test_intervals_hold_the_truth(world: World, n_cases: int, slack: float) -> None:
    assert 93 - slack <= measure_coverage(world, n_cases)[0] <= 97 + slack


def test_folds_that_count_as_independent_hold_it_too_seldom() -> None:
    """So the simulations can fail: labels that mean nothing, and folds that train on each other."""
    world = World(40, signal=0.0, n_seeds=1, features=(0,))
    assert measure_coverage(world, 300, overlaps=False)[0] < 91


@pytest.mark.soak
@pytest.mark.parametrize("world", COVERED, ids=str)
def test_intervals_hold_the_truth_on_the_whole_grid(world: World) -> None:
    covered = measure_coverage(world, 1000)[0]
    print(f"{covered:5.1f} % {world}")
    assert 90 <= covered <= (99.9 if world.n_groups < 20 else 99)


@SIMULATED
@pytest.mark.parametrize(
    "world",
    [
        World(50, n_folds=1, sizes=(4,), signal=1.5, features=(12,) * 3),
        World(20, signal=0.0, features=(12,) * 3, strengths=(1.0,) * 3),
    ],
    ids=str,
)
def test_heads_of_equal_truth_are_seldom_told_apart(
    world: World, n_cases: int, slack: float
) -> None:
    assert measure_false_alarms(world, n_cases) <= 5.5 + slack


def test_luck_in_training_that_is_left_out_tells_a_head_from_itself() -> None:
    """So the simulations can fail: trainings of one head, each as if it were all there is."""
    world = World(200, n_folds=1, sizes=(4,), signal=1.5, features=(12, 12), n_seeds=1)
    alarms = [
        judge_pairs(sample.contenders, [(0, 1)], sample.groups, n_draws=1000).p_values[0] < 0.05
        for sample in draw_samples(world, 60)
    ]
    assert 100 * np.mean(alarms) > 25


@pytest.mark.soak
@pytest.mark.parametrize("n_heads", [2, 4, 9, 17])
@pytest.mark.parametrize("n_groups", [10, 50, 200])
@pytest.mark.parametrize("n_folds", [1, 5])
def test_heads_of_equal_truth_are_seldom_told_apart_on_the_whole_grid(
    n_heads: int, n_groups: int, n_folds: int
) -> None:
    for signal in (0.0, 1.5):
        for n_seeds in (2, 3):
            world = World(
                n_groups,
                n_folds=n_folds,
                sizes=(4,) if n_folds == 1 else (2,),
                signal=signal,
                n_seeds=n_seeds,
                features=(12,) * n_heads,
            )
            alarms = measure_false_alarms(world, 500)
            print(f"{alarms:5.1f} % {world}")
            assert alarms <= 8


def test_many_heads_on_few_groups_are_told_apart() -> None:
    """Ten groups and nine heads: a correction of p-values one by one finds nothing."""
    world = World(
        10,
        n_folds=1,
        sizes=(12,),
        signal=2.0,
        features=(0,) * 9,
        strengths=(1.0,) * 4 + (0.0,) * 5,
    )
    together, one_by_one = measure_power(world, 20)
    assert together > 30
    assert one_by_one == 0


@SIMULATED
def test_the_first_of_many_heads_is_corrected(n_cases: int, slack: float) -> None:
    """Nine heads that are right 60 % of the time, on 40 groups of two clips."""
    rng = np.random.default_rng(9)
    groups = [f"g{i // 2:02d}" for i in range(80)]
    first, corrected = [], []
    for _ in range(n_cases // 3):
        hits = [(rng.random((3, 80)) < chances).astype(float) for chances in draw_chances(rng, 9)]
        first.append(max(head.mean() for head in hits))
        corrected.append(accuracy_of_winner(hits, groups))
    print(f"first {np.mean(first):.3f}, corrected {np.mean(corrected):.3f}")
    assert np.mean(first) > 0.65
    assert abs(np.mean(corrected) - 0.6) < 0.01 + slack / 500


def draw_chances(rng: np.random.Generator, n_heads: int) -> FloatArray:
    """How likely each head is right of each clip, the same for clips of one group."""
    chances: FloatArray = np.clip(0.6 + 0.25 * rng.normal(size=(n_heads, 40)), 0, 1).repeat(
        2, axis=1
    )
    return chances


@pytest.mark.soak
def test_trainings_of_a_real_head_are_not_told_apart(tmp_path: Path) -> None:
    """Twelve trainings of one head on one split, as if they were four heads with three seeds."""
    n_alarms = n_pairs = 0
    for number in range(4):
        clips = make_clips(n_groups=60, per_group=4)
        store = write_store(tmp_path / f"{number}.h5", clips, signal=0.25, seed=number)
        out = tmp_path / f"compared{number}"
        split, _ = choose_split(open_store(store), SplitOptions(test_fraction=0.5))
        compare_heads(store, out, heads=["mlp"], seeds=12, split=SplitOptions(split=split))
        rows = read_csv(out / "predictions.csv")
        right: dict[str, list[float]] = {}
        for row in rows:
            right.setdefault(row["seed"], []).append(row["label"] == row["predicted"])
        hits = np.array([right[str(seed)] for seed in range(12)], dtype=float)
        heads = [Contender(str(k), hits[3 * k : 3 * k + 3]) for k in range(4)]
        groups = [row["group"] for row in rows if row["seed"] == "0"]
        pairs = list(combinations(range(4), 2))
        n_alarms += int((judge_pairs(heads, pairs, groups).p_adjusted < 0.05).sum())
        n_pairs += len(pairs)
        single = [Contender(str(k), hits[k : k + 1]) for k in range(12)]
        every = list(combinations(range(12), 2))
        alone = judge_pairs(single, every, groups).p_values
        print(f"each training by itself: {100 * (alone < 0.05).mean():.0f} % of pairs")
        score = accuracy_interval(hits, groups)
        print(f"{score}, told apart {n_alarms} of {n_pairs}")
    assert n_alarms <= 2
