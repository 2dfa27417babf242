"""A head as a Keras model: what prepares the embeddings, then what learns."""

from __future__ import annotations

import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.errors import FrameHeadError, OptionInvalid, TrainingFailed
from features.system.keras import import_keras
from pipeline.data.sequences import (
    Float32Array,
    Sequences,
    aligned_zeros,
    frame_components,
    frame_statistics,
    model_inputs,
)
from pipeline.data.windows import cut_windows, join_windows
from pipeline.heads.registry import HeadInput, HeadKind, HeadOptions, parse_head

# Name of the last layer where clips may have several classes.
_LABELS_LAYER = "label_probabilities"
# Clips prepared at once.
_BLOCK_CLIPS = 64


@dataclass(frozen=True, slots=True, repr=False)
class HeadModel:
    """A head in two halves, so that training need not prepare the embeddings every epoch.

    Attributes
    ----------
    front : keras.Model
        Takes "vectors", float32 (n, n_frames, embedding_dim), and "mask", bool
        (n, n_frames), right-padded; gives prepared frames, float32 (n, n_frames, dim):
        standardised, reduced, with motion or centred. Nothing in it is learned by gradients.
    core : keras.Model
        Takes prepared frames as "vectors", and "mask"; gives probabilities, float32
        (n, n_classes).
    whole : keras.Model
        Both halves as one graph, with weights of its own; see `join_halves`. The input of
        its layer "logits" is one vector per clip.
    """

    front: Any
    core: Any
    whole: Any


def build_head(
    name: str,
    *,
    embedding_dim: int,
    n_classes: int,
    options: HeadOptions | None = None,
    is_multilabel: bool = False,
) -> HeadModel:
    """Build an untrained head; where clips may have several classes, with sigmoids."""
    options = options or HeadOptions()
    core = build_core(
        name,
        embedding_dim=embedding_dim,
        n_classes=n_classes,
        options=options,
        is_multilabel=is_multilabel,
    )
    return complete_head(core, name, embedding_dim=embedding_dim, options=options)


def build_core(
    name: str,
    *,
    embedding_dim: int,
    n_classes: int,
    options: HeadOptions,
    is_multilabel: bool = False,
) -> Any:
    """Build the half that learns; parameters and errors as in `build_head`."""
    kind, _ = parse_head(name)
    if (options.n_components or 0) > embedding_dim:
        raise OptionInvalid(
            f"--reduce cannot keep more dimensions than there are. Received: {options.reduce} "
            f"for embeddings of {embedding_dim}.",
            hint=f"--reduce pca:{max(1, embedding_dim // 4)}",
        )
    inputs = _inputs(core_width(name, embedding_dim=embedding_dim, options=options))
    logits = _classify(kind, inputs["vectors"], inputs["mask"], n_classes, options)
    probabilities = _squash(logits, is_multilabel=is_multilabel)
    return import_keras().Model(inputs, probabilities, name=_model_name(kind))


def core_width(name: str, *, embedding_dim: int, options: HeadOptions) -> int:
    """Return the dimensions of the prepared frames that a head's core sees."""
    dim = options.n_components or embedding_dim
    widths = {"appearance": dim, "motion": 2 * dim + 1, "both": 3 * dim + 1, "centred": 2 * dim}
    return widths[parse_head(name)[1]]


def complete_head(core: Any, name: str, *, embedding_dim: int, options: HeadOptions) -> HeadModel:
    """Build the other half of a core, and the whole; parameters as in `build_head`."""
    keras = import_keras()
    kind, sees = parse_head(name)
    inputs = _inputs(embedding_dim)
    frames = _prepare(inputs["vectors"], inputs["mask"], sees, options)
    front = keras.Model(inputs, frames)
    inputs = _inputs(embedding_dim)
    frames = _prepare(inputs["vectors"], inputs["mask"], sees, options)
    n_classes = core.output_shape[-1]
    logits = _classify(kind, frames, inputs["mask"], n_classes, options)
    probabilities = _squash(logits, is_multilabel=is_multilabel_head(core))
    whole = keras.Model(inputs, probabilities, name=_model_name(kind))
    for model in (front, whole):
        # Neither is run often enough for a compilation by XLA to pay.
        model.jit_compile = False
    return HeadModel(front, core, whole)


def is_multilabel_head(model: Any) -> bool:
    """Tell whether a head gives every class a probability of its own."""
    return any(layer.name == _LABELS_LAYER for layer in model.layers)


def join_halves(head: HeadModel) -> Any:
    """Give the whole the weights of its halves, and return it."""
    head.whole.set_weights([*head.front.get_weights(), *head.core.get_weights()])
    return head.whole


def _model_name(kind: HeadKind) -> str:
    return kind.name.replace("-", "_")  # Keras takes no hyphens here


def _inputs(dim: int) -> dict[str, Any]:
    keras = import_keras()
    return {
        "vectors": keras.Input((None, dim), name="vectors", dtype="float32"),
        "mask": keras.Input((None,), name="mask", dtype="bool"),
    }


def _prepare(vectors: Any, mask: Any, sees: HeadInput, options: HeadOptions) -> Any:
    keras = import_keras()
    from pipeline.heads.layers import Centred, Motion, Standardise

    frames = Standardise(name="standardise")([vectors, mask])
    if options.n_components is not None:
        frames = keras.layers.Dense(
            options.n_components, use_bias=False, trainable=False, name="reduce"
        )(frames)
    if sees == "centred":
        frames = Centred(name="centred")([frames, mask])
    elif sees != "appearance":
        frames = Motion(keep=sees == "both", name="motion")([frames, mask])
    if options.n_components is not None or sees != "appearance":
        frames = Standardise(name="standardise_again")([frames, mask])
    return frames


