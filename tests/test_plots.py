"""Pictures: drawn whatever the classes are called, and plain about leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import plots
from pipeline.fitting import EpochReport
from pipeline.metrics import Score
from pipeline.plots import draw_comparison, draw_confusions, draw_curves
from pipeline.runs import RunSummary

figure_module = pytest.importorskip("matplotlib.figure")


def make_summary(*, leaks: bool = False) -> RunSummary:
    return RunSummary(
        "run", "lstm", 0.75, 0.5, 0.9, 0.7, 0.7, 40, 10, 24, 0, 0, leaks, True, 9, 5, 1.0
    )


def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect every text of the figures that are saved from now on."""
    texts: list[str] = []
    save = figure_module.Figure.savefig

    def spy(figure: object, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        found = figure.findobj(lambda artist: hasattr(artist, "get_text"))  # type: ignore[attr-defined]
        texts.extend(artist.get_text() for artist in found)

    monkeypatch.setattr(figure_module.Figure, "savefig", spy)
    return texts


@pytest.mark.parametrize("n_epochs", [1, 30])
def test_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_epochs: int) -> None:
    texts = drawn_texts(monkeypatch)
    history = [EpochReport(i, 1 / i, 0.5, 1.5 / i, 0.4) for i in range(1, n_epochs + 1)]
    draw_curves(tmp_path / "c.png", history, n_epochs, make_summary())
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "lstm: accuracy 75.0 % [50.0, 90.0], 24 test clips" in texts
    assert f"kept: epoch {n_epochs}" in texts
    assert not any("LEAKY" in text for text in texts)


def test_leaks_stand_in_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    draw_confusions(tmp_path / "c.png", np.eye(2, dtype=int), "ab", make_summary(leaks=True))
    draw_comparison(
        tmp_path / "d.png", [("lstm", Score(0.9, 0.8, 1.0, 5))], subtitle="5 clips", leaks=True
    )
    assert sum(text.startswith("LEAKY: ") for text in texts) == 2
    assert "lstm: 90.0 % [80.0, 100.0]" in texts


@pytest.mark.parametrize(("n_classes", "has_counts"), [(3, True), (25, True), (101, False)])
def test_counts_are_written_where_they_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_classes: int, has_counts: bool
) -> None:
    texts = drawn_texts(monkeypatch)
    classes = [f"Class{i}" for i in range(n_classes)]
    table = np.diag(np.arange(n_classes) + 1000)
    draw_confusions(tmp_path / "c.png", table, classes, make_summary())
    assert ("1001" in texts) == has_counts
    assert "Class0" in texts


def test_any_class_name_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    classes = ["$x^2", "動作クリップ", "odd\udcff", "very long name of a class " * 3]
    draw_confusions(tmp_path / "c.png", np.eye(4, dtype=int), classes, make_summary())
    assert "$x^2" in texts
    assert "odd\ufffd" in texts
    assert max(len(text) for text in texts if text.startswith("very")) == plots._LONGEST_LABEL
