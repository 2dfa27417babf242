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

# Tensors carried from frame to frame, tensors of this frame -> carried on, put out.
_Step = Callable[[Sequence[Any], Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]]


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
    """Return the states, and what the way back needs of cells and gates; frames come first."""
    units = recurrent_kernel.shape[0]
    # Two products of half the width run side by side on two cores; one would run on one.
    first, second = tf.split(recurrent_kernel, 2, axis=-1)

    def step(carried: Sequence[Any], inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        state, cell_before = carried
        entry_keep = tf.sigmoid(inputs[0][:, : 2 * units] + state @ first)
        candidate_exit = inputs[0][:, 2 * units :] + state @ second
        entry, keep = tf.split(entry_keep, 2, axis=-1)
        candidate = tf.tanh(candidate_exit[:, :units])
        exit_ = tf.sigmoid(candidate_exit[:, units:])
        cell = keep * cell_before + entry * candidate
        out = tf.tanh(cell)
        state = exit_ * out
        return (state, cell), (state, cell_before, out, entry, keep, candidate, exit_)

    start = tf.zeros((tf.shape(projected)[1], units))
    states, *kept = _scan(step, (start, start), [projected], n_outputs=7)
    return states, kept


def _run_backward(upstream: Any, recurrent_kernel: Any, kept: Sequence[Any]) -> Any:
    """Return the gradient of what enters the gates, (max_frames, n_clips, 4 * units)."""
    # Transposed once: the product with a matrix still to be transposed takes three times as long.
    first, second = tf.split(tf.transpose(recurrent_kernel), 2, axis=0)

    def step(carried: Sequence[Any], inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        of_state, of_cell = carried
        upstream, cell_before, out, entry, keep, candidate, exit_ = inputs
        of_state = of_state + upstream
        of_cell = of_cell + of_state * exit_ * (1.0 - out * out)
        of_entry = of_cell * candidate * entry * (1.0 - entry)
        of_keep = of_cell * cell_before * keep * (1.0 - keep)
        of_candidate = of_cell * entry * (1.0 - candidate * candidate)
        of_exit = of_state * out * exit_ * (1.0 - exit_)
        entry_keep = tf.concat([of_entry, of_keep], axis=-1)
        candidate_exit = tf.concat([of_candidate, of_exit], axis=-1)
        of_state = entry_keep @ first + candidate_exit @ second
        return (of_state, of_cell * keep), (entry_keep, candidate_exit)

    start = tf.zeros_like(upstream[0])
    halves = _scan(step, (start, start), [upstream, *kept], n_outputs=2, backwards=True)
    return tf.concat(halves, axis=-1)


def _scan(
    step: _Step,
    start: Sequence[Any],
    inputs: Sequence[Any],
    *,
    n_outputs: int,
    backwards: bool = False,
) -> list[Any]:
    """Take a step for every frame, and stack what the steps put out."""
    n_steps = tf.shape(inputs[0])[0]
    arrays = [tf.TensorArray(tf.float32, size=n_steps) for _ in range(n_outputs)]

    def body(number: Any, carried: Sequence[Any], arrays: Sequence[Any]) -> Any:
        index = n_steps - 1 - number if backwards else number
        carried, outputs = step(carried, [item[index] for item in inputs])
        written = [a.write(index, out) for a, out in zip(arrays, outputs, strict=True)]
        return number + 1, tuple(carried), written

    _, _, arrays = tf.while_loop(lambda number, *_: number < n_steps, body, (0, start, arrays))
    return [array.stack() for array in arrays]
