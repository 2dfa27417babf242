"""The registry of heads: each is one function from frames to one vector per clip."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from features.errors import HeadUnknown, OptionInvalid
from features.quiet import import_keras

BASELINE = "mean-linear"


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What a user may change about a head.

    Attributes
    ----------
    units : int, optional
        Width of the hidden layer, at least 1; by default the head's own. Ignored by
        mean-linear, which has none.
    dropout : float, optional
        Share of values dropped in training, in [0, 1); by default the head's own.
    """

    units: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.units is not None and self.units < 1:
            raise OptionInvalid(f"--units must be at least 1. Received: {self.units}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionInvalid(f"--dropout must be in [0, 1). Received: {self.dropout}.")


# (frames, mask, units, dropout) -> one vector per clip, all Keras tensors.
Builder = Callable[[Any, Any, int, float], Any]


@dataclass(frozen=True, slots=True)
class HeadKind:
    """A registered head.

    Attributes
    ----------
    name : str
    summary : str
        One line for people.
    build : callable
        Takes standardised frames (n, n_frames, dim), mask (n, n_frames), units and
        dropout; returns one vector per clip.
    units : int
        Default width.
    dropout : float
        Default dropout.
    logits_start : str
        Keras initializer of the last layer.
    """

    name: str
    summary: str
    build: Builder
    units: int
    dropout: float
    logits_start: str


HEADS: dict[str, HeadKind] = {}


def register_head(
    name: str, *, units: int = 64, dropout: float = 0.3, logits_start: str = "glorot_uniform"
) -> Callable[[Builder], Builder]:
    """Add a head to the registry; its docstring's first line becomes the summary.

    Parameters
    ----------
    name : str
        As on the command line.
    units : int, default 64
    dropout : float, default 0.3
    logits_start : str, default "glorot_uniform"
        Keras initializer of the last layer. Clip vectors without bound want "zeros": with
        random weights a head would start sure of itself, and where nothing can be learned
        early stopping would keep it so. Bounded states of recurrent layers learn three times
        faster from random weights.

    Returns
    -------
    callable
        The decorator.
    """

    def register(build: Builder) -> Builder:
        summary = (build.__doc__ or "").strip().partition("\n")[0]
        HEADS[name] = HeadKind(name, summary, build, units, dropout, logits_start)
        return build

    return register


def find_head(name: str) -> HeadKind:
    """Look a head up.

    Parameters
    ----------
    name : str

    Returns
    -------
    HeadKind

    Raises
    ------
    HeadUnknown
        If there is none of this name; names the choices and the closest one.
    """
    if name in HEADS:
        return HEADS[name]
    close = difflib.get_close_matches(name, HEADS, n=1, cutoff=0.4)
    raise HeadUnknown(
        f"--head must be one of {', '.join(HEADS)}. Received: '{name}'.",
        hint=f"did you mean '{close[0]}'?" if close else "",
    )


def build_head(
    name: str,
    *,
    embedding_dim: int,
    n_classes: int,
    mean: npt.ArrayLike,
    deviation: npt.ArrayLike,
    options: HeadOptions | None = None,
) -> Any:
    """Build an untrained head with the standardisation inside.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    embedding_dim : int
    n_classes : int
        At least 2.
    mean, deviation : array of float, shape (embedding_dim,)
        Of the training frames, see `pipeline.batches.frame_statistics`.
    options : HeadOptions, optional

    Returns
    -------
    keras.Model
        Takes "vectors", float32 (n, n_frames, embedding_dim), and "mask", bool
        (n, n_frames), right-padded; gives probabilities, float32 (n, n_classes). The input
        of the layer "logits" is one vector per clip.

    Raises
    ------
    HeadUnknown
    """
    kind = find_head(name)
    options = options or HeadOptions()
    keras = import_keras()
    from pipeline.layers import Standardise

    vectors = keras.Input((None, embedding_dim), name="vectors", dtype="float32")
    mask = keras.Input((None,), name="mask", dtype="bool")
    standardise = Standardise(name="standardise")
    frames = standardise([vectors, mask])
    units = kind.units if options.units is None else options.units
    dropout = kind.dropout if options.dropout is None else options.dropout
    clip_vector = kind.build(frames, mask, units, dropout)
    start = kind.logits_start
    logits = keras.layers.Dense(n_classes, kernel_initializer=start, name="logits")(clip_vector)
    probabilities = keras.layers.Softmax(name="probabilities")(logits)
    standardise.set_statistics(mean, deviation)
    model_name = name.replace("-", "_")
    return keras.Model({"vectors": vectors, "mask": mask}, probabilities, name=model_name)


@register_head("mean-linear", dropout=0.5, logits_start="zeros")
def _mean_linear(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, then a linear classifier: the baseline."""
    keras = import_keras()
    from pipeline.layers import MaskedMean

    return keras.layers.Dropout(dropout)(MaskedMean()([frames, mask]))


@register_head("mlp", units=128, dropout=0.5, logits_start="zeros")
def _mlp(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, then one hidden layer."""
    keras = import_keras()
    from pipeline.layers import MaskedMean

    pooled = keras.layers.Dropout(dropout)(MaskedMean()([frames, mask]))
    hidden = keras.layers.Dense(units, activation="relu")(pooled)
    return keras.layers.Dropout(dropout)(hidden)


@register_head("lstm")
def _lstm(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames, its last state classified."""
    return _recurrent("LSTM", frames, mask, units, dropout)


@register_head("bilstm")
def _bilstm(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames in both directions."""
    return _recurrent("LSTM", frames, mask, units, dropout, both_ways=True)


@register_head("gru")
def _gru(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """GRU over frames, its last state classified."""
    return _recurrent("GRU", frames, mask, units, dropout)


@register_head("bigru")
def _bigru(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """GRU over frames in both directions."""
    return _recurrent("GRU", frames, mask, units, dropout, both_ways=True)


@register_head("lstm-attention")
def _lstm_attention(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames, its states averaged by a learned relevance."""
    keras = import_keras()
    from pipeline.layers import MaskedAttention

    dropped = keras.layers.Dropout(dropout)(frames)
    states = keras.layers.LSTM(units, return_sequences=True)(dropped, mask=mask)
    return keras.layers.Dropout(dropout)(MaskedAttention(units)([states, mask]))


def _recurrent(
    kind: str, frames: Any, mask: Any, units: int, dropout: float, *, both_ways: bool = False
) -> Any:
    # Dropout stands beside the recurrent layer, not in it: `recurrent_dropout` would rule
    # out the fused GPU kernels.
    keras = import_keras()
    dropped = keras.layers.Dropout(dropout)(frames)
    layer = getattr(keras.layers, kind)(units)
    if both_ways:
        layer = keras.layers.Bidirectional(layer)
    return keras.layers.Dropout(dropout)(layer(dropped, mask=mask))
