"""Comparing heads on the same splits, in parallel and resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import Interrupted, OptionInvalid, OutputExists, TrainingFailed
from features.records import ClipRecord, IntArray, StoreHeader
from features.store.store import Store, is_multilabel, open_store
from features.system.files import (
    clear_abandoned,
    clear_partials,
    clear_partials_in,
    digest_json,
    read_json,
    report_unwritable,
    require_free,
    staged_folder,
    write_csv,
    write_json,
)
from features.system.versions import describe_environment
from pipeline.compare.labels import rank_label_heads
from pipeline.compare.ranking import GuessResult, HeadResult, rank_heads
from pipeline.compare.trials import (
    Trial,
    TrialPlan,
    TrialResult,
    read_trial_result,
    write_plan,
)
from pipeline.compare.workers import choose_jobs, require_jobs, run_trials
from pipeline.data.sequences import load_sequences
from pipeline.data.sharing import SHARED_NAME, shared_sequences
from pipeline.heads.registry import HeadOptions, parse_head, require_reachable, source_of
from pipeline.report.comparison import write_comparison_report
from pipeline.report.pages import require_videos
from pipeline.runs.provenance import digest_clips, name_differences
from pipeline.scores.labels import answer_columns, describe_answer
from pipeline.scores.paired import HeadPair
from pipeline.scores.shortcuts import guess_by_facts
from pipeline.splits.choose import (
    SplitOptions,
    choose_splits,
    count_unlabelled,
    require_seed,
    usable_clips,
)
from pipeline.splits.files import split_to_json, write_split
from pipeline.splits.groups import find_group_doubts
from pipeline.splits.leaks import NearDuplicate, find_straddling_duplicates
from pipeline.splits.split import Split, find_class_gaps, list_classes
from pipeline.training.fit import require_class_weights, require_memory_for_fit
from pipeline.training.options import FitOptions

COMPARISON_SCHEMA = 1
RESULT_FILE = "comparison.json"
SETTINGS_FILE = "settings.json"
_PLAN_FILE = "plan.json"
# What says when and by what results were put together, not what they are.
_STAMPS = ("created", "platform", "versions", "seconds", "n_reused", "path")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out of a comparison.

    Attributes
    ----------
    path : str
    heads : tuple of HeadResult
        Best first.
    pairs : tuple of HeadPair
        Every pair of heads.
    guesses : tuple of GuessResult
        What is right without a head: always naming the most frequent class, and going by the
        facts of the files. Empty where clips may have several classes.
    guess_pairs : tuple of HeadPair
        Every head against every guess.
    winner_accuracy : float
        Of the first head, without what being picked as the best adds.
    verdicts : tuple of str
        What the tests found, in sentences.
    majority_classes : tuple of str
        What a constant guess would name: the most frequent class of the training part.
        Several if the splits differ in it.
    majority_accuracy : float
        Of this guess, on the same test clips.
    n_clips, n_groups : int
        Tested, and the groups they are in.
    n_splits, n_seeds, n_trials : int
    n_reused : int
        Trials that an earlier attempt had finished.
    n_failed, n_excluded : int
        Clips of the store without embeddings, and in no part of the splits.
    leaks, groups_known : bool
        Whether groups stand on both sides of a split, and whether all groups are known.
    seconds : float
        Wall-clock time of this call; trials from before are not in it.
    near_duplicates : tuple of NearDuplicate
        Test clips that seem to be the same recording as a clip that their split trains on.
    n_near_duplicates : int
        How many test clips those are.
    n_missing : int
        Clips that the split file names and the store lacks.
    split_method : str
        What made the split, or the first of the folds, for people.
    n_unlabelled : int
        Clips of the store without a label, which are in no part.
    n_classes : int
        Classes of the store's clips.
    classes_without : dict of str to list of str
        Classes without a clip in a part of any split, by part: "train", "val", "test".
    group_doubts : tuple of str
        Why groups may not be what keeps clips of one source on one side of a split.
    is_multilabel : bool
        Whether clips may have several classes.
    """

    path: str
    heads: tuple[HeadResult, ...]
    pairs: tuple[HeadPair, ...]
    guesses: tuple[GuessResult, ...]
    guess_pairs: tuple[HeadPair, ...]
    winner_accuracy: float
    verdicts: tuple[str, ...]
    majority_classes: tuple[str, ...]
    majority_accuracy: float
    n_clips: int
    n_groups: int
    n_splits: int
    n_seeds: int
    n_trials: int
    n_reused: int
    n_failed: int
    n_excluded: int
    leaks: bool
    groups_known: bool
    seconds: float
    near_duplicates: tuple[NearDuplicate, ...]
    n_near_duplicates: int
    n_missing: int = 0
    split_method: str = ""
    n_unlabelled: int = 0
    n_classes: int = 0
    classes_without: dict[str, list[str]] = field(default_factory=dict)
    group_doubts: tuple[str, ...] = ()
    is_multilabel: bool = False


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """Told after every trial.

    Attributes
    ----------
    trial : Trial
        The one that has just finished: its `head`, `seed` and `fold`.
    n_done, n_trials : int
        Finished ones, those of earlier attempts included, and all.
    """

    trial: Trial
    n_done: int
    n_trials: int


