"""Training a compiled head epoch by epoch until the validation loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import TrainingFailed
from features.records import IntArray
from pipeline.data.sequences import Float32Array, Sequences, model_inputs
from pipeline.data.windows import cut_windows, first_windows, join_windows
from pipeline.heads.headoptions import HeadOptions
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


def predict_probabilities(model: Any, sequences: Sequences, batch_size: int = 64) -> Float32Array:
    """Apply a trained head to sequences as they are.

    Parameters
    ----------
    model : keras.Model
        As `pipeline.training.fit.fit_head` makes it or `pipeline.runs.run.load_model` loads it.
    sequences : Sequences
    batch_size : int, default 64
        Clips at once; affects speed and memory, not the result.

    Returns
    -------
    ndarray of float32, shape (n_clips, n_classes)
        Each row sums to 1.
    """
    n_clips = len(sequences.clip_ids)
    # Whole batches of one shape: the backend compiles the head once.
    size = min(batch_size, n_clips)
    pieces = []
    for start in range(0, n_clips, size):
        rows = np.arange(start, start + size) % n_clips
        batch = model.predict_on_batch(model_inputs(sequences, rows))
        pieces.append(np.asarray(batch, dtype=np.float32)[: n_clips - start])
    return np.concatenate(pieces)


def predict_clips(model: Any, sequences: Sequences, options: HeadOptions) -> Float32Array:
    """Apply a trained head to whole clips, by windows if it was trained so.

    Parameters
    ----------
    model : keras.Model
    sequences : Sequences
        Embeddings of whole clips.
    options : HeadOptions
        What the head was trained with.

    Returns
    -------
    ndarray of float32, shape (n_clips, n_classes)
        Each row sums to 1.
    """
    windows, owners = cut_windows(sequences, options.window)
    return join_windows(predict_probabilities(model, windows), owners, options.aggregate)


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
