"""The demo: every step of the project on drawn clips, by the functions that the commands call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from features.backbone.weights import BUILTIN, IMAGENET, BackboneOptions, find_backbone
from features.clips.discover import FolderOptions
from features.errors import OptionInvalid, OutputExists, WeightsNotFound, resuming
from features.extract import Progress, extract_features
from features.system.files import clear_partials, read_json, report_unwritable, write_json
from pipeline.compare.compare import Comparison, TrialProgress, compare_heads
from pipeline.demo.drawing.sample import SampleSpec, SampleSummary, make_sample
from pipeline.demo.orderpairs import OrderScores, score_order_pairs
from pipeline.heads.registry import HeadOptions
from pipeline.runs.predict import predict_videos
from pipeline.training.options import EpochReport
from pipeline.training.train import train_head

# Four whose frames tell them apart, and two pairs that only the order of frames does: the first
# also by what comes in which third of a clip, the second not.
DEMO_ACTIONS = ("walk", "wave", "squat", "bow", "sit-down", "stand-up", "drill", "drill-back")
# The second sees how frames differ from their clip's mean: places and people are drawn at
# random, so that what stays the same throughout a clip tells nothing about the action.
DEMO_HEADS = ("logreg-thirds", "lstm:centred")
# Of the actors to learn from; every action then has a few dozen clips.
N_TAKES = 4
_DEMO_FILE = "demo.json"
_LEAST_ACTORS = 3
# The narrowest MobileNetV2, three times as quick as the full one: this is a demonstration.
_ALPHA = 0.35
# For a weights file of one's own; the named weights have sizes of their own.
_SIZE_PX = 96
# Fewer numbers than clips to learn from.
_REDUCE = "pca:64"
_FOLDS = 3
_SEEDS = 2
_N_STEPS = 7
_SUBSTITUTED = (
    "The ImageNet weights are not in Keras' cache and cannot be downloaded here. The demo goes on "
    "with the small weights that come with framehead; those were trained on drawings, and on "
    "real video ImageNet's are better. No other command chooses for you."
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo is made of.

    Attributes
    ----------
    weights : str or Path, optional
        Weights of MobileNetV2 with alpha 0.35, the narrowest and fastest. "imagenet", "builtin"
        or a Keras file made with ``include_top=False``. By default imagenet if Keras has them or
        can get them, else builtin.
    n_actors : int, default 12
        Number of people to learn from, at least 3; fewer are faster, but prove less. A third as
        many are drawn into another folder, to be predicted only.
    seed : int, default 0
        Seed of the drawings, the splits and the training.

    Raises
    ------
    OptionInvalid
        If there are too few actors.
    """

    weights: str | Path | None = field(
        default=None, metadata={"flag": "--weights", "metavar": "imagenet|builtin|PATH"}
    )
    n_actors: int = field(default=12, metadata={"flag": "--actors"})
    seed: int = field(default=0, metadata={"flag": "--seed"})

    def __post_init__(self) -> None:
        """Check the number of actors."""
        if self.n_actors < _LEAST_ACTORS:
            raise OptionInvalid(
                f"The demo needs at least {_LEAST_ACTORS} actors, for groups that train, "
                f"validate and test. Received: {self.n_actors}."
            )


@dataclass(frozen=True, slots=True)
class DemoStep:
    """A step of the demo begins, or something is to be said about it."""

    number: int  # from 1
    n_steps: int
    text: str


