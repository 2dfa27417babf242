"""Our LSTM computes what the one of Keras computes, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from features.system.keras import import_keras

N_CLIPS, N_FRAMES, DIM, UNITS = 5, 7, 11, 6


def make_layers(*, backwards: bool, sequences: bool) -> tuple[Any, Any]:
    keras = import_keras()
    from pipeline.heads.lstm import FrameLSTM

    ours = FrameLSTM(UNITS, backwards=backwards, return_sequences=sequences)
    ours.build([(None, None, DIM), (None, None)])
    theirs = keras.layers.LSTM(UNITS, return_sequences=sequences)
    theirs.build((None, None, DIM))
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape).astype("float32") for w in theirs.get_weights()]
    for layer in (ours, theirs):
        layer.set_weights(weights)
    return ours, theirs


@pytest.mark.parametrize("lengths", [[7, 1, 3, 7, 5], [7] * 5])
@pytest.mark.parametrize("sequences", [False, True])
def test_states_and_gradients_are_those_of_keras(lengths: list[int], sequences: bool) -> None:
    ours, theirs = make_layers(backwards=False, sequences=sequences)
    import tensorflow as tf

    rng = np.random.default_rng(0)
    frames = tf.constant(rng.normal(size=(N_CLIPS, N_FRAMES, DIM)), tf.float32)
    mask = tf.sequence_mask(lengths, N_FRAMES)
    upstream = rng.normal(size=(N_CLIPS, N_FRAMES, UNITS)) * mask.numpy()[..., np.newaxis]
    upstream = upstream if sequences else upstream[:, 0]
    found = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(frames)
            states = ours([frames, mask]) if layer is ours else theirs(frames, mask=mask)
            total = tf.reduce_sum(states * upstream)
        variables = [variable.value for variable in layer.trainable_variables]
        found.append([total, *tape.gradient(total, [frames, *variables])])
    for own, other in zip(*found, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_backwards_is_forwards_on_reversed_clips() -> None:
    forwards, _ = make_layers(backwards=False, sequences=True)
    backwards, _ = make_layers(backwards=True, sequences=True)
    last, _ = make_layers(backwards=True, sequences=False)
    lengths = [4, 1, 7]
    frames = np.random.default_rng(0).normal(size=(3, 7, DIM)).astype("float32")
    mask = np.arange(7) < np.array(lengths)[:, np.newaxis]
    states = np.asarray(backwards([frames, mask]))
    ends = np.asarray(last([frames, mask]))
    for row, n in enumerate(lengths):
        alone = frames[row : row + 1, :n][:, ::-1]
        wanted = np.asarray(forwards([alone, np.ones((1, n), bool)]))[0][::-1]
        np.testing.assert_allclose(states[row, :n], wanted, atol=1e-6)
        np.testing.assert_allclose(ends[row], wanted[0], atol=1e-6)
