"""The usual faults of a machine: what was found, and the command that mends it.

What may crash is tried by `pipeline.doctor.probes` in processes of their own;
`pipeline.doctor.checks` says what their answers mean.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from features.backbone.download import probe_address
from features.backbone.engines import cache_folder
from features.backbone.weights import DEFAULT_ALPHA, DEFAULT_SIZE_PX, imagenet_address
from features.errors import DownloadFailed
from features.system.machine import free_bytes, memory_limit_bytes, usable_cores
from pipeline.doctor.checks import (
    Check,
    check_codecs,
    check_disk,
    check_engine,
    check_folders,
    check_gpu,
    check_keras,
    check_opencv,
    check_opencv_packages,
    check_python,
    check_resources,
    check_tensorflow,
    check_weights,
)
from pipeline.doctor.probes import ProbeAnswer, run_probe
from pipeline.doctor.weights import list_weights

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

_PROBE_SECONDS = 60.0
_NETWORK_SECONDS = 5.0
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def examine_machine() -> tuple[Check, ...]:
    """Run every check, side by side.

    Returns
    -------
    tuple of Check
    """
    names = ("opencv", "codecs", "litert", "engine", "gpu")
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
            check_opencv_packages(installed_packages(OPENCV_PACKAGES)),
            check_codecs(answers["codecs"]),
            check_keras(keras),
            check_tensorflow(_ask_tensorflow(keras)),
            check_engine(
                answers["engine"],
                answers["litert"],
                has_litert=bool(installed_packages(("ai-edge-litert",))),
            ),
            check_gpu(answers["gpu"], keras, has_driver=_has_nvidia_driver()),
            check_weights(weights, network.result()),
            check_folders(weights),
            check_disk({"cache": free_bytes(cache_folder()), "temporary": _free_temporary()}),
            check_resources(usable_cores(), memory_limit_bytes()),
        )


def installed_packages(names: Sequence[str]) -> dict[str, str]:
    """Look up which packages are installed, without importing them.

    Returns
    -------
    dict of str to str
        Name to version, in the order of `names`.
    """
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


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
