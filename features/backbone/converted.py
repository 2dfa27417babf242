"""The backbone as LiteRT files, made once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import platformdirs

from features.backbone.model import EXIT_WEIGHTS_UNREADABLE
from features.errors import EngineUnavailable, OutputUnwritable, WeightsUnreadable
from features.records import BackboneSpec
from features.system.processes import rebuild_problem, run_helper

_LOG = logging.getLogger("framehead")

# Raised whenever the same weights give another file.
_CONVERSION_VERSIONS = {"float32": 1, "int8": 1}


def cache_folder() -> Path:
    """Return where framehead keeps converted backbones: the user's cache folder."""
    return Path(platformdirs.user_cache_dir("framehead", appauthor=False))


def converted_path(spec: BackboneSpec) -> Path:
    """Return where a backbone's LiteRT file is or would be, named by what made it."""
    version = _CONVERSION_VERSIONS[spec.precision]
    key = f"{spec.weights_sha256} {spec.alpha} {spec.size_px} {version}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    infix = "" if spec.precision == "float32" else f"{spec.precision}-"
    return cache_folder() / f"mobilenetv2-{infix}{digest}.tflite"


def convert_backbone(spec: BackboneSpec, weights_path: Path) -> Path:
    """Return the backbone as a LiteRT file in the cache folder, converting it the first time."""
    folder = cache_folder()
    out = converted_path(spec)
    if out.is_file():
        return out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputUnwritable(
            f"The cache folder must be writable. Creating '{folder}' failed: {problem}.",
            hint="set XDG_CACHE_HOME to a folder where you may write",
        ) from problem
    _LOG.info("Preparing the backbone for LiteRT in %s (once, 10 to 30 s)", spec.precision)
    # A process of its own keeps TensorFlow's memory and notices out of this one.
    finished = run_helper(
        "features.backbone.model",
        *map(str, (weights_path, out, spec.alpha, spec.size_px, spec.precision)),
        # Only TensorFlow converts, whichever backend computes.
        environment={"KERAS_BACKEND": "tensorflow"},
    )
    if finished.code == EXIT_WEIGHTS_UNREADABLE:
        raise rebuild_problem(json.loads(finished.output), WeightsUnreadable)
    if finished.fault or not out.is_file():
        raise EngineUnavailable(
            "Converting the backbone for LiteRT failed: "
            f"{finished.fault or 'it ended without a file'}.",
            hint="use --engine keras, which needs no conversion, and report this"
            if spec.precision == "float32"
            else "use --precision float32, and report this",
        )
    return out
