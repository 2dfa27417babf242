"""Temperature: how far a head's probabilities are drawn together so that they can be believed.

After Guo et al., "On Calibration of Modern Neural Networks" (2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.records import IntArray
from pipeline.data.sequences import Float32Array
from pipeline.data.windows import join_windows
from pipeline.heads.registry import Aggregate

_RANGE = (0.05, 20.0)
# Before anything is held out, a temperature is expected within a factor of two of 1.
_USUAL_FACTOR = 2.0


def find_temperature(
    members: Sequence[Float32Array],
    owners: IntArray,
    how: Aggregate,
    truth: IntArray,
    weights: Float32Array,
    *,
    n_groups: int,
) -> float:
    """Find the temperature at which held-out clips are most likely.

    `members` are the probabilities that each member gives the windows of the clips. A group
    counts as one observation, and few of them hardly move the temperature from 1: where all
    clips are right, they alone would ask for boundless confidence.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        tempered = apply_temperature(members, float(np.exp(log_temperature)))
        of_truth = join_windows(tempered, owners, how)[np.arange(len(truth)), truth]
        losses = -np.log(np.maximum(of_truth.astype(np.float64), 1e-9))
        doubt = 0.5 * (log_temperature / np.log(_USUAL_FACTOR)) ** 2
        return float(n_groups * np.average(losses, weights=weights) + doubt)

    found = minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded")
    return float(np.exp(found.x))


def apply_temperature(members: Sequence[Float32Array], temperature: float) -> Float32Array:
    """Average the probabilities of members whose logits are divided by a temperature."""
    logits = [np.log(np.maximum(found, 1e-12)) / temperature for found in members]
    powers = [np.exp(item - item.max(axis=1, keepdims=True)) for item in logits]
    shares = [item / item.sum(axis=1, keepdims=True) for item in powers]
    means: Float32Array = np.mean(shares, axis=0).astype(np.float32)
    return means
