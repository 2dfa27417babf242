"""What ``--version`` prints: versions, and the engine that would be chosen. Imports little."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PACKAGES = {
    "TensorFlow": "tensorflow",
    "Keras": "keras",
    "NumPy": "numpy",
    "h5py": "h5py",
    "OpenCV": "opencv-python",
    "LiteRT": "ai-edge-litert",
    "scikit-learn": "scikit-learn",
}
_ABSENT = "not installed"
_OPENCV_TWINS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")


def describe_versions() -> str:
    """Return framehead's version, and below it what it runs on.

    Returns
    -------
    str
        Versions are read from the packages' metadata; none of them is imported.
    """
    from features.backbone.engines import choose_engine, nvidia_driver_sees_gpu

    lines = [f"framehead, version {_version('framehead')}", f"Python {platform.python_version()}"]
    for name, package in _PACKAGES.items():
        known = [_version(twin) for twin in (_OPENCV_TWINS if name == "OpenCV" else (package,))]
        lines.append(f"{name} {next((v for v in known if v != _ABSENT), _ABSENT)}")
    if nvidia_driver_sees_gpu():
        # Whether Keras sees it too takes seconds to find out.
        engine = "keras if it sees the GPU that is here, else litert (framehead doctor tells)"
    else:
        plan = choose_engine()
        engine = f"{plan.name} ({plan.reason})"
    return "\n".join([*lines, f"engine: {engine}"])


def version_option(command: _Command) -> _Command:
    """Add ``--version``, which prints `describe_versions` and ends."""
    option = click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_versions,
        help="Show versions and the engine that would be chosen, and exit.",
    )
    return option(command)


def _print_versions(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(describe_versions())
        ctx.exit()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT
