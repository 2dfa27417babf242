"""Importing Keras without the pages of notices that its backends write to the terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what native code writes to standard error; show it if an error follows."""
    try:
        terminal = os.dup(2)
    except OSError:  # no standard error at all: nothing to hold back
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(terminal, 2)
            held_back.seek(0)
            os.write(2, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


@contextmanager
def quiet_backends() -> Iterator[None]:
    """Import what may import Keras, without the notices of its backends, now and later."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Every head compiles its own step; TensorFlow takes that for a mistake and says so.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet_stderr():
        yield


@cache
def import_keras() -> ModuleType:
    """Import Keras and wake its backend, quietly."""
    with quiet_backends():
        import keras

        # The first operation makes the backend look for devices, and talk about it.
        keras.ops.zeros(1)
    module: ModuleType = keras
    return module
