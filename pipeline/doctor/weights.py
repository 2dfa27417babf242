"""Which weights lie on this machine: cached, built in, converted; whole or broken."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from features.backbone.converted import cache_folder, converted_path
from features.backbone.weights import (
    BUILTIN,
    BUILTIN_ALPHA,
    BUILTIN_SIZE_PX,
    DEFAULT_ALPHA,
    DEFAULT_SIZE_PX,
    IMAGENET,
    builtin_path,
    embedding_dim,
    imagenet_path,
)
from features.records import BackboneSpec, Precision
from features.system.files import hash_file
from pipeline.doctor.probes import ProbeAnswer, run_probe

WeightsState = Literal["whole", "broken", "not tried"]

_IMAGENET_NAME = re.compile(
    r"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_(\d+\.\d+)_(\d+)_no_top\.h5"
)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One weights file that ``--weights`` would find by name.

    Whole means that Keras loads it into the network of this alpha; "not tried" that Keras itself
    does not run.
    """

    name: str  # "imagenet" or "builtin"
    path: Path
    alpha: float
    size_px: int
    size_bytes: int
    sha256: str
    state: WeightsState
    fault: str  # why it is broken or was not tried


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A backbone that framehead converted for LiteRT and keeps."""

    path: Path
    size_bytes: int
    source: Path | None  # the weights file, if that is among the listed ones


@dataclass(frozen=True, slots=True)
class WeightsSummary:
    """All weights on this machine."""

    keras_folder: Path  # ``models`` below KERAS_HOME
    converted_folder: Path
    files: tuple[WeightsFile, ...]
    converted: tuple[ConvertedModel, ...]


def list_weights(*, limit_seconds: float = 120.0) -> tuple[WeightsSummary, ProbeAnswer]:
    """Find every weights file, hash it and try to load it. Nothing is downloaded."""
    keras_folder = imagenet_path(DEFAULT_ALPHA, DEFAULT_SIZE_PX).parent
    found: list[tuple[str, Path, float, int]] = []
    for path in sorted(keras_folder.glob("*.h5")):
        if match := _IMAGENET_NAME.fullmatch(path.name):
            found.append((IMAGENET, path, float(match[1]), int(match[2])))
    if builtin_path().is_file():
        found.append((BUILTIN, builtin_path(), BUILTIN_ALPHA, BUILTIN_SIZE_PX))
    words = [word for _, path, *shape in found for word in (str(path), *map(str, shape))]
    keras = run_probe("keras", *words, limit_seconds=limit_seconds)
    faults: dict[str, str] = keras.facts.get("weights_faults", {})
    files = []
    for name, path, alpha, size_px in found:
        fault = faults.get(str(path), keras.fault)
        state: WeightsState = "broken" if fault else "whole"
        if str(path) not in faults:
            state = "not tried"
        size_bytes, sha256 = path.stat().st_size, hash_file(path)
        files.append(WeightsFile(name, path, alpha, size_px, size_bytes, sha256, state, fault))
    converted = _list_converted(tuple(files))
    return WeightsSummary(keras_folder, cache_folder(), tuple(files), converted), keras


def _list_converted(files: tuple[WeightsFile, ...]) -> tuple[ConvertedModel, ...]:
    specs = {
        BackboneSpec(
            "MobileNetV2", f.name, f.sha256, f.alpha, f.size_px, embedding_dim(f.alpha)
        ): f.path
        for f in files
    }
    source_of = {
        converted_path(replace(spec, precision=precision)): path
        for spec, path in specs.items()
        for precision in get_args(Precision)
    }
    return tuple(
        ConvertedModel(path, path.stat().st_size, source_of.get(path))
        for path in sorted(cache_folder().glob("mobilenetv2-*.tflite"))
    )
