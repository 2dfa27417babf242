"""The few rules of the house: which room may use which, and which library stays where."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("features", "pipeline", "cli")
FILES = [*ROOT.glob("features/**/*.py"), *ROOT.glob("pipeline/**/*.py"), ROOT / "cli.py"]
HEAVY = ("tensorflow", "keras", "cv2", "av", "sklearn", "matplotlib", "scipy", "h5py", "numpy")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path) for path in FILES}


def imported_names(path: Path) -> set[str]:
    """Name every module that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inside & MODULES) or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


IMPORTS = {module_name(path): imported_names(path) for path in FILES}


def users(*libraries: str) -> set[str]:
    return {
        name
        for name, imported in IMPORTS.items()
        if {item.partition(".")[0] for item in imported} & set(libraries)
    }


def test_every_import_of_ours_is_of_a_file_that_exists() -> None:
    ours = {i for names in IMPORTS.values() for i in names if i.partition(".")[0] in OURS}
    assert ours - MODULES == set()
    assert len(ours) > 50


def test_features_knows_nothing_of_pipeline() -> None:
    assert {name for name in users("pipeline", "cli") if name.startswith("features")} == set()


def test_no_circle_of_imports() -> None:
    graph = {name: imported & MODULES for name, imported in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_only_the_command_line_imports_commands() -> None:
    importers = {
        name
        for name, imported in IMPORTS.items()
        if any("pipeline.commands" in i for i in imported)
    }
    assert {n for n in importers if not n.startswith(("cli", "pipeline.commands"))} == set()


def test_libraries_stay_in_their_rooms() -> None:
    def strangers(room: tuple[str, ...], *libraries: str) -> set[str]:
        return {name for name in users(*libraries) if not name.startswith(room)}

    assert strangers(("cli", "pipeline.commands"), "click") == set()
    assert strangers(("features.store",), "h5py") == set()
    assert strangers(("features.video",), "cv2", "av") == set()
    # Layers are subclasses of Keras' own, so that their files must import it by name.
    assert strangers(("features.system.keras", "pipeline.heads.l"), "keras") == set()


def test_no_room_is_crowded() -> None:
    folders = {path.parent for path in FILES if path.parent != ROOT}
    assert {f.name: n for f in folders if (n := len(list(f.glob("*.py")))) > 10} == {}


def test_the_command_line_starts_light() -> None:
    code = f"import sys, cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"
