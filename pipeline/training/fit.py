"""Fitting one head to the clips of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.errors import OptionInvalid, TrainingFailed
from features.records import IntArray
from features.store.store import Store, is_multilabel
from features.system.keras import import_keras
from pipeline.data.sequences import Float32Array, Sequences, require_memory
from pipeline.data.windows import cut_windows, first_windows, join_windows
from pipeline.heads.model import (
    HeadModel,
    build_core,
    complete_head,
    core_width,
    fit_front,
    is_multilabel_head,
    join_halves,
    predict_probabilities,
    prepare,
)
from pipeline.heads.registry import HeadOptions, parse_head
from pipeline.scores.labels import choose_thresholds
from pipeline.splits.split import Split
from pipeline.training.options import ClassWeights, EpochReport, FitOptions
from pipeline.training.trainers import Trainer, clip_losses, make_trainer

# Enough for an optimizer to find its way within a few epochs.
_STEPS_PER_EPOCH = 20
# A validation loss that creeps towards zero by less than this no longer buys anything.
_LEAST_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A trained head."""

    # With the weights of the best epoch. Belongs to the workbench if one was given: good until
    # the next head is fitted there.
    model: Any = field(repr=False)
    history: tuple[EpochReport, ...]
    best_epoch: int  # from 1, of the lowest validation loss
    # Where clips may have several classes: from which probability on a class counts as named.
    thresholds: tuple[float, ...] | None = None


class Workbench:
    """Compiled heads, kept without any data so that many fits of one shape compile once.

    A fit on a workbench gives exactly what a fit without one gives.
    """

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], tuple[HeadModel, Trainer]] = {}

    def set_up(
        self,
        name: str,
        *,
        embedding_dim: int,
        n_classes: int,
        options: HeadOptions,
        learning_rate: float,
        batch_size: int,
        is_multilabel: bool = False,
    ) -> tuple[HeadModel, Trainer]:
        """Build and compile a head, or return one that is compiled to the state of a new one."""
        core = build_core(
            name,
            embedding_dim=embedding_dim,
            n_classes=n_classes,
            options=options,
            is_multilabel=is_multilabel,
        )
        key = (name, embedding_dim, n_classes, options, learning_rate, batch_size, is_multilabel)
        kept = self._heads.get(key)
        if kept is None:
            _compile(core, learning_rate)
            head = complete_head(core, name, embedding_dim=embedding_dim, options=options)
            self._heads[key] = kept = head, make_trainer(core, batch_size)
            return kept
        used = kept[0].core
        # With the state of the random generators of dropout.
        for own, fresh in zip(used.variables, core.variables, strict=True):
            own.assign(fresh)
        for variable in used.optimizer.variables:
            if variable is not used.optimizer.learning_rate:
                variable.assign(variable * 0)
        return kept


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
    """Train a head until the validation loss stops falling, or raise TrainingFailed.

    Sets the global random seeds of Python, NumPy and the Keras backend to `seed`; the same seed
    gives the same head on the same machine.
    """
    options = fit_options or FitOptions()
    head_options = head_options or HeadOptions()
    import_keras().utils.set_random_seed(seed)
    built, trainer = (workbench or Workbench()).set_up(
        head,
        embedding_dim=train.vectors.shape[2],
        n_classes=n_classes,
        options=head_options,
        learning_rate=options.learning_rate or parse_head(head)[0].learning_rate,
        batch_size=options.batch_size or choose_batch_size(len(train.clip_ids)),
        is_multilabel=train.targets is not None,
    )
    if train.targets is not None:
        _start_at_frequencies(built.core, train.targets)
    class_weights = _weigh_classes(train.class_indices, n_classes, options.class_weights)
    windows, owners = cut_windows(train, head_options.window)
    n_windows = np.bincount(owners)
    # Every clip weighs the same, however many windows it has.
    shares = len(owners) / len(n_windows) / n_windows[owners]
    weights = (class_weights[windows.class_indices] * shares).astype(np.float32)
    fit_front(built, windows)
    prepared = prepare(built, windows)
    del train, windows  # the trainer copies what is prepared: no more than needed stays beside it
    train_once = trainer.start(prepared, weights)
    del prepared
    windows, val_owners = cut_windows(val, head_options.window)
    windows = prepare(built, windows)

    def join(found: Float32Array) -> Float32Array:
        several = val.targets is not None
        return join_windows(found, val_owners, head_options.aggregate, is_multilabel=several)

    def evaluate() -> tuple[float, float]:
        found = predict_probabilities(built.core, windows)
        probabilities = join(found)
        if val.targets is not None:
            return _evaluate_labels(probabilities, val.targets)
        truth = windows.class_indices[first_windows(val_owners)]
        of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
        # Weighted as in training: otherwise stopping would undo what the weights are for.
        losses = -np.log(np.maximum(of_truth, 1e-12))
        loss = float(np.average(losses, weights=class_weights[truth].astype(np.float64)))
        return loss, float((probabilities.argmax(axis=1) == truth).mean())

    shuffler = np.random.default_rng(seed)

    def run_epoch(number: int) -> EpochReport:
        order = shuffler.permutation(len(weights))
        return EpochReport(number, *train_once(order), *evaluate())

    history, best_epoch = _train_until_best(built.core, run_epoch, options, on_epoch)
    thresholds = None
    if val.targets is not None:
        found = join(predict_probabilities(built.core, windows))
        thresholds = choose_thresholds(val.targets, found)
    return FittedHead(join_halves(built), history, best_epoch, thresholds)


