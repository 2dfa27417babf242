"""The plots of runs and of comparisons, drawn as figures for `save_figure`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from features.records import FloatArray, IntArray
from pipeline.report.figures import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    SECOND,
    new_figure,
    short_label,
    style_axes,
)
from pipeline.scores.labels import random_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.scores.intervals import Score
    from pipeline.scores.metrics import ReliabilityBin
    from pipeline.training.options import EpochReport

# More than this and the counts could not be read.
_MOST_COUNTED_CLASSES = 25
# With more than this, the names below the matrix are set upright.
_MOST_SLANTED_CLASSES = 8


def draw_curves(
    history: Sequence[EpochReport], best_epoch: int, *, accuracy: str = "accuracy"
) -> Figure:
    """Draw loss and accuracy over the epochs, and mark the one whose weights were kept."""
    figure = new_figure(9.0, 3.6)
    epochs = [report.epoch for report in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        train = [getattr(report, name) for report in history]
        val = [getattr(report, f"val_{name}") for report in history]
        marker = "o" if len(history) == 1 else ""
        axes.plot(epochs, train, color=ACCENT, marker=marker, label="train (dropout on)")
        axes.plot(epochs, val, color=SECOND, marker=marker, label="validation")
        axes.axvline(best_epoch, color=MUTED, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(accuracy if name == "accuracy" else name)
        axes.grid(color=GRID, linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if name == "loss":
            axes.set_ylim(0, 1.08 * max(*train, *val, 1e-3))
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        else:
            axes.set_ylim(0, 1.02)
        style_axes(axes)
    return figure


def draw_confusions(confusions: IntArray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix (row: truth, column: prediction) by share of each true class."""
    totals = np.maximum(confusions.sum(axis=1), 1)
    return _draw_matrix(
        confusions,
        totals,
        classes,
        share="share of the true class",
        across="predicted",
        down="true",
    )


def draw_cooccurrences(counts: IntArray, classes: Sequence[str]) -> Figure:
    """Draw how many clips of one class (row) have another one as well (column)."""
    totals = np.maximum(np.diag(counts), 1)
    return _draw_matrix(
        counts,
        totals,
        classes,
        share="share of the row's class",
        across="have as well",
        down="clips of",
    )


def draw_precisions(scores: Mapping[str, tuple[float | None, int]], n_clips: int) -> Figure:
    """Draw the average precision of every class, beside that of a random order.

    `scores` are average precision and number of clips by class; of `n_clips` all.
    """
    figure = new_figure(8.0, 1.3 + 0.28 * len(scores))
    axes = figure.subplots()
    for row, (precision, n_with) in enumerate(scores.values()):
        if precision is None:
            axes.text(0.01, row, "no test clip", va="center", color=MUTED, fontsize=8)
            continue
        axes.barh(row, precision, height=0.62, color=ACCENT, alpha=0.75)
        chance = random_precision(n_clips, n_with)
        axes.plot([chance] * 2, [row - 0.38, row + 0.38], color=SECOND, linewidth=1.6)
        axes.text(1.01, row, f"{100 * precision:.0f} %", va="center", color=INK, fontsize=8)
    axes.set_yticks(range(len(scores)), [short_label(name) for name in scores])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision; the mark is that of a random order")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    style_axes(axes)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    return figure


def _draw_matrix(
    confusions: IntArray,
    totals: IntArray,
    classes: Sequence[str],
    *,
    share: str,
    across: str,
    down: str,
) -> Figure:
    """Draw counts of pairs of classes by their share of the totals of the rows."""
    from matplotlib.colors import LinearSegmentedColormap

    n_classes = len(classes)
    side = float(np.clip(3.0 + 0.42 * n_classes, 4.2, 20.0))
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    shares = confusions / totals[:, np.newaxis]
    # From nothing to the accent colour, so that it suits light pages and dark ones.
    colours = LinearSegmentedColormap.from_list("share", [f"{ACCENT}00", ACCENT])
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=3.2 / side, aspect=16, pad=0.03, label=share)
    size = float(np.clip(220 / n_classes, 6.5, 10))
    labels = [short_label(label) for label in classes]
    is_upright = n_classes > _MOST_SLANTED_CLASSES
    axes.set_xticks(range(n_classes), labels, rotation=90 if is_upright else 45)
    axes.set_yticks(range(n_classes), labels)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    for piece in (axes, bar.ax):
        style_axes(piece)
    for spine in axes.spines.values():
        spine.set_visible(True)
    bar.outline.set_edgecolor(GRID)
    for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        tick.set_parse_math(False)
        tick.set_fontsize(size)
    for tick in axes.get_xticklabels():
        tick.set_horizontalalignment("center" if is_upright else "right")
        tick.set_rotation_mode("default" if is_upright else "anchor")
    if n_classes <= _MOST_COUNTED_CLASSES:
        for row, column in np.argwhere(confusions > 0):
            axes.text(
                column,
                row,
                str(confusions[row, column]),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.55 else INK,
                fontsize=size,
            )
    return figure


