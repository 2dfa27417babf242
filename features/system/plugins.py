"""Modules of the user's own, imported so that they can register heads and export formats."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from features.errors import PluginUnusable
from features.system.keras import quiet_backends

# Worker processes inherit it, and load the same modules.
PLUGINS_VARIABLE = "FRAMEHEAD_PLUGINS"


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import modules by name or by the path of a .py file, and those that the environment names.

    The working directory counts as a place of modules. What is loaded here is loaded by every
    worker process that is started later.
    """
    named = [item for item in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if item]
    wanted = list(dict.fromkeys(_locate(item) for item in [*named, *modules]))
    for item in wanted:
        # Standard output is for results.
        with quiet_backends(), redirect_stdout(sys.stderr):
            _load(item)
    if wanted:
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join(wanted)


def _locate(module: str) -> str:
    # Absolute, so that a worker that starts elsewhere finds the same file.
    return str(Path(module).absolute()) if module.endswith(".py") else module


def _load(module: str) -> None:
    try:
        if not module.endswith(".py"):
            if (here := str(Path.cwd())) not in sys.path:
                sys.path.append(here)
            importlib.import_module(module)
            return
        name = Path(module).stem
        loaded = sys.modules.get(name)
        if loaded is not None and getattr(loaded, "__file__", None) == module:
            return
        if loaded is not None:
            raise ImportError(f"a module called '{name}' is loaded already, from elsewhere")
        spec = importlib.util.spec_from_file_location(name, module)
        if spec is None or spec.loader is None or not Path(module).is_file():
            raise ImportError("there is no such file")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    # A plug-in is somebody's program: whatever it raises is said, with its kind.
    except Exception as problem:
        raise PluginUnusable(
            f"A plug-in must be a module that can be imported. Importing '{module}' failed: "
            f"{type(problem).__name__}: {problem}.",
            hint="give --plugin the path of a .py file, or the name of a module on PYTHONPATH",
        ) from problem
