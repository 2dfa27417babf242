"""What a user may say about a head: its name with its input, and its options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from features.errors import OptionInvalid

HeadInput = Literal["appearance", "motion", "both", "centred"]
Aggregate = Literal["mean", "max", "vote"]

INPUTS: tuple[HeadInput, ...] = get_args(HeadInput)
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What a user may change about a head.

    Attributes
    ----------
    units : int, optional
        Width of the hidden layer, at least 1; by default the head's own. Ignored by heads
        that have none.
    dropout : float, optional
        Share of values dropped in training, in [0, 1); by default the head's own.
    reduce : str, optional
        "pca:N": reduce embeddings to their N strongest principal components, N at least 1,
        fitted on the training part.
    window : int, optional
        Frames per window, at least 1: the head sees windows of a clip, not the whole clip.
    aggregate : {"mean", "max", "vote"}, default "mean"
        How the windows of a clip make one answer: the mean of their probabilities, the
        largest probability of each class, or the share of windows that name it.
    """

    units: int | None = None
    dropout: float | None = None
    reduce: str | None = None
    window: int | None = None
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("units", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionInvalid(f"--{name} must be at least 1. Received: {value}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionInvalid(f"--dropout must be in [0, 1). Received: {self.dropout}.")
        if self.reduce is not None and re.fullmatch(r"pca:[1-9][0-9]*", self.reduce) is None:
            raise OptionInvalid(
                "--reduce must be pca:N, N being the components to keep, at least 1. "
                f"Received: '{self.reduce}'.",
                hint="--reduce pca:256",
            )
        if self.aggregate not in AGGREGATES:
            raise OptionInvalid(
                f"--aggregate must be one of {', '.join(AGGREGATES)}. Received: '{self.aggregate}'."
            )
        if self.aggregate != "mean" and self.window is None:
            raise OptionInvalid(
                "--aggregate says how windows make one answer. Received: "
                f"--aggregate {self.aggregate} without --window.",
                hint="give --window FRAMES as well, or leave --aggregate out",
            )

    @property
    def n_components(self) -> int | None:
        """Principal components to keep, or None for all dimensions."""
        return None if self.reduce is None else int(self.reduce.partition(":")[2])
