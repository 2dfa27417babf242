"""Pictures of a run and of a comparison, as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.records import IntArray
from pipeline.metrics import Score
from pipeline.runs import RunSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.fitting import EpochReport

_TRAIN, _VAL, _MARK, _ALARM = "#1f77b4", "#ff7f0e", "#555555", "#c00000"
_DPI = 120
# More than this and the counts could not be read.
_MOST_COUNTED_CLASSES = 25
_LONGEST_LABEL = 28


def draw_curves(
    path: Path, history: Sequence[EpochReport], best_epoch: int, summary: RunSummary
) -> None:
    """Draw loss and accuracy over the epochs.

    Parameters
    ----------
    path : Path
        PNG file.
    history : sequence of EpochReport
        At least one.
    best_epoch : int
        From 1; marked, as its weights were kept.
    summary : RunSummary
        For the title.
    """
    figure = _new_figure(9.0, 4.0)
    epochs = [report.epoch for report in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        train = [getattr(report, name) for report in history]
        val = [getattr(report, f"val_{name}") for report in history]
        marker = "o" if len(history) == 1 else ""
        axes.plot(epochs, train, color=_TRAIN, marker=marker, label="train (dropout on)")
        axes.plot(epochs, val, color=_VAL, marker=marker, label="validation")
        axes.axvline(best_epoch, color=_MARK, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if name == "loss":
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False)
        else:
            axes.set_ylim(0, 1.02)
    _set_title(figure, _run_title(summary), leaks=summary.leaks)
    _save(figure, path)


def draw_confusions(
    path: Path, confusions: IntArray, classes: Sequence[str], summary: RunSummary
) -> None:
    """Draw a confusion matrix, coloured by share of each true class.

    Parameters
    ----------
    path : Path
        PNG file.
    confusions : ndarray of int64, shape (n_classes, n_classes)
        Row: truth. Column: prediction.
    classes : sequence of str
    summary : RunSummary
        For the title.
    """
    n_classes = len(classes)
    side = float(np.clip(3.0 + 0.42 * n_classes, 5.0, 20.0))
    figure = _new_figure(side + 1.2, side)
    axes = figure.subplots()
    shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04, label="share of the true class")
    size = float(np.clip(220 / n_classes, 4, 10))
    labels = [_printable(label, _LONGEST_LABEL) for label in classes]
    axes.set_xticks(range(n_classes), labels, rotation=90 if n_classes > 8 else 45, fontsize=size)
    axes.set_yticks(range(n_classes), labels, fontsize=size)
    for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        tick.set_parse_math(False)
    for tick in axes.get_xticklabels():
        tick.set_horizontalalignment("center" if n_classes > 8 else "right")
        tick.set_rotation_mode("default" if n_classes > 8 else "anchor")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if n_classes <= _MOST_COUNTED_CLASSES:
        for row, column in np.argwhere(confusions > 0):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(
                column,
                row,
                str(confusions[row, column]),
                ha="center",
                va="center",
                color=colour,
                fontsize=size,
            )
    _set_title(figure, _run_title(summary), leaks=summary.leaks)
    _save(figure, path)


def draw_comparison(
    path: Path, scores: Sequence[tuple[str, Score]], *, subtitle: str, leaks: bool
) -> None:
    """Draw the accuracies of several heads with their intervals.

    Parameters
    ----------
    path : Path
        PNG file.
    scores : sequence of (str, Score)
        Head and accuracy, best first.
    subtitle : str
        What was compared.
    leaks : bool
    """
    figure = _new_figure(8.0, 1.8 + 0.45 * len(scores))
    axes = figure.subplots()
    for row, (name, score) in enumerate(scores):
        axes.plot([score.low, score.high], [row, row], color=_TRAIN, linewidth=2.5, alpha=0.6)
        axes.plot(score.mean, row, "o", color=_TRAIN, markersize=8)
        axes.text(1.02, row, f"{name}: {score}", va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks([])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    low = min(score.low for _, score in scores)
    axes.set_xlim(max(0.0, low - 0.05), 1.01)
    axes.set_xlabel("accuracy on clips of unseen groups, with its 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    _set_title(figure, subtitle, leaks=leaks)
    _save(figure, path)


def _new_figure(width_inches: float, height_inches: float) -> Figure:
    # A figure of its own, not pyplot's: no window system, no state shared between callers.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _run_title(summary: RunSummary) -> str:
    interval = f"[{100 * summary.low:.1f}, {100 * summary.high:.1f}]"
    return (
        f"{summary.head}: accuracy {100 * summary.accuracy:.1f} % {interval}, "
        f"{summary.n_test} test clips"
    )


def _set_title(figure: Figure, text: str, *, leaks: bool) -> None:
    warning = "LEAKY: groups stand on both sides of the split\n" if leaks else ""
    title = figure.suptitle(warning + text, fontsize=11, color=_ALARM if leaks else "black")
    title.set_parse_math(False)


def _printable(text: str, most: int) -> str:
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    metadata: dict[str, Any] = {"Software": "framehead"}
    with warnings.catch_warnings():
        # The font that comes with Matplotlib lacks some scripts; it draws boxes instead.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(path, dpi=_DPI, metadata=metadata)