def compare_heads(
    store_path: str | Path,
    out: str | Path,
    *,
    heads: Sequence[str] = ("mean-linear", "logreg", "lstm", "gru"),
    seeds: int = 3,
    folds: int | None = None,
    head_options: HeadOptions = HeadOptions(),
    split: SplitOptions = SplitOptions(),
    fit: FitOptions = FitOptions(),
    seed: int = 0,
    jobs: int | None = None,
    videos: str | Path | None = None,
    overwrite: bool = False,
    on_trial: Callable[[TrialProgress], None] | None = None,
) -> Comparison:
    """Train several heads on the same splits with the same seeds, and rank them.

    A comparison that was killed goes on where it was when it is started again, and one that is
    finished takes in further heads or seeds without training the others again.

    Parameters
    ----------
    store_path : str or Path
        The file given to ``extract-features --out``.
    out : str or Path
        Folder of the comparison.
    heads : sequence of str, default ("mean-linear", "logreg", "lstm", "gru")
        Registered heads, see `train_head`; without repetition.
    seeds : int, default 3
        Seeds per head and split, at least 1: `seed`, `seed` + 1, ...
    folds : int, optional
        Folds of the cross-validation; not with a split file or official lists. By default the
        store's own split if its split column names a test part, else 5.
    head_options : HeadOptions
        Width, dropout, reduction and windows; by default each head's own.
    split : SplitOptions
        Who is trained on and who is tested.
    fit : FitOptions
        Epochs, learning rate and class weights.
    seed : int, default 0
        The first one; also decides the folds, and what the tests draw at random.
    jobs : int, optional
        Processes; by default one per core, at most 8. Does not change results.
    videos : str or Path, optional
        Where the video folder is now, for the pictures in ``report.html``; by default where
        it was when the store was made.
    overwrite : bool, default False
        Replace a comparison with other settings, or repeat one with the same. What stands
        there is replaced when the new one is complete.
    on_trial : callable, optional
        Called with a `TrialProgress` after every trial.

    Returns
    -------
    Comparison

    Raises
    ------
    StoreNotFound, StoreDamaged
        If the store cannot be read.
    HeadUnknown, OptionInvalid
        If an option has no legal value.
    SplitImpossible, SplitLeaks
        If the clips cannot be divided as asked.
    OutputExists, OutputUnwritable
        If the comparison cannot be written to `out`.
    TrainingFailed
        If a trial fails.
    Interrupted
        On Ctrl-C; finished trials are kept.
    """
    started = time.perf_counter()
    _require_options(heads, seeds, seed)
    require_jobs(jobs)
    require_videos(videos)
    store = open_store(store_path)
    require_class_weights(store, fit)
    splits, groups = choose_splits(store, split, folds, seed=seed)
    clips = {clip.clip_id: clip for clip in usable_clips(store)}
    classes = list_classes(clips[i] for item in splits for i in item.train)
    shared = _shared_settings(store, splits, groups, head_options, fit)
    settings = {**shared, "heads": list(heads), "seeds": seeds, "seed": seed}
    trials = [
        Trial(
            name, number, index, digest_json([{**shared, **source_of(name)}, name, number, index])
        )
        for index in range(len(splits))
        for number in range(seed, seed + seeds)
        for name in heads
    ]
    target = Path(out).absolute()
    with (
        _working_folder(target, settings, store.path, overwrite=overwrite) as folder,
        _telling_what_is_kept(folder, target, trials),
    ):
        plan = TrialPlan(
            store_path=str(Path(store_path).absolute()),
            classes=classes,
            splits=splits,
            groups=groups,
            head_options=head_options,
            fit_options=fit,
            folder=folder / "trials",
        )
        results, n_reused = _finish_trials(store, folder, plan, trials, jobs, on_trial)
        tested = tested_ids(splits)
        known = {clip_id for item in splits for clip_id in (*item.train, *item.test)}
        if is_multilabel(store):
            targets, unlearned = find_targets(clips, splits, classes)
            ranking = rank_label_heads(results, splits, targets, groups, classes, seed=seed)
            ranking = replace(ranking, verdicts=(*ranking.verdicts, *unlearned))
        else:
            indices = {clip_id: classes.index(clips[clip_id].label) for clip_id in known}
            by_facts = guess_by_facts(store, splits)
            ranking = rank_heads(
                results, splits, indices, groups, classes, by_facts=by_facts, seed=seed
            )
        near_duplicates, n_near_duplicates = find_straddling_duplicates(store, splits, groups)
        comparison = Comparison(
            path=str(out),
            heads=ranking.heads,
            pairs=ranking.pairs,
            guesses=ranking.guesses,
            guess_pairs=ranking.guess_pairs,
            winner_accuracy=ranking.winner_accuracy,
            verdicts=ranking.verdicts,
            majority_classes=ranking.majority_classes,
            majority_accuracy=ranking.majority_accuracy,
            n_clips=len(tested),
            n_groups=len({groups[clip_id] for clip_id in tested}),
            n_splits=len(splits),
            n_seeds=seeds,
            n_trials=len(trials),
            n_reused=n_reused,
            n_failed=sum(clip.status == "failed" for clip in store.clips),
            n_excluded=len(splits[0].excluded),
            leaks=any(item.leaks for item in splits),
            groups_known=all(item.groups_known for item in splits),
            seconds=time.perf_counter() - started,
            near_duplicates=near_duplicates,
            n_near_duplicates=n_near_duplicates,
            n_missing=len(splits[0].missing),
            split_method=splits[0].method,
            n_unlabelled=count_unlabelled(store),
            n_classes=len(list_classes(clips.values())),
            classes_without=find_class_gaps(list(clips.values()), splits),
            group_doubts=find_group_doubts(list(clips.values()), groups, split.group_regex),
            is_multilabel=is_multilabel(store),
        )
        with report_unwritable(target):
            _write_results(folder, comparison, results, plan, settings, store.header)
            write = _write_label_predictions if is_multilabel(store) else _write_predictions
            write(folder, results, plan, groups, clips)
            write_comparison_report(folder, store, videos=videos)
    return comparison