DemoEvent = DemoStep | Progress | EpochReport | TrialProgress


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What the demo made and found.

    Attributes
    ----------
    folder : str
    weights : str
        "imagenet", "builtin", or a file.
    weights_note : str
        Why other weights are used than people would expect; else empty.
    n_clips, n_actors : int
        Trained and tested on, with groups apart.
    run_accuracies : dict of str to float
        By head, on the test part of its run.
    comparison_accuracies : dict of str to float
        By head, over all clips; each was tested once.
    order : OrderScores
        On the actions that only the order of frames tells apart.
    n_unseen, n_unseen_right : int
        Clips of actors in another folder, and how many of them the LSTM names right.
    n_unseen_actors : int
    overlay : str
        One overlay video, below the folder; more stand beside it.
    seconds : float
    is_new : bool
        False if the demo was finished before; then nothing was done.
    """

    folder: str
    weights: str
    weights_note: str
    n_clips: int
    n_actors: int
    run_accuracies: dict[str, float]
    comparison_accuracies: dict[str, float]
    order: OrderScores
    n_unseen: int
    n_unseen_right: int
    n_unseen_actors: int
    overlay: str
    seconds: float
    is_new: bool = True


@resuming()
def run_demo(
    out: str | Path,
    options: DemoOptions = DemoOptions(),
    *,
    on_event: Callable[[DemoEvent], None] = lambda event: None,
) -> DemoSummary:
    """Draw clips, embed them, train, compare, and predict actors never seen.

    A demo that was interrupted goes on where it was; of a finished one the summary is returned.

    Parameters
    ----------
    out : str or Path
        Folder for everything.
    options : DemoOptions, optional
        Weights, actors and seed. A demo that goes on keeps the weights it began with.
    on_event : callable, optional
        Called with a `DemoStep` when a step begins, and with its progress: `Progress`,
        `EpochReport` or `TrialProgress`.

    Returns
    -------
    DemoSummary

    Raises
    ------
    OutputExists
        If the folder holds something else, or a demo with other options.
    FrameHeadError
        Whatever the steps raise.
    """
    started = time.perf_counter()
    folder = Path(out)
    known = _claim(folder, options)
    if known.get("summary"):
        order = OrderScores(**known["summary"].pop("order"))
        # The folder may have been moved since.
        told = {**known["summary"], "folder": str(folder), "is_new": False}
        return DemoSummary(**told, order=order)
    number = 0

    def begin(text: str) -> None:
        nonlocal number
        number += 1
        on_event(DemoStep(number, _N_STEPS, text))

    begin("finding the weights of the backbone")
    if known.get("weights") is None:
        known["weights"], known["weights_note"] = _choose_weights(options.weights)
        _write(folder, known)
    if known["weights_note"]:
        on_event(DemoStep(number, _N_STEPS, known["weights_note"]))
    begin("drawing clips of actors to learn from, and of others to predict")
    sample, unseen = _draw(folder, options, on_event)
    begin(f"embedding {sample.n_clips} clips")
    size_px = None if known["weights"] in (IMAGENET, BUILTIN) else _SIZE_PX
    extract_features(
        sample.folder,
        folder / "embeddings.h5",
        folder=FolderOptions(labels=sample.csv_path),
        backbone=BackboneOptions(known["weights"], alpha=_ALPHA, size_px=size_px),
        on_progress=on_event,
    )
    runs = {}
    for head in DEMO_HEADS:
        begin(f"training {head}")
        runs[head] = train_head(
            folder / "embeddings.h5",
            _run_folder(folder, head),
            head=head,
            head_options=HeadOptions(reduce=_REDUCE),
            seed=options.seed,
            on_epoch=on_event,
        ).accuracy
    begin(f"comparing {' and '.join(DEMO_HEADS)}, every actor tested once")
    comparison = compare_heads(
        folder / "embeddings.h5",
        folder / "comparison",
        heads=DEMO_HEADS,
        head_options=HeadOptions(reduce=_REDUCE),
        seeds=_SEEDS,
        folds=_FOLDS,
        seed=options.seed,
        on_trial=on_event,
    )
    begin(f"predicting {unseen.n_clips} clips of actors never seen, and drawing the predictions")
    predictions = _predict(folder, unseen, on_event)
    summary = _summarise(folder, known, comparison, runs, predictions, (sample, unseen), started)
    _write(folder, {**known, "summary": asdict(summary)})
    return summary


def _run_folder(folder: Path, head: str) -> Path:
    # Colons are not for file names.
    return folder / "runs" / head.partition(":")[0]


def _claim(folder: Path, options: DemoOptions) -> dict[str, Any]:
    """Make the folder this demo's, or read what an earlier attempt left."""
    wanted = {
        "n_actors": options.n_actors,
        "seed": options.seed,
        "heads": list(DEMO_HEADS),
        "reduce": _REDUCE,
    }
    known: dict[str, Any] = {"settings": wanted}
    with report_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clear_partials(folder / _DEMO_FILE)
        if (folder / _DEMO_FILE).is_file():
            known = read_json(folder / _DEMO_FILE)
        elif any(folder.iterdir()):
            raise OutputExists(
                f"A demo needs a folder of its own. '{folder}' holds other files.",
                hint="give another --out",
            )
    weights = None if options.weights is None else str(options.weights)
    has_other_weights = weights is not None and known.get("weights", weights) != weights
    if known["settings"] != wanted or has_other_weights:
        raise OutputExists(
            f"A demo is made once. '{folder}' holds one with other settings.",
            hint="give another --out, or delete the folder",
        )
    return known


