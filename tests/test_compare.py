"""compare-heads: same splits for all, resumable, and honest about differences."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import children_of, linux_only
from stage2_helpers import make_clips, write_store

from features.errors import (
    HeadUnknown,
    Interrupted,
    OptionInvalid,
    OutputExists,
    TrainingFailed,
)
from features.system.plugins import PLUGINS_VARIABLE, load_plugins
from pipeline import (
    Comparison,
    FitOptions,
    HeadOptions,
    SplitOptions,
    TrialProgress,
    compare_heads,
)
from pipeline.compare.workers import choose_jobs
from pipeline.heads.registry import HEADS

QUICK: dict[str, Any] = {
    "heads": ("mean-linear", "mlp"),
    "seeds": 1,
    "folds": 2,
    "fit": FitOptions(epochs=4, learning_rate=0.02),
    "jobs": 1,
}
ROOT = Path(__file__).resolve().parent.parent

# Heads that misbehave, as a user's own may.
OWN_HEADS = """
import os
import sys

from pipeline import register_head


@register_head("dies")
def dies(frames, mask, units, dropout):
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


@register_head("raises")
def raises(frames, mask, units, dropout):
    raise RuntimeError("no such layer")


@register_head("talks")
def talks(frames, mask, units, dropout):
    import keras

    print("hello")
    os.write(1, b"hello again")
    return keras.layers.GlobalAveragePooling1D()(frames)
"""


@pytest.fixture
def own_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "own_heads.py"
    path.write_text(OWN_HEADS)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(path))
    before = set(HEADS)
    load_plugins()
    yield
    for name in set(HEADS) - before:
        del HEADS[name]
    del sys.modules["own_heads"]


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "s.h5", make_clips(n_groups=5))


@pytest.fixture(scope="module")
def finished(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Run from a script without a main guard, in another folder that holds a trap."""
    out = tmp_path_factory.mktemp("compared")
    (out / "keras.py").write_text("raise RuntimeError('the working directory was imported')")
    script = out / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pipeline import FitOptions, compare_heads\n"
        f"compare_heads({str(store_path)!r}, 'out', **{QUICK!r})\n"
    )
    subprocess.run([sys.executable, "-P", script.name], cwd=out, check=True, timeout=300)
    return compare_heads(store_path, out / "out", **QUICK)


