"""The demo: every step of the project on drawn clips, by the functions that the commands call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from features.backbone.weights import BUILTIN, IMAGENET, find_backbone
from features.errors import OptionInvalid, OutputExists, WeightsNotFound
from features.extract import Progress, extract_features
from pipeline.compare.compare import compare_heads
from pipeline.compare.comparison import Comparison
from pipeline.demo.demosummary import DemoEvent, DemoStep, DemoSummary
from pipeline.demo.drawing.sample import SampleSummary, make_sample
from pipeline.demo.orderpairs import OrderScores, score_order_pairs
from pipeline.runs.outputs import read_json, report_unwritable, write_json
from pipeline.runs.predict import predict_videos
from pipeline.training.train import train_head

DEMO_FILE = "demo.json"
# Four whose frames tell them apart, and two pairs that only the order of frames does.
DEMO_ACTIONS = ("walk", "wave", "squat", "bow", "sit-down", "stand-up", "pick-up", "put-down")
# The second sees how frames differ from their clip's mean: places and people are drawn at
# random, so that what stays the same throughout a clip tells nothing of the action.
DEMO_HEADS = ("mean-linear", "lstm:centred")
DEFAULT_ACTORS = 12
# The narrowest MobileNetV2, three times as quick as the full one: this is a demonstration.
_ALPHA = 0.35
# Of a weights file of one's own; the named weights have sizes of their own.
_SIZE_PX = 96
_LEAST_ACTORS = 3
# Fewer numbers than clips to learn from.
DEMO_REDUCE = "pca:64"
# Of those who are learned from; every action then has a few dozen clips.
N_TAKES = 4
_FOLDS = 3
_SEEDS = 1
_SUBSTITUTED = (
    "The ImageNet weights are not in Keras' cache and cannot be downloaded here. The demo goes on "
    "with the small weights that come with framehead; those were trained on drawings, and on "
    "real video ImageNet's are better. No other command chooses for you."
)


def run_demo(
    out: str | Path,
    *,
    weights: str | Path | None = None,
    n_actors: int = DEFAULT_ACTORS,
    seed: int = 0,
    on_event: Callable[[DemoEvent], None] = lambda event: None,
) -> DemoSummary:
    """Draw clips, embed them, train, compare, and predict actors never seen.

    A demo that was interrupted goes on where it was; one that is finished is only told again.

    Parameters
    ----------
    out : str or Path
        Folder for everything.
    weights : str or Path, optional
        "imagenet", "builtin" or a Keras file made with alpha 0.35 and ``include_top=False``.
        By default "imagenet" if Keras has them or can get them, else "builtin".
    n_actors : int, default 12
        At least 3. A third as many are drawn into another folder, to be predicted only.
    seed : int, default 0
        Of the drawings, the splits and the training.
    on_event : callable, optional
        Called with a `DemoStep` when a step begins, and with its progress.

    Returns
    -------
    DemoSummary

    Raises
    ------
    OptionInvalid
        If there are too few actors.
    OutputExists
        If the folder holds something else, or a demo with other settings.
    FrameHeadError
        Whatever the steps raise.
    """
    started = time.perf_counter()
    folder = Path(out)
    if n_actors < _LEAST_ACTORS:
        raise OptionInvalid(
            f"The demo needs at least {_LEAST_ACTORS} actors, for groups that train, validate and "
            f"test. Received: {n_actors}."
        )
    wanted = {
        "n_actors": n_actors,
        "seed": seed,
        "heads": list(DEMO_HEADS),
        "reduce": DEMO_REDUCE,
    }
    known = _claim(folder, wanted, None if weights is None else str(weights))
    if known.get("summary"):
        order = OrderScores(**known["summary"].pop("order"))
        # The folder may have been moved meanwhile.
        told = {**known["summary"], "folder": str(folder), "is_new": False}
        return DemoSummary(**told, order=order)
    number = 0

    def begin(text: str) -> None:
        nonlocal number
        number += 1
        on_event(DemoStep(number, 7, text))

    begin("finding the weights of the backbone")
    chosen, note = known.get("weights"), known.get("weights_note", "")
    if chosen is None:
        chosen, note = _choose_weights(weights)
        known |= {"weights": chosen, "weights_note": note}
        _write(folder, known)
    if note:
        on_event(DemoStep(number, 7, note))
    begin("drawing clips of actors to learn from, and of others to predict")
    sample, unseen = _draw(folder, n_actors, seed, on_event)
    begin(f"embedding {sample.n_clips} clips")
    extract_features(
        sample.folder,
        folder / "embeddings.h5",
        labels=sample.csv_path,
        weights=chosen,
        alpha=_ALPHA,
        size_px=None if chosen in (IMAGENET, BUILTIN) else _SIZE_PX,
        on_progress=on_event,
    )
    runs = {}
    for head in DEMO_HEADS:
        begin(f"training {head}")
        runs[head] = train_head(
            folder / "embeddings.h5",
            folder / "runs" / run_name(head),
            head=head,
            reduce=DEMO_REDUCE,
            seed=seed,
            on_epoch=on_event,
        ).accuracy
    begin(f"comparing {' and '.join(DEMO_HEADS)}, every actor tested once")
    comparison = compare_heads(
        folder / "embeddings.h5",
        folder / "comparison",
        heads=DEMO_HEADS,
        reduce=DEMO_REDUCE,
        seeds=_SEEDS,
        folds=_FOLDS,
        seed=seed,
        on_trial=on_event,
    )
    begin(f"predicting {unseen.n_clips} clips of actors never seen, and drawing the predictions")
    predictions = _predict(folder, unseen, on_event)
    summary = _summarise(folder, known, comparison, runs, predictions, (sample, unseen), started)
    _write(folder, {**known, "summary": asdict(summary)})
    return summary


def run_name(head: str) -> str:
    """Return what the demo calls the run of a head; colons are not for file names."""
    return head.partition(":")[0]


def _claim(folder: Path, wanted: dict[str, Any], weights: str | None) -> dict[str, Any]:
    """Make the folder this demo's, or read what an earlier attempt left."""
    known: dict[str, Any] = {"settings": wanted}
    with report_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / DEMO_FILE).is_file():
            known = read_json(folder / DEMO_FILE)
        elif any(folder.iterdir()):
            raise OutputExists(
                f"A demo needs a folder of its own. '{folder}' holds other files.",
                hint="give another --out",
            )
    has_other_weights = weights is not None and known.get("weights", weights) != weights
    if known["settings"] != wanted or has_other_weights:
        raise OutputExists(
            f"A demo is made once. '{folder}' holds one with other settings.",
            hint="give another --out, or delete the folder",
        )
    return known


