"""One epoch of training: the whole of it as one graph on TensorFlow, else batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from features.records import IntArray
from features.system.keras import import_keras
from pipeline.data.sequences import Float32Array, Sequences, is_aligned, model_inputs

# Trains once through the clips in the order given, and returns loss and accuracy: weighted means
# over the clips, as they were learned.
Epoch = Callable[[IntArray], tuple[float, float]]


class Trainer(Protocol):
    """Trains a compiled core an epoch at a time, on clips that it holds no longer than `Epoch`."""

    def start(self, clips: Sequences, weights: Float32Array) -> Epoch:
        """Take up prepared clips with a weight for each."""
        ...  # pragma: no cover


def make_trainer(core: Any, batch_size: int) -> Trainer:
    """Choose how a core is trained; both kinds of trainer take the same steps."""
    if import_keras().backend.backend() == "tensorflow":
        return GraphTrainer(core, batch_size)
    return BatchTrainer(core, batch_size)


class BatchTrainer:
    """Calls Keras for every batch; see `Trainer`."""

    def __init__(self, core: Any, batch_size: int) -> None:
        self._core = core
        self._batch_size = batch_size

    def start(self, clips: Sequences, weights: Float32Array) -> Epoch:
        """See `Trainer`."""
        total = float(weights.sum(dtype=np.float64))

        def train(order: IntArray) -> tuple[float, float]:
            loss = hits = 0.0
            for rows, shares in zip(*cut_batches(order, self._batch_size), strict=True):
                # Keras' own running means would weigh every batch alike, however full it is.
                self._core.reset_metrics()
                means = self._core.train_on_batch(
                    model_inputs(clips, rows),
                    clips.truth[rows],
                    sample_weight=weights[rows] * shares,
                    return_dict=True,
                )
                n_real = np.count_nonzero(shares)
                loss += float(means["loss"]) * n_real
                hits += float(means["accuracy"]) * float(weights[rows[:n_real]].sum())
            return loss / total, hits / total

        return train


class GraphTrainer:
    """Runs all batches of an epoch in one call of TensorFlow; see `Trainer`.

    The clips lie in memory as one tensor; steps gather and convert their batches themselves.
    Whole fits take Keras' `fit`, with `steps_per_execution`, 1.6 to 3 times as long.
    """

    def __init__(self, core: Any, batch_size: int) -> None:
        import tensorflow as tf

        self._core = core
        self._batch_size = batch_size
        # Of any number of clips and frames: traced once for all folds of a comparison.
        self._run = tf.function(self._run_epoch, reduce_retracing=True)

    def start(self, clips: Sequences, weights: Float32Array) -> Epoch:
        """See `Trainer`."""
        import tensorflow as tf

        # On the host: a store may be larger than the memory of a GPU.
        with tf.device("CPU"):
            small = [tf.constant(a) for a in (clips.mask, clips.truth, weights)]
            if is_aligned(clips.vectors):
                # Not copied, and freed with the array: TensorFlow's allocator keeps its memory.
                vectors = tf.experimental.dlpack.from_dlpack(clips.vectors.__dlpack__())
            else:
                vectors = tf.constant(clips.vectors)
        total = float(weights.sum(dtype=np.float64))

        def train(order: IntArray) -> tuple[float, float]:
            rows, shares = cut_batches(order, self._batch_size)
            loss, hits = self._run(vectors, *small, tf.constant(rows), tf.constant(shares))
            return float(loss) / total, float(hits) / total

        return train

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

        with tf.GradientTape() as tape:
            probabilities = self._core(inputs, training=True)
            of_clips = clip_losses(truth, probabilities)
            loss = tf.reduce_mean(of_clips * weights)
        learned = self._core.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in learned])
        self._core.optimizer.apply(gradients, learned)
        if len(truth.shape) == 2:
            right = tf.cast((probabilities > 0.5) == (truth > 0.5), tf.float32)
            return of_clips, tf.reduce_mean(right, axis=-1)
        named = tf.argmax(probabilities, axis=-1, output_type=truth.dtype)
        return of_clips, tf.cast(named == truth, tf.float32)


def clip_losses(truth: Any, probabilities: Any) -> Any:
    """Compute the loss of every clip: cross-entropy, of several classes summed over all.

    The sum, unlike Keras' mean, has the gradients of a single class' loss: what an error of one
    probability weighs does not depend on how many classes there are.
    """
    losses = import_keras().losses
    if len(truth.shape) == 2:
        return probabilities.shape[-1] * losses.binary_crossentropy(truth, probabilities)
    return losses.sparse_categorical_crossentropy(truth, probabilities)


def cut_batches(order: IntArray, batch_size: int) -> tuple[IntArray, Float32Array]:
    """Cut an order of clips into batches of one size: rows and shares, (n_batches, size).

    The last batch is filled up with the first clips, so that every step has one shape. A share
    multiplies a clip's weight: it is 0 for what fills up, and more than 1 for the clips beside
    it, because means are taken over all clips of a batch.
    """
    size = min(batch_size, len(order))
    n_batches = -(-len(order) // size)
    rows = np.resize(order, n_batches * size).reshape(n_batches, size)
    shares = np.ones((n_batches, size), dtype=np.float32)
    n_real = len(order) - (n_batches - 1) * size
    shares[-1] = 0
    shares[-1, :n_real] = size / n_real
    return rows, shares
