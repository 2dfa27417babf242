"""Intervals and verdicts against simulated comparisons in which heads really train."""

from __future__ import annotations

import pytest
from simulated_heads import (
    World,
    measure_coverage,
)

# How many cases are simulated, and by how many percentage points the bounds are wider for few.
SIMULATED = pytest.mark.parametrize(
    ("n_cases", "slack"), [(150, 5.0), pytest.param(1500, 1.0, marks=pytest.mark.soak)]
)


@SIMULATED
@pytest.mark.parametrize(
    "world",
    [
        World(40, signal=0.0, n_seeds=1, features=(0,)),
        World(40, signal=1.0),
        World(40, n_folds=1, signal=1.0),
    ],
    ids=str,
)
def test_intervals_hold_the_truth(world: World, n_cases: int, slack: float) -> None:
    assert 93 - slack <= measure_coverage(world, n_cases)[0] <= 97 + slack


def test_folds_that_count_as_independent_hold_it_too_seldom() -> None:
    """So the simulations can fail: labels that mean nothing, and folds that train on each other."""
    world = World(40, signal=0.0, n_seeds=1, features=(0,))
    assert measure_coverage(world, 300, overlaps=False)[0] < 91


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


@pytest.mark.soak
@pytest.mark.parametrize("world", COVERED, ids=str)
def test_intervals_hold_the_truth_on_the_whole_grid(world: World) -> None:
    covered = measure_coverage(world, 1000)[0]
    print(f"{covered:5.1f} % {world}")
    assert 90 <= covered <= 99.9