def tested_ids(splits: Sequence[Split]) -> list[str]:
    """Return the clip ids of all test parts, split by split."""
    return [clip_id for split in splits for clip_id in split.test]


def _require_options(heads: Sequence[str], seeds: int, seed: int) -> None:
    for name in heads:
        require_reachable(parse_head(name)[0])
    if not heads or len(set(heads)) < len(heads):
        raise OptionInvalid(
            f"--heads must name one or more different heads. Received: '{','.join(heads)}'."
        )
    if seeds < 1:
        raise OptionInvalid(f"--seeds must be at least 1. Received: {seeds}.")
    require_seed(seed, seeds)


def _shared_settings(
    store: Store,
    splits: Sequence[Split],
    groups: Mapping[str, str],
    head_options: HeadOptions,
    fit: FitOptions,
) -> dict[str, Any]:
    """Collect what decides a trial beside its head, seed and split."""
    used = {i for split in splits for i in (*split.train, *split.val, *split.test)}
    clips = [clip for clip in store.clips if clip.clip_id in used]
    return {
        "store_fingerprint": store.header.fingerprint,
        "clips": digest_clips(clips, groups),
        "splits": digest_json([[s.train, s.val, s.test] for s in splits]),
        **asdict(head_options),
        **asdict(fit),
    }


@contextmanager
def _working_folder(
    target: Path, settings: dict[str, Any], source: Path, *, overwrite: bool
) -> Iterator[Path]:
    """Give the folder to work in: the comparison's own, or one that replaces it at the end."""
    with report_unwritable(target):
        clear_abandoned(target)
        clear_abandoned(target / SHARED_NAME)
        clear_partials(target / SETTINGS_FILE)
        have = None if overwrite else _read_settings(target)
        if have is not None:
            # Heads and seeds of which there is no result yet may be left out again.
            have = {**have, "heads": [], "seeds": 0, **_read_finished(target)}
        if have is not None and not _extends(settings, have):
            raise OutputExists(
                f"A folder holds one comparison. '{target}' holds one with other settings "
                f"({name_differences(have, settings)}).",
                hint="give another --out, or --overwrite to start anew",
            )
        if have is None:
            require_free(
                target,
                marker=SETTINGS_FILE,
                what="comparison",
                overwrite=overwrite,
                source=source,
            )
    with ExitStack() as stack:
        is_replaced = overwrite and (target / SETTINGS_FILE).exists()
        folder = stack.enter_context(staged_folder(target)) if is_replaced else target
        with report_unwritable(target):
            folder.mkdir(parents=True, exist_ok=True)
            clear_partials_in(folder)
            # First of all: by it the folder is known as ours.
            write_json(folder / SETTINGS_FILE, settings)
            (folder / "trials").mkdir(exist_ok=True)
        yield folder


