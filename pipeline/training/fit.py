"""Fitting one head to the clips of a split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np

from features.errors import OptionInvalid, TrainingFailed
from features.records import IntArray
from features.store.store import Store, is_multilabel
from features.system.keras import import_keras
from pipeline.data.sequences import Float32Array, Sequences, join_clips, require_memory, take_clips
from pipeline.data.windows import cut_windows, first_windows, join_windows
from pipeline.heads.linear import ClipVectors, Fitter
from pipeline.heads.model import (
    HeadModel,
    build_core,
    clip_vectors,
    complete_head,
    core_width,
    fit_front,
    is_multilabel_head,
    join_halves,
    predict_probabilities,
    prepare,
    set_logits,
)
from pipeline.heads.registry import HeadOptions, parse_head
from pipeline.runs.coverage import HeldOut
from pipeline.scores.labels import choose_thresholds
from pipeline.splits.split import Split
from pipeline.training.options import ClassWeights, EpochReport, FitOptions
from pipeline.training.temperature import apply_temperature, find_temperature
from pipeline.training.trainers import Epoch, Trainer, clip_losses, make_trainer

# Enough for an optimizer to find its way within a few epochs.
_STEPS_PER_EPOCH = 20
# A validation loss that creeps towards zero by less than this no longer buys anything.
_LEAST_GAIN = 0.01
# A head has learned something if its validation loss is below this share of that of guessing
# by how frequent the classes are.
_LEARNED = 0.9
# In which every group is held out once, if `FitOptions.calibration` says so.
_CROSS_FOLDS = 5


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A trained head."""

    # Belongs to the workbench if one was given: good until the next head is fitted there.
    model: Any = field(repr=False)
    history: tuple[EpochReport, ...]  # of the first member, before it was refitted
    best_epoch: int  # from 1, of the lowest validation loss
    is_refitted: bool  # with the validation part, for as many epochs
    temperature: float  # by which the logits are divided, in the model
    held_out: HeldOut = field(repr=False)
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
        n_members: int = 1,
    ) -> tuple[HeadModel, Trainer]:
        """Build and compile a head, or return one that is compiled to the state of a new one."""
        core = build_core(
            name,
            embedding_dim=embedding_dim,
            n_classes=n_classes,
            options=options,
            is_multilabel=is_multilabel,
        )
        shape = (name, embedding_dim, n_classes, is_multilabel, n_members)
        key = (*shape, options, learning_rate, batch_size)
        kept = self._heads.get(key)
        if kept is None:
            _compile(core, learning_rate)
            head = complete_head(
                core, name, embedding_dim=embedding_dim, options=options, n_members=n_members
            )
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
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    head_options: HeadOptions | None = None,
    fit_options: FitOptions | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    workbench: Workbench | None = None,
) -> FittedHead:
    """Train a head until the validation loss stops falling, or raise TrainingFailed.

    The validation part also gives the temperature, and says whether the head is trained again
    with it; see `FitOptions`. A head with a `fit` of its own is fitted at once, which counts as
    one epoch; it is told the `groups` by clip id, where every clip is its own if there are none.
    Sets the global random seeds of Python, NumPy and the Keras backend; the same `seed` gives
    the same head on the same machine.
    """
    options = fit_options or FitOptions()
    head_options = head_options or HeadOptions()
    bench = workbench or Workbench()
    batch_size = options.batch_size or choose_batch_size(len(train.clip_ids))

    def renew(member_seed: int) -> tuple[HeadModel, Trainer]:
        import_keras().utils.set_random_seed(member_seed)
        return bench.set_up(
            head,
            embedding_dim=train.vectors.shape[2],
            n_classes=n_classes,
            options=head_options,
            learning_rate=options.learning_rate or parse_head(head)[0].learning_rate,
            batch_size=batch_size,
            is_multilabel=train.targets is not None,
            n_members=options.ensemble,
        )

    job = _Job(head, n_classes, groups or {}, head_options, options, renew)
    seeds = _member_seeds(seed, options.ensemble)
    found = _learn(job, seeds, train, val, on_epoch=on_epoch)
    learned = found.members
    n_epochs = [member.best_epoch for member in learned]
    of_judged = _Judged(val, [member.of_val for member in learned], found.val_owners)
    if options.calibration == "cross":
        of_judged = _cross(job, seeds, join_clips(train, val), n_epochs)
    calibrate = _calibrate if train.targets is None else _choose_thresholds
    temperature, held_out, thresholds = calibrate(job, of_judged, train.class_indices)
    is_refitted = _is_refitted(job, train, val, learned)
    weights = [member.weights for member in learned]
    if is_refitted:
        again = _learn(job, seeds, join_clips(train, val), None, n_epochs=n_epochs)
        weights = [member.weights for member in again.members]
    return FittedHead(
        model=join_halves(renew(seed)[0], weights, temperature),
        history=learned[0].history,
        best_epoch=learned[0].best_epoch,
        is_refitted=is_refitted,
        temperature=temperature,
        held_out=held_out,
        thresholds=thresholds,
    )


