"""An LSTM over padded clips whose arithmetic is few large matrix products, on TensorFlow.

The layer of Keras multiplies every frame's embedding inside the loop over frames, forward and
backward. But embeddings do not depend on the loop: here all frames of a batch that are no
padding are projected by one product before it, and each weight's gradient is one product after
it. What stays in the loop is the product with the recurrent weights, and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Tensors carried from frame to frame, tensor of this frame -> carried on, put out.
_Step = Callable[[Sequence[Any], Any], tuple[Sequence[Any], Sequence[Any]]]

# Layers narrower than this are too small for two cores.
_LEAST_HALVED_UNITS = 128


def run_lstm(frames: Any, n_frames: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
    """Run an LSTM from zero states, as Hochreiter and Schmidhuber (1997) with forget gates.

    Gates and weights are those of ``keras.layers.LSTM`` with its default activations, so
    that either computes what the other does.

    Parameters
    ----------
    frames : tf.Tensor of float32, shape (n_clips, max_frames, dim)
    n_frames : tf.Tensor of int32, shape (n_clips,)
        How many frames of each clip are no padding, at least 1.
    kernel, recurrent_kernel, bias : tf.Tensor of float32
        Shapes (dim, 4 * units), (units, 4 * units) and (4 * units,).

    Returns
    -------
    tf.Tensor of float32, shape (n_clips, max_frames, units)
        The state after every frame; finite, but meaningless behind the end of a clip.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def compute(frames: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
        is_real = tf.sequence_mask(n_frames, tf.shape(frames)[1])
        real_frames = _pack(frames, is_real)
        projected = _unpack(real_frames @ kernel + bias, is_real)
        states, kept = _run_forward(_swap(projected), recurrent_kernel)
        states = _swap(states)

        def gradient(upstream: Any) -> tuple[Any, Any, Any, Any]:
            deltas = _run_backward(_swap(upstream), recurrent_kernel, kept)
            deltas = _pack(_swap(deltas), is_real)
            before = _pack(tf.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0))), is_real)
            of_kernel = tf.matmul(real_frames, deltas, transpose_a=True)
            of_recurrent = tf.matmul(before, deltas, transpose_a=True)
            # Not computed unless something before this layer learns.
            of_frames = _unpack(tf.matmul(deltas, kernel, transpose_b=True), is_real)
            return of_frames, of_kernel, of_recurrent, tf.reduce_sum(deltas, axis=0)

        return states, gradient

    # As plain tensors: what is a variable inside needs other bookkeeping.
    weights = [tf.convert_to_tensor(item) for item in (kernel, recurrent_kernel, bias)]
    return compute(frames, *weights)


def _swap(frames: Any) -> Any:
    """Exchange the axes of clips and frames."""
    return tf.transpose(frames, (1, 0, 2))


def _pack(frames: Any, is_real: Any) -> Any:
    """Line up the rows of all frames that are no padding; without padding nothing is copied."""
    width = frames.shape[-1]
    rows = tf.cond(
        tf.reduce_all(is_real),
        lambda: tf.reshape(frames, (-1, width)),
        lambda: tf.boolean_mask(frames, is_real),
    )
    rows.set_shape((None, width))
    return rows


def _unpack(rows: Any, is_real: Any) -> Any:
    """Put rows back to their frames, with zeros between them."""
    shape = tf.concat([tf.shape(is_real), [rows.shape[-1]]], axis=0)
    frames = tf.cond(
        tf.reduce_all(is_real),
        lambda: tf.reshape(rows, shape),
        lambda: tf.scatter_nd(tf.cast(tf.where(is_real), tf.int32), rows, shape),
    )
    frames.set_shape((None, None, rows.shape[-1]))
    return frames


def _run_forward(projected: Any, recurrent_kernel: Any) -> tuple[Any, list[Any]]:
    """Return the states, and what the way back needs: cells and gates. Frames come first."""
    units = recurrent_kernel.shape[0]
    # tanh(x) = 2 sigmoid(2x) - 1: with the candidate's quarter doubled, one sigmoid does all.
    doubled = _double_candidate(units)
    pieces = tf.split(recurrent_kernel * doubled, _count_pieces(units), axis=-1)

    def step(carried: Sequence[Any], inputs: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        state, cell = carried
        gates = tf.sigmoid(inputs + _multiply(state, pieces))
        entry, keep, candidate, exit_ = tf.split(gates, 4, axis=-1)
        cell = keep * cell + entry * (2.0 * candidate - 1.0)
        state = exit_ * tf.tanh(cell)
        return (state, cell), (state, cell, gates)

    start = tf.zeros((tf.shape(projected)[1], units))
    states, *kept = _scan(step, (start, start), projected * doubled, n_outputs=3)
    return states, kept


def _run_backward(upstream: Any, recurrent_kernel: Any, kept: Sequence[Any]) -> Any:
    """Return the gradient of what enters the gates, (max_frames, n_clips, 4 * units)."""
    units = recurrent_kernel.shape[0]
    cells, gates = kept
    entry, keep, candidate, exit_ = tf.split(gates, 4, axis=-1)
    out = tf.tanh(cells)
    before = tf.pad(cells[:-1], ((1, 0), (0, 0), (0, 0)))
    # All that does not depend on what flows back is computed for all frames at once.
    factors = tf.concat([2.0 * candidate - 1.0, before, 4.0 * entry, out], axis=-1)
    factors *= gates * (1.0 - gates)
    through_out = exit_ * (1.0 - out * out)
    # Transposed once: the product with a matrix still to be transposed takes three times as long.
    pieces = tf.split(tf.transpose(recurrent_kernel), _count_pieces(units), axis=-1)

    def step(carried: Sequence[Any], inputs: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        of_state, of_cell = carried
        factors, through_out, keep, upstream = tf.split(
            inputs, [4 * units, units, units, units], -1
        )
        of_state = of_state + upstream
        of_cell = of_cell + of_state * through_out
        deltas = tf.concat([of_cell, of_cell, of_cell, of_state], axis=-1) * factors
        return (_multiply(deltas, pieces), of_cell * keep), (deltas,)

    start = tf.zeros_like(upstream[0])
    inputs = tf.concat([factors, through_out, keep, upstream], axis=-1)
    (deltas,) = _scan(step, (start, start), inputs, n_outputs=1, backwards=True)
    return deltas


def _double_candidate(units: int) -> Any:
    return tf.constant([1.0] * 2 * units + [2.0] * units + [1.0] * units)


def _count_pieces(units: int) -> int:
    # A product this small runs on one core; of two halves each has its own.
    return 2 if units >= _LEAST_HALVED_UNITS else 1


def _multiply(rows: Any, pieces: Sequence[Any]) -> Any:
    products = [rows @ piece for piece in pieces]
    return products[0] if len(products) == 1 else tf.concat(products, axis=-1)


def _scan(
    step: _Step, start: Sequence[Any], inputs: Any, *, n_outputs: int, backwards: bool = False
) -> list[Any]:
    """Take a step for every frame, and stack what the steps put out."""
    n_steps = tf.shape(inputs)[0]
    arrays = [tf.TensorArray(tf.float32, size=n_steps) for _ in range(n_outputs)]

    def body(number: Any, carried: Sequence[Any], arrays: Sequence[Any]) -> Any:
        index = n_steps - 1 - number if backwards else number
        carried, outputs = step(carried, inputs[index])
        written = [a.write(index, out) for a, out in zip(arrays, outputs, strict=True)]
        return number + 1, tuple(carried), written

    _, _, arrays = tf.while_loop(lambda number, *_: number < n_steps, body, (0, start, arrays))
    return [array.stack() for array in arrays]
