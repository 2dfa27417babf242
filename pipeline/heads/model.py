"""A head as a Keras model: what prepares the embeddings, then what learns."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
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
from pipeline.heads.linear import ClipVectors, Fitter
from pipeline.heads.registry import HeadInput, HeadKind, HeadOptions, parse_head

# Name of the last layer where clips may have several classes.
_LABELS_LAYER = "label_probabilities"
# Names inside a model of several members.
_FRONT, _MEMBER = "front", "member_"

# How much more one number that sums up a clip weighs than all those that it sums up. Chosen by
# cross-validation inside the training parts of surveillance clips of fights.
_CLIP_STRENGTH = 3.0

# Clips prepared at once.
_BLOCK_CLIPS = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Some neighbouring numbers of a prepared frame."""

    start: int
    stop: int
    part: int  # of the head's input: 0, or 1 of those that have two
    is_single: bool  # one number that sums up the others


@dataclass(frozen=True, slots=True, repr=False)
class HeadModel:
    """A head in two halves, so that training need not prepare the embeddings every epoch.

    Attributes
    ----------
    front : keras.Model
        Takes "vectors", float32 (n, n_frames, embedding_dim), and "mask", bool
        (n, n_frames), right-padded; gives prepared frames, float32 (n, n_frames, dim):
        standardised, reduced, with motion or centred; one frame if the head pools. Nothing in it
        is learned by gradients.
    core : keras.Model
        Takes prepared frames as "vectors", and "mask"; gives probabilities, float32
        (n, n_classes).
    whole : keras.Model
        Both halves as one graph, with weights of its own; see `join_halves`. The input of
        its layer "logits" is one vector per clip. If it has several members, they are models in
        it, called "member_1" and so on, behind one called "front".
    pieces : tuple of Piece
        What a prepared frame consists of, from its first number to its last.
    """

    front: Any
    core: Any
    whole: Any
    pieces: tuple[Piece, ...]


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
    return list_pieces(name, embedding_dim=embedding_dim, options=options)[-1].stop


# What each input consists of: by part, the number of pieces as wide as an embedding, and
# whether a single number follows them.
_PARTS: dict[HeadInput, tuple[tuple[int, bool], ...]] = {
    "appearance": ((1, False),),
    "motion": ((2, True),),
    "both": ((1, False), (2, True)),
    "centred": ((1, False), (1, False)),
    "tempo": ((1, True),),
    "mixed": ((1, False), (1, True)),
}


def list_pieces(name: str, *, embedding_dim: int, options: HeadOptions) -> tuple[Piece, ...]:
    """List what a prepared frame of a head consists of."""
    dim = options.n_components or embedding_dim
    kind, sees = parse_head(name)
    pieces: list[Piece] = []
    for _ in range({"mean+std": 2, "thirds": 3}.get(kind.pool, 1)):
        for part, (n_wide, has_single) in enumerate(_PARTS[sees]):
            for is_single in [False] * n_wide + [True] * has_single:
                start = pieces[-1].stop if pieces else 0
                stop = start + (1 if is_single else dim)
                pieces.append(Piece(start, stop, part, is_single))
    return tuple(pieces)


def complete_head(
    core: Any, name: str, *, embedding_dim: int, options: HeadOptions, n_members: int = 1
) -> HeadModel:
    """Build the other half of a core, and the whole; parameters as in `build_head`.

    A whole of several members averages what as many cores say of the same frames.
    """
    keras = import_keras()
    kind, sees = parse_head(name)
    inputs = _inputs(embedding_dim)
    front = keras.Model(inputs, _prepare(kind, sees, inputs, options)[0])
    inputs = _inputs(embedding_dim)
    frames, mask = _prepare(kind, sees, inputs, options)
    n_classes = core.output_shape[-1]
    several = is_multilabel_head(core)
    if n_members == 1:
        logits = _classify(kind, frames, mask, n_classes, options)
        probabilities = _squash(logits, is_multilabel=several)
    else:
        seen = keras.Model(inputs, {"vectors": frames, "mask": mask}, name=_FRONT)
        inputs = _inputs(embedding_dim)
        seen = seen(inputs)
        members = []
        for number in range(1, n_members + 1):
            member = build_core(
                name,
                embedding_dim=embedding_dim,
                n_classes=n_classes,
                options=options,
                is_multilabel=several,
            )
            member.name = f"{_MEMBER}{number}"
            members.append(member(seen))
        layer = _LABELS_LAYER if several else "probabilities"
        probabilities = keras.layers.Average(name=layer)(members)
    whole = keras.Model(inputs, probabilities, name=_model_name(kind))
    for model in (front, whole):
        # Neither is run often enough for a compilation by XLA to pay.
        model.jit_compile = False
    return HeadModel(
        front, core, whole, list_pieces(name, embedding_dim=embedding_dim, options=options)
    )


