"""What the doctor tries in processes of their own, because a fault there may kill them."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.backbone.engines import choose_engine, keras_sees_gpu, nvidia_driver_sees_gpu
from features.backbone.model import build_backbone
from features.errors import FrameHeadError, OutputUnwritable, VideoUnreadable, WeightsUnreadable
from features.system.keras import import_keras
from features.system.processes import run_helper
from features.system.versions import package_version
from features.video.decode import read_pictures
from features.video.frames import import_cv2
from features.video.source import decoder_version
from features.video.write import VideoFormat, writing_video

_CODECS: dict[str, tuple[str, VideoFormat | None]] = {
    "H.264": (".mp4", None),
    "interlaced H.264": (".mp4", VideoFormat("libx264", "yuv420p", {}, is_interlaced=True)),
    "HEVC": (".mp4", VideoFormat("libx265", "yuv420p", {"x265-params": "log-level=none"})),
    "AV1": (".mp4", VideoFormat("libsvtav1", "yuv420p", {"preset": "10"})),
    "VP8": (".webm", None),
    "Motion JPEG": (".avi", None),
}
_N_FRAMES = 5


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What one probe said; too late an answer says nothing about what it tried."""

    facts: dict[str, Any]  # empty if it failed
    fault: str = ""
    hint: str = ""  # what mends it, where the probe knew
    is_late: bool = False


def run_probe(name: str, *arguments: str, limit_seconds: float) -> ProbeAnswer:
    """Run one probe in a process of its own, and answer also if that crashed or hung.

    The arguments of "keras" are path, alpha and size of each weights file to try.
    """
    finished = run_helper("pipeline.doctor.probes", name, *arguments, limit_seconds=limit_seconds)
    lines = finished.output.splitlines()
    if finished.fault or not lines:
        return ProbeAnswer({}, finished.fault or "no answer", is_late=finished.is_late)
    # Libraries may print what they like before; the answer is the last line.
    answer: dict[str, Any] = json.loads(lines[-1])
    return ProbeAnswer(answer["facts"], answer["fault"], answer["hint"])


def _probe_opencv() -> dict[str, Any]:
    return {"version": import_cv2().__version__}


def _probe_pyav() -> dict[str, Any]:
    return {"version": decoder_version()}


def _probe_codecs() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: _round_trip(Path(folder) / f"{number}{suffix}", form)
            for number, (name, (suffix, form)) in enumerate(_CODECS.items())
        }


def _round_trip(path: Path, form: VideoFormat | None) -> str:
    expected = [40 * index + 20 for index in range(_N_FRAMES)]
    try:
        with writing_video(path, 25, form=form) as write:
            for grey in expected:
                write(np.full((64, 128, 3), grey, np.uint8))
    except (OutputUnwritable, ValueError):  # PyAV calls an unknown encoder a wrong value
        return "no encoder"
    try:
        greys = [float(item.mean()) for item in read_pictures(path) if isinstance(item, np.ndarray)]
    except VideoUnreadable:
        return "no decoder"
    is_same = len(greys) == _N_FRAMES and np.abs(np.subtract(greys, expected)).max() < 12
    return "works" if is_same else "wrong pictures"


def _probe_tensorflow() -> dict[str, Any]:
    started = time.monotonic()
    import tensorflow

    return {"version": tensorflow.__version__, "seconds": time.monotonic() - started}


def _probe_keras() -> dict[str, Any]:
    keras = import_keras()
    backend = keras.backend.backend()
    return {
        "version": keras.__version__,
        "backend": backend,
        "backend_version": package_version(backend),
        "sees_gpu": keras_sees_gpu(),
        "weights_faults": _try_weights(sys.argv[2:]),
    }


def _try_weights(words: list[str]) -> dict[str, str]:
    faults = {}
    for path, alpha, size_px in zip(words[::3], words[1::3], words[2::3], strict=True):
        try:
            build_backbone(Path(path), alpha=float(alpha), size_px=int(size_px))
            faults[path] = ""
        except WeightsUnreadable as problem:
            faults[path] = problem.message
    return faults


def _probe_litert() -> dict[str, Any]:
    # Its native part loads only now.
    from ai_edge_litert.interpreter import Interpreter

    return {
        "version": package_version("ai-edge-litert"),
        "interpreter": Interpreter.__name__,
    }


def _probe_engine() -> dict[str, Any]:
    plan = choose_engine()
    return {"name": plan.name, "reason": plan.reason}


def _probe_gpu() -> dict[str, Any]:
    return {"driver_sees_gpu": nvidia_driver_sees_gpu()}


_PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "opencv": _probe_opencv,
    "pyav": _probe_pyav,
    "codecs": _probe_codecs,
    "tensorflow": _probe_tensorflow,
    "keras": _probe_keras,
    "litert": _probe_litert,
    "engine": _probe_engine,
    "gpu": _probe_gpu,
}


def main() -> None:
    """Run the probe that the command line names, and print what it says as JSON."""
    answer: dict[str, Any] = {"facts": {}, "fault": "", "hint": ""}
    try:
        answer["facts"] = _PROBES[sys.argv[1]]()
    except FrameHeadError as problem:
        answer.update(fault=problem.message, hint=problem.hint)
    except Exception as problem:  # any fault whatever is what the probe is there to report
        text = str(problem).strip().splitlines() or [""]
        answer["fault"] = f"{type(problem).__name__}: {text[0]}"
    print(json.dumps(answer))
