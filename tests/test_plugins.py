"""Heads and export formats of the user's own, in files outside the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunCli, tiny_backbone
from stage2_helpers import make_clips, write_store
from test_cli import error_of

from features import choose_sampling, extract_features, open_store, read_embeddings
from features.errors import HeadUnknown
from pipeline import predict_videos, read_run

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--epochs", "2", "--json")

# With a layer of its own, without which its runs cannot be loaded.
OWN_LAYER = '''
import keras
from pipeline import register_head

print("printed by a plug-in")


@keras.saving.register_keras_serializable("own")
class First(keras.layers.Layer):
    def call(self, frames):
        return frames[:, 0]


@register_head("own-first", logits_start="zeros")
def own_first(frames, mask, units, dropout):
    """One frame alone."""
    print("printed by a head")
    return First()(frames)
'''
OWN_HEAD = '''
from pipeline import register_head


@register_head("own-mean", logits_start="zeros")
def own_mean(frames, mask, units, dropout):
    """Mean over frames, whether they are there or not."""
    import keras

    return keras.layers.GlobalAveragePooling1D()(frames)
'''
NEIGHBOUR = "UNITS = 3\n"
PACKAGED_HEAD = '''
from pipeline import register_head
from .neighbour import UNITS


@register_head("own-dense")
def own_dense(frames, mask, units, dropout):
    """A few numbers."""
    import keras

    return keras.layers.Dense(UNITS)(keras.layers.GlobalMaxPooling1D()(frames))
'''
OWN_FORMAT = '''
from pipeline import ExportFormat, register_format


@register_format
class Lines(ExportFormat):
    """One line for each vector."""

    name = "lines"
    suffix = ".txt"

    def write(self, path, blocks, header):
        with path.open("w") as file:
            for block in blocks:
                for clip, vector in zip(block.clips, block.vectors):
                    print(clip.clip_id, *vector, file=file)
'''


def run_process(
    folder: Path, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def store(video_folder: Path, tmp_path: Path, tiny_weights: Path) -> Path:
    extract_features(
        video_folder,
        tmp_path / "s.h5",
        sampling=choose_sampling(n_frames=4),
        backbone=tiny_backbone(tiny_weights),
    )
    return tmp_path / "s.h5"


def test_a_head_from_a_file_trains_and_predicts(
    store: Path, tmp_path: Path, video_folder: Path
) -> None:
    (tmp_path / "own_layer.py").write_text(OWN_LAYER)
    plugin = ("--plugin", "own_layer.py")
    trained = run_process(
        tmp_path, "train-head", store, "--out", "run", "--head", "own-first", *plugin, *QUICK
    )
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["head"] == "own-first"
    assert read_run(tmp_path / "run").head == "own-first"

    clip = video_folder / "jump" / "v_jump_g01_c01.avi"
    predicted = run_process(tmp_path, "predict", "run", clip, *plugin, "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["predictions"][0]["label"] in ("jump", "walk")
    with pytest.raises(HeadUnknown, match=r"has 'own-first'.*--plugin"):
        predict_videos(tmp_path / "run", [clip])  # this process knows no such head


def test_heads_from_files_are_compared_in_worker_processes(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.h5", make_clips())
    (tmp_path / "own_head.py").write_text(OWN_HEAD)
    few = ("--jobs", "1", "--seeds", "1", "--folds", "2")
    compare = ("compare-heads", store, "--out", "compared", *few, *QUICK)
    heads = ("--heads", "mean-linear,own-mean")
    first = run_process(tmp_path, *compare, *heads, "--plugin", "own_head.py")
    assert first.returncode == 0, first.stderr
    names = {head["name"] for head in json.loads(first.stdout)["heads"]}
    assert names == {"mean-linear", "own-mean"}
    # One of a package joins them, this time without the option.
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "own_package" / "heads.py").write_text(PACKAGED_HEAD)
    named = os.pathsep.join(["own_head.py", "own_package.heads"])
    heads = ("--heads", "own-dense,mean-linear,own-mean")
    second = run_process(tmp_path, *compare, *heads, FRAMEHEAD_PLUGINS=named)
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert len(report["heads"]) == 3
    assert (report["n_trials"], report["n_reused"]) == (6, 4)


def test_a_head_of_the_running_script_cannot_be_compared(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.h5", make_clips())
    script = (
        "import sys\n"
        "from features import FrameHeadError\n"
        "from pipeline import compare_heads, register_head\n"
        "@register_head('of-script')\n"
        "def build(frames, mask, units, dropout):\n"
        "    return frames[:, 0]\n"
        "try:\n"
        "    compare_heads(sys.argv[1], sys.argv[2], heads=['mean-linear', 'of-script'])\n"
        "except FrameHeadError as problem:\n"
        "    print(type(problem).__name__, problem)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(store), str(tmp_path / "compared")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.stdout.startswith("HeadUnknown A head that is compared"), finished.stderr
    assert "'of-script' is defined in the running script" in finished.stdout
    assert "--plugin" in finished.stdout
    assert not (tmp_path / "compared").exists()


@pytest.mark.parametrize("how", [("--out", "e.txt"), ("--out", "e.any", "--format", "lines")])
def test_a_format_from_a_file_exports(tmp_path: Path, how: tuple[str, ...]) -> None:
    store = write_store(tmp_path / "s.h5", make_clips())
    (tmp_path / "own_format.py").write_text(OWN_FORMAT)
    finished = run_process(
        tmp_path, "export-embeddings", store, *how, "--plugin", "own_format.py", "--json"
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["format"] == "lines"
    lines = (tmp_path / how[1]).read_text().splitlines()
    assert len(lines) == report["n_rows"]
    clip_id, *values = lines[0].split()
    assert clip_id == "dive/v_dive_g01_c01.avi"
    vectors = read_embeddings(open_store(store)).vectors
    assert [float(value) for value in values] == pytest.approx(vectors[0].tolist())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.py", None, "no such file"),
        ("no_such_module", None, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("wrong_syntax.py", "def", "SyntaxError"),
        ("needs_more.py", "import no_such_package", "No module named 'no_such_package'"),
        ("json.py", "", "a module called 'json' is loaded already"),
    ],
)
def test_a_plugin_that_cannot_be_imported_says_why(
    run_cli: RunCli, tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    store = write_store(tmp_path / "s.h5", make_clips())
    plugin = path if name.endswith(".py") else name
    text = error_of(run_cli("inspect", store, "--plugin", plugin))
    assert f"Importing '{plugin}' failed" in text
    assert reason in text
    assert "Hint: give --plugin the path of a .py file" in text