def _extends(settings: Mapping[str, Any], have: Mapping[str, Any]) -> bool:
    """Tell whether a comparison only asks for more heads or seeds than the one that is there."""
    grown = {"heads", "seeds"}
    is_same = all(settings.get(key) == have.get(key) for key in {*settings, *have} - grown)
    return (
        is_same
        and set(have["heads"]) <= set(settings["heads"])
        and have["seeds"] <= settings["seeds"]
    )


def _read_settings(target: Path) -> dict[str, Any] | None:
    path = target / SETTINGS_FILE
    problem: object = "it is not a JSON object"
    try:
        settings = read_json(path)
        if isinstance(settings, dict):
            return settings
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        problem = error
    raise OutputExists(
        f"A comparison continues only if its settings can be read. '{path}' is damaged: {problem}.",
        hint="give another --out, or --overwrite to start anew",
    )


def _read_finished(target: Path) -> dict[str, Any]:
    """Say which heads and seeds a comparison has results of."""
    try:
        settings = read_json(target / RESULT_FILE)["settings"]
        return {key: settings[key] for key in ("heads", "seeds")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@contextmanager
def _telling_what_is_kept(folder: Path, target: Path, trials: Sequence[Trial]) -> Iterator[None]:
    """Turn Ctrl-C into Interrupted, which says how to go on where something goes on."""
    try:
        yield
    except KeyboardInterrupt as problem:
        if folder != target:
            raise Interrupted(
                f"Interrupted: the comparison in '{target}' was not replaced."
            ) from problem
        finished = [read_trial_result(folder / "trials", trial) is not None for trial in trials]
        raise Interrupted(
            f"Interrupted: {sum(finished)} of {len(trials)} trials are finished.",
            hint="run the same command again to go on",
        ) from problem


def _finish_trials(
    store: Store,
    folder: Path,
    plan: TrialPlan,
    trials: Sequence[Trial],
    jobs: int | None,
    on_trial: Callable[[TrialProgress], None] | None,
) -> tuple[dict[Trial, TrialResult], int]:
    known = {trial: read_trial_result(plan.folder, trial) for trial in trials}
    missing = [trial for trial in trials if known[trial] is None]
    n_reused = len(trials) - len(missing)
    if missing:
        n_jobs = choose_jobs(jobs, len(missing))
        heads = {trial.head for trial in missing}
        require_memory_for_fit(store, plan.splits, heads, plan.head_options, n_at_once=n_jobs)
        used = {i for split in plan.splits for i in (*split.train, *split.val, *split.test)}
        sequences = load_sequences(store, sorted(used), plan.classes)
        with ExitStack() as stack:
            with report_unwritable(folder):
                write_plan(folder / _PLAN_FILE, plan)
                shared = stack.enter_context(shared_sequences(sequences, folder))
            del sequences  # The workers map the files; this process needs them no more.
            running = run_trials(folder / _PLAN_FILE, shared, missing, jobs=n_jobs)
            stack.enter_context(closing(running))
            for n_done, trial in enumerate(running, start=n_reused + 1):
                known[trial] = read_trial_result(plan.folder, trial)
                if on_trial is not None:
                    on_trial(TrialProgress(trial, n_done, len(trials)))
    results = {trial: result for trial, result in known.items() if result is not None}
    if len(results) < len(trials):
        raise TrainingFailed(f"Every trial must leave a result. '{plan.folder}' lacks some.")
    return results, n_reused


def _write_results(
    target: Path,
    comparison: Comparison,
    results: Mapping[Trial, TrialResult],
    plan: TrialPlan,
    settings: dict[str, Any],
    header: StoreHeader,
) -> None:
    """Write ``comparison.json``, ``comparison.csv``, and each split for ``train-head --split``."""
    ranked = [asdict(head) for head in comparison.heads]
    flat = [{**head, **head["accuracy"]} for head in ranked]
    columns = ["name", "mean", "low", "high", "balanced_accuracy", "macro_f1", "top5"]
    if comparison.is_multilabel:
        columns = ["name", "mean", "low", "high", "micro_f1", "macro_f1", "exact_match"]
        flat = [
            {**head, **head["labels"], **head["labels"]["mean_average_precision"]}
            for head in ranked
        ]
    columns += ["calibration_error", "calibration_floor", "n_parameters", "train_seconds"]
    columns += ["latency_ms", "backwards", "shuffled", "n_trials"]
    write_csv(target / "comparison.csv", columns, [[row[c] for c in columns] for row in flat])
    content = {
        "schema": COMPARISON_SCHEMA,
        **asdict(replace(comparison, heads=())),
        "heads": ranked,
        "classes": list(plan.classes),
        "store": plan.store_path,
        "header": asdict(header),
        "settings": settings,
        "splits": [split_to_json(split) for split in plan.splits],
        "trials": _describe_trials(results),
        **describe_environment(),
    }
    (target / "splits").mkdir(exist_ok=True)
    for number, split in enumerate(plan.splits, start=1):
        write_split(target / "splits" / f"fold-{number}.json", split)
    if not _stands_there(target / RESULT_FILE, content):
        write_json(target / RESULT_FILE, content)


def _describe_trials(results: Mapping[Trial, TrialResult]) -> list[dict[str, Any]]:
    """Say of each trial when and by what it was made, and how long it took."""
    return [
        {
            "head": trial.head,
            "seed": trial.seed,
            "fold": trial.fold + 1,
            "train_seconds": result.train_seconds,
            **result.made,
        }
        for trial, result in results.items()
    ]


def _stands_there(path: Path, content: Mapping[str, Any]) -> bool:
    """Tell whether a file holds the same results, so that its stamps must stay."""

    def strip(fields: Any) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in _STAMPS}

    try:
        return strip(read_json(path)) == strip(json.loads(json.dumps(content)))
    except (OSError, ValueError, AttributeError):
        return False


