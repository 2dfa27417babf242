"""What executes the backbone: LiteRT on a CPU, compiled Keras on a GPU.

Both take the same uint8 frames and give the same vectors (cosine above 0.9999).
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from features.backbone.model import build_backbone
from features.backbone.weights import BackboneFiles
from features.errors import EngineUnavailable, OptionInvalid
from features.records import FrameArray, Precision
from features.system.keras import import_keras
from features.system.versions import is_installed, package_version

EngineName = Literal["litert", "keras"]
EngineChoice = Literal["auto", "litert", "keras"]

_KERAS_BATCH_FRAMES = {"cpu": 32, "gpu": 256}


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Which engine will run, and why that one, in words for the user."""

    name: EngineName
    reason: str


class KerasEngine:
    """The backbone as a compiled Keras model, in bfloat16 where there is a GPU."""

    def __init__(self, backbone: BackboneFiles) -> None:
        device = "gpu" if keras_sees_gpu() else "cpu"
        self.batch_frames = _KERAS_BATCH_FRAMES[device]
        self._model = build_backbone(
            backbone.weights_path,
            alpha=backbone.spec.alpha,
            size_px=backbone.spec.size_px,
            compute_dtype="bfloat16" if device == "gpu" else "float32",
        )

    def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
        """Embed frames; see `features.backbone.litert.Engine.embed`."""
        n = len(frames)
        if n < self.batch_frames:
            # One batch shape only: another one would compile the network anew.
            filler = np.zeros((self.batch_frames - n, *frames.shape[1:]), np.uint8)
            frames = np.concatenate([frames, filler])
        vectors = np.asarray(self._model.predict_on_batch(frames), dtype=np.float32)
        return vectors[:n]


def choose_engine(choice: EngineChoice = "auto", precision: Precision = "float32") -> EnginePlan:
    """Decide which engine runs: Keras on a GPU, else LiteRT, else Keras on the CPU.

    int8 runs on LiteRT only, GPU or not.
    """
    has_litert = is_installed("ai-edge-litert")
    if choice == "keras":
        if precision == "int8":
            raise OptionInvalid(
                "int8 runs on LiteRT. Received: engine=keras, precision=int8.",
                hint="leave out --engine keras; or use --precision float32, for which the store "
                "has to be made anew",
            )
        return EnginePlan("keras", "asked for")
    if choice == "litert" or precision == "int8":
        if not has_litert:
            wanted = "--engine litert" if choice == "litert" else "int8"
            raise EngineUnavailable(
                f"{wanted} needs the package ai-edge-litert, which is not installed.",
                hint="pip install ai-edge-litert (it has no wheel for every platform), or use "
                + ("--engine keras" if precision == "float32" else "--precision float32"),
            )
        return EnginePlan("litert", "asked for" if choice == "litert" else "it alone runs int8")
    if nvidia_driver_sees_gpu():
        if keras_sees_gpu():
            return EnginePlan("keras", "Keras sees a GPU")
        seen = "a GPU is there, but Keras does not see it (pip install 'framehead[gpu]')"
    else:
        seen = "no GPU"
    if has_litert:
        return EnginePlan("litert", seen)
    return EnginePlan(
        "keras", f"{seen}, and LiteRT is not installed: this takes several times longer"
    )


def nvidia_driver_sees_gpu() -> bool:
    """Ask the NVIDIA driver, without any framework, whether it sees a GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return False
    return count.value > 0


def keras_sees_gpu() -> bool:
    """Ask Keras' backend whether it computes on a GPU."""
    keras = import_keras()
    if keras.backend.backend() == "torch":  # knows no keras.distribution
        import torch

        return bool(torch.cuda.is_available())
    # Without a type it lists the fastest kind there is; asking JAX for a GPU it lacks raises.
    devices: list[str] = keras.distribution.list_devices()
    return any(device.startswith(("gpu", "cuda")) for device in devices)


def engine_version(name: EngineName) -> str:
    """Return the version of the package that executes the backbone."""
    package = "ai-edge-litert" if name == "litert" else "keras"
    return f"{package} {package_version(package)}"
