"""The table of rooms in docs/architecture.md is the law for imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (\d+) \| `([\w/.]+)` \|", re.MULTILINE)


def ranks() -> dict[str, int]:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {path: int(rank) for rank, path in ROW.findall(page)}


def source_files() -> list[Path]:
    files = [*ROOT.glob("features/**/*.py"), *ROOT.glob("pipeline/*.py"), ROOT / "cli.py"]
    return [path for path in files if path.name != "__init__.py"]


def imported_files(path: Path) -> set[str]:
    """Name the project's files that a file imports, at its top or inside a function."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in ("features", "pipeline"):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    ours = {name for name in modules if name.split(".")[0] in ("features", "pipeline", "cli")}
    return {name.replace(".", "/") + ".py" for name in ours}


def test_every_file_has_a_rank_and_every_rank_a_file() -> None:
    assert set(ranks()) == {path.relative_to(ROOT).as_posix() for path in source_files()}


def test_files_import_only_downward() -> None:
    rank = ranks()
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in source_files()
        for other in imported_files(path)
        if rank[other] >= rank[path.relative_to(ROOT).as_posix()]
    ]
    assert wrong == []


def test_features_knows_nothing_of_pipeline() -> None:
    for path in ROOT.glob("features/**/*.py"):
        assert not {name for name in imported_files(path) if not name.startswith("features/")}


def test_files_stay_readable() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in source_files()}
    assert {name: n for name, n in long.items() if n > 350} == {}


def test_only_two_files_know_h5py_and_two_know_opencv() -> None:
    def users(module: str) -> set[str]:
        pattern = re.compile(rf"^\s*(import {module}\b|from {module}\b)", re.MULTILINE)
        return {path.name for path in source_files() if pattern.search(path.read_text())}

    assert users("h5py") == {"h5file.py", "h5write.py"}
    assert users("cv2") == {"frames.py"}