def draw_reliability(
    heads: Mapping[str, tuple[Sequence[ReliabilityBin], float]],
    *,
    across: str = "confidence (clip counts on top)",
    up: str = "accuracy",
) -> Figure:
    """Draw how often predictions of each confidence are right: one panel per head, with its ECE."""
    n_columns = min(3, len(heads))
    n_rows = math.ceil(len(heads) / n_columns)
    figure = new_figure(max(3.1 * n_columns, 4.4), 3.2 * n_rows if n_columns > 1 else 4.2)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (name, (bins, error)) in zip(panels, heads.items(), strict=False):
        _fill_reliability(axes, bins)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_title(f"{short_label(name)}: ECE {error:.3f}", fontsize=10)
        style_axes(axes)
    for axes in panels[len(heads) :]:
        axes.set_axis_off()
    return figure


def _fill_reliability(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    for item in bins:
        confidence, accuracy = item.confidence, item.accuracy
        if confidence is None or accuracy is None:
            continue
        width = item.high - item.low
        middle = (item.low + item.high) / 2
        axes.bar(middle, accuracy, width=0.92 * width, color=ACCENT, alpha=0.22)
        axes.plot([confidence, confidence], [confidence, accuracy], color=SECOND, linewidth=1.2)
        axes.plot(confidence, accuracy, "o", color=ACCENT, markersize=4)
        count = str(item.n) if item.n < 1000 else f"{item.n / 1000:.0f}k"
        axes.text(middle, 1.03, count, ha="center", va="bottom", color=MUTED, fontsize=6.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_aspect("equal")


def draw_comparison(scores: Mapping[str, Score], *, measure: str = "accuracy") -> Figure:
    """Draw the accuracies of several heads, best first, with their intervals."""
    figure = new_figure(8.0, 1.8 + 0.45 * len(scores))
    axes = figure.subplots()
    for row, (name, score) in enumerate(scores.items()):
        axes.plot([score.low, score.high], [row, row], color=ACCENT, linewidth=2.5, alpha=0.5)
        axes.plot(score.mean, row, "o", color=ACCENT, markersize=8)
        axes.text(
            1.02,
            row,
            f"{short_label(name)}: {score}",
            va="center",
            color=INK,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_ylim(len(scores) - 0.5, -0.5)
    low = min(score.low for score in scores.values())
    axes.set_xlim(max(0.0, low - 0.05), 1.01)
    axes.set_xlabel(f"{measure} on clips of unseen groups, with its 95 % interval")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    style_axes(axes)
    axes.set_yticks([])
    return figure


def draw_latency(heads: Sequence[tuple[str, Score, float]], *, measure: str = "accuracy") -> Figure:
    """Draw accuracy against milliseconds per clip, with the names in a column of their own."""
    figure = new_figure(8.6, max(3.6, 1.0 + 0.26 * len(heads)))
    axes, names = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    # Best last; where heads are equal, the first of them comes last.
    ordered = sorted(heads, key=lambda head: head[1].mean, reverse=True)[::-1]
    low = min(score.low for _, score, _ in ordered)
    bottom, top = max(0.0, low - 0.05), 1.02
    axes.set_ylim(bottom, top)
    rows = spread_heights([score.mean for _, score, _ in ordered], bottom, top)
    _scale_milliseconds(axes, [milliseconds for *_, milliseconds in ordered])
    right = axes.get_xlim()[1]
    for (name, score, milliseconds), row in zip(ordered, rows, strict=True):
        axes.plot([milliseconds] * 2, [score.low, score.high], color=ACCENT, alpha=0.3, linewidth=2)
        axes.plot([milliseconds, right], [score.mean, row], color=GRID, linewidth=0.8, zorder=0)
        axes.plot(milliseconds, score.mean, "o", color=ACCENT, markersize=6)
        names.text(0, row, short_label(name), va="center", color=INK, fontsize=9, parse_math=False)
    axes.set_xlabel("milliseconds per clip, from stored embeddings (log scale)")
    axes.set_ylabel(f"{measure}, with its 95 % interval")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    style_axes(axes)
    names.set_axis_off()
    return figure


def spread_heights(wanted: Sequence[float], bottom: float, top: float) -> FloatArray:
    """Move the heights of labels, given lowest first, apart until the labels do not touch."""
    margin = 0.03 * (top - bottom)
    gap = min(0.062 * (top - bottom), (top - bottom - 2 * margin) / max(len(wanted) - 1, 1))
    steps = gap * np.arange(len(wanted))
    # Less one gap per label, the heights only have to be non-decreasing.
    lifted = np.maximum.accumulate(np.asarray(wanted) - steps) + steps
    lowered: FloatArray = np.minimum(lifted, (top - margin) - steps[::-1])
    return lowered


def _scale_milliseconds(axes: Axes, milliseconds: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(min(milliseconds) / 1.6, max(milliseconds) * 1.6)
    plain: Any = FuncFormatter(lambda value, position: f"{value:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