def _write_predictions(
    target: Path,
    results: Mapping[Trial, TrialResult],
    plan: TrialPlan,
    groups: Mapping[str, str],
    clips: Mapping[str, ClipRecord],
) -> None:
    """Write ``predictions.csv``: what every trial said of every clip it tested."""
    header = ["head", "seed", "fold", "clip_id", "group", "label", "predicted", "confidence"]
    rows = (
        [
            trial.head,
            trial.seed,
            trial.fold + 1,
            clip_id,
            groups[clip_id],
            clips[clip_id].label,
            plan.classes[predicted],
            confidence,
        ]
        for trial, result in results.items()
        for clip_id, predicted, confidence in zip(
            plan.splits[trial.fold].test, result.predicted, result.confidence, strict=True
        )
    )
    write_csv(target / "predictions.csv", header, rows)


def _mark_classes(clip: ClipRecord, classes: Sequence[str]) -> IntArray:
    return np.isin(classes, clip.classes).astype(np.int64)


def find_targets(
    clips: Mapping[str, ClipRecord], splits: Sequence[Split], classes: Sequence[str]
) -> tuple[dict[str, IntArray], list[str]]:
    """Mark the classes of every clip, and say which count not everywhere.

    A class that a split tests without training on it is not of the tested clips: no head could
    find it.
    """
    used = {i for split in splits for i in (*split.train, *split.test)}
    targets = {i: _mark_classes(clips[i], classes) for i in used}
    tested: dict[str, IntArray] = {}
    unlearned: set[str] = set()
    for split in splits:
        is_learned = np.any([targets[i] for i in split.train], axis=0)
        marks = {i: targets[i] * is_learned for i in split.test}
        lost = np.any([targets[i] > marks[i] for i in split.test], axis=0)
        unlearned |= {name for name, is_lost in zip(classes, lost, strict=True) if is_lost}
        tested |= marks
    return {**targets, **tested}, [
        f"'{name}' does not count in a test part whose training part has no clip of it."
        for name in sorted(unlearned)
    ]


def _write_label_predictions(
    target: Path,
    results: Mapping[Trial, TrialResult],
    plan: TrialPlan,
    groups: Mapping[str, str],
    clips: Mapping[str, ClipRecord],
) -> None:
    """Write ``predictions.csv`` where clips may have several classes."""
    rows = (
        [
            trial.head,
            trial.seed,
            trial.fold + 1,
            clip_id,
            groups[clip_id],
            *describe_answer(
                _mark_classes(clips[clip_id], plan.classes),
                np.greater_equal(shares, result.thresholds or ()),
                np.array(shares),
                plan.classes,
            ),
        ]
        for trial, result in results.items()
        for clip_id, shares in zip(
            plan.splits[trial.fold].test, result.probabilities or (), strict=True
        )
    )
    header = ["head", "seed", "fold", "clip_id", "group", *answer_columns(plan.classes)]
    write_csv(target / "predictions.csv", header, rows)
