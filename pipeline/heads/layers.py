"""Keras layers that know which frames are padding, and the ones heads are saved with.

Importing this module registers them, so that a saved head loads in Keras' safe mode.
"""

from __future__ import annotations

from typing import Any

from features.system.keras import import_keras

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


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Motion(keras.layers.Layer):  # type: ignore[misc]
    """What changes from frame to frame. Call with ``[vectors, mask]``.

    Per frame: the difference to the frame before, its absolute values, and its root mean
    square, the strength of the motion. The first frame of a clip takes the difference that
    follows it; a clip of one frame has no motion, which is zeros. With `keep`, the vectors
    themselves come before the differences.
    """

    def __init__(self, *, keep: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.keep = keep

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, n_frames, 2 * dim + 1), or 3 * dim + 1 with ``keep``."""
        vectors, mask = inputs
        ops = keras.ops
        change = _changes(vectors, mask)
        strength = ops.sqrt(ops.mean(ops.square(change), axis=-1, keepdims=True))
        kept = [vectors] if self.keep else []
        return ops.concatenate([*kept, change, ops.abs(change), strength], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), "keep": self.keep}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Tempo(keras.layers.Layer):  # type: ignore[misc]
    """How fast frames change, whatever by how much. Call with ``[vectors, mask]``.

    Per frame: the absolute difference to the frame before over the standard deviation of the
    clip, dimension by dimension, and last the root mean square of the difference over that of
    the deviations. A slow drift is near 0, what jumps to and fro near 1 and above, large or
    small. The ratio is von Neumann's (1941), without squares. Frames and clips without change as
    in `Motion`; with `keep`, the vectors themselves come first.
    """

    def __init__(self, *, keep: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.keep = keep

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, n_frames, dim + 1), or 2 * dim + 1 with ``keep``."""
        vectors, mask = inputs
        ops = keras.ops
        change = _changes(vectors, mask)
        variance = ops.expand_dims(_masked_variance(vectors, mask), 1)
        spread = ops.sqrt(ops.mean(variance, axis=-1, keepdims=True)) + 1e-6
        # A dimension that hardly moves in this clip must not drown the others.
        tempo = ops.abs(change) / (ops.sqrt(variance) + 0.1 * spread)
        overall = ops.sqrt(ops.mean(ops.square(change), axis=-1, keepdims=True)) / spread
        kept = [vectors] if self.keep else []
        return ops.concatenate([*kept, tempo, overall], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), "keep": self.keep}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Pool(keras.layers.Layer):  # type: ignore[misc]
    """Make one frame of a clip: a `Pooling` of its frames. Call with ``[vectors, mask]``."""

    def __init__(self, how: str, **options: Any) -> None:
        super().__init__(**options)
        self.how = how

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, 1, width); the parts of a pooling lie side by side."""
        vectors, mask = inputs
        ops = keras.ops
        if self.how == "thirds":
            return ops.expand_dims(_masked_thirds(vectors, mask), 1)
        parts = [_masked_mean(vectors, mask)]
        if self.how == "mean+std":
            parts.append(ops.sqrt(_masked_variance(vectors, mask)))
        return ops.expand_dims(ops.concatenate(parts, axis=-1), 1)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), "how": self.how}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FirstFrame(keras.layers.Layer):  # type: ignore[misc]
    """Keep the first entry of a mask: what is left of it where clips have become one frame."""

    def call(self, mask: Any) -> Any:
        """Return (n_clips, 1)."""
        return mask[:, :1]


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Centred(keras.layers.Layer):  # type: ignore[misc]
    """Vectors, and how they differ from the mean of their clip. Call with ``[vectors, mask]``.

    The difference leaves out what stays the same throughout a clip: the place, the camera,
    who it is.
    """

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, n_frames, 2 * dim), the differences behind the vectors."""
        vectors, mask = inputs
        ops = keras.ops
        mean = ops.expand_dims(_masked_mean(vectors, mask), 1)
        difference = ops.where(ops.expand_dims(mask, -1), vectors - mean, 0.0)
        return ops.concatenate([vectors, difference], axis=-1)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskedMean(keras.layers.Layer):  # type: ignore[misc]
    """Average over the frames of each clip. Call with ``[vectors, mask]``."""

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, dim) from (n_clips, n_frames, dim) and (n_clips, n_frames)."""
        return _masked_mean(*inputs)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FrameLSTM(keras.layers.Layer):  # type: ignore[misc]
    """Keras' LSTM over the frames of each clip. Call with ``[vectors, mask]``.

    With `backwards` it runs from the last frame to the first, with `return_sequences` it gives
    the state after every frame instead of the last one.
    """

    def __init__(
        self,
        units: int,
        *,
        backwards: bool = False,
        return_sequences: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.own = {"units": units, "backwards": backwards, "return_sequences": return_sequences}
        self.lstm = keras.layers.LSTM(
            units, go_backwards=backwards, return_sequences=return_sequences
        )
        # XLA takes many seconds to compile a recurrent layer for a CPU.
        self.supports_jit = False

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.lstm.build(input_shape[0])

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, units), or (n_clips, n_frames, units) with ``return_sequences``."""
        vectors, mask = inputs
        states = self.lstm(vectors, mask=mask)
        # Keras gives the states in the order in which they were computed.
        in_order = not (self.own["backwards"] and self.own["return_sequences"])
        return states if in_order else keras.ops.flip(states, axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape that `call` names; found by Keras itself, it takes 0.1 s."""
        return self.lstm.compute_output_shape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), **self.own}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class AttentionWeights(keras.layers.Layer):  # type: ignore[misc]
    """Weigh the frames of a clip by a learned relevance. Call with ``[vectors, mask]``."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        # Frames that come out of a recurrent layer may carry a mask; ours is the same one.
        self.supports_masking = True
        self.units = units  # of the hidden layer that scores a frame
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.score = keras.layers.Dense(1, use_bias=False)

    def build(self, input_shape: Any) -> None:
        """Create the weights of the scoring layers."""
        self.hidden.build(input_shape[0])
        self.score.build((*input_shape[0][:-1], self.units))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Say that weights carry no mask: padding has none."""

    def call(self, inputs: Any) -> Any:
        """Return weights (n_clips, n_frames) that sum to 1 per clip, 0 where masked."""
        vectors, mask = inputs
        scores = keras.ops.squeeze(self.score(self.hidden(vectors)), -1)
        # exp(-1e9) is exactly 0, and every clip has a frame, so padding has no weight. Written
        # out, because Keras warns of a softmax over the one frame of a clip.
        scores = keras.ops.where(mask, scores, -1e9)
        shares = keras.ops.exp(scores - keras.ops.max(scores, axis=-1, keepdims=True))
        return shares / keras.ops.sum(shares, axis=-1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class WeightedMean(keras.layers.Layer):  # type: ignore[misc]
    """Average over the frames of each clip. Call with ``[vectors, weights]``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True  # as above

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Say that nothing is masked any more: there is one vector per clip."""

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, dim) from (n_clips, n_frames, dim) and (n_clips, n_frames)."""
        vectors, weights = inputs
        return keras.ops.sum(vectors * keras.ops.expand_dims(weights, -1), axis=1)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskFrames(keras.layers.Layer):  # type: ignore[misc]
    """Set padding to zero, the end of a clip for a convolution. Call with ``[vectors, mask]``."""

    def call(self, inputs: Any) -> Any:
        """Return vectors of the same shape."""
        vectors, mask = inputs
        return keras.ops.where(keras.ops.expand_dims(mask, -1), vectors, 0.0)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Positions(keras.layers.Layer):  # type: ignore[misc]
    """Add the sine and cosine positions of Vaswani et al., "Attention Is All You Need" (2017)."""

    def call(self, vectors: Any) -> Any:
        """Return vectors of the same shape (n_clips, n_frames, dim)."""
        dim = vectors.shape[-1]
        half = (dim + 1) // 2
        places = keras.ops.cast(keras.ops.arange(keras.ops.shape(vectors)[1]), "float32")
        rates = keras.ops.exp(-9.21 * keras.ops.arange(half, dtype="float32") / half)
        angles = keras.ops.expand_dims(places, -1) * rates
        waves = keras.ops.concatenate([keras.ops.sin(angles), keras.ops.cos(angles)], axis=-1)
        return vectors + waves[None, :, :dim]


def _masked_mean(vectors: Any, mask: Any) -> Any:
    weights = keras.ops.expand_dims(keras.ops.cast(mask, vectors.dtype), -1)
    n_frames = keras.ops.maximum(keras.ops.sum(weights, axis=1), 1.0)
    return keras.ops.sum(vectors * weights, axis=1) / n_frames


def _masked_variance(vectors: Any, mask: Any) -> Any:
    mean = keras.ops.expand_dims(_masked_mean(vectors, mask), 1)
    return _masked_mean(keras.ops.square(vectors - mean), mask)


def _masked_thirds(vectors: Any, mask: Any) -> Any:
    """Average over each third of a clip's time; a frame across a border counts in parts."""
    ops = keras.ops
    n_frames = ops.sum(ops.cast(mask, vectors.dtype), axis=1)[:, None, None]
    starts = ops.arange(ops.shape(mask)[1], dtype=vectors.dtype)[None, :, None]
    thirds = ops.arange(3, dtype=vectors.dtype)[None, None, :] / 3
    ends = ops.minimum((starts + 1) / n_frames, thirds + 1 / 3)
    shares = 3 * ops.maximum(ends - ops.maximum(starts / n_frames, thirds), 0.0)
    means = ops.matmul(ops.transpose(shares, (0, 2, 1)), vectors)
    return ops.reshape(means, (-1, 3 * vectors.shape[-1]))


def _changes(vectors: Any, mask: Any) -> Any:
    """Return each frame's difference to the frame before; the first takes the one after it."""
    ops = keras.ops
    before = ops.concatenate([vectors[:, :1], vectors[:, :-1]], axis=1)
    change = ops.where(ops.expand_dims(mask, -1), vectors - before, 0.0)
    # The first difference is of a frame to itself; the next one says more.
    following = ops.concatenate([change[:, 1:], ops.zeros_like(change[:, :1])], axis=1)
    is_first = ops.arange(ops.shape(mask)[1]) == 0
    return ops.where(is_first[None, :, None], following, change)
