"""Versions of what runs here, looked up without importing anything."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

NOT_INSTALLED = "not installed"

# One library under several names, of which any may be installed.
_OPENCV_PACKAGES = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")


def package_version(name: str) -> str:
    """Return the version of an installed package, or `NOT_INSTALLED`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED


def is_installed(name: str) -> bool:
    """Tell whether a package is installed."""
    return package_version(name) != NOT_INSTALLED


def opencv_package() -> str:
    """Return which of OpenCV's packages is installed; the first one if none is."""
    return next(filter(is_installed, _OPENCV_PACKAGES), _OPENCV_PACKAGES[0])


def keras_backend() -> str:
    """Return what Keras computes with, as its environment variable says."""
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def describe_environment() -> dict[str, Any]:
    """Say what runs here: ``created`` (ISO 8601, UTC), ``platform``, ``versions``."""
    backend = keras_backend()
    packages = ("framehead", "keras", "numpy", "h5py", "scikit-learn", backend)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "backend": backend,
            **{name: package_version(name) for name in packages},
        },
    }
