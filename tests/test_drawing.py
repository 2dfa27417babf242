"""Drawn figures and clips: bodies hold together, actions differ, the same seed draws the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_cli_runner
from hypothesis import given
from hypothesis import strategies as st

from cli import cli
from features.clips.discover import FolderOptions, discover_clips
from features.clips.groups import infer_groups
from features.errors import OptionInvalid, OutputExists, OutputUnwritable
from features.records import Clip, FrameSampling
from features.video.decode import read_frames
from features.video.frames import FrameBatch
from pipeline.demo.drawing.actions import ACTIONS, GRASP, mirror_pose, pose_at
from pipeline.demo.drawing.sample import (
    SampleProgress,
    SampleSpec,
    draw_frames,
    list_clips,
    make_sample,
)
from pipeline.demo.drawing.scenery import soften
from pipeline.demo.drawing.scenes import draw_actor, draw_scene, render_frame
from pipeline.demo.drawing.skeleton import JOINTS, View, draw_body, place_joints, project

ROOT = Path(__file__).resolve().parent.parent
AT = {name: index for index, name in enumerate(JOINTS)}
SMALL = SampleSpec(n_actors=1, n_takes=1, actions=("bow", "sit-down"), size_px=48, seed=3)
# Enough clips for two processes.
SHARED = SampleSpec(n_actors=8, n_takes=1, actions=("bow", "wave"), size_px=32)


@given(st.sampled_from(sorted(ACTIONS)), st.floats(0, 1), st.integers(0, 50))
def test_limbs_keep_their_lengths_and_feet_stay_above_the_ground(
    name: str, phase: float, seed: int
) -> None:
    body = draw_body(np.random.default_rng(seed))
    joints = place_joints(pose_at(ACTIONS[name], phase), body)
    for side in ("left", "right"):
        for ends, length in (
            ((f"{side}_shoulder", f"{side}_elbow"), body.arm / 2),
            ((f"{side}_elbow", f"{side}_hand"), body.arm / 2),
            ((f"{side}_hip", f"{side}_knee"), 0.485),
            ((f"{side}_knee", f"{side}_foot"), 0.485),
        ):
            measured = np.linalg.norm(joints[AT[ends[0]]] - joints[AT[ends[1]]])
            assert measured == pytest.approx(length, abs=0.02), ends
        assert joints[AT[f"{side}_foot"], 2] > -0.06
    assert joints[AT["head"], 2] > joints[AT["pelvis"], 2] - 0.3


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_an_action_moves_without_jumps_and_a_cycle_closes(name: str) -> None:
    action = ACTIONS[name]
    poses = np.stack([pose_at(action, phase) for phase in np.linspace(0, 1, 201)])
    lengths = poses[:, [0, 1, 2, *range(7, poses.shape[1])]]
    assert np.abs(np.diff(lengths, axis=0)).max() < 0.12
    assert np.ptp(poses, axis=0).max() > 0.2
    if action.is_cycle:
        np.testing.assert_allclose(pose_at(action, 1.0), pose_at(action, 0.0), atol=1e-9)


@pytest.mark.parametrize(
    ("forward", "backward"), [("sit-down", "stand-up"), ("pick-up", "put-down")]
)
def test_pairs_that_end_differ_only_in_the_order_of_their_frames(
    forward: str, backward: str
) -> None:
    actor = draw_actor(np.random.default_rng(1))
    clips = [
        draw_scene(np.random.default_rng(2), name, actor, n_frames=9, fps=12.0, size_px=48)
        for name in (forward, backward)
    ]
    np.testing.assert_array_equal(clips[0].action.poses, clips[1].action.poses)
    # Same random choices: one rises from 0 to 1, the other falls by the same steps.
    np.testing.assert_allclose(clips[0].phases, 1 - clips[1].phases, atol=1e-12)
    assert clips[0].phases[0] == 0
    assert clips[0].phases[-1] == 1


def test_the_drill_has_every_pose_at_every_time_in_both_directions() -> None:
    actor = draw_actor(np.random.default_rng(1))
    phases = {
        name: np.array(
            [
                draw_scene(
                    np.random.default_rng(seed), name, actor, n_frames=24, fps=12.0, size_px=48
                ).phases
                % 1
                for seed in range(60)
            ]
        )
        for name in ("drill", "drill-back")
    }
    np.testing.assert_allclose(phases["drill-back"], (1 - phases["drill"]) % 1, atol=1e-9)
    for found in phases.values():
        # At the first and the last frame alike, about a third of clips is in each third of it.
        shares = [np.histogram(found[:, frame], 3, (0, 1))[0] / 60 for frame in (0, -1)]
        assert np.abs(np.array(shares) - 1 / 3).max() < 0.15


def test_mirroring_twice_changes_nothing_and_once_waves_with_the_other_hand() -> None:
    pose = pose_at(ACTIONS["wave"], 0.3)
    np.testing.assert_array_equal(mirror_pose(mirror_pose(pose)), pose)
    body = draw_body(np.random.default_rng(0))
    right, left = place_joints(pose, body), place_joints(mirror_pose(pose), body)
    assert right[AT["right_hand"], 2] == pytest.approx(left[AT["left_hand"], 2])
    assert right[AT["right_hand"], 2] > right[AT["head"], 2] > right[AT["left_hand"], 2]


def test_a_camera_in_front_sees_the_left_hand_on_the_right() -> None:
    view = View(-np.pi / 2, 0.0, 0.0, 50.0, (100.0, 200.0), 1.0)
    pixels, depths = project(np.array([[0.0, 0.5, 1.0], [0.0, -0.5, 1.0], [1.0, 0, 0]]), view)
    assert pixels[0, 0] > 100 > pixels[1, 0]
    assert pixels[0, 1] < 200
    assert depths[2] < depths[0]


def test_the_box_stays_on_the_ground_until_it_is_grasped() -> None:
    actor = draw_actor(np.random.default_rng(4))
    action = ACTIONS["pick-up"]
    low, end = (place_joints(pose_at(action, phase), actor.body) for phase in (GRASP, 1.0))
    hand = AT["left_hand"]
    assert low[hand, 2] < 0.45 < end[hand, 2]


def test_the_same_seed_draws_the_same_frames_and_another_does_not() -> None:
    clip = list_clips(SMALL)[0]
    first, again = draw_frames(clip, SMALL), draw_frames(clip, SMALL)
    np.testing.assert_array_equal(np.stack(first), np.stack(again))
    assert first[0].shape == (48, 64, 3)
    other = replace(SMALL, seed=4)
    assert not np.array_equal(first[0], draw_frames(clip, other)[0])


def test_softened_places_keep_their_mean_and_lose_their_contrast() -> None:
    canvas = np.random.default_rng(0).integers(60, 196, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(soften(canvas, contrast=1.0), canvas)
    calm = soften(canvas, contrast=0.25).astype(float)
    np.testing.assert_allclose(calm.mean(axis=(0, 1)), canvas.mean(axis=(0, 1)), atol=1.0)
    np.testing.assert_allclose(calm.std(axis=(0, 1)), 0.25 * canvas.std(axis=(0, 1)), rtol=0.05)


def test_joints_are_where_the_figure_is_drawn() -> None:
    generator = np.random.default_rng(6)
    scene = draw_scene(generator, "clap", draw_actor(generator), n_frames=8, fps=12.0, size_px=96)
    # With the camera still and no grain, only the figure moves.
    scene = replace(scene, noise=0.0, shake_px=0 * scene.shake_px)
    pictures, joints = zip(*(render_frame(scene, index) for index in range(8)), strict=True)
    changed = np.ptp(np.stack(pictures).astype(int), axis=0).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    hands = np.concatenate([each[[AT["left_hand"], AT["right_hand"]]] for each in joints])
    # What moves most while clapping are hands and forearms.
    assert np.hypot(*(hands.mean(axis=0) - [columns.mean(), rows.mean()])) < 15


def list_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_sample_is_what_extraction_expects(tmp_path: Path) -> None:
    seen: list[SampleProgress] = []
    spec = replace(SMALL, n_actors=2)
    summary = make_sample(tmp_path, spec, on_progress=seen.append)
    assert (summary.n_clips, summary.n_drawn) == (4, 4)
    assert [each.n_done for each in seen] == [0, 1, 2, 3, 4]
    by_csv = discover_clips(tmp_path, FolderOptions(labels=summary.csv_path)).clips
    by_folder = discover_clips(tmp_path).clips
    assert by_csv == by_folder
    assert {(clip.label, clip.group) for clip in by_csv} == {
        (label, group) for label in spec.actions for group in ("person01", "person02")
    }
    items = list(read_frames(by_csv[0].path, FrameSampling("stride", 1), size_px=48))
    n_decoded = sum(len(item.frames) for item in items if isinstance(item, FrameBatch))
    assert n_decoded == len(draw_frames(list_clips(spec)[0], spec))

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.avi")}
    again = make_sample(tmp_path, spec)
    assert again.n_drawn == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture(scope="module")
def drawn_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the sample `SHARED`."""
    return list_files(make_sample(tmp_path_factory.mktemp("s"), SHARED, n_workers=1).folder)