def is_multilabel_head(model: Any) -> bool:
    """Tell whether a head gives every class a probability of its own."""
    return any(layer.name == _LABELS_LAYER for layer in model.layers)


def join_halves(head: HeadModel, members: Sequence[Any] = (), temperature: float = 1.0) -> Any:
    """Give the whole the weights of its halves, and return it.

    `members` are the weights of its cores, as `get_weights` gives them; by default those of
    the one there is. Logits are divided by the temperature.
    """
    front, cooled = head.front.get_weights(), []
    for weights in members or [head.core.get_weights()]:
        head.core.set_weights(weights)
        logits = head.core.get_layer("logits")
        logits.set_weights([weight / temperature for weight in logits.get_weights()])
        cooled.append(head.core.get_weights())
    if len(cooled) == 1:
        head.whole.set_weights([*front, *cooled[0]])
        return head.whole
    head.whole.get_layer(_FRONT).set_weights(front)
    for number, weights in enumerate(cooled, start=1):
        head.whole.get_layer(f"{_MEMBER}{number}").set_weights(weights)
    return head.whole


def look_inside(model: Any, pick: Callable[[Any], Any], join: Callable[[Any], Any]) -> Any:
    """Make a model of what `pick` takes from inside a head, or from each of its members."""
    names = [layer.name for layer in model.layers if layer.name.startswith(_MEMBER)]
    if not names:
        return import_keras().Model(model.inputs, pick(model))
    members = [model.get_layer(name) for name in names]
    inputs = {tensor.name: tensor for tensor in model.inputs}
    seen = model.get_layer(_FRONT)(inputs)
    inner = [import_keras().Model(member.inputs, pick(member))(seen) for member in members]
    return import_keras().Model(inputs, join(inner))


def _model_name(kind: HeadKind) -> str:
    return kind.name.replace("-", "_")  # Keras takes no hyphens here


def _inputs(dim: int) -> dict[str, Any]:
    keras = import_keras()
    return {
        "vectors": keras.Input((None, dim), name="vectors", dtype="float32"),
        "mask": keras.Input((None,), name="mask", dtype="bool"),
    }


def _prepare(
    kind: HeadKind, sees: HeadInput, inputs: dict[str, Any], options: HeadOptions
) -> tuple[Any, Any]:
    """Return what a head sees of its inputs: frames and their mask."""
    keras = import_keras()
    from pipeline.heads.layers import Centred, FirstFrame, Motion, Pool, Standardise, Tempo

    mask = inputs["mask"]
    frames = Standardise(name="standardise")([inputs["vectors"], mask])
    if options.n_components is not None:
        frames = keras.layers.Dense(
            options.n_components, use_bias=False, trainable=False, name="reduce"
        )(frames)
    if sees == "centred":
        frames = Centred(name="centred")([frames, mask])
    elif sees in ("motion", "both"):
        frames = Motion(keep=sees == "both", name="motion")([frames, mask])
    elif sees in ("tempo", "mixed"):
        frames = Tempo(keep=sees == "mixed", name="tempo")([frames, mask])
    if options.n_components is not None or sees != "appearance":
        frames = Standardise(name="standardise_again")([frames, mask])
    if kind.pool:
        frames, mask = Pool(kind.pool, name="pool")([frames, mask]), FirstFrame()(mask)
    if kind.pool and kind.fit is not None:
        # A penalty on weights wants numbers of one size, clip by clip.
        frames = Standardise(name="standardise_clips")([frames, mask])
    return frames, mask


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
    with _blaming(kind.name, "Building"):
        clip_vector = kind.build(frames, mask, units, dropout)
    shape: object = None
    if import_keras().backend.is_keras_tensor(clip_vector):
        shape = clip_vector.shape
        if len(clip_vector.shape) == 2 and clip_vector.shape[1] is not None:
            return clip_vector
    received = type(clip_vector).__name__ if shape is None else f"a tensor of shape {shape}"
    raise TrainingFailed(
        f"A head must return one vector per clip, a Keras tensor (clips, any number). "
        f"'{kind.name}' returned {received}.",
        hint="average over frames, or take the last one",
    )


@contextmanager
def _blaming(head: str, what: str) -> Iterator[None]:
    """Say of an error in a user's own head where it was."""
    try:
        yield
    except FrameHeadError:
        raise
    # A head is somebody's program: whatever it raises is said, with its kind.
    except Exception as problem:
        if parse_head(head)[0].is_ours:
            raise
        line = traceback.extract_tb(problem.__traceback__)[-1]
        done = {"Building": "built", "Fitting": "fitted"}[what]
        raise TrainingFailed(
            f"The head '{head}' must be {done} without errors. {what} it failed in "
            f"'{line.filename}', line {line.lineno}: {type(problem).__name__}: {problem}.",
            hint="train-head --debug shows the traceback",
        ) from problem


