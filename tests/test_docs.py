"""The documentation: every block runs, every option and every public name is described.

Commands are run in this process and cut short. With ``-m soak`` the README's session is run on
real clips as it stands there, and guides train the heads that they name.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from conftest import OFFICIAL_LISTS, TINY_OPTIONS, UCF_MINI, RunCli, noisy_frames, write_video
from test_pictures import write_pictures

import features
import pipeline
from cli import cli
from features.clips.formats import ANNOTATION_FORMATS
from pipeline.export.formats import FORMATS
from pipeline.heads.registry import HEADS, parse_head

ROOT = Path(__file__).resolve().parent.parent
# Their blocks follow the session of the README; those of a guide stand for themselves.
SESSION_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [*SESSION_PAGES, *GUIDES]
NOTEBOOK = ROOT / "docs" / "notebooks" / "framehead.ipynb"
PEOPLE = ("anna", "bert", "carl", "dora", "emil", "fred")
PACKAGES = (ROOT / "features", ROOT / "pipeline")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def list_commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in commands.items() if command is not None}


def test_the_command_reference_is_what_the_commands_say() -> None:
    finished = run([sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"], ROOT)
    assert finished.returncode == 0, finished.stderr


def test_every_option_is_described() -> None:
    reference = read(ROOT / "docs" / "cli.md")
    commands = list_commands()
    assert len(commands) == 10
    for name, command in commands.items():
        (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", reference, re.DOTALL | re.M)
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts}"
                assert all(flag in section for flag in option.opts), f"{name} {option.opts}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", read(page)):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_command_named_in_the_docs_exists() -> None:
    commands = list_commands()
    for page in PAGES:
        for name in re.findall(r"`framehead ([a-z]+(?:-[a-z]+)*)", read(page)):
            assert name in commands, f"{page.name} names {name}"


def test_docs_import_the_public_face_alone() -> None:
    cells = json.loads(read(NOTEBOOK))["cells"]
    notebook = "\n".join("".join(cell["source"]) for cell in cells)
    for name, text in [*((page.name, read(page)) for page in PAGES), ("notebook", notebook)]:
        for line in re.findall(r"^\s*(?:from|import) .*", text, re.MULTILINE):
            assert not re.search(r"\b(features|pipeline)\.", line), f"{name}: {line.strip()}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_public_name_is_on_its_page(package: Path) -> None:
    names = set(re.findall(r" as (\w+)$", read(package / "__init__.pyi"), re.MULTILINE))
    assert len(names) > 20
    page = read(ROOT / "docs" / "python.md")
    (section,) = re.findall(rf"^### {package.name}\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.M)
    firsts = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for first in firsts for name in re.findall(r"`(\w+)`", first)} == names


@pytest.mark.parametrize("package", [features, pipeline], ids=lambda package: package.__name__)
def test_every_public_docstring_names_all_that_is_taken(package: ModuleType) -> None:
    for name in package.__all__:
        thing = getattr(package, name)
        text = inspect.getdoc(thing) or ""
        if dataclasses.is_dataclass(thing):
            title, wanted = "Attributes", [field.name for field in dataclasses.fields(thing)]
        elif inspect.isfunction(thing):
            title, wanted = "Parameters", list(inspect.signature(thing).parameters)
        else:
            continue
        section = re.search(rf"^{title}\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.DOTALL | re.M)
        assert section, f"{name} has no section {title}"
        entries = re.findall(r"^(\w+(?:, \w+)*)(?: :|$)", section[1], re.MULTILINE)
        named = [word for entry in entries for word in entry.split(", ")]
        assert sorted(named) == sorted(wanted), name


def test_the_architecture_names_every_room() -> None:
    page = read(ROOT / "docs" / "architecture.md")
    rooms = {path.parent for package in PACKAGES for path in package.glob("*/*.py")}
    for room in rooms:
        assert f"| `{room.relative_to(ROOT).as_posix()}/` |" in page, room


def write_clips(folder: Path, names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        write_video(folder / name, noisy_frames(14, seed=seed))


def lay_out_own(folder: Path) -> None:
    """Class folders, split folders, a CSV, pictures, an archive; file names say who moves."""
    names = [f"{label}/{who}-{n}.avi" for label in ("jump", "walk") for who in PEOPLE for n in "12"]
    write_clips(folder / "videos", names)
    rows, several = ["path,label,group,split"], ["path,label,group"]
    for name in names:
        label, _, who = name.partition("/")
        part = "test" if who[:4] in PEOPLE[:2] else "train"
        (folder / "recorded" / part / label).mkdir(parents=True, exist_ok=True)
        (folder / "recorded" / part / name).symlink_to(folder / "videos" / name)
        rows.append(f"{name},{label},{who[:4]},{part}")
        several.append(f"{name},{label}{';outdoors' * name.endswith('1.avi')},{who[:4]}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    (folder / "several.csv").write_text("\n".join(several) + "\n")
    for number, clip in enumerate(("jump/clip1", "jump/clip2", "walk/clip3")):
        write_pictures(folder / "frames" / clip, noisy_frames(6, seed=number))
    with zipfile.ZipFile(folder / "clips.zip", "w") as archive:
        for name in names[::5]:
            archive.write(folder / "videos" / name, name)


def lay_out_ucf(
    folder: Path, videos: str = "UCF-101", labels: Sequence[str] = ("Archery", "Diving")
) -> None:
    """UCF101 and its lists: fold 1 tests groups 1 and 2, fold 2 groups 3 and 4, and so on."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    groups = {
        group: [f"{label}/v_{label}_g{group:02d}_c{n:02d}.avi" for label in labels for n in (1, 2)]
        for group in range(1, 7)
    }
    write_clips(folder / videos, [name for names in groups.values() for name in names])
    indices = {label: index for index, label in enumerate(labels, start=1)}
    (lists / "classInd.txt").write_text("".join(f"{i} {label}\n" for label, i in indices.items()))
    for fold in (1, 2, 3):
        for part, is_test in (("train", False), ("test", True)):
            picked = [
                name if is_test else f"{name} {indices[name.partition('/')[0]]}"
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
    "plugins": lay_out_own,
    "ucf101": lay_out_ucf,
}

