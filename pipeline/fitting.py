"""Fitting one head to sequences: the loop, early stopping, and prediction."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.errors import OptionInvalid, TrainingFailed
from features.quiet import import_keras
from features.records import FloatArray, IntArray
from pipeline.batches import Float32Array, Sequences, frame_statistics, model_inputs
from pipeline.heads import HeadOptions, build_head

ClassWeights = Literal["none", "balanced"]

# What TensorFlow, JAX and the OpenMP of PyTorch read when they are first imported.
_THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
)


# A validation loss that creeps towards zero by less than this no longer buys anything.
_LEAST_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How one epoch went.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float
        Means over the training part while it was learned (dropout on), clips weighed as
        `FitOptions.class_weights` says.
    val_loss, val_accuracy : float
        Over the validation part after the epoch; the loss weighed alike, the accuracy not.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a head is trained.

    Attributes
    ----------
    epochs : int, default 100
        Most epochs; early stopping usually ends before.
    batch_size : int, default 16
        Clips per step.
    learning_rate : float, default 1e-3
        Of AdamW.
    patience : int, default 12
        Epochs without a validation loss lower by at least 0.01 after which training stops.
    class_weights : {"none", "balanced"}, default "none"
        "balanced" weighs every class as if it had equally many clips.
    """

    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-3
    patience: int = 12
    class_weights: ClassWeights = "none"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise OptionInvalid(f"--{option} must be at least 1. Got {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise OptionInvalid(f"--learning-rate must be above 0. Got {self.learning_rate}.")
        if self.class_weights not in ("none", "balanced"):
            raise OptionInvalid(
                f"--class-weights must be none or balanced. Got '{self.class_weights}'."
            )


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A trained head.

    Attributes
    ----------
    model : keras.Model
        With the weights of the best epoch.
    history : tuple of EpochReport
    best_epoch : int
        From 1, the epoch of the lowest validation loss.
    """

    model: Any = field(repr=False)
    history: tuple[EpochReport, ...]
    best_epoch: int


def fit_head(
    train: Sequences,
    val: Sequences,
    *,
    head: str,
    n_classes: int,
    seed: int = 0,
    head_options: HeadOptions | None = None,
    fit_options: FitOptions | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> FittedHead:
    """Train a head until the validation loss stops falling.

    Sets the global random seeds of Python, NumPy and the Keras backend to `seed`.

    Parameters
    ----------
    train, val : Sequences
        With known class indices.
    head : str
        A key of `pipeline.heads.HEADS`.
    n_classes : int
        At least 2.
    seed : int, default 0
        The same seed gives the same head on the same machine.
    head_options : HeadOptions, optional
    fit_options : FitOptions, optional
    on_epoch : callable, optional
        Called after every epoch.

    Returns
    -------
    FittedHead

    Raises
    ------
    HeadUnknown
        If there is no such head.
    TrainingFailed
        If a loss is not finite.
    """
    options = fit_options or FitOptions()
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    mean, deviation = frame_statistics(train)

    def build() -> Any:
        return build_head(
            head,
            embedding_dim=train.vectors.shape[2],
            n_classes=n_classes,
            mean=mean,
            deviation=deviation,
            options=head_options,
        )

    model = build()
    model.compile(
        optimizer=keras.optimizers.AdamW(options.learning_rate, weight_decay=0.01, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        # Not `metrics`, which would count the clips that fill up the last batch.
        weighted_metrics=["accuracy"],
    )
    shuffler = np.random.default_rng(seed)
    class_weights = _weigh_classes(train.class_indices, n_classes, options.class_weights)
    clip_weights = class_weights[train.class_indices]
    history: list[EpochReport] = []
    best_loss, best_epoch, best_weights = math.inf, 0, model.get_weights()
    milestone, milestone_epoch = math.inf, 0
    for epoch in range(1, options.epochs + 1):
        loss, accuracy = _train_epoch(
            model, train, clip_weights, shuffler.permutation(len(train.clip_ids)), options
        )
        val_loss, val_accuracy = _evaluate(model, val, class_weights)
        report = EpochReport(epoch, loss, accuracy, val_loss, val_accuracy)
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            raise TrainingFailed(
                f"The loss must stay finite. Head '{head}' reached loss={loss}, "
                f"val_loss={val_loss} in epoch {epoch}.",
                hint="lower --learning-rate, and check the store with inspect --verify",
            )
        history.append(report)
        if on_epoch is not None:
            on_epoch(report)
        if val_loss < milestone - _LEAST_GAIN:
            milestone, milestone_epoch = val_loss, epoch
        if val_loss < best_loss:
            best_loss, best_epoch, best_weights = val_loss, epoch, model.get_weights()
        if epoch - milestone_epoch >= options.patience:
            break
    # A fresh copy, because a compiled head would be saved with its optimizer: three times the size.
    fitted = build()
    fitted.set_weights(best_weights)
    return FittedHead(fitted, tuple(history), best_epoch)


def predict_probabilities(model: Any, sequences: Sequences, batch_size: int = 64) -> Float32Array:
    """Apply a trained head.

    Parameters
    ----------
    model : keras.Model
        As `fit_head` makes it or `pipeline.runs.load_model` loads it.
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


def limit_threads(n_threads: int | None) -> None:
    """Bound the threads of the Keras backend, before it is imported.

    Parameters
    ----------
    n_threads : int or None
        At least 1; None leaves the backend's default.

    Raises
    ------
    OptionInvalid
        If the number is below 1, or Keras is already running with another one.
    """
    if n_threads is None:
        return
    if n_threads < 1:
        raise OptionInvalid(f"--threads must be at least 1. Received: {n_threads}.")
    if "keras" in sys.modules and os.environ.get(_THREAD_VARIABLES[0]) != str(n_threads):
        raise OptionInvalid(
            f"Threads must be set before Keras is imported. Received: threads={n_threads} in a "
            "process that uses Keras already.",
            hint="set TF_NUM_INTRAOP_THREADS and OMP_NUM_THREADS before starting Python",
        )
    os.environ.update(thread_environment(n_threads))


def thread_environment(n_threads: int) -> dict[str, str]:
    """Return the environment variables that bound a backend's threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(n_threads))


def _train_epoch(
    model: Any,
    train: Sequences,
    clip_weights: npt.NDArray[np.float32],
    order: IntArray,
    options: FitOptions,
) -> tuple[float, float]:
    size = min(options.batch_size, len(order))
    total_loss = total_hits = 0.0
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        n_real = len(rows)
        weights = clip_weights[rows]
        total_weight = float(weights.sum(dtype=np.float64))
        if n_real < size:
            # Filled up with clips of no weight, so that every step has one shape. Keras divides
            # by all clips of a batch: scaled, the gradient is the mean over the real ones.
            rows = np.concatenate([rows, order[: size - n_real]])
            weights = np.pad(weights * np.float32(size / n_real), (0, size - n_real))
        # Keras' own running means would weigh every batch alike, however full it is.
        model.reset_metrics()
        means = model.train_on_batch(
            model_inputs(train, rows),
            train.class_indices[rows],
            sample_weight=weights,
            return_dict=True,
        )
        total_loss += float(means["loss"]) * n_real
        total_hits += float(means["accuracy"]) * total_weight
    everything = float(clip_weights.sum(dtype=np.float64))
    return total_loss / everything, total_hits / everything


def _evaluate(
    model: Any, sequences: Sequences, class_weights: npt.NDArray[np.float32]
) -> tuple[float, float]:
    probabilities = predict_probabilities(model, sequences)
    truth = sequences.class_indices
    of_truth: FloatArray = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    # Weighted as in training: otherwise stopping would undo what the weights are for.
    loss = np.average(-np.log(np.maximum(of_truth, 1e-12)), weights=class_weights[truth])
    return float(loss), float((probabilities.argmax(axis=1) == truth).mean())


def _weigh_classes(
    class_indices: IntArray, n_classes: int, kind: ClassWeights
) -> npt.NDArray[np.float32]:
    if kind == "none":
        return np.ones(n_classes, dtype=np.float32)
    counts = np.maximum(np.bincount(class_indices, minlength=n_classes), 1)
    weights: npt.NDArray[np.float32] = (len(class_indices) / (n_classes * counts)).astype(
        np.float32
    )
    return weights