def _write(folder: Path, known: dict[str, Any]) -> None:
    with report_unwritable(folder):
        write_json(folder / _DEMO_FILE, known)


def _choose_weights(weights: str | Path | None) -> tuple[str, str]:
    """Return the weights to use, and a note if they are not those that people would expect."""
    if weights is not None:
        return str(weights), ""
    try:
        find_backbone(BackboneOptions(IMAGENET, alpha=_ALPHA))
    except WeightsNotFound:
        return BUILTIN, _SUBSTITUTED
    return IMAGENET, ""


def _draw(
    folder: Path, options: DemoOptions, on_event: Callable[[DemoEvent], None]
) -> tuple[SampleSummary, SampleSummary]:
    """Draw actors to learn from, and others to predict; another seed draws other people."""
    learned = SampleSpec(options.n_actors, N_TAKES, DEMO_ACTIONS, seed=options.seed)
    unseen = SampleSpec(options.n_actors // 3, 1, DEMO_ACTIONS, seed=options.seed + 1)
    n_learned = len(DEMO_ACTIONS) * learned.n_actors * learned.n_takes
    n_clips = n_learned + len(DEMO_ACTIONS) * unseen.n_actors

    def draw(name: str, spec: SampleSpec, n_before: int) -> SampleSummary:
        return make_sample(
            folder / name,
            spec,
            on_progress=lambda p: on_event(Progress(n_clips, n_before + p.n_done, 0, None)),
        )

    return draw("videos", learned, 0), draw("unseen", unseen, n_learned)


def _predict(
    folder: Path, unseen: SampleSummary, on_event: Callable[[DemoEvent], None]
) -> list[dict[str, str]]:
    """Predict the unseen clips, once; list the label, prediction and overlay of each."""
    done = folder / "predictions.json"
    if not done.is_file():
        summary = predict_videos(
            _run_folder(folder, DEMO_HEADS[-1]),
            [unseen.folder],
            overlay=folder / "overlays",
            overwrite=True,
            on_progress=on_event,
        )
        found = [
            {
                "path": item.path,
                "label": Path(item.path).parent.name,
                "predicted": item.label,
                "overlay": item.overlay.relative_to(folder).as_posix() if item.overlay else "",
            }
            for item in summary.predictions
        ]
        with report_unwritable(done):
            clear_partials(done)
            write_json(done, found)
    predictions: list[dict[str, str]] = read_json(done)
    return predictions


def _summarise(
    folder: Path,
    known: dict[str, Any],
    comparison: Comparison,
    runs: dict[str, float],
    predictions: list[dict[str, str]],
    samples: tuple[SampleSummary, SampleSummary],
    started: float,
) -> DemoSummary:
    overlays = [item["overlay"] for item in predictions if item["overlay"]]
    telling = [name for name in overlays if "sit-down" in name]
    return DemoSummary(
        folder=str(folder),
        weights=known["weights"],
        weights_note=known["weights_note"],
        n_clips=samples[0].n_clips,
        n_actors=samples[0].spec.n_actors,
        run_accuracies=runs,
        comparison_accuracies={head.name: head.accuracy.mean for head in comparison.heads},
        order=score_order_pairs(folder / "comparison", DEMO_HEADS, seed=known["settings"]["seed"]),
        n_unseen=len(predictions),
        n_unseen_right=sum(item["label"] == item["predicted"] for item in predictions),
        n_unseen_actors=samples[1].spec.n_actors,
        overlay=(telling or overlays or [""])[0],
        seconds=time.perf_counter() - started,
    )
