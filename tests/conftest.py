"""Fixtures: videos written by the tests, an untrained backbone, and the shared real material."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

from features import BackboneOptions
from features.records import FrameArray

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # before any test imports OpenCV

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

MATERIAL = Path(__file__).resolve().parent.parent.parent / "shared"
UCF_MINI = MATERIAL / "clips" / "ucf101_mini"
ODD = MATERIAL / "clips" / "odd"
OFFICIAL_LISTS = MATERIAL / "ucfTrainTestlist"
WEIGHTS_FULL = MATERIAL / "weights" / "mobilenet_v2_1.0_224_no_top.dequantized.h5"

# Small, so that an untrained backbone converts and runs in no time.
TINY_BACKBONE = BackboneOptions(alpha=0.35, size_px=32)
TINY_OPTIONS = ("--alpha", "0.35", "--image-size", "32")


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


@pytest.fixture
def material(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real clips and ImageNet weights; where they are absent the test is skipped."""
    if not MATERIAL.is_dir():
        if os.environ.get("FAIL_WITHOUT_MATERIAL"):
            pytest.fail(f"{MATERIAL} must exist when FAIL_WITHOUT_MATERIAL is set")
        pytest.skip(f"the real clips and weights are not at {MATERIAL}")
    monkeypatch.setenv("KERAS_HOME", str(MATERIAL / "weights" / "keras_home"))
    return MATERIAL


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained MobileNetV2: no download, and no meaning, but real vectors."""
    from features.system.keras import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(7)
    network = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
    )
    # Without statistics of its own, batch normalisation lets the signal fade to nothing.
    pictures = np.concatenate([noisy_frames(8, seed=seed) for seed in range(8)])[:, :32, :32]
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(pictures / 127.5 - 1, training=True)
    path = tmp_path_factory.mktemp("weights") / "untrained.weights.h5"
    network.save_weights(path)
    return path


def tiny_backbone(weights: Path) -> BackboneOptions:
    return replace(TINY_BACKBONE, weights=weights)


def write_video(
    path: Path, frames: list[FrameArray], *, fps: float = 25.0, codec: str = "MJPG"
) -> Path:
    """Write RGB frames to a video file."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path),
        cv2.CAP_FFMPEG,
        cv2.VideoWriter_fourcc(*codec),  # type: ignore[attr-defined]
        fps,
        (width, height),
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def grey_frames(n_frames: int, *, step: int = 4) -> list[FrameArray]:
    """Frames of one grey each, from which the frame index can be read back."""
    return [np.full((48, 64, 3), index * step, np.uint8) for index in range(n_frames)]


def noisy_frames(n_frames: int, *, seed: int, size: tuple[int, int] = (48, 64)) -> list[FrameArray]:
    """Coarse random pictures that drift, so that clips and frames differ."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3))
    drift = generator.integers(-6, 7, (6, 8, 3))
    repeats = (size[0] // 6, size[1] // 8)
    return [
        np.clip(coarse + index * drift, 0, 255)
        .astype(np.uint8)
        .repeat(repeats[0], 0)
        .repeat(repeats[1], 1)
        for index in range(n_frames)
    ]


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, three groups each, two clips per group; and one file that is no video."""
    root = tmp_path_factory.mktemp("videos")
    for number, label in enumerate(("jump", "walk")):
        for group in range(1, 4):
            for clip in (1, 2):
                name = f"v_{label}_g{group:02d}_c{clip:02d}.avi"
                frames = noisy_frames(14, seed=100 * number + 10 * group + clip)
                write_video(root / label / name, frames)
    (root / "walk" / "v_walk_g04_c01.avi").write_bytes(b"this is text, not video")
    (root / "walk" / "notes.txt").write_text("not a clip")
    return root


def children_of(process_id: int) -> set[int]:
    """List the processes that a process has started and that have not ended; Linux only."""
    children: set[int] = set()
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            children |= set(map(int, (task / "children").read_text().split()))
    return children


def is_alive(process_id: int) -> bool:
    """Tell whether a process runs; one that has ended but was not waited for does not."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


RunCli = Callable[..., Result]


def make_cli_runner() -> CliRunner:
    """Make a runner whose results keep standard output and standard error apart."""
    # Click 8.1 mixes them unless told otherwise; 8.2 never does and knows no such option.
    can_mix = "mix_stderr" in signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if can_mix else {}
    return CliRunner(**options)


@pytest.fixture
def run_cli() -> RunCli:
    """Run the command line in this process; returns click's result."""
    from cli import cli

    def run(*arguments: object) -> Result:
        return make_cli_runner().invoke(cli, [str(item) for item in arguments])

    return run


def parse_json(result: Result) -> dict[str, Any]:
    """Read standard output, which must be exactly one JSON object."""
    parsed: dict[str, Any] = json.loads(result.stdout)
    assert parsed["schema"] == 1
    return parsed
