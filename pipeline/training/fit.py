"""Fitting one head to the clips of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import IntArray
from features.system.keras import import_keras
from pipeline.data.sequences import Sequences
from pipeline.data.windows import cut_windows
from pipeline.heads.model import (
    HeadModel,
    build_core,
    complete_head,
    fit_front,
    join_halves,
    prepare,
)
from pipeline.heads.registry import HeadOptions, parse_head
from pipeline.training.epochs import train_epochs
from pipeline.training.options import ClassWeights, EpochReport, FitOptions
from pipeline.training.trainers import Trainer, make_trainer

# Enough for an optimizer to find its way within a few epochs.
_STEPS_PER_EPOCH = 20


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A trained head.

    Attributes
    ----------
    model : keras.Model
        With the weights of the best epoch. Belongs to the workbench if one was given: good
        until the next head is fitted there.
    history : tuple of EpochReport
    best_epoch : int
        From 1, the epoch of the lowest validation loss.
    """

    model: Any = field(repr=False)
    history: tuple[EpochReport, ...]
    best_epoch: int


class Workbench:
    """Compiled heads, kept so that many fits of one shape compile once.

    A fit on a workbench gives exactly what a fit without one gives.
    """

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], tuple[HeadModel, Trainer]] = {}

    def find(self, key: tuple[Any, ...], fresh_core: Any) -> tuple[HeadModel, Trainer] | None:
        """Return the head compiled for `key`, in the untrained state of a fresh core."""
        kept = self._heads.get(key)
        if kept is None:
            return None
        core = kept[0].core
        # With the state of the random generators of dropout.
        for own, other in zip(core.variables, fresh_core.variables, strict=True):
            own.assign(other)
        for variable in core.optimizer.variables:
            if variable is not core.optimizer.learning_rate:
                variable.assign(variable * 0)
        return kept

    def keep(self, key: tuple[Any, ...], head: HeadModel, trainer: Trainer) -> None:
        """Remember a head whose core is compiled."""
        self._heads[key] = head, trainer


def fit_head(
    train: Sequences,
    val: Sequences,
    *,
    head: str,
    n_classes: int,
    seed: int = 0,
    head_options: HeadOptions | None = None,
    fit_options: FitOptions | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    workbench: Workbench | None = None,
) -> FittedHead:
    """Train a head until the validation loss stops falling.

    Sets the global random seeds of Python, NumPy and the Keras backend to `seed`.

    Parameters
    ----------
    train, val : Sequences
        Embeddings with known class indices.
    head : str
        See `pipeline.heads.registry.parse_head`.
    n_classes : int
        At least 2.
    seed : int, default 0
        The same seed gives the same head on the same machine.
    head_options : HeadOptions, optional
    fit_options : FitOptions, optional
    on_epoch : callable, optional
        Called after every epoch.
    workbench : Workbench, optional

    Returns
    -------
    FittedHead

    Raises
    ------
    HeadUnknown
        If there is no such head.
    OptionInvalid
        If an option does not fit the embeddings.
    TrainingFailed
        If a loss is not finite.
    """
    options = fit_options or FitOptions()
    head_options = head_options or HeadOptions()
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    dim = train.vectors.shape[2]
    core = build_core(head, embedding_dim=dim, n_classes=n_classes, options=head_options)
    batch_size = options.batch_size or choose_batch_size(len(train.clip_ids))
    learning_rate = options.learning_rate or parse_head(head)[0].learning_rate
    key = (head, dim, n_classes, head_options, learning_rate, batch_size)
    kept = None if workbench is None else workbench.find(key, core)
    if kept is None:
        _compile(core, learning_rate)
        built = complete_head(core, head, embedding_dim=dim, options=head_options)
        trainer = make_trainer(core, batch_size)
        if workbench is not None:
            workbench.keep(key, built, trainer)
    else:
        built, trainer = kept
    train_windows, train_owners = cut_windows(train, head_options.window)
    val_windows, val_owners = cut_windows(val, head_options.window)
    fit_front(built, train_windows)
    history, best_epoch = train_epochs(
        built.core,
        trainer,
        prepare(built, train_windows),
        prepare(built, val_windows),
        (train_owners, val_owners),
        _weigh_classes(train.class_indices, n_classes, options.class_weights),
        seed=seed,
        head_options=head_options,
        fit_options=options,
        on_epoch=on_epoch,
    )
    return FittedHead(join_halves(built), history, best_epoch)


def choose_batch_size(n_train: int) -> int:
    """Return the clips per step where nobody said how many: large data wants large steps."""
    return int(np.clip(n_train // _STEPS_PER_EPOCH, 16, 64))


def _compile(core: Any, learning_rate: float) -> None:
    keras = import_keras()
    core.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=0.01, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        # Not `metrics`, which would count the clips that fill up the last batch.
        weighted_metrics=["accuracy"],
        # On a CPU the compilation by XLA takes longer than most heads take to train.
        jit_compile=False,
    )
    core.optimizer.build(core.trainable_variables)


def _weigh_classes(
    class_indices: IntArray, n_classes: int, kind: ClassWeights
) -> npt.NDArray[np.float32]:
    if kind == "none":
        return np.ones(n_classes, dtype=np.float32)
    counts = np.maximum(np.bincount(class_indices, minlength=n_classes), 1)
    weights: npt.NDArray[np.float32] = (len(class_indices) / (n_classes * counts)).astype(
        np.float32
    )
    return weights
