"""One trial of a comparison: one head, one seed, one split; and the process that runs many."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import FrameHeadError, TrainingFailed
from features.system.files import read_json, report_unwritable, write_json
from features.system.plugins import load_plugins
from features.system.processes import claim_output, describe_problem
from features.system.versions import describe_environment
from pipeline.data.sequences import Sequences, sequence_from_vectors, take_clips, view_clips
from pipeline.data.sharing import map_sequences
from pipeline.heads.model import predict_clips
from pipeline.heads.registry import HeadOptions
from pipeline.scores.frameorder import score_orders
from pipeline.scores.labels import mean_average_precision
from pipeline.scores.metrics import hits_in_top
from pipeline.splits.files import split_from_json, split_to_json
from pipeline.splits.split import Split
from pipeline.training.fit import Workbench, fit_head
from pipeline.training.options import FitOptions

# Single clips timed for the latency, after one that warms up.
_TIMED_CLIPS = 20
# Training clips that a head is tested on, to see how much it has learnt by heart.
_MOST_TRAINED_TESTED = 500


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial does."""

    head: str
    seed: int
    fold: int  # index into the splits of the plan, from 0
    key: str  # digest of everything that decides the result

    @property
    def file_name(self) -> str:
        """Name of the trial's result in the folder of trials."""
        head = self.head.replace(":", "-")  # which some file systems refuse
        return f"{head}-seed{self.seed}-fold{self.fold}-{self.key[:12]}.json"


@dataclass(frozen=True, slots=True, repr=False)
class TrialPlan:
    """What all trials of a comparison share."""

    store_path: str
    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    groups: Mapping[str, str]  # by clip id
    head_options: HeadOptions
    fit_options: FitOptions
    folder: Path  # where results go


@dataclass(frozen=True, slots=True, repr=False)
class TrialResult:
    """What one trial found, clip by clip in the order of the test part.

    Where clips may have several classes, the first three are empty, and the last two are not.
    """

    predicted: list[int]
    confidence: list[float]  # probability of the predicted class
    in_top5: list[bool]
    trained_accuracy: float  # on the training clips themselves
    backwards: float  # accuracy with the frames in another order
    shuffled: float
    n_parameters: int
    epochs_run: int
    best_epoch: int
    train_seconds: float  # compiling the head included
    latency_ms: float  # median for one clip alone, embeddings at hand
    made: Mapping[str, Any]  # when, on what platform, by which versions
    probabilities: list[list[float]] | None = None
    thresholds: list[float] | None = None


def run_trial(
    plan: TrialPlan, trial: Trial, sequences: Sequences, workbench: Workbench | None = None
) -> TrialResult:
    """Train and test one head on its split of the clips.

    `workbench` keeps compiled heads from trial to trial; it does not change results.
    """
    split = plan.splits[trial.fold]
    started = time.perf_counter()
    fitted = fit_head(
        view_clips(sequences, split.train),
        view_clips(sequences, split.val),
        head=trial.head,
        n_classes=len(plan.classes),
        groups=plan.groups,
        seed=trial.seed,
        head_options=plan.head_options,
        fit_options=plan.fit_options,
        workbench=workbench,
    )
    train_seconds = time.perf_counter() - started
    test = take_clips(sequences, split.test)
    probabilities = predict_clips(fitted.model, test, plan.head_options)
    orders = score_orders(fitted.model, test, plan.head_options, seed=trial.seed)
    answers: dict[str, Any]
    if fitted.thresholds is None:
        answers = {
            "predicted": probabilities.argmax(axis=1).tolist(),
            "confidence": np.round(probabilities.max(axis=1).astype(float), 6).tolist(),
            "in_top5": hits_in_top(probabilities, test.class_indices, 5).tolist(),
        }
    else:
        answers = {
            **{key: [] for key in ("predicted", "confidence", "in_top5")},
            "probabilities": np.round(probabilities.astype(float), 6).tolist(),
            "thresholds": list(fitted.thresholds),
        }
    return TrialResult(
        **answers,
        trained_accuracy=_score_trained(fitted.model, sequences, split, plan.head_options),
        backwards=orders.backwards,
        shuffled=orders.shuffled,
        n_parameters=fitted.model.count_params(),
        epochs_run=len(fitted.history),
        best_epoch=fitted.best_epoch,
        train_seconds=round(train_seconds, 3),
        latency_ms=round(_measure_latency(fitted.model, test, plan.head_options), 3),
        made=describe_environment(),
    )