@dataclass(frozen=True, slots=True, repr=False)
class _Job:
    """What stays the same however often a head is trained."""

    head: str
    n_classes: int
    groups: Mapping[str, str]
    head_options: HeadOptions
    options: FitOptions
    renew: Callable[[int], tuple[HeadModel, Trainer]]  # puts the head into the state of a new one


@dataclass(frozen=True, slots=True, repr=False)
class _Member:
    """A head trained from one seed."""

    weights: list[Any]  # of its core
    history: tuple[EpochReport, ...]
    best_epoch: int
    of_val: Float32Array  # probabilities of the windows of the validation part


@dataclass(frozen=True, slots=True, repr=False)
class _Judged:
    """What each member says of the windows of clips that it has not learned from."""

    clips: Sequences
    members: list[Float32Array]
    owners: IntArray  # the clip of each window


@dataclass(frozen=True, slots=True, repr=False)
class _Learned:
    members: list[_Member]
    val_owners: IntArray  # the clip of each window of the validation part


def _member_seeds(seed: int, n_members: int) -> list[int]:
    """Return the seeds of an ensemble: its own first, then some that no other seed leads to."""
    others = [np.random.SeedSequence([seed, number]) for number in range(1, n_members)]
    return [seed, *(int(item.generate_state(1)[0]) for item in others)]


_Calibration = tuple[float, HeldOut, tuple[float, ...] | None]


def _calibrate(job: _Job, judged: _Judged, trained: IntArray) -> _Calibration:
    """Find the temperature, and how improbable the right classes are at it."""
    truth, how = judged.clips.class_indices, job.head_options.aggregate
    names = [job.groups.get(clip_id, clip_id) for clip_id in judged.clips.clip_ids]
    weights = _weigh_classes(trained, job.n_classes, job.options.class_weights)[truth]
    n_groups = len(set(names))
    temperature = find_temperature(
        judged.members, judged.owners, how, truth, weights, n_groups=n_groups
    )
    tempered = join_windows(apply_temperature(judged.members, temperature), judged.owners, how)
    misses = 1 - tempered[np.arange(len(truth)), truth].astype(np.float64)
    return temperature, HeldOut(tuple(misses.tolist()), tuple(names)), None


def _choose_thresholds(job: _Job, judged: _Judged, trained: IntArray) -> _Calibration:
    """Choose from which probability on each of several classes counts; this needs no more."""
    means: Float32Array = np.mean(judged.members, axis=0)
    how = job.head_options.aggregate
    found = join_windows(means, judged.owners, how, is_multilabel=True)
    return 1.0, HeldOut((), ()), choose_thresholds(judged.clips.truth, found)


