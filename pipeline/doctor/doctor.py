"""The usual faults of a machine: what was found, and the command that mends it.

What may crash is tried by `pipeline.doctor.probes` in processes of their own. Each check is a
function of what was found, so that one fault never hides another.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from features.backbone.converted import cache_folder
from features.backbone.download import probe_address
from features.backbone.weights import DEFAULT_ALPHA, DEFAULT_SIZE_PX, IMAGENET, imagenet_address
from features.errors import DownloadFailed
from features.system.machine import (
    free_bytes,
    int8_instructions,
    memory_limit_bytes,
    usable_cores,
    why_not_writable,
)
from features.system.text import format_bytes, format_count
from features.system.versions import is_installed, package_version
from pipeline.doctor.probes import ProbeAnswer, run_probe
from pipeline.doctor.weights import WeightsSummary, list_weights

CheckStatus = Literal["ok", "warning", "broken"]

_OLDEST_PYTHON = (3, 11)
_LITTLE_MEMORY_BYTES = 2 * 2**30
_LITTLE_DISK_BYTES = 10**9
_NO_DISK_BYTES = 10**8
_BUSY = "the machine seems busy: run framehead doctor again"

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

_PROBE_SECONDS = 60.0
_NETWORK_SECONDS = 5.0
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found, and the command or option that mends it.

    A warning costs speed or will matter later; broken means that a command fails now.
    """

    name: str
    status: CheckStatus
    found: str
    hint: str = ""


def examine_machine() -> tuple[Check, ...]:
    """Run every check, side by side."""
    names = ("opencv", "pyav", "codecs", "litert", "engine", "gpu")
    with ThreadPoolExecutor(len(names) + 2) as pool:
        running = {
            name: pool.submit(run_probe, name, limit_seconds=_PROBE_SECONDS) for name in names
        }
        listed = pool.submit(list_weights, limit_seconds=_PROBE_SECONDS)
        network = pool.submit(_why_not_reachable)
        answers = {name: future.result() for name, future in running.items()}
        weights, keras = listed.result()
        return (
            check_python(sys.version_info[:2]),
            check_opencv(answers["opencv"]),
            check_opencv_packages(
                {name: package_version(name) for name in OPENCV_PACKAGES if is_installed(name)}
            ),
            check_pyav(answers["pyav"]),
            check_codecs(answers["codecs"]),
            check_keras(keras),
            check_tensorflow(_ask_tensorflow(keras)),
            check_engine(
                answers["engine"],
                answers["litert"],
                has_litert=is_installed("ai-edge-litert"),
            ),
            check_precision(int8_instructions()),
            check_gpu(answers["gpu"], keras, has_driver=_has_nvidia_driver()),
            check_weights(weights, network.result()),
            check_folders(weights),
            check_disk({"cache": free_bytes(cache_folder()), "temporary": _free_temporary()}),
            check_resources(usable_cores(), memory_limit_bytes()),
        )


def _ask_tensorflow(keras: ProbeAnswer) -> ProbeAnswer:
    if keras.facts.get("backend") == "tensorflow":
        return ProbeAnswer({"version": keras.facts["backend_version"]})
    return run_probe("tensorflow", limit_seconds=_PROBE_SECONDS)


def _why_not_reachable() -> str:
    try:
        probe_address(
            imagenet_address(DEFAULT_ALPHA, DEFAULT_SIZE_PX), limit_seconds=_NETWORK_SECONDS
        )
    except DownloadFailed as problem:
        return problem.message
    return ""


def _has_nvidia_driver() -> bool:
    return _NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None


def _free_temporary() -> int:
    return free_bytes(Path(os.environ.get("TMPDIR") or tempfile.gettempdir()))


def check_python(version: tuple[int, ...]) -> Check:
    """Check that Python is new enough."""
    found = f"Python {platform.python_version()}, {platform.platform()}"
    if version < _OLDEST_PYTHON:
        return Check("python", "broken", found, "install Python 3.11 or newer")
    return Check("python", "ok", found)


