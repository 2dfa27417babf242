"""What ``--version`` prints: versions, and the engine that would be chosen. Imports little."""

from __future__ import annotations

import platform

from features.system.versions import opencv_package, package_version

_PACKAGES = {
    "TensorFlow": "tensorflow",
    "Keras": "keras",
    "NumPy": "numpy",
    "h5py": "h5py",
    "PyAV": "av",
    "OpenCV": "",
    "LiteRT": "ai-edge-litert",
    "scikit-learn": "scikit-learn",
}


def describe_versions() -> str:
    """Return framehead's version, and below it what it runs on."""
    from features.backbone.engines import choose_engine, nvidia_driver_sees_gpu

    lines = [
        f"framehead, version {package_version('framehead')}",
        f"Python {platform.python_version()}",
    ]
    for name, package in _PACKAGES.items():
        lines.append(f"{name} {package_version(package or opencv_package())}")
    if nvidia_driver_sees_gpu():
        # Whether Keras sees it too takes seconds to find out.
        engine = "keras if it sees the GPU that is here, else litert (framehead doctor tells)"
    else:
        plan = choose_engine()
        engine = f"{plan.name} ({plan.reason})"
    return "\n".join([*lines, f"engine: {engine}"])
