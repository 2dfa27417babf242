"""The backbone's weights file: where it is, how to get it, what identifies it.

Knows no Keras, so that an extraction with nothing left to decode ends at once.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.backbone.converted import convert_backbone
from features.backbone.download import download_file
from features.errors import DownloadFailed, OptionInvalid, WeightsNotFound
from features.records import BackboneSpec, Precision
from features.system.files import hash_file

IMAGENET = "imagenet"
BUILTIN = "builtin"
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
IMAGENET_SIZES_PX = (96, 128, 160, 192, 224)
BUILTIN_ALPHA = 0.35
BUILTIN_SIZE_PX = 96
DEFAULT_ALPHA = 1.0
DEFAULT_SIZE_PX = 224

_LOG = logging.getLogger("framehead")

_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
_DOWNLOAD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """Which MobileNetV2 makes the embeddings.

    Attributes
    ----------
    weights : str or Path, default "imagenet"
        imagenet: the official weights; builtin: weights that come with framehead, trained on
        drawings; PATH: a Keras HDF5 file without top. "imagenet" is taken from Keras' cache
        folder or downloaded into it, "builtin" needs no network, anything else is the path of
        a file made with ``include_top=False``.
    alpha : float, optional
        Width multiplier of MobileNetV2; smaller is faster. For "imagenet" one of 0.35, 0.5,
        0.75, 1.0, 1.3, 1.4; for "builtin" 0.35. By default 1.0; with builtin 0.35.
    size_px : int, optional
        Side of the square input picture, in pixels. For "imagenet" one of 96, 128, 160, 192,
        224; for "builtin" 96; else a multiple of 32. By default 224; with builtin 96.
    precision : {"float32", "int8"}, default "float32"
        In which numbers a processor computes. int8 is about twice as fast at alpha 1.0 where
        framehead doctor says that it pays, and gives other embeddings: the two do not mix.
    """

    weights: str | Path = field(default=IMAGENET, metadata={"metavar": "imagenet|builtin|PATH"})
    alpha: float | None = None
    size_px: int | None = field(default=None, metadata={"flag": "--image-size"})
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class BackboneFiles:
    """A backbone that can be built on this machine, of Keras HDF5 weights without top."""

    spec: BackboneSpec
    weights_path: Path


def find_backbone(options: BackboneOptions) -> BackboneFiles:
    """Find the weights file, downloading it if need be, and describe the backbone it makes.

    For int8 the backbone is quantised if it has not been yet. OptionInvalid if alpha or size are
    not legal; WeightsNotFound if there is no such file.
    """
    weights, alpha, size_px = str(options.weights), options.alpha, options.size_px
    is_builtin = weights == BUILTIN
    if alpha is None:
        alpha = BUILTIN_ALPHA if is_builtin else DEFAULT_ALPHA
    if size_px is None:
        size_px = BUILTIN_SIZE_PX if is_builtin else DEFAULT_SIZE_PX
    if is_builtin:
        _require_trained(alpha, size_px)
        path = builtin_path()
    elif weights == IMAGENET:
        _require_published(alpha, size_px)
        path = imagenet_path(alpha, size_px)
        if not path.is_file():
            _download(path)
    else:
        if size_px < 32 or size_px % 32 or not alpha > 0:
            raise OptionInvalid(
                "MobileNetV2 takes an image size that is a multiple of 32 pixels and a width "
                f"above 0. Received: image_size={size_px}, alpha={alpha}."
            )
        path = Path(options.weights)
        if not path.is_file():
            raise WeightsNotFound(
                "--weights must be 'imagenet', 'builtin' or a weights file. "
                f"'{path}' is not a file.",
                hint="check the path, or use --weights imagenet",
            )
    spec = BackboneSpec(
        name="MobileNetV2",
        weights=weights if weights in (IMAGENET, BUILTIN) else str(path.absolute()),
        weights_sha256=hash_file(path),
        alpha=float(alpha),
        size_px=size_px,
        embedding_dim=embedding_dim(alpha),
    )
    if options.precision == "int8":
        spec = replace(spec, precision="int8")
        spec = replace(spec, model_sha256=hash_file(convert_backbone(spec, path)))
    return BackboneFiles(spec, path)


def embedding_dim(alpha: float) -> int:
    """Return the width of MobileNetV2's last layer: 1280, more for alpha above 1."""
    return 1280 if alpha <= 1.0 else int(1280 * alpha + 4) // 8 * 8


def imagenet_path(alpha: float, size_px: int) -> Path:
    """Return where Keras keeps the official weights: below KERAS_HOME or ``~/.keras``."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{size_px}_no_top.h5"
    return home / "models" / name


def imagenet_address(alpha: float, size_px: int) -> str:
    """Return where the official weights are published."""
    return _ADDRESS + imagenet_path(alpha, size_px).name


def builtin_path() -> Path:
    """Return the path of the weights that come with framehead."""
    name = f"mobilenetv2-{BUILTIN_ALPHA}-{BUILTIN_SIZE_PX}.weights.h5"
    return Path(__file__).resolve().parent / "builtin" / name


def _require_trained(alpha: float, size_px: int) -> None:
    if (float(alpha), size_px) != (BUILTIN_ALPHA, BUILTIN_SIZE_PX):
        raise OptionInvalid(
            f"The built-in weights are for alpha {BUILTIN_ALPHA} and {BUILTIN_SIZE_PX} pixels. "
            f"Received: alpha={alpha}, image_size={size_px}.",
            hint="leave out --alpha and --image-size with --weights builtin",
        )


def _require_published(alpha: float, size_px: int) -> None:
    # Keras would warn and load the 224 px weights for any other size; we do not.
    if float(alpha) not in IMAGENET_ALPHAS:
        raise OptionInvalid(
            f"ImageNet weights exist for alpha {', '.join(map(str, IMAGENET_ALPHAS))}. "
            f"Received: alpha={alpha}."
        )
    if size_px not in IMAGENET_SIZES_PX:
        raise OptionInvalid(
            f"ImageNet weights exist for image sizes {', '.join(map(str, IMAGENET_SIZES_PX))} "
            f"pixels. Received: image_size={size_px}."
        )


def _download(path: Path) -> None:
    address = _ADDRESS + path.name
    _LOG.info("Downloading %s to %s (once)", address, path.parent)
    try:
        download_file(address, path, limit_seconds=_DOWNLOAD_SECONDS)
    except OSError as problem:
        reason = problem.message if isinstance(problem, DownloadFailed) else str(problem)
        raise WeightsNotFound(
            f"The ImageNet weights must be in Keras' cache or downloadable. '{path}' does not "
            f"exist and downloading {address} failed: {reason}.",
            hint=f"download {path.name} on another machine and put it into '{path.parent}', or "
            "set KERAS_HOME to a cache folder whose models/ holds it, or give a weights file "
            "of your own with --weights PATH, or take the small ones that come with framehead "
            "with --weights builtin",
        ) from problem
