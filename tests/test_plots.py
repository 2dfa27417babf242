"""Plots: drawn whatever the classes are called, and plain about leaks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.report.figures import save_figure, short_label
from pipeline.report.plots import (
    draw_comparison,
    draw_confusions,
    draw_curves,
    draw_latency,
    draw_reliability,
    spread_heights,
)
from pipeline.scores.intervals import Score
from pipeline.scores.metrics import reliability_bins
from pipeline.training.options import EpochReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "lstm: accuracy 75.0 % [50.0, 90.0], 24 test clips"


def texts_of(figure: Figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("n_epochs", [1, 30])
def test_curves(n_epochs: int) -> None:
    history = [EpochReport(i, 1 / i, 0.5, 1.5 / i, 0.4) for i in range(1, n_epochs + 1)]
    assert f"kept: epoch {n_epochs}" in texts_of(draw_curves(history, n_epochs))


@pytest.mark.parametrize("leaks", [False, True])
def test_leaks_stand_in_the_title(tmp_path: Path, leaks: bool) -> None:
    figure = draw_comparison({"lstm": Score(0.9, 0.8, 1.0, 5)})
    assert "lstm: 90.0 % [80.0, 100.0]" in texts_of(figure)
    save_figure(figure, tmp_path / "c.png", title=TITLE, leaks=leaks)
    [title] = [text for text in texts_of(figure) if text.endswith(TITLE)]
    assert title.startswith("LEAKY: ") == leaks
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert ((192, 0, 0) in [colour for _, colour in colours]) == leaks


@pytest.mark.parametrize(("n_classes", "has_counts"), [(3, True), (25, True), (101, False)])
def test_counts_are_written_where_they_can_be_read(n_classes: int, has_counts: bool) -> None:
    classes = [f"Class{i}" for i in range(n_classes)]
    texts = texts_of(draw_confusions(np.diag(np.arange(n_classes) + 1000), classes))
    assert ("1001" in texts) == has_counts
    assert "Class0" in texts


def test_labels_are_printable_and_short() -> None:
    assert short_label("odd\udcff") == r"odd\udcff"
    long = short_label("very long name of a class " * 3)
    assert long.startswith("very long name")
    assert long.endswith("…")
    assert len(long) < 30
    # Wide letters count twice.
    assert short_label("動作クリップ", 12) == "動作クリップ"
    assert short_label("動作クリップ", 8) == "動作ク…"


def test_svg_is_fit_for_a_page(tmp_path: Path) -> None:
    classes = ["<script>alert(1)</script>", "a & b", "$x^2$", "動作", "odd\udcff"]
    figure = draw_confusions(np.eye(5, dtype=int), classes)
    svg = save_figure(figure, tmp_path / "c.png", title=TITLE, leaks=False)
    root = ElementTree.fromstring(svg)
    texts = {element.text for element in root.iter("text")}
    assert {"<script>alert(1)</script>", "a & b", "$x^2$", "動作", r"odd\udcff"} <= texts
    assert "<script" not in svg
    assert TITLE not in svg
    for element in root.iter():
        assert element.tag != "style"
        assert element.get("href", "#").startswith(("#", "data:"))
    assert "var(--ink)" in svg
    assert "#1d2433" not in svg


def test_reliability_shows_every_filled_bin() -> None:
    confidence = [0.55] * 3 + [0.95] * 1200
    bins = reliability_bins(confidence, [True] * len(confidence))
    heads = {f"head{i}": (bins, 0.125) for i in range(5)}
    texts = texts_of(draw_reliability(heads))
    assert texts.count("3") == texts.count("1k") == len(heads)
    assert "head4: ECE 0.125" in texts


@pytest.mark.parametrize("n_heads", [1, 2, 20])
@pytest.mark.parametrize("is_tied", [False, True])
def test_names_beside_latencies_do_not_overlap(n_heads: int, is_tied: bool) -> None:
    rng = np.random.default_rng(1)
    heads = []
    for number in range(n_heads):
        mean = 1.0 if is_tied else 0.98 + 0.01 * rng.random()
        heads.append((f"head{number}", Score(mean, 0.5, 1.0, 9), float(rng.lognormal())))
    figure = draw_latency(heads)
    figure.draw_without_rendering()
    extents = [name.get_window_extent() for name in figure.axes[1].texts]
    boxes = sorted((box.y0, box.y1) for box in extents)
    assert len(boxes) == n_heads
    assert all(lower[1] <= upper[0] for lower, upper in pairwise(boxes))


@given(st.lists(st.floats(0.5, 1), min_size=1, max_size=20))
def test_spread_heights_keep_their_order_and_stay_inside(wanted: list[float]) -> None:
    rows = spread_heights(sorted(wanted), 0.45, 1.02)
    assert rows.min() >= 0.45 - 1e-9
    assert rows.max() <= 1.02 + 1e-9
    assert (np.diff(rows) > 0.02).all()
