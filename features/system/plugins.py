"""Modules of the user's own, imported so that they can register heads and export formats."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from features.errors import FrameHeadError, OptionInvalid, PluginUnusable
from features.system.keras import quiet_backends

# Worker processes inherit it, and load the same modules.
PLUGINS_VARIABLE = "FRAMEHEAD_PLUGINS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import modules by name or by the path of a .py file, and those that the environment names.

    The working directory counts as a place of modules. What is loaded here is loaded by every
    worker process that is started later.
    """
    named = [item for item in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if item]
    wanted = list(dict.fromkeys(_locate(item.strip()) for item in [*named, *modules]))
    for item in wanted:
        # Standard output is for results.
        with quiet_backends(), redirect_stdout(sys.stderr):
            _load(item)
    if wanted:
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join(wanted)


def load_again(name: str) -> None:
    """Have worker processes load a module that is imported here."""
    file = getattr(sys.modules[name], "__file__", None)
    # Found by its file wherever a worker looks; one of a package without __init__.py is not.
    load_plugins([file if file and _module_name(Path(file))[0] == name else name])


def require_own_name(what: str, name: object, *, module: str, taken_by: str | None) -> None:
    """Refuse a name that is no plain word, or that another module has registered."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise OptionInvalid(
            f"The name of {what} must be letters, digits, '-', '_' and '.', at most 64 of them, "
            f"and begin with a letter or digit. Received: {name!r}."
        )
    if taken_by not in (None, module):  # a module may be run again, as in a notebook
        raise OptionInvalid(
            f"The name of {what} must be its own. '{name}' is registered by the module "
            f"'{taken_by}' already.",
            hint="give it another name",
        )


def _locate(module: str) -> str:
    # Absolute and without detours, so that a worker that starts elsewhere finds the same file,
    # and finds it once.
    if not module.endswith(".py"):
        return module
    return os.path.realpath(os.path.expanduser(module))  # noqa: PTH111 - Path's may raise


def _load(module: str) -> None:
    try:
        if os.pathsep in module:
            raise ImportError(f"its path must not hold '{os.pathsep}'")
        if module.endswith(".py"):
            _load_file(Path(module))
            return
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        if getattr(importlib.import_module(module), "__file__", None) is None:
            raise ImportError("it is a folder without code of its own")
    except PluginUnusable:
        raise
    except FrameHeadError as problem:  # what it registers cannot be used
        raise PluginUnusable(
            f"Importing the plug-in '{module}' failed: {problem.message}", hint=problem.hint
        ) from problem
    # A plug-in is somebody's program: whatever it raises is said, with its kind.
    except (Exception, SystemExit) as problem:
        raise PluginUnusable(
            f"A plug-in must be a module that can be imported. Importing '{module}' failed: "
            f"{type(problem).__name__}: {problem}.",
            hint="give --plugin the path of a .py file, or the name of a module on PYTHONPATH",
        ) from problem


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise ImportError("there is no such file")
    name, root = _module_name(path)
    known = sys.modules.get(name)
    if known is None and "." in name:
        # One of a package may import its neighbours, which a lone file cannot.
        if str(root) not in sys.path:
            sys.path.append(str(root))
        known = importlib.import_module(name)
    if known is not None:
        if not _is_from(getattr(known, "__file__", None), path):
            raise _taken(name, path)
        return
    spec = importlib.util.find_spec(name)
    if spec is not None and not _is_from(spec.origin, path):
        # Whoever imports that module later would get this one.
        raise _taken(name, path)
    _run(name, path)


def _taken(name: str, path: Path) -> PluginUnusable:
    return PluginUnusable(
        f"A plug-in must not have the name of another module. '{path}' would be loaded as "
        f"'{name}', which is one already.",
        hint="rename the file",
    )


def _run(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _module_name(path: Path) -> tuple[str, Path]:
    """Return the dotted name of a file's module, and the folder in which its name begins."""
    folder = path.parent
    parts = [] if path.stem == "__init__" else [path.stem.replace(".", "_")]
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def _is_from(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).exists() and path.samefile(file)