def test_what_is_missing_is_drawn_by_several_processes_as_by_one_however_much_they_say(
    tmp_path: Path, drawn_by_one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every process writes some hundred kilobytes to standard error, more than a pipe holds.
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    seen: list[SampleProgress] = []
    make_sample(tmp_path, SHARED, n_workers=2, on_progress=seen.append)
    assert [each.n_done for each in seen] == list(range(17))
    assert list_files(tmp_path) == drawn_by_one


def test_after_a_kill_no_process_draws_on_and_a_rerun_clears_what_is_left(
    tmp_path: Path, drawn_by_one: dict[str, bytes]
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pipeline.demo.drawing.sample import SampleSpec, make_sample\n"
        "def tell(progress):\n"
        "    print(progress.n_done, flush=True)\n"
        "    if progress.n_done: time.sleep(60)\n"
        f"make_sample(Path(sys.argv[1]), {SHARED!r}, n_workers=2, on_progress=tell)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as killed:
        assert killed.stdout is not None
        assert [killed.stdout.readline() for _ in range(2)] == [b"0\n", b"1\n"]
        killed.kill()
    # As a process that was killed while it wrote the settings would leave it.
    (tmp_path / ".sample.json.1.partial.json").write_text("{")
    assert any(name.startswith(".clips.") for name in list_files(tmp_path))

    summary = make_sample(tmp_path, SHARED, n_workers=1)
    assert list_files(tmp_path) == drawn_by_one
    assert 0 < summary.n_drawn < 16


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_clip_that_cannot_be_written_says_so_and_drawing_ends(
    tmp_path: Path, n_workers: int
) -> None:
    make_sample(tmp_path, replace(SHARED, n_actors=1, actions=("bow",)))
    (tmp_path / "sample.json").unlink()
    shutil.rmtree(tmp_path / "bow")
    (tmp_path / "clips.csv").unlink()

    def block(progress: SampleProgress) -> None:
        if progress.n_done == 0:
            (tmp_path / "bow").write_text("no folder")

    with pytest.raises(OutputUnwritable, match=r"Writing '.*bow/person0\d_bow_01\.avi' failed"):
        make_sample(tmp_path, SHARED, n_workers=n_workers, on_progress=block)
    assert sorted({path.name for path in tmp_path.iterdir()} - {"wave"}) == ["bow", "sample.json"]
    with pytest.raises(OutputUnwritable, match="Writing '.*bow/s' failed"):
        make_sample(tmp_path / "bow" / "s")


@pytest.mark.parametrize("number", [7, 70, 700])
def test_groups_are_read_off_the_names(number: int) -> None:
    clip = list_clips(SampleSpec(number, 1, ("walk",)))[-1]
    found = infer_groups([Clip(clip.clip_id, Path(clip.clip_id), clip.label)])
    assert found.groups == {clip.clip_id: clip.group} == {clip.clip_id: f"person{number:02d}"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"actions": ("fly",)}, "Actions that can be drawn: walk, .*Received: actions=fly"),
        ({"actions": ()}, "Received: actions=none"),
        ({"n_actors": 0}, "1 to 999 actors.*actors=0"),
        ({"n_takes": 100}, "takes=100"),
        ({"size_px": 8}, "32 to 1080 pixels high.*size=8"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionInvalid, match=text):
        SampleSpec(**change)


def test_no_process_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="At least one process.*n_workers=0"):
        make_sample(tmp_path / "s", n_workers=0)
    assert not (tmp_path / "s").exists()


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists, match="empty folder.*holds other files"):
        make_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_sample_with_other_settings_is_left_alone(tmp_path: Path) -> None:
    spec = SampleSpec(1, 1, ("bow",), size_px=32)
    make_sample(tmp_path, spec)
    before = list_files(tmp_path)
    with pytest.raises(OutputExists, match="holds one with other settings"):
        make_sample(tmp_path, replace(spec, n_actors=2))
    assert list_files(tmp_path) == before


def test_the_command_prints_what_it_made(tmp_path: Path) -> None:
    command = ["make-sample", str(tmp_path / "s"), "--actors", "1", "--takes", "1", "--size", "32"]
    result = make_cli_runner().invoke(cli, [*command, "--actions", "bow,wave", "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["clips"], report["clips_drawn"], report["actions"]) == (2, 2, ["bow", "wave"])
    again = make_cli_runner().invoke(cli, [*command, "--actions", "bow, wave"])
    assert "0 clips drawn" in again.stdout
    assert "2 were there already" in again.stdout
    shown = make_cli_runner().invoke(cli, ["make-sample", "--help"])
    assert ", ".join(ACTIONS) in " ".join(shown.stdout.split()).replace("- ", "-")
