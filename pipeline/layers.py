"""Keras layers that know which frames are padding, and the ones heads are saved with.

Importing this module registers them, so that a saved head loads in Keras' safe mode.
"""

from __future__ import annotations

from typing import Any

from features.quiet import import_keras

# Before the import below, so that the backend starts without its pages of notices.
import_keras()

import keras  # noqa: E402

_PACKAGE = "framehead"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Standardise(keras.layers.Layer):  # type: ignore[misc]
    """Shift and scale each embedding dimension as learned on the training frames.

    Padding becomes zero whatever it held, so that it can never reach a later layer.
    Call with ``[vectors, mask]``.
    """

    def build(self, input_shape: Any) -> None:
        """Create the two constants; `set_statistics` fills them."""
        dim = input_shape[0][-1]
        self.mean = self.add_weight(name="mean", shape=(dim,), trainable=False)
        self.deviation = self.add_weight(
            name="deviation", shape=(dim,), initializer="ones", trainable=False
        )

    def set_statistics(self, mean: Any, deviation: Any) -> None:
        """Set mean and deviation, float arrays of shape (embedding_dim,)."""
        self.mean.assign(mean)
        self.deviation.assign(deviation)

    def call(self, inputs: Any) -> Any:
        """Return float vectors of the same shape, zero where masked."""
        vectors, mask = inputs
        scaled = (vectors - self.mean) / self.deviation
        return keras.ops.where(keras.ops.expand_dims(mask, -1), scaled, 0.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the vectors."""
        return input_shape[0]


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskedMean(keras.layers.Layer):  # type: ignore[misc]
    """Average over the frames of each clip. Call with ``[vectors, mask]``."""

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, dim) from (n_clips, n_frames, dim) and (n_clips, n_frames)."""
        vectors, mask = inputs
        weights = keras.ops.expand_dims(keras.ops.cast(mask, vectors.dtype), -1)
        n_frames = keras.ops.maximum(keras.ops.sum(weights, axis=1), 1.0)
        return keras.ops.sum(vectors * weights, axis=1) / n_frames

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return (n_clips, dim)."""
        return (input_shape[0][0], input_shape[0][-1])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskedAttention(keras.layers.Layer):  # type: ignore[misc]
    """Average over frames, weighted by a learned relevance. Call with ``[vectors, mask]``.

    Parameters
    ----------
    units : int
        Width of the hidden layer that scores a frame.
    """

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        # Frames that come out of a recurrent layer carry a mask; ours is the same one.
        self.supports_masking = True
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.score = keras.layers.Dense(1, use_bias=False)

    def build(self, input_shape: Any) -> None:
        """Create the weights of the scoring layers."""
        self.hidden.build(input_shape[0])
        self.score.build((*input_shape[0][:-1], self.units))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Say that nothing is masked any more: there is one vector per clip."""

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, dim) from (n_clips, n_frames, dim) and (n_clips, n_frames)."""
        vectors, mask = inputs
        scores = keras.ops.squeeze(self.score(self.hidden(vectors)), -1)
        # exp(-1e9) is exactly 0, and every clip has a frame, so padding has no weight.
        weights = keras.ops.softmax(keras.ops.where(mask, scores, -1e9), axis=-1)
        return keras.ops.sum(vectors * keras.ops.expand_dims(weights, -1), axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return (n_clips, dim)."""
        return (input_shape[0][0], input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), "units": self.units}
