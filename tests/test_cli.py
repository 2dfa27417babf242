"""The command line: exit codes, JSON, messages, and that it equals the library."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result
from conftest import (
    TINY_OPTIONS,
    RunCli,
    children_of,
    is_alive,
    linux_only,
    noisy_frames,
    parse_json,
    tiny_backbone,
    write_video,
)

from cli import COMMANDS, cli
from features import (
    BackboneOptions,
    EmbedOptions,
    FolderOptions,
    choose_sampling,
    extract_features,
    open_store,
    read_embeddings,
)
from features.errors import StoreNotFound
from features.store.commit import lock_store
from pipeline import DemoOptions, FitOptions, HeadOptions, SampleSpec, SplitOptions

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def options(tiny_weights: Path) -> tuple[str, ...]:
    return ("--weights", str(tiny_weights), *TINY_OPTIONS)


def error_of(result: Result, *, exit_code: int = 1) -> str:
    """Check that a failure is one line and a hint, without a traceback, and return it."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert lines[0].startswith("Error: ")
    assert len(lines) <= 2
    if len(lines) == 2:
        assert lines[1].startswith("Hint: ")
    return result.stderr


def test_extract_and_inspect(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    store = tmp_path / "s.h5"
    result = run_cli("extract-features", video_folder, "--out", store, *options, "--json")
    assert result.exit_code == 3, "one clip failed"
    report = parse_json(result)
    assert report["clips_done"] == 12
    assert report["clips_already"] == 0
    assert report["clips_failed"] == 1
    assert report["failures"][0]["id"] == "walk/v_walk_g04_c01.avi"
    assert report["frames"] == 12 * 14
    assert len(report["notes"]) == 12, "14 frames are fewer than the default 20"
    assert report["frames_per_second"] > 0
    assert report["clips_per_second"] > 0
    assert report["seconds"] > 0
    again = run_cli("extract-features", video_folder, "--out", store, *options, "--json")
    assert again.exit_code == 3
    assert parse_json(again)["clips_already"] == 12

    shown = parse_json(run_cli("inspect", store, "--verify", "--json"))
    assert shown["labels"] == {"jump": 6, "walk": 6}
    assert shown["damaged"] == []
    assert shown["is_finished"] is True
    text = run_cli("inspect", store)
    assert text.exit_code == 0
    for part in ("12 done, 1 failed", "alpha 0.35, 32 px", "jump", "v_walk_g04_c01.avi: no video"):
        assert part in text.stdout


def test_command_line_equals_library(
    run_cli: RunCli,
    video_folder: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    tiny_weights: Path,
) -> None:
    sampled = ("--frames", "5", "--dtype", "float32", "--group-regex", r"g(\d+)")
    run_cli("extract-features", video_folder, "--out", tmp_path / "c.h5", *options, *sampled)
    extract_features(
        video_folder,
        tmp_path / "l.h5",
        backbone=tiny_backbone(tiny_weights),
        sampling=choose_sampling(n_frames=5),
        dtype="float32",
        folder=FolderOptions(group_regex=r"g(\d+)"),
    )
    one, other = open_store(tmp_path / "c.h5"), open_store(tmp_path / "l.h5")
    assert one.clips == other.clips
    assert one.clips[0].group == "01"
    np.testing.assert_array_equal(read_embeddings(one).vectors, read_embeddings(other).vectors)


def test_the_text_lists_every_failure(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    result = run_cli("extract-features", video_folder, "--out", tmp_path / "s.h5", *options)
    assert "12 clips embedded (168 frames)" in result.stdout
    assert "walk/v_walk_g04_c01.avi: no video stream" in result.stdout
    assert "notes.txt: not a video file type" in result.stdout
    assert result.stderr.startswith("Found 13 clips of 2 classes\n")
    assert "%" not in result.stderr, "no bar off a terminal"


def test_a_dry_run_says_what_is_there_and_writes_nothing(
    run_cli: RunCli, video_folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "out" / "s.h5", "--weights", tiny_weights, *TINY_OPTIONS)
    result = run_cli("extract-features", video_folder, *options, "--dry-run", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    said = parse_json(result)
    assert said["classes"][0] == {
        "label": "jump",
        "clips": 6,
        "groups": 3,
        "train": 0,
        "val": 0,
        "test": 0,
    }
    assert (said["clips_found"], said["clips_to_decode"], said["clips_already"]) == (13, 13, 0)
    assert said["labels_from"] == "class folders"
    assert said["ignored"] == [{"path": "walk/notes.txt", "reason": "not a video file type"}]
    assert said["estimated_bytes"] > 0
    assert said["estimated_seconds"] > 0
    assert list(tmp_path.iterdir()) == []
    text = run_cli("extract-features", video_folder, *options, "--dry-run", "--no-groups").stdout
    assert "13 clips to embed: about" in text
    assert "Groups: --no-groups" in text
    assert text.endswith("Nothing was written\n")


def test_names_from_the_file_system_cannot_disturb_the_terminal(
    run_cli: RunCli, tmp_path: Path, options: tuple[str, ...]
) -> None:
    name = "a\n\x1b[31m\udce9.avi"
    plain = write_video(tmp_path / "v" / "plain.avi", noisy_frames(5, seed=1))
    plain.rename(tmp_path / "v" / name)
    result = run_cli("extract-features", tmp_path / "v", "--out", tmp_path / "s.h5", *options)
    assert result.exit_code == 0
    assert r"a\n\x1b[31m\udce9.avi: 5 frames decode" in result.stdout
    report = parse_json(run_cli("inspect", tmp_path / "s.h5", "--json"))
    assert report["notes"][0]["id"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "3", "--fps", "2"], "Frames can be chosen in only one way"),
        (["--frames", "0"], "--frames must be at least 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--alpha", "0.4"], "ImageNet weights exist for alpha"),
        (["--group-regex", "("], "must be a regular expression"),
    ],
)
def test_usage_errors_exit_2(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run_cli("extract-features", video_folder, "--out", tmp_path / "s.h5", *arguments)
    assert message in error_of(result, exit_code=2)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_says_what_and_how_to_mend_it(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "s.h5"
    (tmp_path / "empty").mkdir()
    result = run_cli("extract-features", tmp_path / "empty", "--out", out, *options)
    assert "VIDEOS must hold at least one video file" in error_of(result)
    result = run_cli("extract-features", tmp_path / "nowhere", "--out", out, *options)
    assert "nowhere' does not exist" in error_of(result)
    result = run_cli("extract-features", __file__, "--out", out, *options)
    assert "is a file" in error_of(result)
    result = run_cli("extract-features", video_folder, "--out", tmp_path / "empty", *options)
    assert "is a folder" in error_of(result)
    result = run_cli("extract-features", video_folder, "--out", "/proc/none/s.h5", *options)
    assert "folder must be writable" in error_of(result)
    result = run_cli("inspect", out)
    assert "does not exist" in error_of(result)
    with lock_store(out):
        result = run_cli("extract-features", video_folder, "--out", out, *options)
    assert "in use by another" in error_of(result)
    assert run_cli("extract-features", video_folder, "--out", out, *options).exit_code == 3
    before = out.read_bytes()
    result = run_cli("extract-features", video_folder, "--out", out, *options, "--frames", "3")
    assert "sampling: store --frames 20, asked --frames 3" in error_of(result)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--clip-memory", "nan"],
        ["--clip-memory", "1e12"],
        ["--clip-timeout", "inf"],
        ["--fps", "1e308"],
        ["--frames", "10000000000"],
    ],
)
def test_values_that_are_no_amount_are_usage_errors(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, arguments: list[str]
) -> None:
    result = run_cli("extract-features", video_folder, "--out", tmp_path / "s.h5", *arguments)
    assert arguments[0] in error_of(result, exit_code=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_written_is_an_error(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    store = tmp_path / "s.h5"
    run_cli("extract-features", video_folder, "--out", store, *options)
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), "inspect", str(store)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert finished.returncode != 0
    assert "Standard output must be writable" in finished.stderr


def test_debug_shows_the_traceback(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("inspect", tmp_path / "none.h5", "--debug")
    assert type(result.exception).__name__ == "StoreNotFound"


def test_damage_is_reported_and_exits_1(
    run_cli: RunCli, video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    import h5py

    store = tmp_path / "s.h5"
    run_cli("extract-features", video_folder, "--out", store, *options)
    with h5py.File(store, "r+") as file:
        file["embeddings"][3, 5] += 1
    result = run_cli("inspect", store, "--verify", "--json")
    assert result.exit_code == 1
    assert parse_json(result)["damaged"] == ["jump/v_jump_g01_c01.avi"]


# Of which command each frozen dataclass, or function, makes options.
OPTION_SOURCES: list[tuple[str, Callable[..., Any], set[str]]] = [
    ("extract-features", choose_sampling, set()),
    ("extract-features", BackboneOptions, set()),
    ("extract-features", EmbedOptions, set()),
    ("extract-features", FolderOptions, set()),
    ("predict", EmbedOptions, set()),
    ("train-head", SplitOptions, set()),
    ("train-head", FitOptions, set()),
    ("train-head", HeadOptions, set()),
    ("compare-heads", SplitOptions, {"test_fraction"}),
    ("compare-heads", FitOptions, {"calibration"}),
    ("compare-heads", HeadOptions, set()),
    ("demo", DemoOptions, set()),
    ("make-sample", SampleSpec, set()),
]


def get_command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize(("command", "source", "without"), OPTION_SOURCES)
def test_options_are_what_the_dataclasses_say(
    command: str, source: Callable[..., Any], without: set[str]
) -> None:
    options = {option.name: option for option in get_command(command).params}
    parameters = inspect.signature(source).parameters
    assert without == set(parameters) - set(options)
    for name in set(parameters) - without:
        option = options[name]
        assert isinstance(option, click.Option)
        default = parameters[name].default
        shown = ", ".join(default) if isinstance(default, tuple) else default
        assert option.get_default(click.Context(get_command(command))) == shown
        assert option.help, name
        # A sentence or its default, and none of the notation of docstrings.
        assert option.help[-1] in ".]"
        assert "`" not in option.help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_they_say_themselves(name: str) -> None:
    command = get_command(name)
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name][2]
    undescribed = [
        option.opts
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert undescribed == []


def run_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_opencv_without_system_libraries(
    video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A bare server: importing cv2 fails for want of libGL, in the workers too."""
    broken = tmp_path / "broken" / "cv2.py"
    broken.parent.mkdir()
    broken.write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')\n"
    )
    finished = run_process(
        "extract-features",
        video_folder,
        "--out",
        tmp_path / "s.h5",
        *options,
        PYTHONPATH=str(broken.parent),
    )
    assert finished.returncode == 1
    assert "OpenCV must be importable. 'import cv2' failed: libGL.so.1" in finished.stderr
    assert "apt-get install libgl1" in finished.stderr
    assert "opencv-python-headless" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_pyav_that_is_broken(
    video_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "av.py").write_text("raise ImportError('libavcodec.so.62 is gone')\n")
    finished = run_process(
        *("extract-features", video_folder, "--out", tmp_path / "s.h5", *options),
        PYTHONPATH=str(tmp_path / "broken"),
    )
    assert finished.returncode == 1
    assert "PyAV must be importable. 'import av' failed: libavcodec.so.62" in finished.stderr
    assert "pip install --force-reinstall av" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, cli\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'sklearn', 'matplotlib', 'h5py', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.stdout.strip() == "[]", finished.stderr
    times = []
    for _ in range(5):
        # Of the processor, not of the clock: another process may use the machine.
        before = os.times()
        assert run_process("--help").returncode == 0
        after = os.times()
        times.append(after.children_user + after.children_system)
        times[-1] -= before.children_user + before.children_system
    assert min(times) < 0.3


@linux_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_commits_and_leaves_nothing_behind(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    # Long enough that 400 of them take far longer than the first commit, which comes after 2 s.
    frames = noisy_frames(120, seed=1, size=(240, 320))
    clip = write_video(tmp_path / "clip.mp4", frames, codec="mp4v")
    videos = tmp_path / "v" / "jump"
    videos.mkdir(parents=True)
    for n in range(400):
        shutil.copyfile(clip, videos / f"{n}.mp4")
    out = tmp_path / "s.h5"
    # A suite that runs in the background may ignore the signal, and so would its children.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "cli.py"),
                "extract-features",
                str(videos.parent),
                "--out",
                str(out),
                *options,
                "--workers",
                "1",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    deadline = time.monotonic() + 100
    n_before = 0
    while not n_before and time.monotonic() < deadline:
        time.sleep(0.1)
        with suppress(StoreNotFound):
            n_before = len(open_store(out, allow_unfinished=True).clips)
    workers = children_of(process.pid)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code
    # Before them may stand that the backbone is converted, which is done once.
    said, hint = stderr.splitlines()[-2:]
    assert "Traceback" not in stderr
    told = re.match(r"Error: Interrupted: (\d+) of 400 clips are committed", said)
    assert told is not None
    assert hint == "Hint: run the same command again to go on"
    assert len(open_store(out, allow_unfinished=True).clips) == int(told[1]) >= n_before > 0
    assert workers
    assert not any(map(is_alive, workers))
    assert not list(tmp_path.rglob("*.partial*"))