def require_memory_for_fit(
    store: Store,
    splits: Iterable[Split],
    heads: Iterable[str],
    options: HeadOptions,
    *,
    n_at_once: int = 1,
) -> None:
    """Refuse fits whose clips, windows and prepared frames do not fit into memory together."""
    dim = store.header.backbone.embedding_dim
    width = max(core_width(head, embedding_dim=dim, options=options) for head in heads)
    n_raw = 1 if options.window is None else 2
    largest = max(([*split.train, *split.val] for split in splits), key=len)
    require_memory(store, largest, copies=n_at_once * (n_raw + width / dim))


def choose_batch_size(n_train: int) -> int:
    """Return the clips per step where nobody said how many: large data wants large steps."""
    return int(np.clip(n_train // _STEPS_PER_EPOCH, 16, 64))


def _train_until_best(
    core: Any,
    run_epoch: Callable[[int], EpochReport],
    options: FitOptions,
    on_epoch: Callable[[EpochReport], None] | None,
) -> tuple[tuple[EpochReport, ...], int]:
    """Train until nothing is gained any more, and leave the weights of the best epoch in place."""
    history: list[EpochReport] = []
    best_loss, best_epoch, best_weights = math.inf, 0, core.get_weights()
    milestone, milestone_epoch = math.inf, 0
    for number in range(1, options.epochs + 1):
        report = run_epoch(number)
        if not (math.isfinite(report.loss) and math.isfinite(report.val_loss)):
            raise TrainingFailed(
                f"The loss must stay finite. Head '{core.name.replace('_', '-')}' reached "
                f"loss={report.loss}, val_loss={report.val_loss} in epoch {number}.",
                hint="lower --learning-rate, and check the store with inspect --verify",
            )
        history.append(report)
        if on_epoch is not None:
            on_epoch(report)
        if report.val_loss < milestone - _LEAST_GAIN:
            milestone, milestone_epoch = report.val_loss, number
        if report.val_loss < best_loss:
            best_loss, best_epoch, best_weights = report.val_loss, number, core.get_weights()
        if number - milestone_epoch >= options.patience:
            break
    core.set_weights(best_weights)
    return tuple(history), best_epoch


def _compile(core: Any, learning_rate: float) -> None:
    keras = import_keras()
    several = is_multilabel_head(core)
    core.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=0.01, clipnorm=1.0),
        loss=clip_losses if several else "sparse_categorical_crossentropy",
        # Not `metrics`, which would count the clips that fill up the last batch.
        weighted_metrics=[keras.metrics.BinaryAccuracy("accuracy") if several else "accuracy"],
        # On a CPU the compilation by XLA takes longer than most heads take to train.
        jit_compile=False,
    )
    core.optimizer.build(core.trainable_variables)


def require_class_weights(store: Store, options: FitOptions) -> None:
    """Refuse weights of classes where clips may have several."""
    if options.class_weights != "none" and is_multilabel(store):
        raise OptionInvalid(
            "--class-weights is about clips of one class each. Received: --class-weights "
            f"{options.class_weights}, and clips of '{store.path}' may have several.",
            hint="leave it out: every class has a threshold of its own, and the mean average "
            "precision counts all classes alike",
        )


def _start_at_frequencies(core: Any, targets: Float32Array) -> None:
    """Let a head begin by giving every class its frequency, which may be low."""
    n_with = targets.sum(axis=0)
    core.get_layer("logits").bias.assign(np.log((n_with + 0.5) / (len(targets) - n_with + 0.5)))


def _evaluate_labels(probabilities: Float32Array, targets: Float32Array) -> tuple[float, float]:
    """Return the mean loss, and the share of all classes of all clips that are right at 0.5."""
    likely = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    of_truth = np.where(targets == 1, likely, 1 - likely)
    right = (probabilities > 0.5) == (targets == 1)
    return float(-np.log(of_truth).sum(axis=1).mean()), float(right.mean())


def _weigh_classes(class_indices: IntArray, n_classes: int, kind: ClassWeights) -> Float32Array:
    if kind == "none":
        return np.ones(n_classes, dtype=np.float32)
    counts = np.maximum(np.bincount(class_indices, minlength=n_classes), 1)
    weights: Float32Array = (len(class_indices) / (n_classes * counts)).astype(np.float32)
    return weights