def copy_of(finished: Comparison, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial*"))


def test_a_finished_comparison_is_neither_repeated_nor_stamped_anew(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    assert (finished.n_trials, finished.n_reused) == (4, 4)
    copy = copy_of(finished, tmp_path)
    before = (copy / "comparison.json").read_bytes()
    again = compare_heads(store_path, copy, **QUICK)
    assert again.heads == finished.heads
    assert (copy / "comparison.json").read_bytes() == before
    content = json.loads(before)
    (pair,) = {(t["created"], t["versions"]["keras"]) for t in content["trials"][:1]}
    assert datetime.fromisoformat(pair[0]) <= datetime.fromisoformat(content["created"])
    made = [(trial["head"], trial["seed"], trial["fold"]) for trial in content["trials"]]
    assert sorted(made) == [(name, 0, fold) for name in QUICK["heads"] for fold in (1, 2)]
    assert {"head", "seed", "fold", "train_seconds", "created", "platform", "versions"} == set(
        content["trials"][0]
    )


def test_a_trial_keeps_the_versions_that_made_it(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    copy = copy_of(finished, tmp_path)
    one = next((copy / "trials").glob("mlp-seed0-fold1-*.json"))
    trial = json.loads(one.read_text())
    trial["made"] = {"created": "2020-01-01T00:00:00+00:00", "versions": {"keras": "3.0.1"}}
    one.write_text(json.dumps(trial))
    again = compare_heads(store_path, copy, **QUICK)
    assert again.n_reused == 4
    trials = json.loads((copy / "comparison.json").read_text())["trials"]
    versions = {(t["head"], t["fold"]): t["versions"]["keras"] for t in trials}
    assert versions.pop(("mlp", 2)) == "3.0.1"
    assert "3.0.1" not in versions.values()


@pytest.mark.usefixtures("own_heads")
def test_further_heads_and_seeds_join_without_training_the_others_again(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    copy = copy_of(finished, tmp_path)
    trained: list[tuple[str, int]] = []

    def remember(progress: TrialProgress) -> None:
        trained.append((progress.trial.head, progress.trial.seed))

    # That the new head prints, where workers write their answers, harms nothing.
    heads = ("talks", "mlp", "mean-linear")
    more = compare_heads(store_path, copy, **{**QUICK, "heads": heads}, on_trial=remember)
    assert trained == [("talks", 0)] * 2
    assert (more.n_trials, more.n_reused) == (6, 4)
    known = {head.name: head for head in finished.heads}
    for head in more.heads:
        if head.name in known:
            assert head.accuracy == known[head.name].accuracy
    trained.clear()
    settings = {**QUICK, "heads": heads, "seeds": 2}
    grown = compare_heads(store_path, copy, **settings, on_trial=remember)
    assert sorted(trained) == sorted([(name, 1) for name in heads] * 2)
    assert (grown.n_trials, grown.n_reused, grown.n_seeds) == (12, 6, 2)
    assert len(json.loads((copy / "comparison.json").read_text())["trials"]) == 12
    before = contents(copy)
    with pytest.raises(OutputExists, match="heads: .*--overwrite"):
        compare_heads(store_path, copy, **{**settings, "heads": heads[:2]})
    with pytest.raises(OutputExists, match="seeds: 2, asked 1"):
        compare_heads(store_path, copy, **{**settings, "seeds": 1})
    assert contents(copy) == before


@pytest.mark.usefixtures("own_heads")
def test_a_head_that_fails_can_be_left_out_again(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailed):
        compare_heads(store_path, tmp_path / "new", **{**QUICK, "heads": ("mlp", "dies")})
    compare_heads(store_path, tmp_path / "new", **{**QUICK, "heads": ("mlp",)})
    # The same where a finished comparison was to take it in.
    copy = copy_of(finished, tmp_path)
    with pytest.raises(TrainingFailed):
        compare_heads(store_path, copy, **{**QUICK, "heads": (*QUICK["heads"], "dies")})
    again = compare_heads(store_path, copy, **QUICK)
    assert again.n_reused == again.n_trials
    with pytest.raises(OutputExists, match="heads: "):
        compare_heads(store_path, copy, **{**QUICK, "heads": QUICK["heads"][:1]})


def test_outputs_agree(finished: Comparison) -> None:
    folder = Path(finished.path)
    content = json.loads((folder / "comparison.json").read_text())
    assert content["schema"] == 1
    names = [head["name"] for head in content["heads"]]
    assert names == [head.name for head in finished.heads]
    assert sorted(names) == ["mean-linear", "mlp"]
    means = [head["accuracy"]["mean"] for head in content["heads"]]
    assert means == sorted(means, reverse=True)
    for head in content["heads"]:
        assert head["accuracy"]["low"] <= head["accuracy"]["mean"] <= head["accuracy"]["high"]
        assert head["accuracy"]["n"] == 30
    assert [(pair["a"], pair["b"]) for pair in content["pairs"]] == [tuple(names)]
    assert content["pairs"][0]["low"] <= content["pairs"][0]["difference"]
    assert content["verdicts"] == list(finished.verdicts) != []
    assert content["majority_classes"] == list(finished.majority_classes)
    # Three classes with equally many clips: the guess is right for a third, more or less.
    assert content["majority_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert len(content["splits"]) == 2
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for head in content["heads"]:
        mine = [row for row in rows if row["head"] == head["name"]]
        assert len({row["clip_id"] for row in mine}) == len(mine) == 30
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert right == pytest.approx(head["accuracy"]["mean"])
    with (folder / "comparison.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_killed_comparison_repeats_only_what_is_missing(
    finished: Comparison, store_path: Path
) -> None:
    results = sorted((Path(finished.path) / "trials").glob("*.json"))
    assert len(results) == 4
    before = results[0].read_bytes()
    results[0].write_bytes(before[:50])  # as if the disk had been full
    seen: list[TrialProgress] = []
    again = compare_heads(store_path, finished.path, **QUICK, on_trial=seen.append)
    assert [(p.n_done, p.n_trials) for p in seen] == [(4, 4)]
    assert again.n_reused == 3
    assert [h.accuracy for h in again.heads] == [h.accuracy for h in finished.heads]


def test_other_settings_are_refused(finished: Comparison, store_path: Path) -> None:
    other = {**QUICK, "fit": FitOptions(epochs=5, learning_rate=0.02)}
    with pytest.raises(OutputExists, match=r"epochs: 4, asked 5.*--overwrite"):
        compare_heads(store_path, finished.path, **other)
    with pytest.raises(OutputExists, match=r"other settings \(other splits; seed: 0, asked 5\)"):
        compare_heads(store_path, finished.path, **{**QUICK, "seed": 5})


def test_foreign_folder_is_left_alone(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match="is left alone"):
            compare_heads(store_path, tmp_path, **QUICK, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_options_are_checked_first(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadUnknown):
        compare_heads(store_path, tmp_path / "o", heads=["nope"])
    with pytest.raises(OptionInvalid, match="different heads"):
        compare_heads(store_path, tmp_path / "o", heads=["mlp", "mlp"])
    with pytest.raises(OptionInvalid, match="--seeds"):
        compare_heads(store_path, tmp_path / "o", seeds=0)
    by_file, by_lists = SplitOptions(split="s.json"), SplitOptions(test_lists="lists")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"seed": -1}, "--seed must be"),
        ({"seed": 2**32 - 2}, "--seed must be from 0 to 4294967293 with --seeds 3"),
        ({"folds": 2, "split": by_file}, "--folds and --split exclude"),
        ({"folds": 2, "split": by_lists}, "--folds and --test-lists exclude"),
    ]
    for options, message in refused:
        with pytest.raises(OptionInvalid, match=message):
            compare_heads(store_path, tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
    with pytest.raises(OptionInvalid, match="--jobs"):
        choose_jobs(0, 5)
    assert choose_jobs(6, 2) == 2
    assert 1 <= choose_jobs(None, 100) <= 8


@pytest.mark.usefixtures("own_heads")
@pytest.mark.parametrize(
    ("head", "end"),
    [
        ("dies", r"dies-seed0-fold0.*exit code 3 \(last words\).*the same command"),
        ("raises", "'raises' must be built.*line 16: RuntimeError: no such layer.*train-head"),
    ],
)
def test_a_worker_that_dies_is_reported(
    store_path: Path, tmp_path: Path, head: str, end: str
) -> None:
    with pytest.raises(TrainingFailed, match=end):
        compare_heads(store_path, tmp_path / "out", **{**QUICK, "heads": [head]})
    assert not leftovers(tmp_path / "out")


@linux_only
def test_no_worker_outlives_one_that_cannot_start(store_path: Path, tmp_path: Path) -> None:
    # Room for the files of one worker, but not of two.
    script = (
        "import os, resource, sys\n"
        "sys.path[:0] = ['tests', '.']\n"
        "from conftest import children_of\n"
        "from features import FrameHeadError\n"
        "from pipeline import compare_heads\n"
        "import pipeline.report.comparison, sklearn.model_selection\n"
        "def limit():\n"
        "    n = len(os.listdir('/proc/self/fd')) + 9\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))\n"
        "import pipeline.compare.compare as module\n"
        "try:\n"
        "    limit()\n"
        "    compare_heads(*sys.argv[1:], heads=['mlp'], seeds=1, folds=2, jobs=2)\n"
        "except FrameHeadError as problem:\n"
        "    print(type(problem).__name__, problem, children_of(os.getpid()))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(store_path), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.stdout.startswith("TrainingFailed A worker process must start."), finished
    assert "Too many open files" in finished.stdout
    assert finished.stdout.endswith("use fewer --jobs set()\n")


@linux_only
def test_an_interrupt_ends_threads_and_workers(store_path: Path, tmp_path: Path) -> None:
    def interrupt(progress: TrialProgress) -> None:
        raise KeyboardInterrupt

    before, n_threads = children_of(os.getpid()), threading.active_count()
    settings = {**QUICK, "jobs": 2, "seeds": 3}
    # The other worker may finish a trial between the first report and the end.
    said = r"[1-4] of 12 trials are finished\..*again"
    with pytest.raises(Interrupted, match=said) as caught:
        compare_heads(store_path, tmp_path / "out", **settings, on_trial=interrupt)
    # Also while somebody holds the error, and all that its traceback refers to.
    assert caught.tb is not None
    assert children_of(os.getpid()) <= before
    assert threading.active_count() == n_threads
    assert not leftovers(tmp_path / "out")


def test_error_of_a_trial_keeps_its_kind(store_path: Path, tmp_path: Path) -> None:
    reduced = HeadOptions(reduce="pca:999")
    with pytest.raises(OptionInvalid, match=r"pca:999 for embeddings of"):
        compare_heads(store_path, tmp_path / "out", **QUICK, head_options=reduced)
    # Nothing is left of the sequences that the workers shared.
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["trials"]
    assert not any((tmp_path / "out" / "trials").iterdir())
    assert (tmp_path / "out" / "settings.json").exists()


@pytest.mark.parametrize("content", [b'{"heads": ["ml', b"[]", b"\xff\x00"])
def test_damaged_settings_are_said_to_be_so(
    finished: Comparison, store_path: Path, tmp_path: Path, content: bytes
) -> None:
    copy = copy_of(finished, tmp_path)
    (copy / "settings.json").write_bytes(content)
    before = contents(copy)
    with pytest.raises(OutputExists, match=r"settings\.json' is damaged: .*--overwrite"):
        compare_heads(store_path, copy, **QUICK)
    assert contents(copy) == before


def test_overwriting_keeps_the_old_comparison_until_the_new_is_complete(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    copy = copy_of(finished, tmp_path)
    (copy / "settings.json").write_bytes(b"{")  # whatever the old one is like
    before = contents(copy)
    seen: list[int] = []

    def check(progress: TrialProgress) -> None:
        assert contents(copy) == before
        seen.append(progress.n_done)
        if len(seen) == 1:
            raise KeyboardInterrupt

    one: dict[str, Any] = {**QUICK, "heads": ["mean-linear"], "fit": FitOptions(epochs=1)}
    one |= {"overwrite": True, "on_trial": check}
    with pytest.raises(Interrupted, match=r"comparison in '.*copy' was not replaced\.$"):
        compare_heads(store_path, copy, **one)
    assert contents(copy) == before
    assert names_in(tmp_path) == ["copy"]
    replaced = compare_heads(store_path, copy, **one)
    assert seen == [1, 1, 2]
    assert (replaced.n_trials, replaced.n_reused) == (2, 0)
    assert len(list((copy / "trials").iterdir())) == 2
    assert names_in(tmp_path) == ["copy"]


# Kills its own process before the step of a comparison that is asked for: its nth write into the
# folder, or the nth rename there.
KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline import FitOptions, compare_heads
import sklearn.model_selection

store, out, step, *more = sys.argv[1:]
seen = []


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def watch(event, arguments):
    if event == "subprocess.Popen" and "no workers" in more:
        os._exit(0)
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.mkdir", "os.rename"):
        if any(str(place).startswith(out) for place in arguments[:2]):
            seen.append(event)
            if step in (f"write {len(seen)}", f"{event} {seen.count(event)}"):
                die()


def compare():
    sys.addaudithook(watch)
    compare_heads(
        store, out, heads=["mean-linear", "mlp"], seeds=1, folds=2, jobs=1,
        fit=FitOptions(epochs=4, learning_rate=0.02),
        overwrite="overwrite" in more,
        on_trial=lambda progress: die() if step == f"trial {progress.n_done}" else None,
    )
"""
KILLED_ONCE = f"{KILLED}\ncompare()\n"
# At every write before the first worker starts, in children that have imported all.
KILLED_EVERYWHERE = f"""{KILLED}
status, n_kills = signal.SIGKILL, 0
while status == signal.SIGKILL:
    n_kills += 1
    if not (child := os.fork()):
        step = f"write {{n_kills}}"
        compare()
    status = os.waitpid(child, 0)[1]
    print(status, *sorted(os.listdir(out)) if os.path.isdir(out) else [], flush=True)
"""


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    return subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True
    )


@linux_only
def test_no_kill_leaves_a_folder_that_is_refused(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = run_script(KILLED_EVERYWHERE, store_path, out, "", "no workers")
    assert killed.returncode == 0, killed.stderr
    *kills, last = [line.split() for line in killed.stdout.splitlines()]
    assert ["9"] in kills, "no kill fell between making the folder and writing into it"
    assert last[0] == "0", f"after {kills[-1]} the folder was refused"
    # What was made a moment ago, and not locked yet, another process may be about to lock.
    for leftover in leftovers(tmp_path):
        os.utime(leftover, (0, 0))
    shutil.copytree(Path(finished.path) / "trials", out / "trials", dirs_exist_ok=True)
    assert compare_heads(store_path, out, **QUICK).n_reused == 4
    assert not leftovers(tmp_path)


@linux_only
def test_a_killed_overwriting_leaves_the_old_comparison(
    finished: Comparison, store_path: Path, tmp_path: Path
) -> None:
    copy = copy_of(finished, tmp_path)
    before = contents(copy / "trials")
    # While it trains, and after the old one was moved away before the new one is in its place.
    for step, is_there in (("trial 1", True), ("os.rename 2", False)):
        killed = run_script(KILLED_ONCE, store_path, copy, step, "overwrite")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert copy.exists() == is_there
        assert leftovers(tmp_path)
        again = compare_heads(store_path, copy, **QUICK)
        assert again.n_reused == 4
        assert contents(copy / "trials") == before
        assert names_in(tmp_path) == ["copy"]