BRIEF = pytest.mark.parametrize(
    "is_brief", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["brief", "long"]
)


def shorten(line: str, weights: Path | None, *, is_brief: bool = True) -> str:
    """Give a command of the docs small settings; of an option given twice the last one counts.

    A brief one trains the baseline where the text names an LSTM or GRU, which take seconds to
    compile. Comparing ordinary heads is left to the README's session.
    """
    words = shlex.split(line)
    epochs = 1 if is_brief else 2
    if "extract-features" in words and weights is not None:
        line += f" --weights {weights} {' '.join(TINY_OPTIONS)}"
    elif "train-head" in words:
        head = words[words.index("--head") + 1] if "--head" in words else "lstm"
        line += f" --epochs {epochs}"
        if is_brief:
            line += f" --head {re.sub(r'^(lstm|gru)(:.*)?$', 'mean-linear', head)}"
    elif "compare-heads" in words:
        line += f" --epochs {epochs} --seeds 1" + ("" if "--fold" in words else " --folds 2")
        if is_brief and "--heads" in words and "--plugin" not in words:
            line += " --help"  # which only parses the line
        elif is_brief:
            line += " --jobs 1" + ("" if "--heads" in words else " --heads mean-linear")
    return line


def run_python(code: str, page: Path) -> None:
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


@pytest.fixture
def _forgotten_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what plug-ins register, for the tests that follow in this process."""
    monkeypatch.setenv("FRAMEHEAD_PLUGINS", "")
    registries: tuple[dict[str, Any], ...] = (HEADS, FORMATS, ANNOTATION_FORMATS)
    before = {name for registry in registries for name in registry}
    yield
    for registry in registries:
        for name in set(registry) - before:
            del registry[name]
    sys.modules.pop("my_plugins", None)


@dataclass(frozen=True)
class Session:
    """A folder in which the README's session is run: on small drawn clips, or on real ones."""

    folder: Path
    weights: Path | None  # None: those that the README names

    def run(self, run_cli: RunCli, line: str) -> str:
        """Run a command, and return its standard output."""
        line = shorten(line, self.weights, is_brief=self.weights is not None)
        result = run_cli(*shlex.split(line.removeprefix("framehead ")))
        assert result.exit_code == 0, f"{line}: {result.stderr}"
        return result.stdout


@pytest.fixture(scope="module")
def session_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("drawn", "real")}
    labels = ("Archery", "BasketballDunk", "HorseRace", "PlayingPiano")
    lay_out_ucf(folders["drawn"], "videos", labels)
    (folders["real"] / "videos").symlink_to(UCF_MINI)
    (folders["real"] / "ucfTrainTestlist").symlink_to(OFFICIAL_LISTS)
    for folder in folders.values():
        (folder / "clips.csv").write_text("path,label\nArchery/v_Archery_g01_c01.avi,bow\n")
        (folder / "new.mp4").symlink_to(folder / "videos" / "Archery" / "v_Archery_g01_c01.avi")
        (folder / "folder").symlink_to(folder / "videos" / "Archery")
    return folders


