"""Heads and export formats of the user's own, in files outside the project."""

from __future__ import annotations

import ast
import json
import os
import shutil
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
        ("leaves.py", "import sys; sys.exit(3)", "SystemExit: 3"),
        ("package", None, "it is a folder without code of its own"),
        ("with:colon.py", "", "its path must not hold ':'"),
    ],
)
def test_a_plugin_that_cannot_be_imported_says_why(
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str | None,
    reason: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    (tmp_path / "package").mkdir()
    monkeypatch.chdir(tmp_path)
    store = write_store(tmp_path / "s.h5", make_clips())
    plugin = path if name.endswith(".py") else name
    text = error_of(run_cli("inspect", store, "--plugin", plugin))
    assert f"Importing '{plugin}' failed" in text
    assert reason in text
    assert "Hint: give --plugin the path of a .py file" in text


@pytest.mark.parametrize("name", ["json", "statistics", "keras", "cli"])
def test_a_plugin_does_not_take_the_place_of_another_module(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(OWN_HEAD)
    store = write_store(tmp_path / "s.h5", make_clips())
    finished = run_process(tmp_path, "inspect", store, "--plugin", f"{name}.py")
    assert finished.returncode == 1
    assert f"would be loaded as '{name}', which is one already" in finished.stderr
    assert "Hint: rename the file" in finished.stderr


HEAD_LINE = "from pipeline import *\n@register_head({})\ndef build({}): ...\n"
ARGUMENTS = "frames, mask, units, dropout"
FORMAT_LINES = "from pipeline import *\n@register_format\nclass F(ExportFormat):\n    {}\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEAD_LINE.format("'few'", "frames"), "That of 'few' is not: too many positional"),
        (HEAD_LINE.format("'lstm'", ARGUMENTS), "'lstm' is registered by the module 'pipeline."),
        (HEAD_LINE.format("'a/b'", ARGUMENTS), "must be letters, digits"),
        (HEAD_LINE.format("'a:motion'", ARGUMENTS), "must be letters, digits"),
        (HEAD_LINE.format("'x' * 250", ARGUMENTS), "at most 64"),
        (HEAD_LINE.format("'h', sees='all'", ARGUMENTS), "`sees` must be one of appearance"),
        (HEAD_LINE.format("'h', dropout=1", ARGUMENTS), "--dropout must be in [0, 1)"),
        (FORMAT_LINES.format("suffix = '.x'"), "must be letters, digits"),
        (FORMAT_LINES.format("name = 'x'"), "Received for 'x': None"),
        (FORMAT_LINES.format("name, suffix = 'x', 'X'"), "Received for 'x': 'X'"),
        (FORMAT_LINES.format("name, suffix = 'csv', '.csv'"), "'csv' is registered by the module"),
        ("from pipeline import *\nregister_format(dict)", "subclass of ExportFormat"),
    ],
)
def test_what_a_plugin_registers_is_checked(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "own.py").write_text(content)
    store = write_store(tmp_path / "s.h5", make_clips())
    finished = run_process(tmp_path, "inspect", store, "--plugin", "own.py")
    assert finished.returncode == 1
    assert finished.stderr.startswith(
        f"Error: Importing the plug-in '{tmp_path / 'own.py'}' failed"
    )
    assert reason in finished.stderr
    assert "Traceback" not in finished.stderr


def test_one_file_by_many_names_is_one_plugin(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "own_head.py").write_text(OWN_HEAD)
    (tmp_path / "link.py").symlink_to("own_head.py")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("from . import heads")
    (tmp_path / "own_package" / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "own_package" / "heads.py").write_text(PACKAGED_HEAD)
    store = write_store(tmp_path / "s.h5", make_clips())
    names = ["own_head.py", "sub/../own_head.py", "link.py", "own_package/heads.py"]
    plugins = [part for name in [*names, "own_package"] for part in ("--plugin", name)]
    spaced = f" own_head.py {os.pathsep} own_package/__init__.py"
    export = ("export-embeddings", store, "--out", "e.npz", *plugins)
    finished = run_process(tmp_path, *export, FRAMEHEAD_PLUGINS=spaced)
    assert finished.returncode == 0, finished.stderr


