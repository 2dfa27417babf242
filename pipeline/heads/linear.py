"""Linear classifiers of one vector per clip, found by scikit-learn instead of by gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import TrainingFailed

Float64Array = npt.NDArray[np.float64]

# Strengths of regularisation to choose from (scikit-learn's C), for vectors whose numbers vary
# by 1: from almost a constant to almost none.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Taken where there are too few groups to choose by.
_USUAL_STRENGTH = 1e-2
_MOST_FOLDS = 5
# Of more clips one fold says enough.
_MANY_CLIPS = 2000
# To choose a strength, a solution need not be as exact as in the end.
_ROUGH, _EXACT = 1e-3, 1e-5
# Numbers below which several threads cost more than they bring.
_ALONE_BELOW = 2_000_000
# The logit of a class that was not learned.
_NEVER = -30.0


@dataclass(frozen=True, slots=True, repr=False)
class ClipVectors:
    """What a head made of each training clip, for a `fit` that finds the classifier itself.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n_clips, dim)
        What the head's function returns. With ``--window`` every window is one of the clips.
    class_indices : ndarray of int64, shape (n_clips,)
        From 0 to `n_classes` - 1; -1 where clips may have several.
    targets : ndarray of float32, shape (n_clips, n_classes), or None
        Where clips may have several classes: 1 for those of the clip, 0 for the others.
    groups : ndarray of int64, shape (n_clips,)
        Clips of one group have one number. Whatever is chosen must be chosen with whole groups
        held out.
    weights : ndarray of float32, shape (n_clips,)
        How much each clip counts; the mean is about 1.
    n_classes : int
    parts : ndarray of int64, shape (dim,)
        Which part of the head's input each number of a prepared frame is from: 0, or 1 where it
        sees two, as with ":mixed".
    seed : int
    """

    vectors: npt.NDArray[np.float32]
    class_indices: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float32] | None
    groups: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    n_classes: int
    parts: npt.NDArray[np.int64]
    seed: int


# Finds the kernel (dim, n_classes) and the bias (n_classes,) of the layer "logits".
Fitter = Callable[[ClipVectors], tuple[npt.ArrayLike, npt.ArrayLike]]


def fit_logistic(clips: ClipVectors) -> tuple[Float64Array, Float64Array]:
    """Fit a logistic regression; its C, and of two parts the one, are chosen with groups held out.

    Chosen is what gives held-out clips the highest likelihood.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if clips.vectors.size < _ALONE_BELOW else None):
        if clips.targets is not None:
            return _fit_each(clips, clips.targets)
        return _fit_chosen(clips)


def _fit_chosen(clips: ClipVectors) -> tuple[Float64Array, Float64Array]:
    candidates = _list_columns(clips.parts)
    spaces = [_Space(clips.vectors[:, columns]) for columns in candidates]
    losses = np.zeros((len(spaces), len(STRENGTHS)))
    folds = _cut_folds(clips)
    for space, row in zip(spaces, losses, strict=True):
        for train, held_out in folds:
            row += _path_losses(space.vectors, clips, train, held_out)
    best, strength = np.unravel_index(losses.argmin(), losses.shape)
    chosen = STRENGTHS[strength] if folds else _USUAL_STRENGTH
    space = spaces[best]
    model = _fit_path(space.vectors, clips, np.arange(len(clips.weights)), (chosen,), _EXACT)[0]
    kernel, bias = space.undo(*_both_ways(model, clips.n_classes))
    whole = np.zeros((clips.vectors.shape[1], clips.n_classes))
    whole[candidates[best]] = kernel
    return whole, bias


