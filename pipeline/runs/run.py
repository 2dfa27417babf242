"""Runs: one trained head in a folder, with everything needed to use it years later."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from features.errors import FrameHeadError, HeadUnknown, RunDamaged, RunNotFound
from features.records import StoreHeader
from features.system.files import read_csv
from features.system.keras import import_keras
from pipeline.heads.registry import HEADS, HeadOptions
from pipeline.scores.labels import LabelScores
from pipeline.splits.files import split_from_json
from pipeline.splits.leaks import NearDuplicate
from pipeline.splits.split import Split

RUN_SCHEMA = 1
RUN_FILE = "run.json"
MODEL_FILE = "model.keras"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What people ask of a run first.

    Attributes
    ----------
    path : str
        As given.
    head : str
    accuracy, low, high : float
        On the test part, with its 95 % interval over groups, which is about this one trained
        model: another seed would give another. Where clips may have several classes, a clip counts
        as right if all of them are, and no others are named.
    balanced_accuracy, macro_f1 : float
        On the test part.
    n_train, n_val, n_test : int
        Clips in each part.
    n_excluded, n_failed, n_missing : int
        Clips of the store in no part, and without embeddings; clips of the split file that the
        store lacks.
    leaks : bool
        True if the accuracy must not be trusted: a group stood on both sides.
    groups_known : bool
        False if leaks could not be ruled out, because some clips have no group.
    epochs_run, best_epoch : int
        The weights are those of the best epoch, counted from 1.
    is_refitted : bool
        Whether it was then trained again with the validation clips, for as many epochs.
    temperature : float
        By which the model divides its logits, so that its probabilities can be believed.
    n_members : int
        Heads whose mean the model is.
    seconds : float
        Training and evaluation.
    is_new : bool
        False if the run had been trained before with the same settings.
    majority_class, majority_accuracy : str, float
        The most frequent class of the training part, and the accuracy of always naming it. Of
        several classes, the most frequent combination.
    backwards, shuffled : float
        Accuracy on the test part with its frames in another order; mean average precision where
        clips may have several classes.
    near_duplicates : tuple of NearDuplicate
        Clips of different parts that seem to be one recording.
    n_near_duplicates : int
        Test clips that have such a clip in training or validation.
    split_method : str
        What made the split, for people.
    n_unlabelled : int
        Clips of the store without a label, which are in no part.
    n_classes : int
        Classes of the store's clips.
    classes_without : dict of str to list of str
        Classes without a clip in a part, by part: "train", "val", "test".
    labels : LabelScores or None
        Scores where clips may have several classes; None where every clip has one.
    above_majority, above_facts : bool
        Whether this model is better, by more than chance, than always naming the majority class,
        and than the facts of the files alone.
    facts_accuracy : float or None
        Of a small classifier that knows the facts of the files, such as frame rate and size,
        and no picture; None in runs of earlier versions.
    group_doubts : tuple of str
        Why groups may not be what keeps clips of one source on one side of the split.
    """

    path: str
    head: str
    accuracy: float
    low: float
    high: float
    balanced_accuracy: float
    macro_f1: float
    n_train: int
    n_val: int
    n_test: int
    n_excluded: int
    n_failed: int
    leaks: bool
    groups_known: bool
    epochs_run: int
    best_epoch: int
    seconds: float
    majority_class: str
    majority_accuracy: float
    backwards: float
    shuffled: float
    near_duplicates: tuple[NearDuplicate, ...]
    n_near_duplicates: int
    n_missing: int = 0
    split_method: str = ""
    is_new: bool = True
    n_unlabelled: int = 0
    n_classes: int = 0
    classes_without: dict[str, list[str]] = field(default_factory=dict)
    labels: LabelScores | None = None
    above_majority: bool = True
    above_facts: bool = True
    facts_accuracy: float | None = None
    group_doubts: tuple[str, ...] = ()
    is_refitted: bool = False
    temperature: float = 1.0
    n_members: int = 1

    @property
    def is_multilabel(self) -> bool:
        """Whether clips may have several classes."""
        return self.labels is not None


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
    head : str
    classes : tuple of str
        In the order of the head's outputs.
    header : StoreHeader
        How the embeddings were made that the head was trained on.
    split : Split
    settings : dict
        What decided the result; equal settings mean an equal run.
    summary : RunSummary
    thresholds : tuple of float or None
        Where clips may have several classes: from which probability on each of the classes
        counts as named, chosen on the validation part. None where every clip has one class.
    """

    path: Path
    head: str
    classes: tuple[str, ...]
    header: StoreHeader
    split: Split
    settings: dict[str, Any]
    summary: RunSummary
    thresholds: tuple[float, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the store that the head was trained on."""
        return self.header.fingerprint

    @property
    def head_options(self) -> HeadOptions:
        """What the head was trained with."""
        return HeadOptions(**{f.name: self.settings[f.name] for f in fields(HeadOptions)})

    def __repr__(self) -> str:
        """Show what it is instead of all it holds."""
        return f"Run({str(self.path)!r}, head={self.head!r}, classes={len(self.classes)})"


