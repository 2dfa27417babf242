"""How a head is trained, and how training went."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from features.errors import OptionInvalid

ClassWeights = Literal["none", "balanced"]
Refit = Literal["auto", "always", "never"]
Calibration = Literal["validation", "cross"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How one epoch went.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float
        Means over the training part while it was learned (dropout on), clips weighed as
        `FitOptions.class_weights` says.
    val_loss, val_accuracy : float
        Over the validation part after the epoch; the loss weighed alike, the accuracy not.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a head is trained.

    Attributes
    ----------
    epochs : int, default 100
        Maximum number of epochs. At least 1; early stopping usually ends sooner.
    patience : int, default 12
        Stop after this many epochs in which the validation loss has not fallen by 0.01. At
        least 1.
    batch_size : int, optional
        Clips per training step. At least 1. By default a twentieth of the training clips, 16 to 64.
    learning_rate : float, optional
        Learning rate of AdamW. Above 0. By default the head's own.
    class_weights : {"none", "balanced"}, default "none"
        With balanced, every class weighs the same, however many clips it has.
    refit : {"auto", "always", "never"}, default "auto"
        Whether to train once more, on the training and validation clips together, for as many
        epochs as the validation part found best. With auto only if the validation part shows that
        something was learned.
    ensemble : int, default 1
        Number of heads to train from different seeds; the head is the mean of their
        probabilities. At least 1.
    calibration : {"validation", "cross"}, default "validation"
        Which clips say how far probabilities can be believed: those of the validation part, or all
        that are trained on. With cross, every group is held out once, in five further trainings;
        small data needs this for prediction sets.

    Raises
    ------
    OptionInvalid
        If a value is out of range.
    """

    epochs: int = 100
    patience: int = 12
    batch_size: int | None = None
    learning_rate: float | None = None
    class_weights: ClassWeights = "none"
    refit: Refit = "auto"
    ensemble: int = field(default=1, metadata={"metavar": "N"})
    calibration: Calibration = "validation"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size", "patience", "ensemble"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise OptionInvalid(f"--{option} must be at least 1. Got {value}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise OptionInvalid(f"--learning-rate must be above 0. Got {self.learning_rate}.")
        if self.class_weights not in ("none", "balanced"):
            raise OptionInvalid(
                f"--class-weights must be none or balanced. Got '{self.class_weights}'."
            )
        for name, choices in (("refit", get_args(Refit)), ("calibration", get_args(Calibration))):
            if (value := getattr(self, name)) not in choices:
                raise OptionInvalid(f"--{name} must be one of {', '.join(choices)}. Got '{value}'.")