def fit_discriminant(clips: ClipVectors) -> tuple[Float64Array, Float64Array]:
    """Fit a linear discriminant analysis whose covariance is shrunk as Ledoit and Wolf say."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if clips.targets is not None:
        raise TrainingFailed(
            "lda is for clips of one class each, and these may have several.",
            hint="--head logreg",
        )
    space = _Space(clips.vectors)
    counts = np.bincount(clips.class_indices, clips.weights)
    counts = counts[counts > 0]
    model = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage="auto", priors=counts / counts.sum()
    )
    model.fit(space.vectors, clips.class_indices)
    return space.undo(*_both_ways(model, clips.n_classes))


def _fit_each(
    clips: ClipVectors, targets: npt.NDArray[np.float32]
) -> tuple[Float64Array, Float64Array]:
    """Fit a regression of its own for each of several classes that a clip may have."""
    kernel = np.zeros((clips.vectors.shape[1], clips.n_classes))
    bias = np.zeros(clips.n_classes)
    for number, target in enumerate(targets.T.astype(np.int64)):
        if target.min() == target.max():
            bias[number] = _NEVER if target[0] == 0 else -_NEVER
            continue
        alone = replace(clips, class_indices=target, targets=None, n_classes=2)
        columns, two = _fit_chosen(alone)
        kernel[:, number], bias[number] = columns[:, 1] - columns[:, 0], two[1] - two[0]
    return kernel, bias


class _Space:
    """Clip vectors scaled and turned so that no more dimensions are left than clips.

    A penalty on the length of the kernel does not see the turn, but the solver is many times
    faster.
    """

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        self._mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - self._mean
        self._scale = float(np.sqrt(np.square(centred).mean())) or 1.0
        centred /= self._scale
        self._axes: Float64Array | None = None
        if vectors.shape[0] < vectors.shape[1]:
            self._axes = np.linalg.svd(centred, full_matrices=False)[2]
            centred = centred @ self._axes.T
        self.vectors = centred.astype(np.float32) if len(centred) > _MANY_CLIPS else centred

    def undo(self, kernel: Float64Array, bias: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return kernel and bias for the vectors as they were given."""
        if self._axes is not None:
            kernel = self._axes.T @ kernel
        kernel = kernel / self._scale
        return kernel, bias - self._mean @ kernel


def _list_columns(parts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """List the columns of each part."""
    return [np.flatnonzero(parts == part) for part in np.unique(parts)]


def _cut_folds(clips: ClipVectors) -> list[tuple[Any, Any]]:
    from sklearn.model_selection import StratifiedGroupKFold

    n_most = int(np.unique(clips.class_indices, return_counts=True)[1].max())  # of one class
    n_folds = min(_MOST_FOLDS, len(np.unique(clips.groups)), n_most)
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=clips.seed)
    with warnings.catch_warnings():
        # A class of fewer groups than folds is held out in some of them only.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        cut = list(splitter.split(clips.vectors, clips.class_indices, clips.groups))
    # Those that leave something to learn: two classes, and clips to be judged by.
    return [
        (train, held_out)
        for train, held_out in cut
        if len(held_out) and len(np.unique(clips.class_indices[train])) > 1
    ][: 1 if len(clips.weights) > _MANY_CLIPS else None]


def _path_losses(vectors: Float64Array, clips: ClipVectors, train: Any, held_out: Any) -> Any:
    """Return the log loss of held-out clips for every strength, summed over clips."""
    truth, weights = clips.class_indices[held_out], clips.weights[held_out]
    losses = []
    for model in _fit_path(vectors, clips, train, STRENGTHS, _ROUGH):
        found = np.zeros((len(held_out), clips.n_classes))
        # A class without clips here gets no probability.
        found[:, model.classes_] = model.predict_proba(vectors[held_out])
        of_truth = np.maximum(found[np.arange(len(truth)), truth], 1e-6)
        losses.append(float((-np.log(of_truth) * weights).sum()))
    return np.array(losses)


def _fit_path(
    vectors: Float64Array,
    clips: ClipVectors,
    rows: Any,
    strengths: tuple[float, ...],
    tolerance: float,
) -> list[Any]:
    """Fit one regression per strength, from strong to weak, each beginning where one ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    models: list[Any] = []
    for strength in strengths:
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=500, warm_start=True)
        if models:
            model.coef_, model.intercept_ = models[-1].coef_.copy(), models[-1].intercept_.copy()
            model.classes_ = models[-1].classes_
        with warnings.catch_warnings():
            # Only the weakest penalties need more steps, and held-out clips judge the result.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(vectors[rows], clips.class_indices[rows], clips.weights[rows])
        models.append(model)
    return models


def _both_ways(model: Any, n_classes: int) -> tuple[Float64Array, Float64Array]:
    """Return kernel and bias of a softmax; scikit-learn has one column only for two classes."""
    kernel, bias = model.coef_.T, model.intercept_
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([0 * kernel, kernel]), np.append(0 * bias, bias)
    whole, biases = np.zeros((len(kernel), n_classes)), np.full(n_classes, _NEVER)
    whole[:, model.classes_], biases[model.classes_] = kernel, bias
    return whole, biases