def _score_trained(model: Any, sequences: Sequences, split: Split, options: HeadOptions) -> float:
    """Test a head on its training clips, or evenly spaced ones of very many."""
    step = -(-len(split.train) // _MOST_TRAINED_TESTED)
    trained = take_clips(sequences, split.train[::step])
    probabilities = predict_clips(model, trained, options)
    if trained.targets is not None:
        return mean_average_precision(trained.targets, probabilities)
    return float((probabilities.argmax(axis=1) == trained.class_indices).mean())


def write_plan(path: Path, plan: TrialPlan) -> None:
    """Write a plan for the worker processes."""
    fields = {
        "store_path": plan.store_path,
        "classes": plan.classes,
        "splits": [split_to_json(split) for split in plan.splits],
        "groups": dict(plan.groups),
        "head_options": asdict(plan.head_options),
        "fit_options": asdict(plan.fit_options),
        "folder": str(plan.folder),
    }
    write_json(path, fields)


def read_plan(path: Path) -> TrialPlan:
    """Read what `write_plan` wrote."""
    fields = read_json(path)
    splits = tuple(split_from_json(split, where=str(path)) for split in fields["splits"])
    return TrialPlan(
        store_path=fields["store_path"],
        classes=tuple(fields["classes"]),
        splits=splits,
        groups=fields["groups"],
        head_options=HeadOptions(**fields["head_options"]),
        fit_options=FitOptions(**fields["fit_options"]),
        folder=Path(fields["folder"]),
    )


def read_trial_result(folder: Path, trial: Trial) -> TrialResult | None:
    """Read the result of a trial, if it has been finished before."""
    try:
        fields = read_json(folder / trial.file_name)
        result = TrialResult(**fields["result"], made=fields.get("made", {}))
        return result if fields["key"] == trial.key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # unfinished, or damaged: the trial is run again


def main() -> None:
    """Run trials that arrive on standard input, one JSON line each, until it closes.

    Arguments are the plan's file and the folder of the shared sequences. Every trial is
    answered by one JSON line on standard output.
    """
    answers = claim_output()
    load_plugins()
    plan = read_plan(Path(sys.argv[1]))
    sequences = map_sequences(Path(sys.argv[2]))
    workbench = Workbench()
    for line in sys.stdin:
        trial = Trial(**json.loads(line))
        answer: dict[str, str] = {"kind": "done"}
        try:
            result = run_trial(plan, trial, sequences, workbench)
            fields = {key: value for key, value in asdict(result).items() if value is not None}
            content = {**asdict(trial), "made": fields.pop("made"), "result": fields}
            with report_unwritable(plan.folder):
                write_json(plan.folder / trial.file_name, content)
        except FrameHeadError as problem:
            answer = {"kind": "failed", **describe_problem(problem)}
        except (OSError, MemoryError) as problem:
            text = f"Trial {trial.file_name} failed: {problem or type(problem).__name__}."
            answer = {"kind": "failed", **describe_problem(TrainingFailed(text))}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _measure_latency(model: Any, test: Sequences, options: HeadOptions) -> float:
    rows = range(min(_TIMED_CLIPS, len(test.clip_ids)))
    clips = [sequence_from_vectors([test.vectors[row][test.mask[row]]]) for row in rows]
    for shape in {clip.mask.shape: clip for clip in clips}.values():
        predict_clips(model, shape, options)  # compiles the head for this length
    seconds = []
    for clip in clips:
        started = time.perf_counter()
        predict_clips(model, clip, options)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