def test_a_head_of_a_package_is_compared_wherever_it_was_imported_from(tmp_path: Path) -> None:
    place = tmp_path / "place" / "own_package"
    place.mkdir(parents=True)
    (place / "neighbour.py").write_text(NEIGHBOUR)
    (place / "__init__.py").write_text(PACKAGED_HEAD)
    store = write_store(tmp_path / "s.h5", make_clips())
    script = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import own_package\n"
        "from pipeline import FitOptions, compare_heads\n"
        "compare_heads(sys.argv[1], 'compared', heads=['own-dense'], seeds=1, folds=2, jobs=1,\n"
        "              fit=FitOptions(epochs=1))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(store), str(place.parent)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "compared" / "comparison.json").is_file()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", "'wrong' returned NoneType"),
        ("return frames", "'wrong' returned a tensor of shape (None, None, "),
        ("raise RuntimeError('boom')", "line 4: RuntimeError: boom"),
    ],
)
def test_a_head_that_cannot_be_built_says_why(tmp_path: Path, body: str, reason: str) -> None:
    content = HEAD_LINE.format("'wrong'", ARGUMENTS).replace("...", f"\n    {body}")
    (tmp_path / "own.py").write_text(content)
    store = write_store(tmp_path / "s.h5", make_clips())
    finished = run_process(
        tmp_path, "train-head", store, "--out", "run", "--head", "wrong", "--plugin", "own.py"
    )
    assert finished.returncode == 1
    assert reason in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("name, suffix = 'own', '.own'\n    def write(self, *_): 1 / 0", "ZeroDivisionError"),
        ("name, suffix = 'own', '.own'\n    def write(self, *_): ...", "must write its file"),
        (
            "name, suffix, marker = 'own', '', 'mark'\n    def write(self, *_): ...",
            "must write the file 'mark'",
        ),
    ],
)
def test_a_format_that_fails_says_so_and_leaves_nothing(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "own.py").write_text(FORMAT_LINES.format(content))
    store = write_store(tmp_path / "s.h5", make_clips())
    before = sorted(tmp_path.iterdir())
    out = ("--out", "out", "--format", "own")
    finished = run_process(tmp_path, "export-embeddings", store, *out, "--plugin", "own.py")
    assert finished.returncode == 1
    assert finished.stderr.startswith("Error: The format 'own' must write")
    assert reason in finished.stderr
    assert [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".lock"] == [
        path for path in before if path.suffix != ".lock"
    ]


def test_a_head_that_has_changed_is_trained_again(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.h5", make_clips())
    plugin = tmp_path / "own_head.py"
    plugin.write_text(OWN_HEAD)
    train = ("train-head", store, "--out", "run", "--head", "own-mean", "--plugin", plugin, *QUICK)
    few = ("--jobs", "1", "--seeds", "1", "--folds", "2", "--heads", "own-mean,mean-linear")
    compare = ("compare-heads", store, "--out", "compared", *few, "--plugin", plugin, *QUICK)
    for command in (train, compare):
        assert run_process(tmp_path, *command).returncode == 0
    again = json.loads(run_process(tmp_path, *compare).stdout)
    assert (again["n_trials"], again["n_reused"]) == (4, 4)
    plugin.write_text(OWN_HEAD.replace("Average", "Max"))
    refused = run_process(tmp_path, *train)
    assert refused.returncode == 1
    assert "other settings (other code of the head" in refused.stderr
    again = json.loads(run_process(tmp_path, *compare).stdout)
    assert (again["n_trials"], again["n_reused"]) == (4, 2)


def test_help_names_what_plug_ins_register(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_HEAD + OWN_FORMAT)
    for command, named in [("train-head", "own-mean"), ("export-embeddings", "lines")]:
        for given in (("--plugin", "own.py", "--help"), ("--help",)):
            environment = {} if len(given) > 1 else {"FRAMEHEAD_PLUGINS": "own.py"}
            shown = run_process(tmp_path, command, *given, **environment)
            assert shown.returncode == 0, shown.stderr
            assert named in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", ["own-mean", "mean-linear"])
def test_results_are_kept_only_for_the_same_source_versions_and_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = f"from pipeline.heads.registry import source_of; print(source_of({name!r}))"

    def ask(**environment: str) -> dict[str, str]:
        text = "from features.system.plugins import load_plugins; load_plugins(['own_head.py'])\n"
        finished = subprocess.run(
            [sys.executable, "-c", text + script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, str] = ast.literal_eval(finished.stdout)
        return found

    plugin = tmp_path / "own_head.py"
    plugin.write_text(OWN_HEAD)
    first = ask()
    assert first == ask()
    assert first["backend"].startswith("tensorflow 2.")
    assert ask(KERAS_BACKEND="jax")["backend"].startswith("jax ")
    # A helper beside the head counts; that of a user's file does not change heads of ours.
    plugin.write_text(OWN_HEAD + "\n\ndef helper():\n    return 1\n")
    assert (ask()["head_source"] == first["head_source"]) == (name == "mean-linear")


def test_changed_files_of_our_own_heads_are_noticed(tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    for package in ("features", "pipeline"):
        shutil.copytree(ROOT / package, copied / package, ignore=shutil.ignore_patterns("builtin"))

    def ask() -> str:
        script = "from pipeline.heads.registry import source_of; print(source_of('lstm'))"
        finished = subprocess.run(
            [sys.executable, "-c", script],
            cwd=copied,
            env={**os.environ, "PYTHONPATH": str(copied)},
            capture_output=True,
            text=True,
            check=True,
        )
        return finished.stdout

    before = ask()
    layers = copied / "pipeline" / "heads" / "layers.py"
    layers.write_text(layers.read_text() + "\n# changed\n")
    assert ask() != before