def _is_refitted(job: _Job, train: Sequences, val: Sequences, learned: Sequence[_Member]) -> bool:
    """Decide by the validation part whether a head is trained again, with that part."""
    if job.options.refit != "auto":
        return job.options.refit == "always"
    if parse_head(job.head)[0].fit is not None:
        return True
    losses = [member.history[member.best_epoch - 1].val_loss for member in learned]
    if train.targets is not None and val.targets is not None:
        guesses = np.broadcast_to(train.targets.mean(axis=0), val.targets.shape)
        return float(np.mean(losses)) < _LEARNED * _evaluate_labels(guesses, val.targets)[0]
    weights = _weigh_classes(train.class_indices, job.n_classes, job.options.class_weights)
    shares = np.bincount(train.class_indices, weights[train.class_indices], job.n_classes)
    shares = np.maximum(shares / shares.sum(), 1e-12)
    truth = val.class_indices
    guess = float(np.average(-np.log(shares[truth]), weights=weights[truth]))
    return float(np.mean(losses)) < _LEARNED * guess


def _learn(
    job: _Job,
    seeds: Sequence[int],
    train: Sequences,
    val: Sequences | None,
    *,
    n_epochs: Sequence[int] = (),
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> _Learned:
    """Train one member per seed, until `val` says enough, or each for its `n_epochs`."""
    built, trainer = job.renew(seeds[0])
    options, targets = job.head_options, train.targets
    class_weights = _weigh_classes(train.class_indices, job.n_classes, job.options.class_weights)
    windows, owners = cut_windows(train, options.window)
    n_windows = np.bincount(owners)
    # Every clip weighs the same, however many windows it has.
    shares = len(owners) / len(n_windows) / n_windows[owners]
    weights = (class_weights[windows.class_indices] * shares).astype(np.float32)
    fit_front(built, windows)
    prepared = prepare(built, windows)
    del train, windows  # the trainer copies what is prepared: no more than needed stays beside it
    val_windows, val_owners = (None, owners) if val is None else cut_windows(val, options.window)
    val_windows = None if val_windows is None else prepare(built, val_windows)

    evaluate = None
    if val_windows is not None:
        evaluate = partial(_score, built.core, val_windows, val_owners, options, class_weights)

    if (fit := parse_head(job.head)[0].fit) is None:
        begin = partial(_begin_training, trainer.start(prepared, weights), len(weights))
        most = job.options.epochs
        del prepared
    else:
        clips = ClipVectors(
            vectors=clip_vectors(built.core, prepared),
            class_indices=prepared.class_indices,
            targets=prepared.targets,
            groups=number_groups(prepared.clip_ids, job.groups),
            weights=weights,
            n_classes=job.n_classes,
            parts=np.concatenate([np.full(p.stop - p.start, p.part) for p in built.pieces]),
            seed=0,
        )
        of_train = partial(_score, built.core, prepared, owners, options, class_weights)
        begin = partial(_begin_fitting, built.core, job.head, fit, clips, of_train)
        most = 1
    members: list[_Member] = []
    for number, seed in enumerate(seeds):
        if number:
            job.renew(seed)
        if targets is not None:
            _start_at_frequencies(built.core, targets)
        epochs = _run_epochs(job.head, begin(seed), evaluate)
        if n_epochs:
            history, best_epoch = tuple(islice(epochs, n_epochs[number])), n_epochs[number]
        else:
            watch = None if members else on_epoch
            history, best_epoch = _train_until_best(
                built.core, islice(epochs, most), job.options.patience, watch
            )
        of_val = np.zeros((0, job.n_classes), dtype=np.float32)
        if val_windows is not None:
            of_val = predict_probabilities(built.core, val_windows)
        members.append(_Member(built.core.get_weights(), history, best_epoch, of_val))
    return _Learned(members, val_owners)


def _cross(job: _Job, seeds: Sequence[int], clips: Sequences, n_epochs: Sequence[int]) -> _Judged:
    """Hold out every group once, and judge it by what was learned from the others."""
    from sklearn.model_selection import StratifiedGroupKFold

    numbers = number_groups(clips.clip_ids, job.groups)
    n_most = int(np.unique(clips.class_indices, return_counts=True)[1].max())  # of one class
    splitter = StratifiedGroupKFold(
        max(2, min(_CROSS_FOLDS, numbers.max() + 1, n_most)), shuffle=True, random_state=0
    )
    ids = np.array(clips.clip_ids, dtype=object)
    order: list[str] = []
    found: list[list[Float32Array]] = [[] for _ in seeds]
    with warnings.catch_warnings():
        # A class of fewer groups than folds is held out in some of them only.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = list(splitter.split(ids, clips.class_indices, numbers))
    for rest, held_out in folds:
        parts = (take_clips(clips, ids[rows].tolist()) for rows in (rest, held_out))
        members = _learn(job, seeds, *parts, n_epochs=n_epochs).members
        order += ids[held_out].tolist()
        for pieces, member in zip(found, members, strict=True):
            pieces.append(member.of_val)
    judged = take_clips(clips, order)
    owners = cut_windows(judged, job.head_options.window)[1]
    return _Judged(judged, [np.concatenate(pieces) for pieces in found], owners)


def _begin_training(
    train_once: Epoch, n_clips: int, seed: int
) -> Callable[[], tuple[float, float]]:
    shuffler = np.random.default_rng(seed)
    return lambda: train_once(shuffler.permutation(n_clips))


def _begin_fitting(
    core: Any,
    head: str,
    fit: Fitter,
    clips: ClipVectors,
    score: Callable[[], tuple[float, float]],
    seed: int,
) -> Callable[[], tuple[float, float]]:
    def fit_once() -> tuple[float, float]:
        set_logits(core, head, fit, replace(clips, seed=seed))
        return score()

    return fit_once


def _run_epochs(
    head: str,
    train_once: Callable[[], tuple[float, float]],
    evaluate: Callable[[], tuple[float, float]] | None,
) -> Iterator[EpochReport]:
    """Train for as long as reports are asked for; without validation that half of them is 0."""
    for number in count(1):
        report = EpochReport(number, *train_once(), *(evaluate() if evaluate else (0.0, 0.0)))
        if not (math.isfinite(report.loss) and math.isfinite(report.val_loss)):
            raise TrainingFailed(
                f"The loss must stay finite. Head '{head}' reached "
                f"loss={report.loss}, val_loss={report.val_loss} in epoch {number}.",
                hint="lower --learning-rate, and check the store with inspect --verify",
            )
        yield report


def _score(
    core: Any,
    windows: Sequences,
    owners: IntArray,
    options: HeadOptions,
    class_weights: Float32Array,
) -> tuple[float, float]:
    """Return loss and accuracy of a core on prepared windows, clip by clip."""
    several = windows.targets is not None
    found = predict_probabilities(core, windows)
    probabilities = join_windows(found, owners, options.aggregate, is_multilabel=several)
    if windows.targets is not None:
        return _evaluate_labels(probabilities, windows.targets[first_windows(owners)])
    truth = windows.class_indices[first_windows(owners)]
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    # Weighted as in training: otherwise stopping would undo what the weights are for.
    losses = -np.log(np.maximum(of_truth, 1e-12))
    loss = float(np.average(losses, weights=class_weights[truth].astype(np.float64)))
    return loss, float((probabilities.argmax(axis=1) == truth).mean())


def number_groups(clip_ids: Sequence[str], groups: Mapping[str, str]) -> IntArray:
    """Give each clip the number of its group; one without a group is its own."""
    names = [groups.get(clip_id, clip_id) for clip_id in clip_ids]
    numbers: IntArray = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return numbers


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
    epochs: Iterable[EpochReport],
    patience: int,
    on_epoch: Callable[[EpochReport], None] | None,
) -> tuple[tuple[EpochReport, ...], int]:
    """Train until nothing is gained any more, and leave the weights of the best epoch in place."""
    history: list[EpochReport] = []
    best_loss, best_epoch, best_weights = math.inf, 0, core.get_weights()
    milestone, milestone_epoch = math.inf, 0
    for report in epochs:
        history.append(report)
        if on_epoch is not None:
            on_epoch(report)
        if report.val_loss < milestone - _LEAST_GAIN:
            milestone, milestone_epoch = report.val_loss, report.epoch
        if report.val_loss < best_loss:
            best_loss, best_epoch, best_weights = report.val_loss, report.epoch, core.get_weights()
        if report.epoch - milestone_epoch >= patience:
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
