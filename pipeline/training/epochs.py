"""Training a compiled head epoch by epoch until the validation loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import TrainingFailed
from features.records import IntArray
from pipeline.data.sequences import Sequences
from pipeline.data.windows import first_windows, join_windows
from pipeline.heads.model import predict_probabilities
from pipeline.heads.registry import HeadOptions
from pipeline.training.options import EpochReport, FitOptions
from pipeline.training.trainers import Trainer, TrainingData, mean_loss

# A validation loss that creeps towards zero by less than this no longer buys anything.
_LEAST_GAIN = 0.01


def train_epochs(
    core: Any,
    trainer: Trainer,
    train: Sequences,
    val: Sequences,
    owners: tuple[IntArray, IntArray],
    class_weights: npt.NDArray[np.float32],
    *,
    seed: int,
    head_options: HeadOptions,
    fit_options: FitOptions,
    on_epoch: Callable[[EpochReport], None] | None,
) -> tuple[tuple[EpochReport, ...], int]:
    """Train until nothing is gained any more, and leave the best weights in place.

    Parameters
    ----------
    core : keras.Model
        Compiled, see `pipeline.heads.model.HeadModel`.
    trainer : Trainer
        Of this core.
    train, val : Sequences
        Windows of prepared frames.
    owners : (ndarray of int64, ndarray of int64)
        Of the windows of `train` and `val`, see `pipeline.data.windows.cut_windows`.
    class_weights : ndarray of float32, shape (n_classes,)
    seed : int
        Of the order of the clips.
    head_options : HeadOptions
    fit_options : FitOptions
    on_epoch : callable or None

    Returns
    -------
    tuple of EpochReport
    int
        The best epoch, from 1.

    Raises
    ------
    TrainingFailed
        If a loss is not finite.
    """
    n_windows = np.bincount(owners[0])
    # Every clip weighs the same, however many windows it has.
    shares = len(owners[0]) / len(n_windows) / n_windows[owners[0]]
    weights = (class_weights[train.class_indices] * shares).astype(np.float32)
    data = TrainingData(train, weights)
    shuffler = np.random.default_rng(seed)
    history: list[EpochReport] = []
    best_loss, best_epoch, best_weights = math.inf, 0, core.get_weights()
    milestone, milestone_epoch = math.inf, 0
    for epoch in range(1, fit_options.epochs + 1):
        order = shuffler.permutation(len(owners[0]))
        loss, accuracy = trainer.train(data, order)
        val_loss, val_accuracy = _evaluate(core, val, owners[1], class_weights, head_options)
        report = EpochReport(epoch, loss, accuracy, val_loss, val_accuracy)
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            raise TrainingFailed(
                f"The loss must stay finite. Head '{core.name.replace('_', '-')}' reached "
                f"loss={loss}, val_loss={val_loss} in epoch {epoch}.",
                hint="lower --learning-rate, and check the store with inspect --verify",
            )
        history.append(report)
        if on_epoch is not None:
            on_epoch(report)
        if val_loss < milestone - _LEAST_GAIN:
            milestone, milestone_epoch = val_loss, epoch
        if val_loss < best_loss:
            best_loss, best_epoch, best_weights = val_loss, epoch, core.get_weights()
        if epoch - milestone_epoch >= fit_options.patience:
            break
    core.set_weights(best_weights)
    return tuple(history), best_epoch


def _evaluate(
    core: Any,
    sequences: Sequences,
    owners: IntArray,
    class_weights: npt.NDArray[np.float32],
    options: HeadOptions,
) -> tuple[float, float]:
    probabilities = join_windows(predict_probabilities(core, sequences), owners, options.aggregate)
    truth = sequences.class_indices[first_windows(owners)]
    # Weighted as in training: otherwise stopping would undo what the weights are for.
    loss = mean_loss(probabilities, truth, class_weights[truth].astype(np.float64))
    return loss, float((probabilities.argmax(axis=1) == truth).mean())