def _classify(kind: HeadKind, frames: Any, mask: Any, n_classes: int, options: HeadOptions) -> Any:
    keras = import_keras()
    units = kind.units if options.units is None else options.units
    dropout = kind.dropout if options.dropout is None else options.dropout
    with redirect_stdout(sys.stderr):  # a head may print, but standard output is for results
        clip_vector = _call_builder(kind, frames, mask, units, dropout)
    start = kind.logits_start
    return keras.layers.Dense(n_classes, kernel_initializer=start, name="logits")(clip_vector)


def _squash(logits: Any, *, is_multilabel: bool) -> Any:
    keras = import_keras()
    if is_multilabel:
        return keras.layers.Activation("sigmoid", name=_LABELS_LAYER)(logits)
    return keras.layers.Softmax(name="probabilities")(logits)


def _call_builder(kind: HeadKind, frames: Any, mask: Any, units: int, dropout: float) -> Any:
    """Return one vector per clip; an error in a user's own head is said as such."""
    if kind.is_ours:
        return kind.build(frames, mask, units, dropout)
    shape: object = None
    try:
        clip_vector = kind.build(frames, mask, units, dropout)
        if import_keras().backend.is_keras_tensor(clip_vector):
            shape = clip_vector.shape
            if len(clip_vector.shape) == 2 and clip_vector.shape[1] is not None:
                return clip_vector
        received = type(clip_vector).__name__ if shape is None else f"a tensor of shape {shape}"
    except FrameHeadError:
        raise
    # A head is somebody's program: whatever it raises is said, with its kind.
    except Exception as problem:
        line = traceback.extract_tb(problem.__traceback__)[-1]
        raise TrainingFailed(
            f"The head '{kind.name}' must be built without errors. Building it failed in "
            f"'{line.filename}', line {line.lineno}: {type(problem).__name__}: {problem}.",
            hint="train-head --debug shows the traceback",
        ) from problem
    raise TrainingFailed(
        f"A head must return one vector per clip, a Keras tensor (clips, any number). "
        f"'{kind.name}' returned {received}.",
        hint="average over frames, or take the last one",
    )


def fit_front(head: HeadModel, train: Sequences) -> None:
    """Fit what prepares the embeddings, on the training part and nothing else."""
    layers = {layer.name: layer for layer in head.front.layers}
    layers["standardise"].set_statistics(*frame_statistics(train))
    if "reduce" in layers:
        mean, deviation = frame_statistics(train)
        layers["reduce"].set_weights(
            [frame_components(train, mean, deviation, layers["reduce"].units)]
        )
    if "standardise_again" in layers:
        again = layers["standardise_again"]
        again.set_statistics(np.zeros(again.mean.shape), np.ones(again.mean.shape))
        mean, deviation = frame_statistics(prepare(head, train))
        if "reduce" in layers:
            # Components keep the sizes they have among themselves: blown up to those of the
            # strong ones, the many weak ones would be mostly noise.
            n_components = layers["reduce"].units
            for start in range(0, len(deviation) // n_components * n_components, n_components):
                block = slice(start, start + n_components)
                deviation[block] = np.sqrt(np.square(deviation[block]).mean())
        if "motion" in layers:
            # One number among many dimensions: as large as all of them together, or it
            # would not be seen.
            deviation[-1] /= np.sqrt(len(deviation))
        again.set_statistics(mean, deviation)


def prepare(head: HeadModel, embeddings: Sequences) -> Sequences:
    """Compute once what a head's core sees, so that training need not do it every epoch."""
    n_clips, max_frames = embeddings.mask.shape
    dim = head.front.output_shape[-1]
    prepared = aligned_zeros((n_clips, max_frames, dim), embeddings.vectors.dtype)
    size = min(_BLOCK_CLIPS, n_clips)
    for start in range(0, n_clips, size):
        # Whole blocks of one shape: the backend compiles once.
        rows = np.arange(start, start + size) % n_clips
        block: Float32Array = np.asarray(
            head.front.predict_on_batch(model_inputs(embeddings, rows)), dtype=np.float32
        )
        prepared[start : start + size] = block[: n_clips - start]
    return replace(embeddings, vectors=prepared)


def predict_probabilities(model: Any, sequences: Sequences, batch_size: int = 64) -> Float32Array:
    """Apply a trained head to sequences as they are: (n_clips, n_classes).

    Rows sum to 1, unless clips may have several classes.
    """
    n_clips = len(sequences.clip_ids)
    # Whole batches of one shape: the backend compiles the head once.
    size = min(batch_size, n_clips)
    pieces = []
    for start in range(0, n_clips, size):
        rows = np.arange(start, start + size) % n_clips
        batch = model.predict_on_batch(model_inputs(sequences, rows))
        pieces.append(np.asarray(batch, dtype=np.float32)[: n_clips - start])
    return np.concatenate(pieces)


def predict_clips(model: Any, sequences: Sequences, options: HeadOptions) -> Float32Array:
    """Apply a trained head to whole clips, by windows if it was trained so."""
    windows, owners = cut_windows(sequences, options.window)
    found = predict_probabilities(model, windows)
    several = is_multilabel_head(model)
    return join_windows(found, owners, options.aggregate, is_multilabel=several)
