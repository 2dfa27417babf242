"""Training one head on a store, and keeping it as a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from features.errors import Interrupted, OutputExists, RunDamaged
from features.store.store import open_store
from features.system.files import clear_abandoned, report_unwritable, require_free, staged_folder
from pipeline.data.sequences import load_sequences
from pipeline.heads.model import predict_clips
from pipeline.heads.registry import HeadOptions, parse_head
from pipeline.report.pages import require_videos
from pipeline.report.run import write_run_report
from pipeline.report.tensorboard import write_tensorboard
from pipeline.runs.provenance import name_differences
from pipeline.runs.run import RUN_FILE, RunSummary, read_run
from pipeline.scores.frameorder import score_orders
from pipeline.scores.labels import LabelScores, most_frequent_labels, report_label_scores
from pipeline.scores.metrics import most_frequent, report_scores
from pipeline.scores.shortcuts import guess_by_facts
from pipeline.splits.choose import SplitOptions, choose_split, count_unlabelled, usable_clips
from pipeline.splits.groups import find_group_doubts
from pipeline.splits.leaks import find_straddling_duplicates
from pipeline.splits.split import find_class_gaps, list_classes
from pipeline.training.fit import fit_head, require_class_weights, require_memory_for_fit
from pipeline.training.keep import RunPlan, write_run
from pipeline.training.options import EpochReport, FitOptions
from pipeline.training.threads import limit_threads


def train_head(
    store_path: str | Path,
    out: str | Path,
    *,
    head: str = "logreg",
    head_options: HeadOptions = HeadOptions(),
    split: SplitOptions = SplitOptions(),
    fit: FitOptions = FitOptions(),
    seed: int = 0,
    threads: int | None = None,
    videos: str | Path | None = None,
    tensorboard: bool = False,
    overwrite: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> RunSummary:
    """Train a head on a store and write a run.

    Training stops by the validation part; the test part is looked at once, at the end.
    Doing the same again costs nothing: a finished run with the same settings is returned.

    Parameters
    ----------
    store_path : str or Path
        The file given to ``extract-features --out``.
    out : str or Path
        Folder of the run.
    head : str, default "logreg"
        A registered head, or one followed by ":" and "appearance", "motion", "both",
        "centred", "tempo" or "mixed", which say what it sees of the embeddings.
    head_options : HeadOptions
        Width, dropout, reduction and windows.
    split : SplitOptions
        Who is trained on and who is tested. Without a split file or official lists the
        store's split column is used, or else whole groups are held out at random.
    fit : FitOptions
        Epochs, learning rate and class weights.
    seed : int, default 0
        Decides the split, the first weights, dropout and the order of clips.
        Sets the global random seeds of Python, NumPy and the Keras backend.
    threads : int, optional
        Most threads of the Keras backend; only before Keras is imported.
    videos : str or Path, optional
        Where the video folder is now, for the pictures in ``report.html``; by default where
        it was when the store was made. A finished run gets a new page.
    tensorboard : bool, default False
        Write TensorBoard logs into the run as well.
    overwrite : bool, default False
        Replace a run that stands at `out`.
    on_epoch : callable, optional
        Called with an `EpochReport` after every epoch.

    Returns
    -------
    RunSummary

    Raises
    ------
    StoreNotFound, StoreDamaged
        If the store cannot be read.
    HeadUnknown, OptionInvalid
        If an option has no legal value.
    SplitImpossible, SplitLeaks
        If the clips cannot be divided as asked.
    OutputExists, OutputUnwritable
        If the run cannot be written to `out`.
    TrainingFailed
        If a loss is not finite.
    """
    target = Path(out)
    parse_head(head)
    require_videos(videos)
    store = open_store(store_path)
    require_class_weights(store, fit)
    chosen, groups = choose_split(store, split, seed=seed)
    trained = set(chosen.train)
    classes = list_classes(clip for clip in store.clips if clip.clip_id in trained)
    plan = RunPlan(
        store=store,
        split=chosen,
        groups=groups,
        classes=classes,
        head=head,
        seed=seed,
        head_options=head_options,
        fit_options=fit,
        videos=videos,
        tensorboard=tensorboard,
        group_regex=split.group_regex,
    )
    clear_abandoned(target.absolute())
    if not overwrite:
        finished = _find_finished(target, plan)
        if finished is not None:
            with report_unwritable(target):
                if videos is not None:
                    write_run_report(target, store, videos=videos)
                if tensorboard:
                    write_tensorboard(target)
            return finished
    _require_free(target, plan, overwrite=overwrite)
    limit_threads(threads)
    try:
        with staged_folder(target) as folder:
            summary = _train_into(folder, target, plan, on_epoch)
            # Once more: another process may have put something there meanwhile.
            if overwrite or _find_finished(target, plan) is None:
                _require_free(target, plan, overwrite=overwrite)
    except KeyboardInterrupt as problem:
        raise Interrupted(f"Interrupted: no run was written to '{target}'.") from problem
    return summary


def _require_free(target: Path, plan: RunPlan, *, overwrite: bool) -> None:
    require_free(target, marker=RUN_FILE, what="run", overwrite=overwrite, source=plan.store.path)


def _find_finished(target: Path, plan: RunPlan) -> RunSummary | None:
    if not (target / RUN_FILE).is_file():
        return None
    try:
        run = read_run(target)
    except RunDamaged as problem:
        raise OutputExists(
            f"A run is only written once. '{target}' holds a damaged one.",
            hint="give another --out, or --overwrite to replace it",
        ) from problem
    if run.settings == plan.settings:
        return run.summary
    differences = name_differences(run.settings, plan.settings)
    raise OutputExists(
        f"A run is only written once. '{target}' holds one with other settings ({differences}).",
        hint="give another --out, or --overwrite to replace it",
    )


def _train_into(
    folder: Path, target: Path, plan: RunPlan, on_epoch: Callable[[EpochReport], None] | None
) -> RunSummary:
    started = time.perf_counter()
    split = plan.split
    require_memory_for_fit(plan.store, [split], [plan.head], plan.head_options)
    train, val = (load_sequences(plan.store, p, plan.classes) for p in (split.train, split.val))
    fitted = fit_head(
        train,
        val,
        head=plan.head,
        n_classes=len(plan.classes),
        groups=plan.groups,
        seed=plan.seed,
        head_options=plan.head_options,
        fit_options=plan.fit_options,
        on_epoch=on_epoch,
    )
    test = load_sequences(plan.store, split.test, plan.classes)
    probabilities = predict_clips(fitted.model, test, plan.head_options)
    test_groups = [plan.groups[clip_id] for clip_id in test.clip_ids]
    labels: LabelScores | None = None
    if test.targets is None:
        scores = report_scores(
            probabilities,
            test.class_indices,
            test_groups,
            plan.classes,
            majority=most_frequent(train.class_indices),
            by_facts=guess_by_facts(plan.store, [split])[0],
            seed=plan.seed,
        )
    else:
        scores, labels = report_label_scores(
            probabilities,
            test.targets,
            test_groups,
            plan.classes,
            fitted.thresholds or (),
            majority=most_frequent_labels(train.truth),
        )
    orders = score_orders(fitted.model, test, plan.head_options, seed=plan.seed)
    scores["frame_order"] = asdict(orders)
    near_duplicates, n_near_duplicates = find_straddling_duplicates(
        plan.store, [split], plan.groups
    )
    labelled = usable_clips(plan.store)
    summary = RunSummary(
        path=str(target),
        head=plan.head,
        accuracy=scores["accuracy"]["mean"],
        low=scores["accuracy"]["low"],
        high=scores["accuracy"]["high"],
        balanced_accuracy=scores["balanced_accuracy"],
        macro_f1=scores["macro_f1"],
        majority_class=scores["majority_class"],
        majority_accuracy=scores["majority_accuracy"],
        n_train=len(split.train),
        n_val=len(split.val),
        n_test=len(split.test),
        n_excluded=len(split.excluded),
        n_failed=sum(clip.status == "failed" for clip in plan.store.clips),
        leaks=split.leaks,
        groups_known=split.groups_known,
        epochs_run=len(fitted.history),
        best_epoch=fitted.best_epoch,
        is_refitted=fitted.is_refitted,
        temperature=fitted.temperature,
        n_members=plan.fit_options.ensemble,
        seconds=time.perf_counter() - started,
        backwards=orders.backwards,
        shuffled=orders.shuffled,
        near_duplicates=near_duplicates,
        n_near_duplicates=n_near_duplicates,
        n_missing=len(split.missing),
        split_method=split.method,
        n_unlabelled=count_unlabelled(plan.store),
        n_classes=len(list_classes(labelled)),
        classes_without=find_class_gaps(labelled, [split]),
        labels=labels,
        above_majority=scores.get("above_majority", True),
        above_facts=scores.get("above_facts", True),
        facts_accuracy=scores.get("facts_accuracy"),
        group_doubts=find_group_doubts(labelled, plan.groups, plan.group_regex),
    )
    with report_unwritable(target):
        write_run(folder, plan, fitted, test, probabilities, scores, summary)
    return summary
