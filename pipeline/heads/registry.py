"""Heads: each is one registered function from frames to one vector per clip, with options."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from features.errors import HeadUnknown, OptionInvalid
from features.system.files import digest_json, hash_file
from features.system.keras import import_keras
from features.system.plugins import load_again, require_own_name
from features.system.versions import keras_backend, package_version
from pipeline.heads.linear import Fitter, fit_discriminant, fit_logistic

HeadInput = Literal["appearance", "motion", "both", "centred", "tempo", "mixed"]
Pooling = Literal["", "mean", "mean+std", "thirds"]
Aggregate = Literal["mean", "max", "vote"]

INPUTS: tuple[HeadInput, ...] = get_args(HeadInput)
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

# Name of the layer whose output weighs the frames of a clip, in heads that have one.
ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What a user may change about a head.

    Attributes
    ----------
    units : int, optional
        Number of units in the head. At least 1; ignored by heads without a hidden layer. By default
        the head's own.
    dropout : float, optional
        Dropout rate. In [0, 1). By default the head's own.
    reduce : str, optional
        Reduce embeddings to N principal components, fitted on the training clips; faster, at
        some cost in accuracy. "pca:N", N at least 1.
    window : int, optional
        Show the head windows of this many frames instead of whole clips. At least 1.
    aggregate : {"mean", "max", "vote"}, default "mean"
        How the windows of a clip are combined into one prediction. The mean of their
        probabilities, the largest probability of each class, or the share of windows that name
        it, ties by the mean probability.

    Raises
    ------
    OptionInvalid
        If a value is out of range.
    """

    units: int | None = None
    dropout: float | None = None
    reduce: str | None = field(default=None, metadata={"metavar": "pca:N"})
    window: int | None = field(default=None, metadata={"metavar": "FRAMES"})
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("units", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionInvalid(f"--{name} must be at least 1. Received: {value}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionInvalid(f"--dropout must be in [0, 1). Received: {self.dropout}.")
        if self.reduce is not None and re.fullmatch(r"pca:[1-9][0-9]*", self.reduce) is None:
            raise OptionInvalid(
                "--reduce must be pca:N, N being the components to keep, at least 1. "
                f"Received: '{self.reduce}'.",
                hint="--reduce pca:256",
            )
        if self.aggregate not in AGGREGATES:
            raise OptionInvalid(
                f"--aggregate must be one of {', '.join(AGGREGATES)}. Received: '{self.aggregate}'."
            )
        if self.aggregate != "mean" and self.window is None:
            raise OptionInvalid(
                "--aggregate says how windows are combined. Received: "
                f"--aggregate {self.aggregate} without --window.",
                hint="give --window FRAMES as well, or leave --aggregate out",
            )

    @property
    def n_components(self) -> int | None:
        """Principal components to keep, or None for all dimensions."""
        return None if self.reduce is None else int(self.reduce.partition(":")[2])


# (frames, mask, units, dropout) -> one vector per clip, all Keras tensors.
Builder = Callable[[Any, Any, int, float], Any]


@dataclass(frozen=True, slots=True)
class HeadKind:
    """A registered head, with the defaults that `register_head` was told."""

    name: str
    summary: str  # one line for people
    build: Builder
    module: str  # that registered it
    units: int
    dropout: float
    logits_start: str
    input: HeadInput
    learning_rate: float
    pool: Pooling
    fit: Fitter | None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of those below, not a user's own."""
        return self.module == __name__


HEADS: dict[str, HeadKind] = {}


def register_head(
    name: str,
    *,
    units: int = 64,
    dropout: float = 0.3,
    logits_start: str = "glorot_uniform",
    sees: HeadInput = "appearance",
    learning_rate: float = 1e-3,
    pool: Pooling = "",
    fit: Fitter | None = None,
) -> Callable[[Builder], Builder]:
    """Add a head to the registry; its docstring's first line becomes the summary.

    Parameters
    ----------
    name : str
        As on the command line: at most 64 letters, digits, "-", "_" and ".".
    units : int, default 64
        At least 1.
    dropout : float, default 0.3
        In [0, 1).
    logits_start : str, default "glorot_uniform"
        Keras initializer of the last layer. Clip vectors without bound want "zeros": with
        random weights a head would start sure of itself, and where nothing can be learned
        early stopping would keep it so. Bounded states of recurrent layers learn three times
        faster from random weights.
    sees : {"appearance", "motion", "both", "centred", "tempo", "mixed"}, default "appearance"
        What the head sees where its name says nothing else.
    learning_rate : float, default 1e-3
        Recurrent heads bear twice as much, and need half as many epochs then.
    pool : {"", "mean", "mean+std", "thirds"}, default ""
        Give the head one frame per clip: the mean of its frames, their mean and standard
        deviation, or the means of its first, second and last third. That is computed once, not
        in every epoch. Empty gives all frames.
    fit : callable, optional
        Finds the weights of the classifier on top of the head from a `ClipVectors`, and returns
        its kernel (dim, n_classes) and bias (n_classes,), instead of training epoch by epoch. The
        function that is decorated must have no weights of its own then.

    Returns
    -------
    callable
        The decorator. It takes a function of `frames`, `mask`, `units` and `dropout` and
        returns it as it is.

    Raises
    ------
    OptionInvalid
        If a value is not legal, if another module has registered the name, or if the function
        does not take these four arguments.
    """
    HeadOptions(units, dropout)
    if sees not in INPUTS:
        raise OptionInvalid(f"`sees` must be one of {', '.join(INPUTS)}. Received: {sees!r}.")

    if pool not in POOLINGS:
        raise OptionInvalid(f"`pool` must be one of {', '.join(POOLINGS)}. Received: {pool!r}.")

    # Not that of the function, which may be a partial one or made elsewhere.
    module = sys._getframe(1).f_globals["__name__"]

    def register(build: Builder) -> Builder:
        taken_by = HEADS[name].module if name in HEADS else None
        require_own_name("a head", name, module=module, taken_by=taken_by)
        try:
            inspect.signature(build).bind(None, None, units, dropout)
        except TypeError as problem:
            raise OptionInvalid(
                "A head must be a function of frames, mask, units and dropout. That of "
                f"'{name}' is not: {problem}.",
                hint="docs/guides/plugins.md shows one",
            ) from problem
        summary = (build.__doc__ or "").strip().partition("\n")[0]
        HEADS[name] = HeadKind(
            name=name,
            summary=summary,
            build=build,
            module=module,
            units=units,
            dropout=dropout,
            logits_start=logits_start,
            input=sees,
            learning_rate=learning_rate,
            pool=pool,
            fit=fit,
        )
        return build

    return register


def require_reachable(kind: HeadKind) -> None:
    """Refuse a head that worker processes cannot import: one of a script or notebook."""
    if kind.module == "__main__":
        raise HeadUnknown(
            f"A head that is compared must be defined in a module. '{kind.name}' is defined in the "
            "running script, which worker processes do not import.",
            hint="move it into a .py file of its own, and name that with --plugin or "
            "FRAMEHEAD_PLUGINS",
        )
    if not kind.is_ours:
        load_again(kind.module)


def parse_head(name: str) -> tuple[HeadKind, HeadInput]:
    """Look up a head by its name, which may say what it sees."""
    base, colon, given = name.partition(":")
    if base not in HEADS:
        close = difflib.get_close_matches(base.lower(), HEADS, n=1, cutoff=0.6)
        raise HeadUnknown(
            f"A head must be one of {', '.join(HEADS)}. Received: '{name}'.",
            hint=f"did you mean '{close[0]}'?" if close else "",
        )
    kind = HEADS[base]
    if not colon:
        return kind, kind.input
    for choice in INPUTS:
        if given == choice:
            return kind, choice
    raise HeadUnknown(
        f"What a head sees must be one of {', '.join(INPUTS)}. Received: '{name}'.",
        hint=f"{base}:both",
    )


def source_of(name: str) -> dict[str, str]:
    """Say what decides a head beside its name and options.

    The SHA-256 of the file that registers it, helpers beside it included; of ours, that of all
    files of this folder. Then the versions of what trains it, and the Keras backend.
    """
    kind, _ = parse_head(name)
    backend = keras_backend()
    return {
        "head_source": _hash_source(kind),
        "framehead": package_version("framehead"),
        "keras": package_version("keras"),
        "scikit-learn": package_version("scikit-learn"),
        "backend": f"{backend} {package_version(backend)}",
    }


def _hash_source(kind: HeadKind) -> str:
    if kind.is_ours:
        files = sorted(Path(__file__).parent.glob("*.py"))
        return digest_json([[path.name, hash_file(path)] for path in files])
    file = getattr(sys.modules[kind.module], "__file__", None)
    if file and Path(file).is_file():
        return hash_file(Path(file))
    with suppress(OSError, TypeError):  # in a notebook
        return digest_json(inspect.getsource(kind.build))
    return ""


@register_head("logreg", pool="mean", sees="mixed", fit=fit_logistic)
def _logreg(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, classified by scikit-learn's logistic regression."""
    return _only_frame(frames, mask)


@register_head("logreg-std", pool="mean+std", fit=fit_logistic)
def _logreg_std(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean and standard deviation over frames, then logistic regression."""
    return _only_frame(frames, mask)


@register_head("logreg-thirds", pool="thirds", fit=fit_logistic)
def _logreg_thirds(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Means of the first, second and last third of a clip, then logistic regression."""
    return _only_frame(frames, mask)


@register_head("lda", pool="mean", fit=fit_discriminant)
def _lda(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, then linear discriminant analysis with shrinkage."""
    return _only_frame(frames, mask)


def _only_frame(frames: Any, mask: Any) -> Any:
    from pipeline.heads.layers import MaskedMean

    return MaskedMean()([frames, mask])


@register_head("mean-linear", dropout=0.5, logits_start="zeros", pool="mean")
def _mean_linear(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, then a linear classifier: the baseline."""
    keras = import_keras()
    from pipeline.heads.layers import MaskedMean

    return keras.layers.Dropout(dropout)(MaskedMean()([frames, mask]))


@register_head("mlp", units=128, dropout=0.5, logits_start="zeros", pool="mean")
def _mlp(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Mean over frames, then one hidden layer."""
    keras = import_keras()
    from pipeline.heads.layers import MaskedMean

    pooled = keras.layers.Dropout(dropout)(MaskedMean()([frames, mask]))
    hidden = keras.layers.Dense(units, activation="relu")(pooled)
    return keras.layers.Dropout(dropout)(hidden)


@register_head("lstm", learning_rate=2e-3)
def _lstm(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames, its last state classified."""
    keras = import_keras()
    from pipeline.heads.layers import FrameLSTM

    state = FrameLSTM(units)([_drop_dimensions(frames, dropout), mask])
    return keras.layers.Dropout(dropout)(state)


@register_head("bilstm", learning_rate=2e-3)
def _bilstm(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames in both directions."""
    keras = import_keras()
    from pipeline.heads.layers import FrameLSTM

    dropped = _drop_dimensions(frames, dropout)
    states = [FrameLSTM(units, backwards=way)([dropped, mask]) for way in (False, True)]
    return keras.layers.Dropout(dropout)(keras.layers.Concatenate()(states))


@register_head("gru", learning_rate=2e-3)
def _gru(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """GRU over frames, its last state classified."""
    keras = import_keras()
    state = keras.layers.GRU(units)(_drop_dimensions(frames, dropout), mask=mask)
    return keras.layers.Dropout(dropout)(state)


@register_head("bigru", learning_rate=2e-3)
def _bigru(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """GRU over frames in both directions."""
    keras = import_keras()
    both_ways = keras.layers.Bidirectional(keras.layers.GRU(units))
    return keras.layers.Dropout(dropout)(both_ways(_drop_dimensions(frames, dropout), mask=mask))


@register_head("lstm-attention", learning_rate=2e-3)
def _lstm_attention(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """LSTM over frames, its states averaged by a learned relevance."""
    keras = import_keras()
    from pipeline.heads.layers import AttentionWeights, FrameLSTM, WeightedMean

    dropped = _drop_dimensions(frames, dropout)
    states = FrameLSTM(units, return_sequences=True)([dropped, mask])
    weights = AttentionWeights(units, name=ATTENTION)([states, mask])
    return keras.layers.Dropout(dropout)(WeightedMean()([states, weights]))


@register_head("tcn", logits_start="zeros")
def _tcn(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Dilated convolutions over frames, as in temporal convolutional networks, then the mean."""
    # Residual blocks of Bai, Kolter and Koltun (2018), but looking both ways: the whole clip
    # is there when it is classified.
    keras = import_keras()
    from pipeline.heads.layers import MaskedMean, MaskFrames

    hidden = keras.layers.Dense(units)(_drop_dimensions(frames, dropout))
    for dilation in (1, 2, 4):
        inside = MaskFrames()([keras.layers.LayerNormalization()(hidden), mask])
        inside = keras.layers.Conv1D(
            units, 3, padding="same", dilation_rate=dilation, activation="relu"
        )(inside)
        hidden = keras.layers.Add()([hidden, keras.layers.Dropout(dropout)(inside)])
    pooled = MaskedMean()([keras.layers.LayerNormalization()(hidden), mask])
    return keras.layers.Dropout(dropout)(pooled)


@register_head("transformer", logits_start="zeros")
def _transformer(frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Self-attention among frames, as in a transformer encoder, then the mean."""
    keras = import_keras()
    from pipeline.heads.layers import MaskedMean, Positions

    hidden = Positions()(keras.layers.Dense(units)(_drop_dimensions(frames, dropout)))
    n_heads = max(1, units // 16)
    for _ in range(2):
        inside = keras.layers.LayerNormalization()(hidden)
        seen = keras.layers.Reshape((1, -1))(mask)
        attention = keras.layers.MultiHeadAttention(n_heads, max(1, units // n_heads))
        inside = attention(inside, inside, attention_mask=seen)
        hidden = keras.layers.Add()([hidden, keras.layers.Dropout(dropout)(inside)])
        inside = keras.layers.LayerNormalization()(hidden)
        inside = keras.layers.Dense(2 * units, activation="gelu")(inside)
        inside = keras.layers.Dropout(dropout)(keras.layers.Dense(units)(inside))
        hidden = keras.layers.Add()([hidden, inside])
    pooled = MaskedMean()([keras.layers.LayerNormalization()(hidden), mask])
    return keras.layers.Dropout(dropout)(pooled)


def _drop_dimensions(frames: Any, dropout: float) -> Any:
    # The same dimensions for all frames of a clip, as Gal and Ghahramani (2016) found best for
    # recurrent networks, and beside the recurrent layer, not in it: `recurrent_dropout` would
    # rule out the fused GPU kernels.
    return import_keras().layers.SpatialDropout1D(dropout)(frames)
