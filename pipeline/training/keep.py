"""What a run is made from, and the files that it is kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.store.store import Store
from features.system.files import digest_json, write_csv, write_json
from features.system.versions import describe_environment
from pipeline.data.sequences import Float32Array, Sequences
from pipeline.heads.registry import HeadOptions, source_of
from pipeline.report.run import write_run_report
from pipeline.report.tensorboard import write_tensorboard
from pipeline.runs.coverage import write_held_out
from pipeline.runs.provenance import digest_clips
from pipeline.runs.run import MODEL_FILE, RUN_FILE, RUN_SCHEMA, RunSummary, save_model
from pipeline.scores.labels import answer_columns, describe_answer
from pipeline.splits.files import split_to_json
from pipeline.splits.split import Split
from pipeline.training.fit import FittedHead
from pipeline.training.options import FitOptions

# Of report.json; run.json has the others as well.
_LONG_SCORES = ("classes", "confusions", "cooccurrences")


@dataclass(frozen=True, slots=True, repr=False)
class RunPlan:
    """All that is decided before anything is trained."""

    store: Store
    split: Split
    groups: Mapping[str, str]  # by clip id
    classes: tuple[str, ...]  # in the order of the head's outputs
    head: str
    seed: int
    head_options: HeadOptions
    fit_options: FitOptions
    videos: str | Path | None  # where the folder is now, for pictures
    tensorboard: bool
    group_regex: str | None  # that named the groups

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result; the place of the store does not."""
        used = {*self.split.train, *self.split.val, *self.split.test}
        clips = [clip for clip in self.store.clips if clip.clip_id in used]
        return {
            "store_fingerprint": self.store.header.fingerprint,
            "clips": digest_clips(clips, self.groups),
            "split": digest_json([self.split.train, self.split.val, self.split.test]),
            "head": self.head,
            "seed": self.seed,
            **asdict(self.head_options),
            **asdict(self.fit_options),
            **source_of(self.head),
        }


def write_run(
    folder: Path,
    plan: RunPlan,
    fitted: FittedHead,
    test: Sequences,
    probabilities: Float32Array,
    scores: dict[str, Any],
    summary: RunSummary,
) -> None:
    """Write all files of a run into its folder; probabilities have one row per test clip."""
    save_model(fitted.model, folder / MODEL_FILE)
    write_held_out(folder, fitted.held_out, fitted.temperature)
    _write_history(folder, fitted)
    if fitted.thresholds is None:
        _write_predictions(folder, plan, test, probabilities)
    else:
        _write_label_predictions(folder, plan, test, probabilities, fitted.thresholds)
    write_json(folder / "report.json", scores)
    write_json(folder / "split.json", split_to_json(plan.split))
    write_json(folder / RUN_FILE, _describe(plan, fitted, scores, summary))
    write_run_report(folder, plan.store, videos=plan.videos)
    if plan.tensorboard:
        write_tensorboard(folder)


def _describe(
    plan: RunPlan, fitted: FittedHead, scores: dict[str, Any], summary: RunSummary
) -> dict[str, Any]:
    return {
        "schema": RUN_SCHEMA,
        "head": plan.head,
        "classes": plan.classes,
        "summary": asdict(summary),
        "metrics": {k: v for k, v in scores.items() if k not in _LONG_SCORES},
        "settings": plan.settings,
        "store": {
            "path": str(plan.store.path.resolve()),
            "fingerprint": plan.store.header.fingerprint,
            "header": asdict(plan.store.header),
        },
        **({} if fitted.thresholds is None else {"thresholds": fitted.thresholds}),
        "n_parameters": fitted.model.count_params(),
        "leaks": plan.split.leaks,
        "groups_known": plan.split.groups_known,
        "split": split_to_json(plan.split),
        **describe_environment(),
    }


def _write_history(folder: Path, fitted: FittedHead) -> None:
    epochs = [asdict(report) for report in fitted.history]
    write_json(folder / "history.json", {"best_epoch": fitted.best_epoch, "epochs": epochs})
    write_csv(folder / "history.csv", list(epochs[0]), [list(e.values()) for e in epochs])


def _write_predictions(
    folder: Path, plan: RunPlan, test: Sequences, probabilities: Float32Array
) -> None:
    header = ["clip_id", "group", "part", "label", "predicted"]
    rows = (
        [
            clip_id,
            plan.groups[clip_id],
            "test",
            plan.classes[truth],
            plan.classes[int(row.argmax())],
            *(f"{value:.6g}" for value in row),
        ]
        for clip_id, truth, row in zip(
            test.clip_ids, test.class_indices, probabilities, strict=True
        )
    )
    columns = [*header, *(f"probability:{label}" for label in plan.classes)]
    write_csv(folder / "predictions.csv", columns, rows)


def _write_label_predictions(
    folder: Path,
    plan: RunPlan,
    test: Sequences,
    probabilities: Float32Array,
    thresholds: Sequence[float],
) -> None:
    """Write the classes of every clip, those that are named, and the probabilities."""
    named = probabilities >= np.array(thresholds)
    rows = (
        [clip_id, plan.groups[clip_id], "test", *describe_answer(truth, above, row, plan.classes)]
        for clip_id, truth, above, row in zip(
            test.clip_ids, test.truth, named, probabilities, strict=True
        )
    )
    columns = ["clip_id", "group", "part", *answer_columns(plan.classes)]
    write_csv(folder / "predictions.csv", columns, rows)
