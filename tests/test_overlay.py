"""Overlays: real files, decoded again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    RunCli,
    children_of,
    grey_frames,
    linux_only,
    noisy_frames,
    parse_json,
    tiny_backbone,
    write_video,
)
from made_clips import Recipe, read_numbers, write_clip
from test_cli import error_of
from test_report import open_in_browser

from features import Progress, choose_sampling, extract_features
from features.embed import EmbedOptions
from features.errors import OptionInvalid, OutputExists, OutputUnwritable, VideoUnreadable
from features.records import Clip, ClipOutcome, FrameArray, VideoFacts
from features.video.decode import count_frames, read_pictures
from features.video.overlay import (
    LEAST_WIDTH_PX,
    OVERLAY_SUFFIXES,
    Caption,
    render_band,
    write_overlay,
)
from pipeline import (
    FitOptions,
    Prediction,
    PredictSummary,
    predict_videos,
    read_run,
    train_head,
)
from pipeline.commands.predict import to_text
from pipeline.runs.overlay import caption_prediction, choose_fonts, draw_overlays, plan_overlays

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("sit-down", "Öffnen", "привет", "last")
LIMITS = EmbedOptions(stall_seconds=30.0, memory_gib=1.0)


def caption(
    probabilities: Sequence[float] = (0.7, 0.2, 0.1, 0.0), *, leaks: bool = False
) -> Caption:
    return choose_fonts(
        caption_prediction("folder/clip.avi", "lstm", CLASSES, probabilities, leaks=leaks)
    )


def decode(path: Path) -> tuple[VideoFacts, list[FrameArray]]:
    items = list(read_pictures(path))
    facts = items.pop()
    assert isinstance(facts, VideoFacts)
    return facts, [item for item in items if not isinstance(item, VideoFacts)]


def listed(*paths: Path) -> list[tuple[Clip, str]]:
    return [(Clip(str(path), path), path.name) for path in paths]


@pytest.mark.parametrize("suffix", [".webm", ".avi", ".mp4"])
def test_every_frame_is_there_in_its_colours_above_the_band(tmp_path: Path, suffix: str) -> None:
    # One colour per corner: channels or sides in the wrong order would show.
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[:120, :160], frame[:120, 160:] = (220, 30, 30), (30, 200, 30)
    frame[120:, :160], frame[120:, 160:] = (30, 30, 220), (200, 200, 40)
    frames = [np.roll(frame, 4 * index, axis=1) for index in range(11)]
    source = write_video(tmp_path / "source.avi", frames, fps=12.5)
    target = tmp_path / f"out{suffix}"
    facts = write_overlay(source, target, caption(), on_progress=lambda: None)
    assert facts.n_frames_decoded == len(frames)
    drawn_facts, drawn = decode(target)
    band = render_band(caption(), 320)
    assert len(drawn) == len(frames)
    assert drawn_facts.fps_header == pytest.approx(12.5, rel=0.01)
    assert drawn[0].shape == (240 + len(band), 320, 3)
    _, originals = decode(source)
    for original, copy in zip(originals, drawn, strict=True):
        assert np.abs(original.astype(int) - copy[:240]).mean() < 8
    # The band is the same in every frame: solid, with light text and a coloured bar.
    for copy in drawn:
        assert np.abs(band[:, :, ::-1].astype(int) - copy[240:]).mean() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_browser_plays_it(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "source.avi", noisy_frames(50, seed=3, size=(240, 320)))
    target = tmp_path / f"out{suffix}"
    write_overlay(source, target, caption(), on_progress=lambda: None)
    if suffix == ".mp4":
        content = target.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat"), "it plays while it is loaded"
    played = threading.Event()

    class Waiting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The page is loaded, and read, once its picture is: when the video has played.
            if self.path == "/played":
                played.set()
            played.wait(60)
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Waiting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    page = tmp_path / "page.html"
    page.write_text(
        f"<img src='{address}/wait'><video src='{target.name}' muted autoplay></video><script>"
        "const video = document.querySelector('video');"
        "function say(text) {"
        f" document.title = text; new Image().src = '{address}/played' }}"
        "video.onerror = () => say(video.error.message);"
        "video.onended = () => {"
        " const n = video.getVideoPlaybackQuality().totalVideoFrames;"
        " const size = `${video.videoWidth}x${video.videoHeight}`;"
        " say(`${n > 10 ? 'plays' : 'stands'} ${video.duration.toFixed(1)} s ${size}`) }</script>"
    )
    try:
        content_of_page, _, _ = open_in_browser(page, tmp_path)
    finally:
        played.set()
        server.shutdown()
        server.server_close()
    height = 240 + len(render_band(caption(), 320))
    assert f"<title>plays 2.0 s 320x{height}</title>" in content_of_page


@pytest.mark.parametrize(("size", "scale"), [((48, 64), 5), ((36, 336), 1)])
def test_narrow_videos_are_enlarged_by_a_whole_number(
    tmp_path: Path, size: tuple[int, int], scale: int
) -> None:
    source = write_video(tmp_path / "source.avi", noisy_frames(3, seed=5, size=size))
    write_overlay(source, tmp_path / "out.avi", caption(), on_progress=lambda: None)
    _, drawn = decode(tmp_path / "out.avi")
    height, width = drawn[0].shape[:2]
    assert width >= LEAST_WIDTH_PX
    assert (width % 2, height % 2) == (0, 0)
    assert width == size[1] * scale
    enlarged = decode(source)[1][0].repeat(scale, 0).repeat(scale, 1)
    assert np.abs(drawn[0][: len(enlarged)].astype(int) - enlarged).mean() < 15


def test_a_rotated_video_stands_as_the_decoder_stands_it(tmp_path: Path, material: Path) -> None:
    source = material / "clips" / "odd" / "video_rotation_90.mp4"
    facts = write_overlay(source, tmp_path / "out.avi", caption(), on_progress=lambda: None)
    _, drawn = decode(tmp_path / "out.avi")
    assert facts.height_px > facts.width_px
    scale = -(-LEAST_WIDTH_PX // facts.width_px)
    picture = drawn[0][: facts.height_px * scale]
    _, originals = decode(source)
    enlarged = originals[0].repeat(scale, 0).repeat(scale, 1)
    assert np.abs(picture.astype(int) - enlarged).mean() < 8


def test_the_band_shows_what_it_says() -> None:
    sure, unsure = (
        render_band(caption(values), 320) for values in ((1, 0, 0, 0), (0.4, 0.3, 0.2, 0))
    )
    assert sure.shape == unsure.shape

    def orange(band: FrameArray) -> int:
        return int(((band[:, :, 0] > 220) & (band[:, :, 2] < 120)).sum())

    assert orange(unsure) > 0
    assert orange(sure) > 2 * orange(unsure)
    leaky = render_band(caption(leaks=True), 320)
    line = len(leaky) // 5
    assert not np.array_equal(leaky[:line], render_band(caption(), 320)[:line])


def test_caption_names_the_three_most_probable_classes() -> None:
    made = caption_prediction("a/b\n.avi", "gru", CLASSES, (0.1, 0.2, 0.3, 0.4), leaks=True)
    assert made.header == r"LEAKY gru: b\n.avi"
    assert made.rows == (("last", 0.4), ("привет", 0.3), ("Öffnen", 0.2))


def test_letters_beyond_ascii_are_drawn_as_themselves() -> None:
    made = choose_fonts(caption_prediction("é.avi", "lstm", CLASSES, (0, 0.4, 0.6, 0), leaks=False))
    assert made.rows[0][0] == "привет"
    bands = [
        render_band(choose_fonts(Caption("", ((label, 0.5),), "", "")), 320)
        for label in ("привет", "пример", "??????")
    ]
    assert not np.array_equal(bands[0], bands[1])
    assert not np.array_equal(bands[0], bands[2])


def test_what_no_font_has_becomes_an_escape() -> None:
    made = choose_fonts(Caption("", (("\U0010ffff", 1.0),), "", ""))
    assert made.rows == (("\\U0010ffff", 1.0),)
    render_band(made, 320)


@pytest.mark.parametrize("width", [320, 321, 640, 1920])
def test_long_labels_leave_bar_and_number_alone(width: int) -> None:
    short, long = (
        render_band(choose_fonts(Caption("h", ((label, 0.5),), "", "")), width)
        for label in ("a", "a" * 500)
    )
    assert short.shape == long.shape
    np.testing.assert_array_equal(short[:, width // 2 :], long[:, width // 2 :])


def test_names_decide_where_overlays_go(tmp_path: Path) -> None:
    one = listed(tmp_path / "a.avi")
    two = [(Clip("v/x/a.avi", Path("v/x/a.avi")), "x/a.avi"), *listed(tmp_path / "b.mp4")]
    assert plan_overlays(one, tmp_path / "o.MP4") == {one[0][0].clip_id: tmp_path / "o.MP4"}
    assert list(plan_overlays(one, tmp_path / "o").values()) == [tmp_path / "o" / "a.mp4"]
    assert list(plan_overlays(two, tmp_path / "o.d").values()) == [
        tmp_path / "o.d" / "x" / "a.mp4",
        tmp_path / "o.d" / "b.mp4",
    ]


def test_places_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    one, two = listed(tmp_path / "a.avi"), listed(tmp_path / "a.avi", tmp_path / "b.avi")
    with pytest.raises(OptionInvalid, match=r"ends in .mp4, .webm, .avi, or a folder.*o\.gif"):
        plan_overlays(one, tmp_path / "o.gif")
    with pytest.raises(OptionInvalid, match=r"folder where several.*o\.webm' for 2 videos"):
        plan_overlays(two, tmp_path / "o.webm")
    twins = listed(tmp_path / "1" / "a.avi", tmp_path / "2" / "a.mp4")
    with pytest.raises(OptionInvalid, match=r"name of its own.*1/a\.avi' and .*2/a\.mp4'"):
        plan_overlays(twins, tmp_path / "o")
    (tmp_path / "o.webm").write_text("mine")
    with pytest.raises(OutputExists, match=r"only written once.*o\.webm' exists"):
        plan_overlays(one, tmp_path / "o.webm")
    assert plan_overlays(one, tmp_path / "o.webm", overwrite=True)
    (tmp_path / "a.avi").write_text("the video")
    (tmp_path / "link.avi").symlink_to(tmp_path / "a.avi")
    for name in ("a.avi", "link.avi"):
        with pytest.raises(OutputExists, match="never replaces a video that it is made of"):
            plan_overlays(one, tmp_path / name, overwrite=True)
    (tmp_path / "file").write_text("no folder")
    clip = one[0][0]
    with pytest.raises(OutputUnwritable, match="Writing '.*file/o' failed"):
        draw_overlays(
            [clip],
            {clip.clip_id: caption()},
            {clip.clip_id: tmp_path / "file" / "o" / "a.mp4"},
            options=LIMITS,
        )


@linux_only
@pytest.mark.parametrize("suffix", OVERLAY_SUFFIXES)
def test_an_overlay_for_which_there_is_no_room_is_no_overlay(tmp_path: Path, suffix: str) -> None:
    import resource

    source = write_video(tmp_path / "source.avi", noisy_frames(20, seed=3, size=(240, 320)))
    target = tmp_path / f"out{suffix}"

    def write() -> None:
        write_overlay(source, target, caption(), on_progress=lambda: None)

    write()
    n_bytes = target.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (0, 5_000, n_bytes // 2, n_bytes - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        try:
            with pytest.raises(OutputUnwritable, match="writing the video failed|every frame"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_no_video_has_no_overlay(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("text")
    assert count_frames(tmp_path / "text.avi") == 0
    with pytest.raises(VideoUnreadable, match="no video stream"):
        write_overlay(
            tmp_path / "text.avi", tmp_path / "o.avi", caption(), on_progress=lambda: None
        )


def draw(paths: list[Path], out: Path, options: EmbedOptions = LIMITS) -> list[ClipOutcome]:
    named = listed(*paths)
    clips = [clip for clip, _ in named]
    failures = draw_overlays(
        clips,
        {clip.clip_id: caption() for clip in clips},
        plan_overlays(named, out),
        options=options,
    )
    return list(failures)


def test_a_file_that_fails_costs_its_own_overlay_only(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.avi", grey_frames(5))
    (tmp_path / "bad.avi").write_text("text")
    (failure,) = draw([tmp_path / "bad.avi", good], tmp_path / "o", replace(LIMITS, n_workers=1))
    assert (failure.clip_id, failure.status) == (str(tmp_path / "bad.avi"), "failed")
    assert failure.reason.startswith("no overlay: no video stream")
    # Nothing half done stays behind, hidden or not.
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["good.mp4"]


@linux_only
@pytest.mark.parametrize(
    ("harm", "reason"),
    [(signal.SIGSEGV, "crashed with signal 11"), (signal.SIGSTOP, "no progress for 3 s")],
)
def test_a_crash_or_a_hang_costs_one_overlay(
    tmp_path: Path, harm: signal.Signals, reason: str
) -> None:
    paths = [write_video(tmp_path / f"{n}.avi", grey_frames(4)) for n in range(3)]
    paths[0] = write_video(tmp_path / "0.avi", noisy_frames(400, seed=1, size=(240, 320)))
    before = children_of(os.getpid())

    def harm_first_worker() -> None:
        while not list((tmp_path / "o").glob(".overlays.*/0.mp4")):
            time.sleep(0.01)
        (worker,) = children_of(os.getpid()) - before
        os.kill(worker, harm)

    threading.Thread(target=harm_first_worker, daemon=True).start()
    options = replace(LIMITS, n_workers=1, stall_seconds=3.0)
    (failure,) = draw(paths, tmp_path / "o", options)
    assert reason in failure.reason
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["1.mp4", "2.mp4"]


@linux_only
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.avi", grey_frames(4))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    odd = folder / os.fsdecode(b"d\xe9j\xe0.avi")
    plain.rename(odd)
    assert draw([odd], folder / "o") == []
    (made,) = (folder / "o").iterdir()
    assert os.fsencode(made.name) == b"d\xe9j\xe0.mp4"
    assert count_frames(made) == 4


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def run_folder(shared_folder: Path, video_folder: Path, tiny_weights: Path) -> Path:
    """One run for all tests of this file: after the first, making it costs nothing."""
    extract_features(
        video_folder,
        shared_folder / "s.h5",
        backbone=tiny_backbone(tiny_weights),
        sampling=choose_sampling(n_frames=4),
    )
    run, fit = shared_folder / "run", FitOptions(epochs=2)
    train_head(shared_folder / "s.h5", run, head="mean-linear", fit=fit)
    return run


def test_the_command_writes_overlays_as_the_library_does(
    run_cli: RunCli, run_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    result = run_cli("predict", run_folder, video_folder, "--overlay", tmp_path / "o", "--json")
    assert result.exit_code == 3, result.output
    report = parse_json(result)
    assert len(report["predictions"]) == 12
    for item in report["predictions"]:
        relative = Path(item["path"]).relative_to(video_folder)
        assert item["overlay"] == str((tmp_path / "o" / relative).with_suffix(".mp4"))
        assert count_frames(Path(item["overlay"])) == 14
    assert not list((tmp_path / "o").glob("**/v_walk_g04_c01*"))
    assert [item["reason"] for item in report["failures"]] != []

    clip = video_folder / "jump" / "v_jump_g01_c01.avi"
    seen: list[tuple[int, int]] = []
    summary = predict_videos(
        run_folder,
        [clip],
        overlay=tmp_path / "one.avi",
        on_progress=lambda p: seen.append((p.n_finished, p.n_clips)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert summary.predictions[0].overlay == tmp_path / "one.avi"
    by_command = tmp_path / "two.avi"
    text = run_cli("predict", run_folder, clip, "--overlay", by_command)
    assert text.exit_code == 0
    assert f"1 overlay, first: {by_command}" in text.stdout
    assert by_command.read_bytes() == (tmp_path / "one.avi").read_bytes()

    again = run_cli("predict", run_folder, clip, "--overlay", by_command)
    assert again.exit_code == 1
    assert "--overwrite to replace it" in again.stderr
    over = run_cli("predict", run_folder, clip, "--overlay", by_command, "--overwrite")
    assert over.exit_code == 0


def test_a_part_of_a_video_is_predicted_and_drawn(
    run_cli: RunCli, run_folder: Path, tmp_path: Path
) -> None:
    video = write_clip(tmp_path / "a.b.mp4", Recipe(".mp4", "libx264", {"g": "12"}))
    names = [f"{video}#0.4-0.8", f"{video}#f40-end"]
    report = parse_json(
        run_cli("predict", run_folder, *names, "--overlay", tmp_path / "o", "--json")
    )
    assert [item["path"] for item in report["predictions"]] == names
    for item, first, last, part in zip(
        report["predictions"], (10, 40), (20, 60), ("#0.4-0.8", "#f40-end"), strict=True
    ):
        assert item["overlay"] == str(tmp_path / "o" / f"a.b{part}.mp4")
        drawn = decode(Path(item["overlay"]))[1]
        shown = [picture[:192] for picture in drawn]  # twice as large: narrow videos are enlarged
        assert read_numbers(shown) == list(range(first, last))
    beyond = run_cli("predict", run_folder, f"{video}#7.0-8.0")
    assert beyond.exit_code == 3
    assert "no frame between 7 and 8 s" in beyond.output
    for name in (f"{tmp_path}#1.0-2.0", f"{tmp_path / 'none.mp4'}#1.0-2.0"):
        assert f"'{name}' does not exist" in error_of(run_cli("predict", run_folder, name))


@linux_only
def test_a_rerun_clears_what_a_killed_one_left(
    run_cli: RunCli, run_folder: Path, tmp_path: Path
) -> None:
    long = noisy_frames(400, seed=1, size=(240, 320))
    video = write_video(tmp_path / "v" / "long.avi", long)
    out = tmp_path / "o"
    arguments = ("predict", run_folder, video, "--overlay", out)
    process = subprocess.Popen([sys.executable, str(ROOT / "cli.py"), *map(str, arguments)])
    while not list(out.glob(".overlays.*/0.mp4")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert list(out.iterdir()), "it was killed before it was done"
    assert not (out / "long.mp4").exists()
    assert run_cli(*arguments).exit_code == 0
    assert [path.name for path in out.iterdir()] == ["long.mp4"]


@linux_only
# While embedding, and while drawing.
@pytest.mark.parametrize("n_finished", [1, 16])
def test_a_consumer_that_raises_leaves_no_worker(
    run_folder: Path, video_folder: Path, tmp_path: Path, n_finished: int
) -> None:
    def fail(progress: Progress) -> None:
        if progress.n_finished == n_finished:
            raise ValueError("of the consumer")

    before = children_of(os.getpid())
    with pytest.raises(ValueError, match="of the consumer") as caught:
        predict_videos(run_folder, [video_folder], overlay=tmp_path / "o", on_progress=fail)
    # Also while somebody holds the error, and all that its traceback refers to.
    assert caught.tb is not None
    assert children_of(os.getpid()) <= before


@pytest.mark.parametrize("n_workers", ["0", "-1"])
def test_too_few_workers_are_a_usage_error(
    run_cli: RunCli, run_folder: Path, video_folder: Path, n_workers: str
) -> None:
    result = run_cli("predict", run_folder, video_folder, "--workers", n_workers)
    text = error_of(result, exit_code=2)
    assert f"--workers must be at least 1. Received: workers={n_workers}" in text


@pytest.mark.parametrize(
    ("label", "values", "row"),
    [
        ("a", (0.4, 0.4, 0.2), ["a", "40.0%", "b 40.0%, c 20.0%"]),
        ("b", (0.2, 0.4, 0.4), ["b", "40.0%", "c 40.0%, a 20.0%"]),
        ("a", (1 / 3, 1 / 3, 1 / 3), ["a", "33.3%", "b 33.3%, c 33.3%"]),
    ],
)
def test_at_a_tie_every_class_is_named_once(
    run_folder: Path, label: str, values: tuple[float, ...], row: list[str]
) -> None:
    run = replace(read_run(run_folder), classes=("a", "b", "c"))
    tied = Prediction("clip.avi", label, values, 4, (0.0,) * 4, None, "")
    line = to_text(PredictSummary(run, (tied,), (), 1.0)).splitlines()[1]
    assert re.split(r"  +", line) == ["clip.avi", *row]
