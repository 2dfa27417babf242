"""Does the order of frames matter to a head? Tested on clips played backwards and shuffled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.records import IntArray
from pipeline.data.sequences import Sequences
from pipeline.heads.model import predict_clips
from pipeline.heads.registry import HeadOptions
from pipeline.scores.labels import mean_average_precision


@dataclass(frozen=True, slots=True)
class OrderScores:
    """Accuracies of a head on test clips whose frames come in another order.

    Mean average precisions where clips may have several classes.

    A head that is as good on shuffled frames as on the clips as filmed makes no use of time.
    """

    backwards: float
    shuffled: float


def score_orders(
    model: Any, test: Sequences, options: HeadOptions, *, seed: int = 0
) -> OrderScores:
    """Test a head on clips played backwards and with their frames shuffled."""
    rng = np.random.default_rng(seed)
    n_frames = test.mask.sum(axis=1)
    backwards = [np.arange(n)[::-1] for n in n_frames]
    shuffled = [rng.permutation(n) for n in n_frames]
    scores = []
    for orders in (backwards, shuffled):
        probabilities = predict_clips(model, reorder_frames(test, orders), options)
        if test.targets is not None:
            scores.append(mean_average_precision(test.targets, probabilities))
        else:
            scores.append(float((probabilities.argmax(axis=1) == test.class_indices).mean()))
    return OrderScores(*scores)


def reorder_frames(sequences: Sequences, orders: list[IntArray]) -> Sequences:
    """Put the frames of every clip into an order of its own; padding stays behind them."""
    places = np.tile(np.arange(sequences.mask.shape[1]), (len(orders), 1))
    for row, order in zip(places, orders, strict=True):
        row[: len(order)] = order
    vectors = np.take_along_axis(sequences.vectors, places[:, :, np.newaxis], axis=1)
    return replace(sequences, vectors=vectors)
