"""Comparing heads on the same splits, in parallel and resumable."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.errors import OptionInvalid, OutputExists, TrainingFailed
from features.store.store import Store, open_store
from pipeline.compare.comparison import Comparison, write_predictions, write_results
from pipeline.compare.ranking import rank_heads
from pipeline.compare.trials import Trial, TrialPlan, TrialResult, read_trial_result, write_plan
from pipeline.compare.workers import choose_jobs, require_jobs, run_trials
from pipeline.data.sequences import load_sequences
from pipeline.data.sharing import shared_sequences
from pipeline.heads.headoptions import Aggregate, HeadOptions
from pipeline.heads.registry import parse_head
from pipeline.report.comparison import write_comparison_report
from pipeline.report.run import require_videos
from pipeline.runs.outputs import report_unwritable, require_free, write_json
from pipeline.runs.provenance import digest_clips, digest_json, name_differences
from pipeline.splits.choose import choose_splits, usable_clips
from pipeline.splits.leaks import find_straddling_duplicates
from pipeline.splits.split import Split
from pipeline.splits.splitrequest import SplitRequest, require_seed
from pipeline.training.options import ClassWeights, FitOptions

PLAN_FILE = "plan.json"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """Told after every trial.

    Attributes
    ----------
    trial : Trial
    n_done, n_trials : int
        Trials finished so far, those of earlier attempts included, and all of them.
    """

    trial: Trial
    n_done: int
    n_trials: int


def compare_heads(
    store_path: str | Path,
    out: str | Path,
    *,
    heads: Sequence[str] = ("mean-linear", "mean-linear:motion", "lstm", "gru"),
    seeds: int = 3,
    folds: int | None = None,
    split: Split | str | Path | None = None,
    test_lists: str | Path | None = None,
    fold: int | None = None,
    val_fraction: float = 0.2,
    group_regex: str | None = None,
    allow_leaks: bool = False,
    ignore_groups: bool = False,
    join_near_duplicates: bool = False,
    seed: int = 0,
    epochs: int = 100,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    units: int | None = None,
    dropout: float | None = None,
    reduce: str | None = None,
    window: int | None = None,
    aggregate: Aggregate = "mean",
    patience: int = 12,
    class_weights: ClassWeights = "none",
    jobs: int | None = None,
    videos: str | Path | None = None,
    overwrite: bool = False,
    on_trial: Callable[[TrialProgress], None] | None = None,
) -> Comparison:
    """Train several heads on the same splits with the same seeds, and rank them.

    A comparison that was killed goes on where it was when it is started again.

    Parameters
    ----------
    store_path : str or Path
    out : str or Path
        Folder of the comparison.
    heads : sequence of str, default ("mean-linear", "mean-linear:motion", "lstm", "gru")
        See `pipeline.heads.registry.parse_head`; without repetition.
    seeds : int, default 3
        Seeds per head and split, at least 1: `seed`, `seed` + 1, ...
    folds : int, optional
        Folds of the cross-validation; not with `split` or `test_lists`. By default the
        store's own split if its split column names a test part, else 5.
    split, test_lists, fold, val_fraction, group_regex, allow_leaks
        See `pipeline.splits.splitrequest.SplitRequest`.
    ignore_groups, join_near_duplicates
        See `pipeline.splits.splitrequest.SplitRequest`.
    seed : int, default 0
    epochs, batch_size, learning_rate, patience, class_weights
        See `pipeline.training.options.FitOptions`.
    units, dropout, reduce, window, aggregate
        See `pipeline.heads.headoptions.HeadOptions`; by default each head's own.
    jobs : int, optional
        Processes; by default one per core, at most 8. Does not change results.
    videos : str or Path, optional
        Where the video folder lies now, for the pictures in ``report.html``; by default where
        the store says it lay.
    overwrite : bool, default False
        Replace a comparison with other settings, or repeat one with the same.
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
    """
    started = time.perf_counter()
    _require_options(heads, seeds, seed)
    require_jobs(jobs)
    require_videos(videos)
    request = SplitRequest(
        split,
        test_lists,
        fold,
        None,
        val_fraction,
        group_regex,
        allow_leaks,
        seed,
        ignore_groups=ignore_groups,
        join_near_duplicates=join_near_duplicates,
    )
    store = open_store(store_path)
    splits, groups = choose_splits(store, request, folds)
    target = Path(out).absolute()
    labels = {clip.clip_id: clip.label for clip in usable_clips(store)}
    classes = tuple(sorted({labels[i] for split in splits for i in split.train}))
    plan = TrialPlan(
        store_path=str(Path(store_path).absolute()),
        classes=classes,
        splits=splits,
        head_options=HeadOptions(units, dropout, reduce, window, aggregate),
        fit_options=FitOptions(epochs, batch_size, learning_rate, patience, class_weights),
        folder=target / "trials",
    )
    shared = _shared_settings(store, plan, groups)
    settings = {**shared, "heads": list(heads), "seeds": seeds, "seed": seed}
    trials = [
        Trial(name, number, index, digest_json([shared, name, number, index]))
        for index in range(len(splits))
        for number in range(seed, seed + seeds)
        for name in heads
    ]
    _open_folder(target, settings, store.path, overwrite=overwrite)
    results, n_reused = _finish_trials(store, target, plan, trials, jobs, on_trial)
    tested = tested_ids(splits)
    known = {clip_id for split in splits for clip_id in (*split.train, *split.test)}
    indices = {clip_id: classes.index(labels[clip_id]) for clip_id in known}
    ranking = rank_heads(results, splits, indices, groups, classes, seed=seed)
    near_duplicates, n_near_duplicates = find_straddling_duplicates(store, splits)
    comparison = Comparison(
        path=str(out),
        heads=ranking.heads,
        pairs=ranking.pairs,
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
    )
    with report_unwritable(target):
        write_results(target, comparison, plan, settings, store.header)
        write_predictions(target, results, plan, groups, labels)
        write_comparison_report(target, store, videos=videos)
    return comparison


def tested_ids(splits: Sequence[Split]) -> list[str]:
    """Return the clip ids of all test parts, split by split."""
    return [clip_id for split in splits for clip_id in split.test]


def _require_options(heads: Sequence[str], seeds: int, seed: int) -> None:
    for name in heads:
        parse_head(name)
    if not heads or len(set(heads)) < len(heads):
        raise OptionInvalid(
            f"--heads must name one or more different heads. Received: '{','.join(heads)}'."
        )
    if seeds < 1:
        raise OptionInvalid(f"--seeds must be at least 1. Received: {seeds}.")
    require_seed(seed, seeds)


def _shared_settings(store: Store, plan: TrialPlan, groups: Mapping[str, str]) -> dict[str, Any]:
    used = {i for split in plan.splits for i in (*split.train, *split.val, *split.test)}
    clips = [clip for clip in store.clips if clip.clip_id in used]
    return {
        "store_fingerprint": store.header.fingerprint,
        "clips": digest_clips(clips, groups),
        "splits": digest_json([[s.train, s.val, s.test] for s in plan.splits]),
        **asdict(plan.head_options),
        **asdict(plan.fit_options),
    }


def _open_folder(target: Path, settings: dict[str, Any], source: Path, *, overwrite: bool) -> None:
    with report_unwritable(target):
        have = _read_settings(target)
        if have is not None and have != settings and not overwrite:
            raise OutputExists(
                f"A comparison folder holds one comparison. '{target}' has other settings "
                f"({name_differences(have, settings)}).",
                hint="give another --out, or --overwrite to start anew",
            )
        if have is None or overwrite:
            require_free(
                target,
                marker=SETTINGS_FILE,
                what="comparison",
                overwrite=overwrite,
                source=source,
            )
        if overwrite and have is not None:
            shutil.rmtree(target)
        (target / "trials").mkdir(parents=True, exist_ok=True)
        write_json(target / SETTINGS_FILE, settings)


def _read_settings(target: Path) -> dict[str, Any] | None:
    try:
        settings: dict[str, Any] = json.loads((target / SETTINGS_FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return settings


def _finish_trials(
    store: Store,
    target: Path,
    plan: TrialPlan,
    trials: Sequence[Trial],
    jobs: int | None,
    on_trial: Callable[[TrialProgress], None] | None,
) -> tuple[dict[Trial, TrialResult], int]:
    known = {trial: read_trial_result(plan.folder, trial) for trial in trials}
    missing = [trial for trial in trials if known[trial] is None]
    n_reused = len(trials) - len(missing)
    if missing:
        used = {i for split in plan.splits for i in (*split.train, *split.val, *split.test)}
        sequences = load_sequences(store, sorted(used), plan.classes)
        with ExitStack() as stack:
            with report_unwritable(target):
                write_plan(target / PLAN_FILE, plan)
                shared = stack.enter_context(shared_sequences(sequences, target))
            del sequences  # The workers map the files; this process needs them no more.
            n_jobs = choose_jobs(jobs, len(missing))
            finished = run_trials(target / PLAN_FILE, shared, missing, jobs=n_jobs)
            for n_more, trial in enumerate(finished, start=1):
                known[trial] = read_trial_result(plan.folder, trial)
                if on_trial is not None:
                    on_trial(TrialProgress(trial, n_reused + n_more, len(trials)))
    results = {trial: result for trial, result in known.items() if result is not None}
    if len(results) < len(trials):
        raise TrainingFailed(f"Every trial must leave a result. '{plan.folder}' lacks some.")
    return results, n_reused
