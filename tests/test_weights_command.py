"""Weights files: what lies here, what is broken, and what happens without a network."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import RunCli, parse_json

from features.backbone.converted import converted_path
from features.backbone.download import download_file, probe_address
from features.backbone.weights import (
    BUILTIN,
    BUILTIN_ALPHA,
    BUILTIN_SIZE_PX,
    BackboneOptions,
    builtin_path,
    find_backbone,
    imagenet_path,
)
from features.errors import DownloadFailed
from pipeline.commands.doctor import weights_to_text
from pipeline.doctor.doctor import check_folders, check_weights
from pipeline.doctor.weights import WeightsFile, WeightsSummary

ROOT = Path(__file__).resolve().parent.parent
CONTENT = bytes(range(256)) * 40


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        promised = len(CONTENT) * (2 if self.path == "/cut" else 1)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT[:5000])
            if self.path == "/slow":
                time.sleep(2)
            with suppress(ConnectionError):  # the other side may have been killed
                self.wfile.write(CONTENT[5000:])

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Accepts connections and never answers, as some proxies do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_download_is_whole_or_not_there(address: str, tmp_path: Path) -> None:
    path = tmp_path / "models" / "a.h5"
    download_file(f"{address}/whole", path, limit_seconds=30)
    assert path.read_bytes() == CONTENT
    assert probe_address(f"{address}/whole", limit_seconds=30) >= 0
    with pytest.raises(DownloadFailed, match="404"):
        download_file(f"{address}/missing", tmp_path / "b.h5", limit_seconds=30)
    with pytest.raises(DownloadFailed, match="broke off after 10240 of 20480 bytes"):
        download_file(f"{address}/cut", tmp_path / "b.h5", limit_seconds=30)
    assert files_in(tmp_path) == ["a.h5"]


def files_in(folder: Path) -> list[str]:
    """Every file but the locks, which stay."""
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if not name.endswith(".lock")]


def test_a_killed_download_leaves_nothing(address: str, tmp_path: Path) -> None:
    path = tmp_path / "models" / "a.h5"
    code = (
        "import sys; from pathlib import Path; from features.backbone.download import *\n"
        "download_file(sys.argv[1], Path(sys.argv[2]), limit_seconds=30)"
    )
    words = [f"{address}/slow", str(path)]
    killed = subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT)
    while not files_in(tmp_path):
        time.sleep(0.01)
        assert killed.poll() is None
    with ThreadPoolExecutor() as pool:
        other = pool.submit(download_file, f"{address}/whole", path, limit_seconds=30)
        time.sleep(0.2)
        assert not other.done(), "two processes downloaded the same file at once"
        killed.kill()
        killed.wait()
        other.result()
    assert path.read_bytes() == CONTENT
    assert files_in(tmp_path) == ["a.h5"]


def test_silence_ends_in_time(
    silent_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no answer within 0\.5 s|timed out"):
        download_file(silent_address, tmp_path / "a.h5", limit_seconds=0.5)
    assert time.monotonic() - started < 5


@pytest.fixture
def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "proxy", ["closed_address", pytest.param("silent_address", marks=pytest.mark.soak)]
)
def test_behind_a_proxy_that_refuses_or_never_answers(
    proxy: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # In a process of its own: Python leaves the socket of a proxy open that fell silent.
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "1.avi").write_bytes(b"not looked at")
    environment = {key: value for key, value in os.environ.items() if key != "no_proxy"}
    environment |= {"KERAS_HOME": str(tmp_path), "https_proxy": request.getfixturevalue(proxy)}
    started = time.monotonic()
    finished = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "extract-features", "videos", "--out", "s.h5"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - started < 20
    assert finished.returncode == 1
    for part in (
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/mobilenet_v2_",
        f"'{tmp_path / 'models'}'",
        "KERAS_HOME",
        "--weights PATH",
        "--weights builtin",
    ):
        assert part in finished.stderr


def test_weights_here_are_listed_with_their_state(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cut, foreign = (imagenet_path(0.35, size_px) for size_px in (128, 160))
    cut.parent.mkdir()
    cut.write_bytes(builtin_path().read_bytes()[:100_000])
    foreign.write_text("<html>log in to the proxy</html>")
    (cut.parent / "another-network.h5").write_text("not listed")
    sha256 = hashlib.sha256(builtin_path().read_bytes()).hexdigest()
    known = converted_path(find_backbone(BackboneOptions(BUILTIN)).spec)
    unknown = known.with_name("mobilenetv2-0.tflite")
    known.parent.mkdir(parents=True, exist_ok=True)
    was_there = known.exists()
    for model in (known, unknown):
        model.touch()

    report = parse_json(run_cli("weights", "--json"))
    of = {Path(item["path"]): item for item in report["weights"]}
    assert set(of) == {cut, foreign, builtin_path()}
    built_in = of[builtin_path()]
    assert (built_in["state"], built_in["sha256"], built_in["fault"]) == ("whole", sha256, "")
    assert (built_in["alpha"], built_in["image_size"]) == (BUILTIN_ALPHA, BUILTIN_SIZE_PX)
    assert (of[cut]["state"], of[cut]["bytes"]) == ("broken", 100_000)
    assert (of[cut]["alpha"], of[cut]["image_size"]) == (0.35, 128)
    assert str(cut) in of[cut]["fault"]
    assert of[foreign]["state"] == "broken"
    sources = {Path(item["path"]): item["source"] for item in report["converted"]}
    assert sources[known] == str(builtin_path())
    assert sources[unknown] is None

    unknown.unlink()
    if not was_there:
        known.unlink()


@pytest.mark.usefixtures("material")
def test_official_weights_are_whole(run_cli: RunCli) -> None:
    report = parse_json(run_cli("weights", "--json"))
    states = {(item["name"], item["alpha"]): item["state"] for item in report["weights"]}
    assert states["imagenet", 0.35] == "whole"


def summary_of(tmp_path: Path, *files: WeightsFile) -> WeightsSummary:
    return WeightsSummary(tmp_path / "keras", tmp_path / "own", files, ())


def test_the_text_says_what_is_whole_and_what_is_broken(tmp_path: Path) -> None:
    whole = WeightsFile("builtin", tmp_path / "a.h5", 0.35, 96, 9, "ab" * 32, "whole", "")
    broken = WeightsFile("imagenet", tmp_path / "b.h5", 0.35, 128, 100_000, "cd", "broken", "cut")
    text = weights_to_text(summary_of(tmp_path, whole, broken))
    assert f"sha256 {whole.sha256}" in text
    assert "imagenet alpha 0.35 128 px: broken, 100.0 kB" in text
    assert "Hint: delete it" in text


def test_the_doctor_on_weights_and_folders(tmp_path: Path) -> None:
    whole = WeightsFile("imagenet", tmp_path / "a.h5", 1.0, 224, 9, "ab", "whole", "")
    broken = WeightsFile("imagenet", tmp_path / "b.h5", 0.5, 96, 1, "cd", "broken", "cut short")
    assert check_weights(summary_of(tmp_path, whole), "").status == "ok"
    assert check_weights(summary_of(tmp_path), "no route").status == "warning"
    found = check_weights(summary_of(tmp_path, whole, broken), "")
    assert (found.status, found.found) == ("broken", "cut short")
    assert f"rm '{broken.path}'" in found.hint
    assert check_folders(summary_of(tmp_path)).status == "ok"
    (tmp_path / "keras").write_text("")
    assert "KERAS_HOME" in check_folders(summary_of(tmp_path)).hint
    (tmp_path / "own").write_text("")
    assert check_folders(summary_of(tmp_path)).status == "broken"
