"""The LSTM that heads use: the weights of Keras' layer, with quicker arithmetic on a CPU.

Importing this module registers the layer, so that a saved head loads in Keras' safe mode.
"""

from __future__ import annotations

from typing import Any

from features.system.keras import import_keras

# Before the import below, so that the backend starts without its pages of notices.
import_keras()

import keras  # noqa: E402


@keras.saving.register_keras_serializable(package="framehead")
class FrameLSTM(keras.layers.Layer):  # type: ignore[misc]
    """LSTM over the frames of each clip. Call with ``[vectors, mask]``, padding on the right.

    Computes what ``keras.layers.LSTM`` does. With TensorFlow on a CPU it does so by
    `pipeline.heads.recurrence`; elsewhere, and on a GPU, where cuDNN is quicker, by Keras.

    Parameters
    ----------
    units : int
    backwards : bool, default False
        From the last frame to the first.
    return_sequences : bool, default False
        Give the state after every frame instead of the last one.
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
        self.units = units
        self.backwards = backwards
        self.return_sequences = return_sequences
        self.lstm = keras.layers.LSTM(units, return_sequences=True)
        # Neither Keras' layer nor ours is compiled by XLA on a CPU: it takes many seconds.
        self.supports_jit = False

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.lstm.build(input_shape[0])

    def call(self, inputs: Any) -> Any:
        """Return (n_clips, units), or (n_clips, n_frames, units) with ``return_sequences``."""
        vectors, mask = inputs
        n_frames = keras.ops.sum(keras.ops.cast(mask, "int32"), axis=1)
        order = _reverse_order(n_frames, mask) if self.backwards else None
        if order is not None:
            # Whole clips are turned, not the padded array: padding stays on the right.
            vectors = keras.ops.take_along_axis(vectors, order, axis=1)
        states = self._run(vectors, mask, n_frames)
        if not self.return_sequences:
            last = keras.ops.reshape(n_frames - 1, (-1, 1, 1))
            return keras.ops.squeeze(keras.ops.take_along_axis(states, last, axis=1), 1)
        return states if order is None else keras.ops.take_along_axis(states, order, axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape that `call` names."""
        n_clips, n_frames, _ = input_shape[0]
        frames = (n_frames,) if self.return_sequences else ()
        return (n_clips, *frames, self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        own = {
            "units": self.units,
            "backwards": self.backwards,
            "return_sequences": self.return_sequences,
        }
        return {**super().get_config(), **own}

    def _run(self, vectors: Any, mask: Any, n_frames: Any) -> Any:
        if not _is_tensorflow_on_cpu():
            return self.lstm(vectors, mask=mask)
        from pipeline.heads.recurrence import run_lstm

        cell = self.lstm.cell
        weights = (cell.kernel, cell.recurrent_kernel, cell.bias)
        return run_lstm(vectors, n_frames, *(weight.value for weight in weights))


def _reverse_order(n_frames: Any, mask: Any) -> Any:
    """Return indices (n_clips, n_frames, 1) that turn each clip and leave its padding behind."""
    places = keras.ops.arange(keras.ops.shape(mask)[1])[None, :]
    turned = n_frames[:, None] - 1 - places
    return keras.ops.expand_dims(keras.ops.where(mask, turned, places), -1)


def _is_tensorflow_on_cpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")
