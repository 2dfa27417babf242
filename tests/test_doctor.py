"""The doctor names each fault and its mend; versions and completion are quick and true."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunCli, linux_only, parse_json

from features.backbone.engines import choose_engine, nvidia_driver_sees_gpu
from features.system.machine import free_bytes, memory_limit_bytes, why_not_writable
from features.system.versions import is_installed, package_version
from pipeline.commands.doctor import doctor_to_text
from pipeline.doctor.doctor import (
    Check,
    check_codecs,
    check_disk,
    check_engine,
    check_gpu,
    check_keras,
    check_opencv,
    check_opencv_packages,
    check_pyav,
    check_python,
    check_resources,
    check_tensorflow,
)
from pipeline.doctor.probes import ProbeAnswer, run_probe

ROOT = Path(__file__).resolve().parent.parent
FAULT = ProbeAnswer({}, "ImportError: no")
KERAS = ProbeAnswer(
    {"version": "3.8.0", "backend": "tensorflow", "backend_version": "2.18.0", "sees_gpu": False}
)
ENGINE = ProbeAnswer({"name": "litert", "reason": "no GPU"})
LITERT = ProbeAnswer({"version": "2.3.0"})


@pytest.mark.parametrize(
    ("check", "status", "mend"),
    [
        (check_python((3, 10)), "broken", "3.11"),
        (check_python((3, 11)), "ok", ""),
        (check_opencv(FAULT), "broken", "pip install"),
        (check_opencv(ProbeAnswer({"version": "5"})), "ok", ""),
        (check_opencv_packages({"opencv-python": "5"}), "ok", ""),
        (check_pyav(FAULT), "broken", "pip install"),
        (check_pyav(ProbeAnswer({"version": "PyAV 18"})), "ok", ""),
        (check_codecs(FAULT), "broken", "FFmpeg"),
        (check_codecs(ProbeAnswer({"HEVC": "works", "VP8": "works"})), "ok", ""),
        (check_codecs(ProbeAnswer({"HEVC": "works", "VP8": "no encoder"})), "warning", "FFmpeg"),
        (check_codecs(ProbeAnswer({"HEVC": "works", "VP8": "no decoder"})), "broken", "FFmpeg"),
        (check_codecs(ProbeAnswer({"HEVC": "works", "VP8": "wrong pictures"})), "broken", "FFmpeg"),
        (check_codecs(ProbeAnswer({"VP8": "no encoder"})), "broken", "FFmpeg"),
        (check_keras(FAULT), "broken", "KERAS_BACKEND"),
        (check_keras(ProbeAnswer({}, "no answer", is_late=True)), "warning", "again"),
        (check_keras(KERAS), "ok", ""),
        (check_tensorflow(FAULT), "broken", "pip install --upgrade tensorflow"),
        (check_tensorflow(ProbeAnswer({}, "no answer", is_late=True)), "warning", "again"),
        (check_engine(FAULT, LITERT, has_litert=True), "broken", "keras"),
        (check_engine(ENGINE, FAULT, has_litert=True), "broken", "--engine keras"),
        (check_engine(ENGINE, FAULT, has_litert=False), "warning", "ai-edge-litert"),
        (check_engine(ENGINE, LITERT, has_litert=True), "ok", ""),
        (check_gpu(ProbeAnswer({"driver_sees_gpu": True}), KERAS, has_driver=True), "warning",
         "tensorflow[and-cuda]"),
        (check_gpu(ProbeAnswer({"driver_sees_gpu": False}), KERAS, has_driver=True), "warning",
         "nvidia-smi"),
        (check_gpu(ProbeAnswer({"driver_sees_gpu": False}), KERAS, has_driver=False), "ok", ""),
        (check_disk({"cache": 10**7, "temporary": 10**12}), "broken", "XDG_CACHE_HOME"),
        (check_disk({"cache": 5 * 10**8}), "warning", "TMPDIR"),
        (check_disk({"cache": 10**11}), "ok", ""),
        (check_resources(1, 10**9), "warning", "--workers 1"),
        (check_resources(2, None), "ok", ""),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_mend(check: Check, status: str, mend: str) -> None:
    assert check.status == status
    assert check.found
    assert mend in check.hint
    assert bool(check.hint) == (status != "ok")


def test_two_opencv_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alpha", "beta"):
        info = tmp_path / f"opencv_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: opencv-{name}\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_version("opencv-alpha") == "1"
    assert (is_installed("opencv-beta"), is_installed("opencv-gamma")) == (True, False)
    check = check_opencv_packages({"opencv-alpha": "1", "opencv-beta": "1"})
    assert check.status == "warning"
    assert "pip uninstall -y opencv-alpha opencv-beta" in check.hint


def test_codecs_are_really_tried() -> None:
    answer = run_probe("codecs", limit_seconds=120)
    assert answer.fault == ""
    assert set(answer.facts.values()) == {"works"}, answer.facts
    for codec in ("AV1", "HEVC", "interlaced H.264"):
        assert codec in answer.facts


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "libGL.so.1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import time; time.sleep(60)", "no answer within 3 s"),
    ],
)
def test_an_opencv_that_breaks_crashes_or_hangs_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, fault: str
) -> None:
    (tmp_path / "cv2.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = run_probe("opencv", limit_seconds=3 if "sleep" in body else 60)
    assert fault in answer.fault
    check = check_opencv(answer)
    assert check.status == "broken"
    assert ("libgl1" in check.hint) == ("libGL" in fault)


def test_memory_of_a_container(tmp_path: Path) -> None:
    cgroup, meminfo = tmp_path / "cgroup", tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree: 1 kB\n")
    assert memory_limit_bytes(cgroup, meminfo) == 1_024_000
    assert (memory_limit_bytes(cgroup, tmp_path / "none") or 0) > 2**26  # all of the machine's
    cgroup.mkdir()
    (cgroup / "memory.max").write_text("max\n")
    assert memory_limit_bytes(cgroup, meminfo) == 1_024_000
    (cgroup / "memory.max").write_text("500000\n")
    assert memory_limit_bytes(cgroup, meminfo) == 500_000


@linux_only
def test_cores_that_a_process_may_not_use_do_not_count() -> None:
    code = (
        "import os; from features.system.machine import usable_cores\n"
        "print(1 <= usable_cores() <= os.cpu_count())\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(usable_cores())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.stdout.split() == ["True", "1"], finished.stderr


def test_folders(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path / "not" / "made") == ""
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    assert "is not a folder" in why_not_writable(tmp_path / "file" / "below")
    assert free_bytes(tmp_path / "not" / "made") > 0


def test_text_shows_a_hint_below_each_fault() -> None:
    text = doctor_to_text(
        [Check("a", "ok", "fine"), Check("bcd", "broken", "torn\n", "mend it")]
    ).splitlines()
    assert text[0] == "ok       a    fine"
    assert text[1] == "broken   bcd  torn\\n"
    assert text[2].strip() == "Hint: mend it"
    assert text[3] == "1 broken, 0 to look at"


def test_the_doctor_on_this_machine(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    result = run_cli("doctor", "--json")
    checks = {check["name"]: check for check in parse_json(result)["checks"]}
    assert checks["opencv"]["found"].startswith("OpenCV ")
    offline = checks["weights"]
    assert offline["status"] == "warning"
    assert "refused" in offline["found"]
    for way_out in ("KERAS_HOME", "--weights PATH", "--weights builtin", "https_proxy"):
        assert way_out in offline["hint"]
    is_broken = any(check["status"] == "broken" for check in checks.values())
    assert result.exit_code == is_broken


def test_version_names_the_libraries_and_the_engine_of_extraction() -> None:
    code = (
        "import sys; from cli import cli\n"
        "try: cli(['--version'])\n"
        "finally: print(sorted({'tensorflow', 'keras', 'cv2', 'sklearn', 'h5py'} & {*sys.modules}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *lines, imported = finished.stdout.splitlines()
    assert lines[0] == f"framehead, version {importlib.metadata.version('framehead')}"
    for name, package in (("TensorFlow", "tensorflow"), ("Keras", "keras"), ("h5py", "h5py")):
        assert f"{name} {importlib.metadata.version(package)}" in lines
    assert imported == "[]", "heavy packages are not imported"
    if not nvidia_driver_sees_gpu():
        plan = choose_engine()
        assert lines[-1] == f"engine: {plan.name} ({plan.reason})"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_lines_of_the_quickstart(shell: str) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert re.search(rf"_FRAMEHEAD_COMPLETE={shell}_source framehead", page)
    # With another Bash than 4.4 or newer, Click would refuse to write its script.
    typed = {"COMP_WORDS": "framehead ex", "COMP_CWORD": "1"}
    if shell == "fish":
        typed["COMP_CWORD"] = "ex"

    def complete(instruction: str) -> str:
        finished = subprocess.run(
            [sys.executable, str(ROOT / "cli.py")],
            env={**os.environ, **typed, "_FRAMEHEAD_COMPLETE": f"{shell}_{instruction}"},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    assert "_FRAMEHEAD_COMPLETE" in complete("source")
    offered = complete("complete")
    assert "extract-features" in offered
    assert "train-head" not in offered
