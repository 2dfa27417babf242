"""Prediction sets that hold the right class as often as is asked for, over new groups.

Split conformal prediction. Clips of one group are alike, so a group counts once however many
clips it has, as in Lee, Barber and Willett, "Distribution-free inference with hierarchical
data" (2023): the share of new groups whose clips are covered is at least the one asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import OptionInvalid, RunDamaged
from features.system.files import read_json, write_json
from pipeline.data.sequences import Float32Array

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True, slots=True, repr=False)
class HeldOut:
    """How improbable a head found the classes of clips that it had not learned from."""

    misses: tuple[float, ...]  # 1 - the probability of the right class, clip by clip
    groups: tuple[str, ...]


def write_held_out(folder: Path, held_out: HeldOut, temperature: float) -> None:
    """Write what prediction sets are made from into a run's folder."""
    content = {
        "temperature": temperature,
        "held_out": [
            {"group": group, "miss": round(miss, 6)}
            for group, miss in zip(held_out.groups, held_out.misses, strict=True)
        ],
    }
    write_json(folder / CALIBRATION_FILE, content)


def read_held_out(folder: Path) -> HeldOut:
    """Read what `write_held_out` wrote, or raise RunDamaged; older runs lack it."""
    try:
        rows = read_json(folder / CALIBRATION_FILE)["held_out"]
        misses = tuple(float(row["miss"]) for row in rows)
        return HeldOut(misses, tuple(str(row["group"]) for row in rows))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunDamaged(
            f"Prediction sets need {CALIBRATION_FILE}. In '{folder}' it cannot be read: {problem}.",
            hint="train it again with --overwrite",
        ) from problem


def find_threshold(held_out: HeldOut, coverage: float) -> float:
    """Return the least probability of a class in a set of this coverage.

    Raises OptionInvalid if there are too few groups: a new group may always be unlike all of
    them, so of n groups at most n / (n + 1) can be covered.
    """
    if not 0 < coverage < 1:
        raise OptionInvalid(f"--coverage must lie between 0 and 1. Received: {coverage}.")
    if not held_out.groups:
        raise OptionInvalid(
            "--coverage is for clips of one class each. The clips of this run may have several.",
            hint="leave it out: classes are named that reach their thresholds",
        )
    _, numbers, sizes = np.unique(held_out.groups, return_inverse=True, return_counts=True)
    n_groups = len(sizes)
    most = n_groups / (n_groups + 1)
    if coverage > most + 1e-9:
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise OptionInvalid(
            f"A coverage of {coverage} needs {needed} groups that the head did not learn from. "
            f"The run was calibrated with {n_groups}.",
            hint=f"--coverage {math.floor(100 * most) / 100}, or train-head with --calibration "
            "cross, which holds out every group of the training part once",
        )
    shares = 1 / (n_groups + 1) / sizes[numbers]
    order = np.argsort(held_out.misses)
    covered = np.cumsum(shares[order])
    place = int(np.searchsorted(covered, coverage - 1e-9))
    return 1.0 - held_out.misses[int(order[min(place, len(order) - 1)])]


def choose_set(
    probabilities: Sequence[float] | Float32Array, classes: Sequence[str], threshold: float
) -> tuple[str, ...]:
    """List the classes that are probable enough, the most probable first; there may be none."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    return tuple(classes[i] for i in order if probabilities[i] >= threshold - 1e-7)
