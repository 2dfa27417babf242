"""Pictures: drawn whatever the classes are called, and plain about leaks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import figures, plots
from pipeline.report.plots import (
    Caption,
    draw_comparison,
    draw_confusions,
    draw_curves,
    draw_latency,
    draw_reliability,
)
from pipeline.scores.intervals import Score
from pipeline.scores.metrics import reliability_bins
from pipeline.training.options import EpochReport

figure_module = pytest.importorskip("matplotlib.figure")

CAPTION = Caption("lstm: accuracy 75.0 % [50.0, 90.0], 24 test clips", leaks=False)


def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect every text of the figures that are saved from now on."""
    texts: list[str] = []
    save = figure_module.Figure.savefig

    def spy(figure: object, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        if options.get("format") == "svg":  # the same once more
            return
        found = figure.findobj(lambda artist: hasattr(artist, "get_text"))  # type: ignore[attr-defined]
        texts.extend(artist.get_text() for artist in found)

    monkeypatch.setattr(figure_module.Figure, "savefig", spy)
    return texts


@pytest.mark.parametrize("n_epochs", [1, 30])
def test_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_epochs: int) -> None:
    texts = drawn_texts(monkeypatch)
    history = [EpochReport(i, 1 / i, 0.5, 1.5 / i, 0.4) for i in range(1, n_epochs + 1)]
    draw_curves(tmp_path / "c.png", history, n_epochs, CAPTION)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "lstm: accuracy 75.0 % [50.0, 90.0], 24 test clips" in texts
    assert f"kept: epoch {n_epochs}" in texts
    assert not any("LEAKY" in text for text in texts)


def test_leaks_stand_in_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    draw_confusions(tmp_path / "c.png", np.eye(2, dtype=int), "ab", Caption("x", leaks=True))
    scores = [("lstm", Score(0.9, 0.8, 1.0, 5))]
    draw_comparison(tmp_path / "d.png", scores, Caption("5 clips", leaks=True))
    assert sum(text.startswith("LEAKY: ") for text in texts) == 2
    assert "lstm: 90.0 % [80.0, 100.0]" in texts


@pytest.mark.parametrize(("n_classes", "has_counts"), [(3, True), (25, True), (101, False)])
def test_counts_are_written_where_they_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_classes: int, has_counts: bool
) -> None:
    texts = drawn_texts(monkeypatch)
    classes = [f"Class{i}" for i in range(n_classes)]
    table = np.diag(np.arange(n_classes) + 1000)
    draw_confusions(tmp_path / "c.png", table, classes, CAPTION)
    assert ("1001" in texts) == has_counts
    assert "Class0" in texts


def test_any_class_name_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    classes = ["$x^2", "動作クリップ", "odd\udcff", "very long name of a class " * 3]
    draw_confusions(tmp_path / "c.png", np.eye(4, dtype=int), classes, CAPTION)
    assert "$x^2" in texts
    assert r"odd\udcff" in texts
    assert max(len(text) for text in texts if text.startswith("very")) == figures._LONGEST_LABEL


def test_wide_letters_count_twice() -> None:
    assert figures.short_label("動作クリップ", 12) == "動作クリップ"
    assert figures.short_label("動作クリップ", 8) == "動作ク…"


def test_svg_is_fit_for_a_page(tmp_path: Path) -> None:
    classes = ["<script>alert(1)</script>", "a & b", "動作", "odd\udcff"]
    svg = draw_confusions(tmp_path / "c.png", np.eye(4, dtype=int), classes, CAPTION)
    root = ElementTree.fromstring(svg)
    texts = {element.text for element in root.iter("text")}
    assert {"<script>alert(1)</script>", "a & b", "動作", r"odd\udcff"} <= texts
    assert "<script" not in svg
    assert CAPTION.text not in svg
    for element in root.iter():
        assert element.tag != "style"
        assert element.get("href", "#").startswith(("#", "data:"))
    assert "var(--ink)" in svg
    assert figures.INK not in svg


def test_reliability_shows_every_filled_bin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = drawn_texts(monkeypatch)
    confidence = [0.55] * 3 + [0.95] * 1200
    bins = reliability_bins(confidence, [True] * len(confidence))
    heads = {f"head{i}": (bins, 0.125) for i in range(5)}
    draw_reliability(tmp_path / "r.png", heads, CAPTION)
    assert texts.count("3") == texts.count("1k") == len(heads)
    assert "head4: ECE 0.125" in texts


@pytest.mark.parametrize("n_heads", [1, 2, 20])
@pytest.mark.parametrize("is_tied", [False, True])
def test_names_beside_latencies_do_not_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_heads: int, is_tied: bool
) -> None:
    boxes: list[tuple[float, float]] = []
    save = figure_module.Figure.savefig

    def spy(figure: object, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        names = figure.axes[1].texts  # type: ignore[attr-defined]
        extents = [name.get_window_extent() for name in names]
        boxes[:] = sorted((box.y0, box.y1) for box in extents)

    monkeypatch.setattr(figure_module.Figure, "savefig", spy)
    rng = np.random.default_rng(1)
    heads = []
    for number in range(n_heads):
        mean = 1.0 if is_tied else 0.98 + 0.01 * rng.random()
        heads.append((f"head{number}", Score(mean, 0.5, 1.0, 9), float(rng.lognormal())))
    draw_latency(tmp_path / "l.png", heads, CAPTION)
    assert len(boxes) == n_heads
    assert all(lower[1] <= upper[0] for lower, upper in pairwise(boxes))


@given(st.lists(st.floats(0.5, 1), min_size=1, max_size=20))
def test_spread_heights_keep_their_order_and_stay_inside(wanted: list[float]) -> None:
    rows = plots._spread(sorted(wanted), 0.45, 1.02)
    assert rows.min() >= 0.45 - 1e-9
    assert rows.max() <= 1.02 + 1e-9
    assert (np.diff(rows) > 0.02).all()
