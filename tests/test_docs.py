"""The documentation: every command block runs, every option is in the reference."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import TINY_OPTIONS, UCF_MINI, RunCli, noisy_frames, write_video

ROOT = Path(__file__).resolve().parent.parent
# Their blocks follow the session of the README; those of a guide stand for themselves.
SESSION_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [*SESSION_PAGES, *GUIDES]
PEOPLE = ("anna", "bert", "carl", "dora", "emil", "fred")


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
    for page in SESSION_PAGES:
        for code in blocks(page, "python"):
            finished = run(
                [sys.executable, "-W", "error::SyntaxWarning", "-c", code], session_folder
            )
            assert finished.returncode == 0, f"{page.name}: {finished.stderr}"
            n_blocks += 1
    assert n_blocks >= 2


@pytest.mark.usefixtures("material")
def test_commands_within_sentences_run(
    session_folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in running text whose files the session has made."""
    if not (session_folder / "runs").exists():
        pytest.skip("needs what the README's session made, which did not run")
    lists = session_folder / "ucfTrainTestlist"
    lists.symlink_to(UCF_MINI.parent.parent / "ucfTrainTestlist")
    (session_folder / "clips.csv").write_text("path,label\nArchery/v_Archery_g01_c01.avi,bow\n")
    (session_folder / "new.mp4").symlink_to(next(UCF_MINI.glob("*/*.avi")))
    (session_folder / "folder").symlink_to(UCF_MINI / "Archery")
    monkeypatch.chdir(session_folder)
    lines: list[str] = []
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        lines += re.findall(r"`(framehead [^`]*--?[^`]*|framehead (?:inspect|predict)[^`]*)`", text)
    assert len(lines) >= 6
    for number, line in enumerate(lines):
        command = " ".join(line.split()).removeprefix("framehead ")
        if "extract-features" in command:
            command += f" --alpha 0.35 --out e{number}.h5"  # the last --out counts
        elif "train-head" in command:
            command += f" --out r{number} --epochs 2"
        elif "compare-heads" in command:
            command += f" --out c{number} --seeds 1 --folds 2 --epochs 2"
        finished = run_cli(*shlex.split(command))
        assert finished.exit_code == 0, f"{command}: {finished.stderr}"


def write_clips(folder: Path, names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        write_video(folder / name, noisy_frames(14, seed=seed))


def lay_out_own(folder: Path) -> None:
    """Class folders, split folders and a CSV; the file names say who moves."""
    names = [f"{label}/{who}-{n}.avi" for label in ("jump", "walk") for who in PEOPLE for n in "12"]
    write_clips(folder / "videos", names)
    rows = ["path,label,group,split"]
    for name in names:
        label, _, who = name.partition("/")
        part = "test" if who[:4] in PEOPLE[:2] else "train"
        (folder / "recorded" / part / label).mkdir(parents=True, exist_ok=True)
        (folder / "recorded" / part / name).symlink_to(folder / "videos" / name)
        rows.append(f"{name},{label},{who[:4]},{part}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")


def lay_out_ucf(folder: Path) -> None:
    """UCF101 and its lists: fold 1 tests groups 1 and 2, fold 2 groups 3 and 4, and so on."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    groups = {
        group: [
            f"{label}/v_{label}_g{group:02d}_c{n:02d}.avi"
            for label in ("Archery", "Diving")
            for n in (1, 2)
        ]
        for group in range(1, 7)
    }
    write_clips(folder / "UCF-101", [name for names in groups.values() for name in names])
    (lists / "classInd.txt").write_text("1 Archery\n2 Diving\n")
    for fold in (1, 2, 3):
        for part, is_test in (("train", False), ("test", True)):
            picked = [
                name if is_test else f"{name} {1 + name.startswith('Diving')}"
                for group, names in groups.items()
                if ((group - 1) // 2 == fold - 1) == is_test
                for name in names
            ]
            (lists / f"{part}list{fold:02d}.txt").write_text("\r\n".join(picked) + "\r\n")


def lay_out_hmdb(folder: Path) -> None:
    """HMDB51 and its lists, which test a film in one class and train on it in the other."""
    lists = folder / "testTrainMulti_7030_splits"
    lists.mkdir()
    for shift, label in enumerate(("smoke", "wave")):
        names = {
            f"Film_{film}_{label}_u_cm_np1_fr_med_{n}.avi": film for film in range(6) for n in "01"
        }
        write_clips(folder / "hmdb51" / label, names)
        for fold in (1, 2, 3):
            codes = {film: 1 + ((film + shift) // 2 % 3 == fold - 1) for film in range(6)}
            text = "".join(f"{name} {codes[film]} \n" for name, film in names.items())
            (lists / f"{label}_test_split{fold}.txt").write_text(text)


def lay_out_kaggle(folder: Path) -> None:
    names = [f"{label}/{who}.avi" for label in ("jump", "walk") for who in PEOPLE]
    write_clips(folder / "kaggle" / "input" / "my-videos", names)
    (folder / "kaggle" / "input" / "my-store").symlink_to(folder / "kaggle" / "working")


LAY_OUT = {
    "heads": lay_out_own,
    "hmdb51": lay_out_hmdb,
    "kaggle": lay_out_kaggle,
    "own-dataset": lay_out_own,
    "ucf101": lay_out_ucf,
}


def shorten(line: str, folder: Path, weights: Path) -> str:
    """Give a command of a guide small settings; of an option given twice the last one counts."""
    line = line.replace("/kaggle/", f"{folder}/kaggle/")
    if "extract-features" in line:
        line += f" --weights {weights} {' '.join(TINY_OPTIONS)}"
    elif "train-head" in line:
        line += " --epochs 2"
    elif "compare-heads" in line:
        line += " --seeds 1 --epochs 2" + ("" if "--test-lists" in line else " --folds 2")
    return line


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.stem)
def test_guides_run(
    guide: Path,
    run_cli: RunCli,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every block of a guide, in order, in one folder that is laid out as the guide says."""
    LAY_OUT[guide.stem](tmp_path)
    write_clips(tmp_path, ["new.avi", "folder/other.avi"])
    monkeypatch.chdir(tmp_path)
    text = guide.read_text("utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        assert language in ("bash", "python", "text"), language
        if language == "python":
            finished = run([sys.executable, "-W", "error::SyntaxWarning", "-c", block], tmp_path)
            assert finished.returncode == 0, f"{block}: {finished.stderr}"
        for line in block.splitlines() if language == "bash" else ():
            words = shlex.split(shorten(line, tmp_path, tiny_weights))
            assert words[0] == "framehead"
            result = run_cli(*words[1:])
            assert result.exit_code == 0, f"{line}: {result.output}"


def test_hmdb_films_on_both_sides_are_refused_unless_groups_say_the_class(
    run_cli: RunCli, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guide says of the official lists."""
    lay_out_hmdb(tmp_path)
    monkeypatch.chdir(tmp_path)
    extract = shorten("extract-features hmdb51 --out s.h5", tmp_path, tiny_weights)
    assert run_cli(*shlex.split(extract)).exit_code == 0
    lists = ("--test-lists", "testTrainMulti_7030_splits")
    refused = run_cli("train-head", "s.h5", "--out", "run", *lists, "--epochs", "1")
    assert refused.exit_code == 1
    assert "Group 'Film_" in refused.stderr
