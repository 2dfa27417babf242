"""The documentation: every command block runs, every option is in the reference."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import UCF_MINI

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def run_framehead(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    assert words[0] == "framehead"
    return run([sys.executable, str(ROOT / "cli.py"), *words[1:]], folder)


def test_the_command_reference_is_what_the_commands_say() -> None:
    finished = run([sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"], ROOT)
    assert finished.returncode == 0, finished.stderr


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_command_named_in_the_docs_exists() -> None:
    from cli import cli

    for page in PAGES:
        for name in re.findall(r"`framehead ([a-z]+(?:-[a-z]+)*)", page.read_text("utf-8")):
            assert name in cli.commands, f"{page.name} names {name}"


@pytest.fixture(scope="module")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("session")


@pytest.mark.usefixtures("material")
def test_the_session_of_the_readme_runs(session_folder: Path) -> None:
    (session_folder / "videos").symlink_to(UCF_MINI)
    (console,) = blocks(ROOT / "README.md", "console")
    shown = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    assert len(shown) == 4
    for part in shown:
        line, _, output = part.partition("\n")
        if "compare-heads" in line:
            line += " --seeds 1 --folds 2"  # the shown one takes minutes
        finished = run_framehead(line, session_folder)
        assert finished.returncode == 0, finished.stderr
        # Numbers differ from machine to machine; the words must not.
        words = [re.sub(r"[\d.,%]+", "#", text).split() for text in (output, finished.stdout)]
        assert words[0][:3] == words[1][:3], line


@pytest.mark.usefixtures("material")
def test_python_in_the_docs_runs(session_folder: Path) -> None:
    """After the session, on the store that it made."""
    if not (session_folder / "embeddings.h5").exists():
        pytest.skip("needs the store of the README's session, which did not run")
    n_blocks = 0
    for page in PAGES:
        for code in blocks(page, "python"):
            finished = run(
                [sys.executable, "-W", "error::SyntaxWarning", "-c", code], session_folder
            )
            assert finished.returncode == 0, f"{page.name}: {finished.stderr}"
            n_blocks += 1
    assert n_blocks >= 2


@pytest.mark.usefixtures("material")
def test_commands_within_sentences_run(session_folder: Path) -> None:
    """Commands in running text whose files the session has made."""
    if not (session_folder / "runs").exists():
        pytest.skip("needs what the README's session made, which did not run")
    lists = session_folder / "ucfTrainTestlist"
    lists.symlink_to(UCF_MINI.parent.parent / "ucfTrainTestlist")
    (session_folder / "clips.csv").write_text("path,label\nArchery/v_Archery_g01_c01.avi,bow\n")
    (session_folder / "new.mp4").symlink_to(next(UCF_MINI.glob("*/*.avi")))
    (session_folder / "folder").symlink_to(UCF_MINI / "Archery")
    lines: list[str] = []
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        lines += re.findall(r"`(framehead [^`]*--?[^`]*|framehead (?:inspect|predict)[^`]*)`", text)
    assert len(lines) >= 6
    for number, line in enumerate(lines):
        command = " ".join(line.split())
        if "extract-features" in command:
            command += f" --alpha 0.35 --out e{number}.h5"  # the last --out counts
        elif "train-head" in command:
            command += f" --out r{number} --epochs 2"
        elif "compare-heads" in command:
            command += f" --out c{number} --seeds 1 --folds 2 --epochs 2"
        finished = run_framehead(command, session_folder)
        assert finished.returncode == 0, f"{command}: {finished.stderr}"
