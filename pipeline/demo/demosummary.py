"""What the demo tells: its steps while it runs, and at the end what it made and found."""

from __future__ import annotations

from dataclasses import dataclass

from features.extract import Progress
from pipeline.compare.compare import TrialProgress
from pipeline.demo.orderpairs import OrderScores
from pipeline.training.options import EpochReport


@dataclass(frozen=True, slots=True)
class DemoStep:
    """Told when a step begins.

    Attributes
    ----------
    number, n_steps : int
    text : str
    """

    number: int
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
        Said where other weights are used than people would expect; else empty.
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
