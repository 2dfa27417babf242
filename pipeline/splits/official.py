"""The official split lists of UCF101 and HMDB51, as they lie on people's disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from features.errors import SplitImpossible

Part = Literal["train", "test", "none"]

# In HMDB51's files: 1 is training, 2 is testing, 0 is in neither part of this fold.
_HMDB_PARTS: dict[str, Part] = {"0": "none", "1": "train", "2": "test"}


def read_official_lists(folder: Path, fold: int) -> dict[str, Part]:
    """Read which clips an official fold trains and tests on, by `entry_key`.

    The folder holds ``trainlist0N.txt`` and ``testlist0N.txt`` (UCF101), or one
    ``CLASS_test_splitN.txt`` per class (HMDB51).
    """
    ucf_lists = [folder / f"{part}list{fold:02d}.txt" for part in ("train", "test")]
    hmdb_lists = sorted(folder.glob(f"*_test_split{fold}.txt"))
    if all(path.is_file() for path in ucf_lists):
        return dict(entry for path in ucf_lists for entry in _read_ucf(path))
    if hmdb_lists:
        return dict(entry for path in hmdb_lists for entry in _read_hmdb(path, fold))
    what = "does not exist" if not folder.is_dir() else "holds neither"
    raise SplitImpossible(
        f"--test-lists must be a folder with trainlist{fold:02d}.txt and "
        f"testlist{fold:02d}.txt (UCF101) or *_test_split{fold}.txt (HMDB51). "
        f"'{folder}' {what}.",
        hint="give the unpacked folder of official lists, and --fold 1, 2 or 3",
    )


def entry_key(name: str) -> str:
    """Reduce a path to what official lists and clip ids have in common: last folder and stem.

    The suffix does not count, because people convert the collections to other containers.

    Examples
    --------
    >>> entry_key("videos/Archery/v_Archery_g01_c01.avi")
    'Archery/v_Archery_g01_c01'
    """
    path = PurePosixPath(name)
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def _read_ucf(path: Path) -> Iterator[tuple[str, Part]]:
    part: Part = "train" if path.name.startswith("train") else "test"
    for _, line in _lines(path):
        # Training lines end in the class number; names themselves have no spaces.
        yield entry_key(line.split()[0]), part


def _read_hmdb(path: Path, fold: int) -> Iterator[tuple[str, Part]]:
    label = path.name.removesuffix(f"_test_split{fold}.txt")
    for number, line in _lines(path):
        name, _, code = line.rpartition(" ")
        if code not in _HMDB_PARTS or not name:
            raise SplitImpossible(
                f"A line of an HMDB51 list must be a file name and 0, 1 or 2. "
                f"Received: '{line}' in '{path}', line {number}."
            )
        yield entry_key(f"{label}/{name.strip()}"), _HMDB_PARTS[code]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as problem:
        raise SplitImpossible(
            f"An official list must be readable. Reading '{path}' failed: {problem}."
        ) from problem
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip().replace("\\", "/")