def check_opencv(opencv: ProbeAnswer) -> Check:
    """Check that OpenCV can be imported."""
    if opencv.fault:
        hint = opencv.hint or "pip install --force-reinstall opencv-python"
        return Check("opencv", "broken", opencv.fault, hint)
    return Check("opencv", "ok", f"OpenCV {opencv.facts['version']}")


def check_opencv_packages(packages: Mapping[str, str]) -> Check:
    """Check that only one package brings OpenCV: several overwrite each other's files."""
    found = ", ".join(f"{name} {version}" for name, version in packages.items())
    if len(packages) > 1:
        return Check(
            "opencv packages",
            "warning",
            f"{len(packages)} packages write to one folder: {found}",
            f"pip uninstall -y {' '.join(packages)} && pip install opencv-python (on a machine "
            "without a screen opencv-python-headless)",
        )
    return Check("opencv packages", "ok", found or "none from a package index")


def check_pyav(pyav: ProbeAnswer) -> Check:
    """Check that PyAV, which decodes, can be imported."""
    if pyav.fault:
        return Check("pyav", "broken", pyav.fault, pyav.hint or "pip install --force-reinstall av")
    return Check("pyav", "ok", pyav.facts["version"])


def check_codecs(codecs: ProbeAnswer) -> Check:
    """Check what was encoded and decoded again; encoders are only needed for overlays."""
    hint = "pip install --force-reinstall --only-binary av av: its wheel brings FFmpeg"
    if codecs.fault:
        return Check("codecs", "broken", codecs.fault, codecs.hint or hint)
    found = ", ".join(f"{code} {state}" for code, state in codecs.facts.items())
    states = set(codecs.facts.values())
    if states & {"no decoder", "wrong pictures"} or "works" not in states:
        return Check("codecs", "broken", found, hint)
    return (
        Check("codecs", "ok", found)
        if states == {"works"}
        else Check("codecs", "warning", found, hint)
    )


def check_keras(keras: ProbeAnswer) -> Check:
    """Check that Keras and its backend run."""
    if keras.is_late:
        return Check("keras", "warning", keras.fault, _BUSY)
    if keras.fault:
        return Check(
            "keras",
            "broken",
            keras.fault,
            "pip install --upgrade keras tensorflow; if KERAS_BACKEND is set, install what it "
            "names or unset it",
        )
    facts = keras.facts
    return Check(
        "keras", "ok", f"Keras {facts['version']} on {facts['backend']} {facts['backend_version']}"
    )


def check_tensorflow(tensorflow: ProbeAnswer) -> Check:
    """Check that TensorFlow can be imported: it converts the backbone for LiteRT."""
    if tensorflow.is_late:
        return Check("tensorflow", "warning", tensorflow.fault, _BUSY)
    if tensorflow.fault:
        return Check(
            "tensorflow",
            "broken",
            tensorflow.fault,
            "pip install --upgrade tensorflow; extraction on a CPU needs it once, whichever "
            "backend trains",
        )
    return Check("tensorflow", "ok", f"TensorFlow {tensorflow.facts['version']}")


def check_engine(engine: ProbeAnswer, litert: ProbeAnswer, *, has_litert: bool) -> Check:
    """Check which engine embeds, and that LiteRT runs if it is installed."""
    if engine.fault:
        return Check("engine", "broken", engine.fault, engine.hint or "see keras above")
    found = f"{engine.facts['name']} ({engine.facts['reason']})"
    if not has_litert:
        return Check(
            "engine",
            "ok" if "sees a GPU" in found else "warning",
            found,
            "pip install ai-edge-litert",
        )
    if litert.fault:
        return Check(
            "engine",
            "broken",
            f"{found}; importing LiteRT failed: {litert.fault}",
            "pip install --force-reinstall ai-edge-litert, or use --engine keras",
        )
    return Check("engine", "ok", f"{found}; LiteRT {litert.facts['version']}")