def read_run(path: str | Path) -> Run:
    """Read a run's folder, without loading its model.

    Parameters
    ----------
    path : str or Path
        The folder given to ``train-head --out``.

    Returns
    -------
    Run

    Raises
    ------
    RunNotFound
        If there is no finished run.
    RunDamaged
        If a part is missing or cannot be read.
    """
    folder = Path(path)
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as problem:
        kind = "has no run.json" if folder.is_dir() else "is not a folder"
        raise RunNotFound(
            f"A run must be a folder made by train-head. '{folder}' {kind}.",
            hint=f"make it: framehead train-head STORE --out '{folder}'",
        ) from problem
    except (OSError, ValueError) as problem:
        raise _damaged(folder, f"reading {RUN_FILE} failed: {problem}") from problem
    if not (folder / MODEL_FILE).is_file():
        raise _damaged(folder, f"{MODEL_FILE} is missing")
    try:
        if content["schema"] != RUN_SCHEMA:
            raise _damaged(folder, f"schema is {content['schema']}, this framehead reads 1")
        summary = content["summary"]
        pairs = tuple(NearDuplicate(**pair) for pair in summary["near_duplicates"])
        labels = summary.get("labels")
        thresholds = content.get("thresholds")
        return Run(
            path=folder,
            head=content["head"],
            classes=tuple(content["classes"]),
            header=StoreHeader.from_json(json.dumps(content["store"]["header"])),
            split=split_from_json(content["split"], where=f"'{folder / RUN_FILE}'"),
            settings=content["settings"],
            summary=RunSummary(
                **{
                    **summary,
                    "path": str(path),
                    "is_new": False,
                    "near_duplicates": pairs,
                    "labels": labels and LabelScores.from_json(labels),
                }
            ),
            thresholds=thresholds and tuple(map(float, thresholds)),
        )
    except RunDamaged:
        raise
    except (KeyError, TypeError, ValueError, FrameHeadError) as problem:
        raise _damaged(folder, f"{RUN_FILE} has a missing or damaged entry: {problem}") from problem


def load_model(run: Run) -> Any:
    """Load a run's head, in Keras' safe mode.

    Parameters
    ----------
    run : Run

    Returns
    -------
    keras.Model
        Takes "vectors", float32 (n, n_frames, dim), and "mask", bool (n, n_frames), padded on
        the right; gives probabilities, float32 (n, n_classes), in the order of the run's classes.
        They sum to 1, unless clips may have several classes.

    Raises
    ------
    RunDamaged
        If the model cannot be loaded.
    HeadUnknown
        If it cannot, and its head is not registered.
    """
    keras = import_keras()
    import pipeline.heads.layers  # noqa: F401

    path = run.path / MODEL_FILE
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras passes on whatever zipfile, json and HDF5 raise.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError) as problem:
        # Keras prints all it knows; what was wrong comes last.
        reason = str(problem).rpartition("Exception encountered: ")[2].partition(". ")[0]
        if run.head.partition(":")[0] not in HEADS:
            raise HeadUnknown(
                f"A run's head must be known to be loaded. '{run.path}' has '{run.head}', and "
                f"loading {MODEL_FILE} failed: {reason}.",
                hint="name the module that registers it with --plugin",
            ) from problem
        raise _damaged(run.path, f"loading {MODEL_FILE} failed: {reason}") from problem


def save_model(model: Any, path: Path) -> None:
    """Save a head in Keras' own format, to a path that ends in ".keras"."""
    with warnings.catch_warnings():
        # Keras on TensorFlow converts variables in a way that NumPy 2 deprecates.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        model.save(path)


def read_predictions(run: Run) -> list[dict[str, str]]:
    """Read a run's predictions of its test part, one dictionary per clip, by column name."""
    path = run.path / "predictions.csv"
    try:
        return read_csv(path)
    except OSError as problem:
        raise _damaged(run.path, f"reading predictions.csv failed: {problem}") from problem


def _damaged(folder: Path, what: str) -> RunDamaged:
    return RunDamaged(
        f"A run must be whole. In '{folder}' {what}.",
        hint="train it again with --overwrite",
    )