def _write(folder: Path, known: dict[str, Any]) -> None:
    with report_unwritable(folder):
        write_json(folder / DEMO_FILE, known)


def _choose_weights(weights: str | Path | None) -> tuple[str, str]:
    if weights is not None:
        return str(weights), ""
    try:
        find_backbone(IMAGENET, alpha=_ALPHA)
    except WeightsNotFound:
        return BUILTIN, _SUBSTITUTED
    return IMAGENET, ""


def _draw(
    folder: Path, n_actors: int, seed: int, on_event: Callable[[DemoEvent], None]
) -> tuple[SampleSummary, SampleSummary]:
    n_unseen = n_actors // 3
    n_clips = len(DEMO_ACTIONS) * (N_TAKES * n_actors + n_unseen)

    def draw(name: str, n_people: int, n_takes: int, people: int, n_before: int) -> SampleSummary:
        return make_sample(
            folder / name,
            n_actors=n_people,
            n_takes=n_takes,
            actions=DEMO_ACTIONS,
            seed=people,
            on_progress=lambda p: on_event(Progress(n_clips, n_before + p.n_done, 0, None)),
        )

    # Another seed draws other people.
    sample = draw("videos", n_actors, N_TAKES, seed, 0)
    return sample, draw("unseen", n_unseen, 1, seed + 1, sample.n_clips)


def _predict(
    folder: Path, unseen: SampleSummary, on_event: Callable[[DemoEvent], None]
) -> list[dict[str, str]]:
    """Predict the unseen clips, once; tell each one's label, prediction and overlay."""
    done = folder / "predictions.json"
    if not done.is_file():
        summary = predict_videos(
            folder / "runs" / run_name(DEMO_HEADS[-1]),
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
            write_json(done, found)
    predictions: list[dict[str, str]] = json.loads(done.read_text(encoding="ascii"))
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