def check_precision(instructions: tuple[str, ...] | None) -> Check:
    """Say in which numbers this processor embeds fastest, with LiteRT."""
    if instructions is None:
        found = "this system does not tell whether int8 pays; compare extract-features --dry-run"
    elif instructions:
        found = (
            f"int8 pays ({', '.join(instructions)}): --precision int8 is about twice as fast as "
            "float32 at alpha 1.0"
        )
    else:
        found = "float32: int8 does not pay without instructions for it (VNNI)"
    return Check("precision", "ok", found)


def check_gpu(gpu: ProbeAnswer, keras: ProbeAnswer, *, has_driver: bool) -> Check:
    """Check that a GPU that the driver sees is seen by Keras as well."""
    if keras.facts.get("sees_gpu"):
        return Check("gpu", "ok", f"{keras.facts['backend']} computes on a GPU")
    if gpu.facts.get("driver_sees_gpu"):
        return Check(
            "gpu",
            "warning",
            "the NVIDIA driver sees a GPU, Keras does not",
            "pip install 'tensorflow[and-cuda]'; then unset CUDA_VISIBLE_DEVICES if it is empty",
        )
    if has_driver:
        return Check(
            "gpu",
            "warning",
            f"an NVIDIA driver is installed, but it gives no GPU{_because(gpu.fault)}",
            "nvidia-smi tells why; a container needs docker run --gpus all",
        )
    return Check("gpu", "ok", "no NVIDIA GPU; everything runs on the CPU")


def check_weights(weights: WeightsSummary, why_not_reachable: str) -> Check:
    """Check that ImageNet weights are cached whole, or can be downloaded."""
    broken = [item for item in weights.files if item.state == "broken"]
    if broken:
        return Check("weights", "broken", broken[0].fault, f"rm '{broken[0].path}' and run again")
    cached = [
        f"alpha {item.alpha} {item.size_px} px" for item in weights.files if item.name == IMAGENET
    ]
    found = f"cached in '{weights.keras_folder}': {', '.join(cached) or 'none'}"
    if not why_not_reachable:
        return Check("weights", "ok", f"{found}; others can be downloaded")
    return Check(
        "weights",
        "warning",
        f"{found}; others cannot be downloaded ({why_not_reachable})",
        "set https_proxy if there is a proxy; or set KERAS_HOME to a folder whose models/ holds "
        "the file, or give one with --weights PATH, or take --weights builtin",
    )


def check_folders(weights: WeightsSummary) -> Check:
    """Check that the cache folders can be written."""
    own, keras = weights.converted_folder, weights.keras_folder
    if fault := why_not_writable(own):
        return Check(
            "cache folders",
            "broken",
            f"'{own}' cannot be written: {fault}",
            "set XDG_CACHE_HOME to a folder where you may write",
        )
    if fault := why_not_writable(keras):
        return Check(
            "cache folders",
            "warning",
            f"'{keras}' cannot be written: {fault}; no weights can be downloaded into it",
            "set KERAS_HOME to a folder where you may write",
        )
    return Check("cache folders", "ok", f"'{own}' and '{keras}' can be written")


def check_disk(free: Mapping[str, int]) -> Check:
    """Check the room on the disks of the cache and of temporary files, in bytes."""
    found = ", ".join(f"{name} {format_bytes(n_bytes)}" for name, n_bytes in free.items())
    hint = "free some, or set XDG_CACHE_HOME and TMPDIR to a larger disk"
    least = min(free.values())
    if least < _NO_DISK_BYTES:
        return Check("free disk", "broken", found, hint)
    if least < _LITTLE_DISK_BYTES:
        return Check("free disk", "warning", found, hint)
    return Check("free disk", "ok", found)


def check_resources(n_cores: int, memory_bytes: int | None) -> Check:
    """Check cores and memory, as the container limits them."""
    memory = "unknown" if memory_bytes is None else format_bytes(memory_bytes)
    found = f"{format_count(n_cores, 'core')}, {memory} of memory"
    if memory_bytes is not None and memory_bytes < _LITTLE_MEMORY_BYTES:
        return Check(
            "cores and memory", "warning", found, "extract with --workers 1; give it 2 GB or more"
        )
    return Check("cores and memory", "ok", found)


def _because(fault: str) -> str:
    return f" ({fault})" if fault else ""
