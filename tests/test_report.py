"""The HTML pages: self-contained, true to the data beside them, harmless whatever names hold."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import TINY_OPTIONS, make_cli_runner, noisy_frames, write_video
from stage2_helpers import make_clip, write_store

from cli import cli
from features.records import ClipRecord, SourceFile
from features.store.store import open_store
from features.system.text import printable
from features.video.pictures import MOST_PX, find_videos, take_pictures
from pipeline.report.pages import Answer, find_confused
from pipeline.report.run import write_run_report

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HOSTILE_LABELS = (
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='pwned'\">",
    "\"'><script>document.title='pwned'</script>",
    "\u202eevil {{ 7 * 7 }} \udcff שלום",
)
HOSTILE_STEMS = (
    "<script>document.title='pwned'</script>",
    "' onmouseover='alert(1)",
    "</style><style>body{display:none}",
    "long" * 50,
)
QUICK = ("--head", "mean-linear", "--epochs", "3", "--test-fraction", "0.5")
COMPARED = ("--heads", "mean-linear,mlp", "--seeds", "1", "--folds", "2", "--jobs", "1")
SMALL = ("--epochs", "3", "--units", "8")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def framehead(*arguments: object, exit_code: int = 0) -> Result:
    result = make_cli_runner().invoke(cli, [str(item) for item in arguments])
    assert result.exit_code == exit_code, result.output
    return result


class Page(HTMLParser):
    """What a page holds: elements with attributes, text, and numbers by name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.numbers: dict[str, list[float]] = defaultdict(list)
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "data":
            self.numbers[str(found["data-name"])].append(float(str(found["value"])))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[str]:
        return [str(attrs["src"]) for tag, attrs in self.elements if tag == "img"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def store_path(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that nothing tells apart, so that many are confused; some have a video file."""
    clips: list[ClipRecord] = []
    for number, label in enumerate(HOSTILE_LABELS):
        for group in range(8):
            stem = HOSTILE_STEMS[group % len(HOSTILE_STEMS)].replace("/", "\u2215")
            clip = make_clip(f"{number}/{stem[:200]}{group}.avi", label, f"g{number}{group}")
            if group % 2:
                clip = replace(clip, source=write_source(videos / clip.clip_id, seed=group))
            clips.append(clip)
    return write_store(tmp_path_factory.mktemp("store") / "s.h5", clips, signal=0.0)


def write_source(path: Path, *, seed: int) -> SourceFile:
    write_video(path.parent / "plain.avi", noisy_frames(8, seed=seed, size=(240, 480))).rename(path)
    facts = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return SourceFile(facts.st_size, facts.st_mtime_ns, digest)


@pytest.fixture(scope="module")
def run_path(store_path: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run <b>"
    framehead("train-head", store_path, "--out", path, *QUICK, "--videos", videos)
    return path


@pytest.fixture(scope="module")
def comparison_path(
    store_path: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("comparisons") / "comparison"
    command = ("compare-heads", store_path, "--out", path, *COMPARED, *SMALL)
    framehead(*command, "--videos", videos)
    return path


@pytest.fixture(params=["run_path", "comparison_path"])
def report_path(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder / "report.html"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="ascii"))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def write_changed(run: Path, store: Path, folder: Path, changes: dict[str, Any]) -> Page:
    """Write the page of a run of which ``run.json`` says something else."""
    shutil.copytree(run, folder / "run")
    content = {**read_json(run / "run.json"), **changes}
    (folder / "run" / "run.json").write_text(json.dumps(content), encoding="ascii")
    write_run_report(folder / "run", open_store(store))
    return Page(folder / "run" / "report.html")


def test_page_asks_for_nothing(report_path: Path) -> None:
    page = Page(report_path)
    policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policies == [CSP]
    for tag, attrs in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "video")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
                assert str(value).startswith(("data:", "#")), (tag, name)
    for piece in page.raw.split("url(")[1:]:
        assert piece.startswith(("#", "'#", '"#', "data:"))
    assert "@import" not in page.raw
    assert report_path.stat().st_size < 2_000_000


def test_hostile_names_are_shown_and_do_nothing(report_path: Path) -> None:
    page = Page(report_path)
    for label in HOSTILE_LABELS:
        assert printable(label) in page.text
    rows = read_rows(report_path.with_name("predictions.csv"))
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    assert len(wrong) > 3
    assert any(printable(row["clip_id"]) in page.text for row in wrong)
    assert "pwned" not in "".join(str(attrs) for tag, attrs in page.elements if tag != "img")
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.raw


def test_run_page_shows_the_numbers_of_the_json(run_path: Path) -> None:
    page, scores = Page(run_path / "report.html"), read_json(run_path / "report.json")
    for name in ("mean", "low", "high"):
        assert page.numbers[f"accuracy.{name}"] == [scores["accuracy"][name]]
    for name in ("balanced_accuracy", "macro_f1", "calibration_error", "majority_accuracy"):
        assert page.numbers[name] == [scores[name]]
    assert page.numbers["topk.top2"] == [scores["topk"]["top2"]]
    for name in ("precision", "recall", "f1"):
        assert page.numbers[name] == [item[name] for item in scores["classes"]]
    rows = read_rows(run_path / "predictions.csv")
    sure = [float(row[f"probability:{row['predicted']}"]) for row in rows]
    wrong = [
        value for value, row in zip(sure, rows, strict=True) if row["label"] != row["predicted"]
    ]
    assert page.numbers["confidence"] == [*sorted(wrong, reverse=True)[:12], *sure]
    run = read_json(run_path / "run.json")
    for text in (run["store"]["fingerprint"][:12], run["versions"]["keras"], run["created"]):
        assert text in page.text
    assert f"framehead predict '{run['summary']['path']}' VIDEO..." in page.text


def test_comparison_page_shows_the_numbers_of_the_json(comparison_path: Path) -> None:
    page = Page(comparison_path / "report.html")
    content = read_json(comparison_path / "comparison.json")
    for head in content["heads"]:
        for name in ("mean", "low", "high"):
            assert page.numbers[f"{head['name']}.accuracy.{name}"] == [head["accuracy"][name]]
        for name in ("balanced_accuracy", "macro_f1", "calibration_error", "latency_ms"):
            assert page.numbers[f"{head['name']}.{name}"] == [head[name]]
    for name, guess in zip(("majority", "facts"), content["guesses"], strict=True):
        assert page.numbers[f"{name}.accuracy.mean"] == [guess["accuracy"]["mean"]]
    for verdict in content["verdicts"]:
        assert printable(verdict) in page.text
    for pair in content["pairs"]:
        assert pair["verdict"] in page.text
    for name in ("comparison", "latency", "reliability", "confusion-mlp"):
        assert (comparison_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_are_shown_or_their_lack_is_explained(run_path: Path) -> None:
    page = Page(run_path / "report.html")
    n_wrong = len(page.numbers["confidence"]) - len(read_rows(run_path / "predictions.csv"))
    n_without = page.text.count("No picture: the file does not exist")
    assert all(uri.startswith("data:image/jpeg;base64,/9j/") for uri in page.pictures())
    assert 0 < len(page.pictures()) == n_wrong - n_without
    assert n_without > 0


def test_leaks_stand_at_the_top(run_path: Path, store_path: Path, tmp_path: Path) -> None:
    assert "LEAKY" not in Page(run_path / "report.html").text
    page = write_changed(run_path, store_path, tmp_path, {"leaks": True})
    assert "<title>LEAKY – mean-linear" in page.raw
    assert "LEAKY Groups are on both sides" in page.text[: page.text.index("What was trained")]
    assert "from other groups" not in page.text


def test_unknown_groups_stand_at_the_top(run_path: Path, store_path: Path, tmp_path: Path) -> None:
    before = Page(run_path / "report.html").text
    assert "Groups unknown" not in before
    assert "from other groups" in before
    doubts = ["Groups unknown for 3 of 9 clips: each of them counts as its own group"]
    summary = {**read_json(run_path / "run.json")["summary"], "group_doubts": doubts}
    changes = {"groups_known": False, "summary": summary}
    page = write_changed(run_path, store_path, tmp_path, changes)
    assert "Groups unknown for 3 of 9 clips" in page.text[: page.text.index("What was trained")]
    assert "from other groups" not in page.text


def test_a_finished_run_gets_a_new_page_with_pictures(
    store_path: Path, videos: Path, tmp_path: Path
) -> None:
    command = ("train-head", store_path, "--out", tmp_path / "run", *QUICK)
    framehead(*command)
    page = Page(tmp_path / "run" / "report.html")
    assert page.pictures() == []
    assert "--videos DIR does" in page.text
    again = framehead(*command, "--videos", videos, "--json")
    assert json.loads(again.stdout)["is_new"] is False
    assert Page(tmp_path / "run" / "report.html").pictures()
    refused = framehead(*command, "--videos", tmp_path / "none", exit_code=1)
    assert "--videos must be the folder that the store was made from" in refused.stderr


def test_a_finished_comparison_gets_the_same_page_again(
    store_path: Path, videos: Path, comparison_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(comparison_path, tmp_path / "again")
    (tmp_path / "again" / "report.html").unlink()
    command = ("compare-heads", store_path, "--out", tmp_path / "again", *COMPARED, *SMALL)
    framehead(*command, "--videos", videos)
    ours, theirs = (Page(path / "report.html") for path in (tmp_path / "again", comparison_path))
    assert ours.numbers == theirs.numbers
    assert ours.pictures() == theirs.pictures()
    refused = framehead(*command, "--videos", tmp_path / "none", exit_code=1)
    assert "--videos must be the folder that the store was made from" in refused.stderr


def test_changed_and_broken_files_give_no_picture(
    store_path: Path, videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    store = open_store(store_path)
    ids = [clip.clip_id for clip in store.clips if (videos / clip.clip_id).exists()][:3]
    changed, broken, whole = ids
    write_source(tmp_path / "videos" / changed, seed=99)
    (tmp_path / "videos" / broken).write_bytes(b"no video")
    pictures = take_pictures(store, ids, videos=tmp_path / "videos")
    assert pictures[changed].problem == "the file is another one than when it was embedded"
    assert pictures[broken].problem.startswith("no video stream in the file")
    assert not pictures[changed].jpeg + pictures[broken].jpeg
    assert pictures[whole].problem == ""


def test_picture_is_the_middle_frame_in_its_own_shape(tmp_path: Path) -> None:
    import cv2

    frames = [np.full((480, 960, 3), 20 * index, np.uint8) for index in range(12)]
    path = write_video(tmp_path / "a" / "clip.avi", frames)
    source = SourceFile(path.stat().st_size, 0, hashlib.sha256(path.read_bytes()).hexdigest())
    clip = replace(make_clip("a/clip.avi", "a"), source=source)
    store = open_store(write_store(tmp_path / "s.h5", [clip]))
    n_frames = store.clips[0].n_frames
    picture = take_pictures(store, ["a/clip.avi"], videos=tmp_path)["a/clip.avi"]
    decoded = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (MOST_PX // 2, MOST_PX, 3)
    assert abs(float(decoded.mean()) - 20 * (n_frames // 2)) < 6


def test_store_says_where_its_videos_are(
    video_folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    command = ("extract-features", video_folder, "--out", tmp_path / "s.h5", "--frames", "4")
    # With one file that is no video, and the engine that needs no conversion.
    options = ("--weights", tiny_weights, *TINY_OPTIONS, "--engine", "keras")
    framehead(*command, *options, exit_code=3)
    store = open_store(tmp_path / "s.h5")
    assert find_videos(store) == video_folder.resolve()
    [picture] = take_pictures(store, ["jump/v_jump_g01_c01.avi"]).values()
    assert picture.jpeg.startswith(b"\xff\xd8")


def test_most_often_wrong_comes_first_then_most_confident() -> None:
    answers = [
        Answer("a", "x", "y", 0.6),
        Answer("a", "x", "y", 0.8),
        Answer("b", "x", "z", 0.9),
        Answer("b", "x", "x", 0.9),
        Answer("c", "y", "x", 0.9),
        Answer("c", "y", "z", 0.5),
        Answer("c", "y", "z", 0.5),
        Answer("d", "y", "y", 1.0),
    ]
    found = find_confused(answers)
    assert [(clip.clip_id, clip.predicted, clip.n_wrong) for clip in found] == [
        ("a", "y", 2),
        ("c", "z", 3),
        ("b", "z", 1),
    ]
    assert found[0].confidence == pytest.approx(0.7)
    assert len(find_confused(answers, most=1)) == 1


def test_long_tables_begin_with_what_is_wrong(
    run_path: Path, store_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_path, tmp_path / "run")
    write_run_report(tmp_path / "run", open_store(store_path), most_rows=3)
    page = Page(tmp_path / "run" / "report.html")
    n_clips = len(read_rows(run_path / "predictions.csv"))
    assert f"{n_clips - 3} more are in predictions.csv" in page.text
    n_rows = sum(attrs.get("class") == "miss" for tag, attrs in page.elements if tag == "tr")
    assert n_rows == 3


def test_clips_missing_from_a_split_are_counted(
    run_path: Path, store_path: Path, tmp_path: Path
) -> None:
    assert "not in the store" not in Page(run_path / "report.html").text
    summary = {**read_json(run_path / "run.json")["summary"], "n_missing": 41}
    page = write_changed(run_path, store_path, tmp_path, {"summary": summary})
    assert "clips of the split file not in the store41" in page.text


def open_in_browser(page: Path, home: Path) -> tuple[str, list[str], Path]:
    """Return the page as the browser made it, the addresses that it asked for, and a picture."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        if os.environ.get("FRAMEHEAD_REQUIRE_BROWSER"):
            pytest.fail(f"one of {BROWSERS} must be there when FRAMEHEAD_REQUIRE_BROWSER is set")
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    log, shot = home / "net.json", home / "shot.png"
    finished = subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={home / 'profile'}",
            f"--log-net-log={log}",
            f"--screenshot={shot}",
            "--window-size=1000,1400",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=240,
        check=True,
    )
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event["params"] for event in events if "url" in event.get("params", {})]
    # What the browser asks for on its own account has no initiator.
    urls = [item["url"] for item in asked if item.get("initiator", "not an origin")[:3] != "not"]
    return finished.stdout.decode(), urls, shot


def test_the_browser_test_sees_requests_and_scripts(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<title>plain</title><script>document.title='pwned'</script>"
        "<img src='http://127.0.0.1:9/x.png'>"
    )
    content, urls, _ = open_in_browser(page, tmp_path)
    assert "<title>pwned</title>" in content
    assert set(urls) == {"http://127.0.0.1:9/x.png"}


def test_page_opens_in_a_browser_offline(report_path: Path, tmp_path: Path) -> None:
    import cv2

    content, urls, shot = open_in_browser(report_path, tmp_path)
    assert urls == []
    title = Page(report_path).raw.split("<title>")[1].split("</title>")[0]
    assert f"<title>{title}</title>" in content
    assert content.count("<img") == len(Page(report_path).pictures())
    pixels = cv2.imread(str(shot))
    assert pixels is not None
    assert pixels.shape[:2] == (1400, 1000)
    # Text, lines and cards: far more shades than an empty page or an error would have.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 300
