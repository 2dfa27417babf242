"""Bounding the threads of the Keras backend, which must happen before it is imported."""

from __future__ import annotations

import os
import sys

from features.errors import OptionInvalid

# What TensorFlow, JAX and the OpenMP of PyTorch read when they are first imported.
_THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
)


def limit_threads(n_threads: int | None) -> None:
    """Bound the threads of the Keras backend, before it is imported; None leaves its default."""
    if n_threads is None:
        return
    if n_threads < 1:
        raise OptionInvalid(f"--threads must be at least 1. Received: {n_threads}.")
    if "keras" in sys.modules and os.environ.get(_THREAD_VARIABLES[0]) != str(n_threads):
        raise OptionInvalid(
            f"Threads must be set before Keras is imported. Received: threads={n_threads} in a "
            "process that uses Keras already.",
            hint="set TF_NUM_INTRAOP_THREADS and OMP_NUM_THREADS before starting Python",
        )
    os.environ.update(thread_environment(n_threads))


def thread_environment(n_threads: int) -> dict[str, str]:
    """Return the environment variables that bound a backend's threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(n_threads))
