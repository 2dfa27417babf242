"""One epoch of training: the whole of it as one graph on TensorFlow, else batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, IntArray
from features.system.keras import import_keras
from pipeline.data.sequences import Float32Array, Sequences, model_inputs


@dataclass(frozen=True, slots=True, repr=False)
class TrainingData:
    """Clips to train on.

    Attributes
    ----------
    clips : Sequences
        Prepared frames.
    weights : ndarray of float32, shape (n_clips,)
    """

    clips: Sequences
    weights: npt.NDArray[np.float32]


class Trainer(Protocol):
    """Trains a core for an epoch at a time."""

    def train(self, data: TrainingData, order: IntArray) -> tuple[float, float]:
        """Train once through the clips in the order given.

        Returns
        -------
        loss, accuracy : float
            Weighted means over the clips, as they were learned.
        """
        ...  # pragma: no cover


def make_trainer(core: Any, batch_size: int) -> Trainer:
    """Choose how a core is trained.

    Parameters
    ----------
    core : keras.Model
        Compiled, see `pipeline.heads.model.HeadModel`.
    batch_size : int
        At least 1.

    Returns
    -------
    Trainer
        Both kinds take the same steps.
    """
    if import_keras().backend.backend() == "tensorflow":
        return GraphTrainer(core, batch_size)
    return BatchTrainer(core, batch_size)


class BatchTrainer:
    """Calls Keras for every batch; see `Trainer`."""

    def __init__(self, core: Any, batch_size: int) -> None:
        self._core = core
        self._batch_size = batch_size

    def train(self, data: TrainingData, order: IntArray) -> tuple[float, float]:
        """See `Trainer`."""
        total_loss = total_hits = 0.0
        for rows, shares in zip(*cut_batches(order, self._batch_size), strict=True):
            weights = data.weights[rows] * shares
            # Keras' own running means would weigh every batch alike, however full it is.
            self._core.reset_metrics()
            means = self._core.train_on_batch(
                model_inputs(data.clips, rows),
                data.clips.class_indices[rows],
                sample_weight=weights,
                return_dict=True,
            )
            n_real = np.count_nonzero(shares)
            total_loss += float(means["loss"]) * n_real
            total_hits += float(means["accuracy"]) * float(data.weights[rows[:n_real]].sum())
        everything = float(data.weights.sum(dtype=np.float64))
        return total_loss / everything, total_hits / everything


class GraphTrainer:
    """Runs all batches of an epoch in one call of TensorFlow; see `Trainer`.

    The clips lie in memory as one tensor; steps gather and convert their batches themselves.
    """

    def __init__(self, core: Any, batch_size: int) -> None:
        import tensorflow as tf

        self._core = core
        self._batch_size = batch_size
        self._held: TrainingData | None = None
        self._tensors: tuple[Any, ...] = ()
        # Of any number of clips and frames: traced once for all folds of a comparison.
        self._run = tf.function(self._run_epoch, reduce_retracing=True)

    def train(self, data: TrainingData, order: IntArray) -> tuple[float, float]:
        """See `Trainer`."""
        import tensorflow as tf

        if self._held is not data:
            clips = data.clips
            # On the host: a store may be larger than the memory of a GPU.
            with tf.device("CPU"):
                arrays = (clips.vectors, clips.mask, clips.class_indices, data.weights)
                self._tensors = tuple(tf.constant(array) for array in arrays)
            self._held = data
        rows, shares = cut_batches(order, self._batch_size)
        batches = [tf.constant(rows), tf.constant(shares)]
        loss, hits = self._run(*self._tensors, *batches)
        everything = float(data.weights.sum(dtype=np.float64))
        return float(loss) / everything, float(hits) / everything

    def _run_epoch(
        self, vectors: Any, mask: Any, labels: Any, weights: Any, rows: Any, shares: Any
    ) -> Any:
        import tensorflow as tf

        def step(number: Any, loss: Any, hits: Any) -> Any:
            chosen = tf.ensure_shape(rows[number], (rows.shape[1],))
            inputs = {
                "vectors": tf.cast(tf.gather(vectors, chosen), tf.float32),
                "mask": tf.gather(mask, chosen),
            }
            truth, own = tf.gather(labels, chosen), tf.gather(weights, chosen)
            share = shares[number]
            of_clips, right = self._take_step(inputs, truth, own * share)
            is_real = tf.cast(share > 0, tf.float32)
            gained = tf.cast(tf.reduce_sum(of_clips * own * is_real), tf.float64)
            found = tf.cast(tf.reduce_sum(right * own * is_real), tf.float64)
            return number + 1, loss + gained, hits + found

        zero = tf.constant(0.0, tf.float64)
        _, loss, hits = tf.while_loop(
            lambda number, *_: number < tf.shape(rows)[0],
            step,
            (0, zero, zero),
            parallel_iterations=1,
        )
        return loss, hits

    def _take_step(self, inputs: Any, truth: Any, weights: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        keras = import_keras()
        with tf.GradientTape() as tape:
            probabilities = self._core(inputs, training=True)
            of_clips = keras.losses.sparse_categorical_crossentropy(truth, probabilities)
            loss = tf.reduce_mean(of_clips * weights)
        learned = self._core.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in learned])
        self._core.optimizer.apply(gradients, learned)
        named = tf.argmax(probabilities, axis=-1, output_type=truth.dtype)
        return of_clips, tf.cast(named == truth, tf.float32)


def cut_batches(order: IntArray, batch_size: int) -> tuple[IntArray, Float32Array]:
    """Cut an order of clips into batches of one size.

    Parameters
    ----------
    order : ndarray of int64, shape (n_clips,)
    batch_size : int
        At least 1; fewer if there are fewer clips.

    Returns
    -------
    rows : ndarray of int64, shape (n_batches, size)
        The last batch is filled up with the first clips, so that every step has one shape.
    shares : ndarray of float32, shape (n_batches, size)
        By what the weight of a clip is multiplied: 0 for what fills up, and beside that more
        than 1, because means are taken over all clips of a batch.
    """
    size = min(batch_size, len(order))
    n_batches = -(-len(order) // size)
    rows = np.resize(order, n_batches * size).reshape(n_batches, size)
    shares = np.ones((n_batches, size), dtype=np.float32)
    n_real = len(order) - (n_batches - 1) * size
    shares[-1] = 0
    shares[-1, :n_real] = size / n_real
    return rows, shares


def mean_loss(probabilities: Float32Array, truth: IntArray, weights: FloatArray) -> float:
    """Return the weighted mean of minus the logarithm of the true class's probability."""
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(np.average(-np.log(np.maximum(of_truth, 1e-12)), weights=weights))