@pytest.fixture(params=["drawn", pytest.param("real", marks=pytest.mark.soak)])
def session(
    request: pytest.FixtureRequest,
    session_folders: dict[str, Path],
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    is_real = request.param == "real"
    if is_real:
        request.getfixturevalue("material")
    folder = session_folders[request.param]
    monkeypatch.chdir(folder)
    return Session(folder, None if is_real else tiny_weights)


def test_the_session_of_the_readme_runs(session: Session, run_cli: RunCli) -> None:
    (console,) = blocks(ROOT / "README.md", "console")
    shown = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    assert len(shown) == 4
    for part in shown:
        line, _, output = part.partition("\n")
        printed = session.run(run_cli, line)
        # Numbers differ from machine to machine, and heads where they are cut short.
        words = [re.sub(r"^\S+:|[\d.,%]+", "#", text).split() for text in (output, printed)]
        assert words[0][:3] == words[1][:3], line


@pytest.mark.usefixtures("_forgotten_plugins")
def test_python_in_the_docs_runs(session: Session) -> None:
    """After the session, on the store that it made."""
    if not (session.folder / "embeddings.h5").exists():
        pytest.skip("needs the store of the README's session, which did not run")
    n_blocks = 0
    for page in SESSION_PAGES:
        for code in blocks(page, "python"):
            if session.weights is not None:
                small = f"BackboneOptions({str(session.weights)!r}, alpha=0.35, size_px=32)"
                code = code.replace("BackboneOptions(alpha=0.35)", small)
                code = code.replace('"gru', '"mean-linear').replace("folds=2", "folds=2, jobs=1")
            run_python(code, page)
            n_blocks += 1
    assert n_blocks >= 7


def test_commands_within_sentences_run(session: Session, run_cli: RunCli) -> None:
    """Commands in running text whose files the session has made."""
    if not (session.folder / "runs" / "lstm").exists():
        pytest.skip("needs what the README's session made, which did not run")
    lines: list[str] = []
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
        lines += re.findall(r"`(framehead [^`]*--?[^`]*|framehead (?:inspect|predict)[^`]*)`", text)
    assert len(lines) >= 6
    for number, line in enumerate(" ".join(line.split()) for line in lines):
        if "extract-features" in line:
            line += f" --alpha 0.35 --out e{number}.h5"  # the last --out counts
        elif "train-head" in line:
            line += f" --out r{number}"
        elif "compare-heads" in line and session.weights is None:
            line += f" --out c{number}"
        session.run(run_cli, line)


@BRIEF
@pytest.mark.usefixtures("_forgotten_plugins")
@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.stem)
def test_guides_run(
    guide: Path,
    is_brief: bool,
    run_cli: RunCli,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every block of a guide, in order, in one folder that is laid out as the guide says."""
    LAY_OUT[guide.stem](tmp_path)
    write_clips(tmp_path, ["new.avi", "folder/other.avi"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = read(guide)
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        assert language in ("bash", "python", "text"), language
        if file_name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / file_name[1]).write_text(block)
        elif language == "python":
            run_python(block, guide)
        for line in block.splitlines() if language == "bash" else ():
            assert line.startswith("framehead ")
            line = line.replace("/kaggle/", f"{tmp_path}/kaggle/")
            line = shorten(line, tiny_weights, is_brief=is_brief)
            result = run_cli(*shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}: {result.output}"


def test_heads_named_in_the_docs_exist() -> None:
    for page in PAGES:
        for line in re.findall(r"framehead [^\n]*", read(page)):
            for names in re.findall(r"--heads? ([a-z][a-z:,-]+)(?=[\s`])", line):
                for name in names.split(","):
                    if name != "gru-mean" and not name.startswith("gru-mean:"):  # the plug-in's
                        parse_head(name)


def test_hmdb_films_on_both_sides_are_refused_unless_groups_say_the_class(
    run_cli: RunCli, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guide says of the official lists."""
    lay_out_hmdb(tmp_path)
    monkeypatch.chdir(tmp_path)
    extract = shorten("extract-features hmdb51 --out s.h5", tiny_weights)
    assert run_cli(*shlex.split(extract)).exit_code == 0
    lists = ("--test-lists", "testTrainMulti_7030_splits")
    refused = run_cli("train-head", "s.h5", "--out", "run", *lists, "--epochs", "1")
    assert refused.exit_code == 1
    assert "Group 'Film_" in refused.stderr