def fit_front(head: HeadModel, train: Sequences) -> None:
    """Fit what prepares the embeddings, on the training part and nothing else."""
    layers = {layer.name: layer for layer in head.front.layers}
    mean, deviation = frame_statistics([train])
    layers["standardise"].set_statistics(mean, deviation)
    if "reduce" in layers:
        n_components = layers["reduce"].units
        layers["reduce"].set_weights([frame_components(train, mean, deviation, n_components)])
    for name in ("standardise_again", "standardise_clips"):
        if name in layers:
            unscaled = import_keras().Model(head.front.inputs, layers[name].input[0])
            unscaled.jit_compile = False
            mean, deviation = frame_statistics(_apply_in_blocks(unscaled, train))
            strength = _CLIP_STRENGTH if name == "standardise_clips" else 1.0
            _weigh_pieces(deviation, head.pieces, strength, is_reduced="reduce" in layers)
            layers[name].set_statistics(mean, deviation)


def _weigh_pieces(
    deviation: Float32Array, pieces: Iterable[Piece], strength: float, *, is_reduced: bool
) -> None:
    """Change the deviations by which some pieces of prepared frames are divided."""
    for piece in pieces:
        if piece.stop > len(deviation):
            break  # those are made of these only later, when frames are pooled
        block = deviation[piece.start : piece.stop]
        if piece.is_single:
            # One number among many dimensions: as large as all of them together, or it
            # would not be seen.
            block /= strength * np.sqrt(len(deviation))
        elif is_reduced:
            # Components keep the sizes they have among themselves: blown up to those of the
            # strong ones, the many weak ones would be mostly noise.
            block[:] = np.sqrt(np.square(block).mean())


def prepare(head: HeadModel, embeddings: Sequences) -> Sequences:
    """Compute once what a head's core sees, so that training need not do it every epoch."""
    return _apply(head.front, embeddings)


def _apply(front: Any, embeddings: Sequences) -> Sequences:
    n_clips, max_frames = embeddings.mask.shape
    _, n_pooled, dim = front.output_shape
    # One frame per clip takes little room, and keeps its digits.
    dtype = np.dtype(np.float32) if n_pooled else embeddings.vectors.dtype
    n_frames = n_pooled or max_frames
    prepared = aligned_zeros((n_clips, n_frames, dim), dtype)
    start = 0
    for block in _apply_in_blocks(front, embeddings):
        prepared[start : start + len(block.mask)] = block.vectors
        start += len(block.mask)
    return replace(embeddings, vectors=prepared, mask=embeddings.mask[:, :n_frames])


def _apply_in_blocks(front: Any, embeddings: Sequences) -> Iterator[Sequences]:
    n_clips = len(embeddings.mask)
    size = min(_BLOCK_CLIPS, n_clips)
    for start in range(0, n_clips, size):
        # Whole blocks of one shape: the backend compiles once.
        rows = np.arange(start, start + size) % n_clips
        n_real = min(size, n_clips - start)
        found: Float32Array = np.asarray(
            front.predict_on_batch(model_inputs(embeddings, rows)), dtype=np.float32
        )[:n_real]
        rows = rows[:n_real]
        yield Sequences(
            found,
            embeddings.mask[rows, : found.shape[1]],
            embeddings.class_indices[rows],
            tuple(embeddings.clip_ids[row] for row in rows),
            embeddings.take_targets(rows),
        )


def clip_vectors(core: Any, prepared: Sequences) -> Float32Array:
    """Compute what a core classifies: one vector per clip, (n_clips, dim)."""
    inner = import_keras().Model(core.inputs, core.get_layer("logits").input)
    inner.jit_compile = False
    return predict_probabilities(inner, prepared)


def set_logits(core: Any, head: str, fit: Fitter, clips: ClipVectors) -> None:
    """Give a core's classifier the weights that the head's own `fit` finds."""
    layer = core.get_layer("logits")
    if len(layer.trainable_weights) < len(core.trainable_weights):
        raise TrainingFailed(
            f"A head that is registered with `fit` must have no weights of its own. '{head}' has: "
            f"{', '.join(weight.path for weight in core.trainable_weights[:-2])}.",
            hint="leave `fit` out of register_head, and the head is trained by gradients",
        )
    wanted = [tuple(weight.shape) for weight in layer.trainable_weights]
    with _blaming(head, "Fitting"):
        found = [np.asarray(weight, dtype=np.float32) for weight in fit(clips)]
    shapes = [weight.shape for weight in found]
    if shapes != wanted or not all(np.isfinite(weight).all() for weight in found):
        raise TrainingFailed(
            f"`fit` must return a kernel and a bias of finite numbers, of shapes {wanted}. That of "
            f"'{head}' returned {shapes}{'' if shapes != wanted else ', not all finite'}.",
            hint="docs/guides/plugins.md says what it is given",
        )
    layer.set_weights(found)


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
