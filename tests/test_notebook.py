"""The notebook: clean as it lies in the repository, and run whole in a real kernel."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from conftest import TINY_BACKBONE

from pipeline import FitOptions, read_run, train_head
from pipeline.runs.run import read_predictions

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "framehead.ipynb"
HEADINGS = (
    "Data preparation",
    "Training",
    "Evaluation",
    "Curves",
    "Example predictions on test videos",
    "Custom data sets",
    "use inside larger programs",
)
# In the kernel as here: a warning from our own code is an error. Elsewhere IPython and
# Matplotlib may warn as they like.
STRICT = 'import warnings\nwarnings.filterwarnings("error", module=r"(features|pipeline)\\.")\n'


def read_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def parameter_cell(notebook: Any) -> Any:
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    return cell


def test_it_is_valid_and_stored_without_outputs() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_it_has_the_headings_that_readers_of_such_notebooks_look_for() -> None:
    markdown = [cell.source for cell in read_notebook().cells if cell.cell_type == "markdown"]
    titles = [line for text in markdown for line in text.splitlines() if line.startswith("#")]
    for heading in HEADINGS:
        assert any(heading in title for title in titles), heading


def collect(notebook: Any) -> tuple[str, list[bytes]]:
    """Return all printed text and all pictures."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    texts = [out.text for out in outputs if out.output_type == "stream"]
    coded = [out.data["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    return "".join(texts), [base64.b64decode(text) for text in coded]


# The client's own warnings, such as of sockets that it leaves open, are not ours.
@pytest.mark.filterwarnings("default")
def test_it_runs_and_shows_what_the_library_returns(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    small = {
        "WEIGHTS": str(tiny_weights),
        "ALPHA": TINY_BACKBONE.alpha,
        "IMAGE_SIZE": TINY_BACKBONE.size_px,
        "FRAMES": 5,
        "HEADS": ["mean-linear", "lstm"],
        "EPOCHS": 3,
        "FOLDS": 2,
        "ACTORS": 5,
        "ACTIONS": ("wave", "squat"),
    }
    notebook = read_notebook()
    cell = parameter_cell(notebook)
    for name in small:
        assert f"\n{name} = " in cell.source, f"{name} is no parameter of the notebook"
    lines = [f"{name} = {value!r}" for name, value in small.items()]
    cell.source = "\n".join([STRICT, cell.source, *lines])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=400, resources=resources).execute()

    text, pictures = collect(notebook)
    work = tmp_path / "framehead-work"
    fit = FitOptions(epochs=3)
    again = train_head(work / "embeddings.h5", work / "runs" / "lstm", head="lstm", fit=fit)
    assert not again.is_new  # the notebook's own run, as the library reads it
    shown = f"accuracy {again.accuracy:.1%} (95 % interval {again.low:.1%} to {again.high:.1%})"
    assert f"\n{shown}\n" in f"\n{text}"
    rows = read_predictions(read_run(again.path))
    assert sum(row["label"] == row["predicted"] for row in rows) == round(
        again.accuracy * len(rows)
    )
    for row in rows[:8]:
        assert f"{row['clip_id']:40} {row['label']:12} -> {row['predicted']:12}" in text
    assert "10 embedded, 0 were there already" in text
    # Curves, confusions, reliability, comparison, and the predictions on test videos.
    assert len(pictures) == 5
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
