"""A folder of drawn clips, as a person would have of real ones: class folders and a CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from features.errors import FrameHeadError, OutputExists, OutputUnwritable
from pipeline.demo.drawing.actions import ACTIONS
from pipeline.demo.drawing.clips import SampleSpec, draw_frames, list_clips, write_clip

SETTINGS_NAME = "sample.json"
CSV_NAME = "clips.csv"
DEFAULT_ACTORS = 12
DEFAULT_TAKES = 2
DEFAULT_SIZE_PX = 180
# What makes other clips of the same settings; raised whenever the drawing changes.
_DRAWING_VERSION = 3
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SampleProgress:
    """How far drawing is.

    Attributes
    ----------
    n_clips : int
        Clips of the sample.
    n_done : int
        Those that are there.
    """

    n_clips: int
    n_done: int


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What `make_sample` left in its folder.

    Attributes
    ----------
    folder, csv_path : Path
    spec : SampleSpec
    n_clips : int
    n_drawn : int
        Clips that were not there before.
    n_bytes : int
        Of all clips.
    seconds : float
    """

    folder: Path
    csv_path: Path
    spec: SampleSpec
    n_clips: int
    n_drawn: int
    n_bytes: int
    seconds: float


def make_sample(
    folder: str | Path,
    *,
    n_actors: int = DEFAULT_ACTORS,
    n_takes: int = DEFAULT_TAKES,
    actions: tuple[str, ...] = tuple(ACTIONS),
    size_px: int = DEFAULT_SIZE_PX,
    seed: int = 0,
    n_workers: int | None = None,
    on_progress: Callable[[SampleProgress], None] = lambda progress: None,
) -> SampleSummary:
    """Draw a folder of action clips to try the other commands on.

    Every actor (body and clothes) is a group and does every action; places and cameras
    differ from clip to clip. Running it again with the same settings draws only what is
    missing.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist.
    n_actors, n_takes, actions, size_px, seed
        As in `SampleSpec`.
    n_workers : int, optional
        Processes that draw; by default one per core.
    on_progress : callable, optional
        Called with a `SampleProgress` after each clip.

    Returns
    -------
    SampleSummary

    Raises
    ------
    OptionInvalid
        If a setting is not legal.
    OutputExists
        If the folder holds something else, or a sample with other settings.
    OutputUnwritable
        If it cannot be written.
    """
    started = time.perf_counter()
    spec = SampleSpec(n_actors, n_takes, tuple(actions), size_px, seed)
    root = Path(folder)
    _claim(root, spec)
    clips = list_clips(spec)
    missing = [root / clip.clip_id for clip in clips if not (root / clip.clip_id).is_file()]
    n_before = len(clips) - len(missing)
    on_progress(SampleProgress(len(clips), n_before))
    # A process takes a second to start, which a few clips do not pay back.
    n_processes = min(n_workers or os.cpu_count() or 1, max(1, len(missing) // 8))
    if n_processes == 1:
        drawn = _draw_missing(root, spec, n_shares=1, share=0)
    else:
        drawn = _draw_side_by_side(root, missing, n_processes)
    for n_drawn in drawn:
        on_progress(SampleProgress(len(clips), n_before + n_drawn))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "group"))
    writer.writerows((clip.clip_id, clip.label, clip.group) for clip in clips)
    _write_text(root / CSV_NAME, table.getvalue())
    return SampleSummary(
        folder=root,
        csv_path=root / CSV_NAME,
        spec=spec,
        n_clips=len(clips),
        n_drawn=len(missing),
        n_bytes=sum((root / clip.clip_id).stat().st_size for clip in clips),
        seconds=time.perf_counter() - started,
    )


def _claim(root: Path, spec: SampleSpec) -> None:
    """Make the folder this sample's, or see that it is already."""
    content = json.dumps({"drawing": _DRAWING_VERSION, **asdict(spec)}, indent=1) + "\n"
    settings = root / SETTINGS_NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        if settings.is_file():
            if settings.read_text(encoding="utf-8") != content:
                raise OutputExists(
                    f"A sample is drawn into a folder of its own. '{root}' holds one with other "
                    f"settings; see '{settings}'.",
                    hint="give another folder, or delete this one first",
                )
            return
        if any(root.iterdir()):
            raise OutputExists(
                f"A sample is drawn into an empty folder. '{root}' holds other files.",
                hint="give a folder that is empty or does not exist",
            )
    except FrameHeadError:
        raise
    except OSError as problem:
        raise OutputUnwritable(
            f"The folder of a sample must be writable. Making '{root}' failed: {problem}.",
            hint="give a folder where you may write",
        ) from problem
    _write_text(settings, content)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        raise OutputUnwritable(
            f"The folder of a sample must be writable. Writing '{path}' failed: {problem}.",
            hint="give a folder where you may write, on a disk with room",
        ) from problem


def _draw_side_by_side(root: Path, missing: list[Path], n_processes: int) -> Iterator[int]:
    """Let processes draw a share each; yield now and then how many clips there are."""
    # Plain processes: multiprocessing would run the caller's main module once more.
    here = str(Path(__file__).resolve().parents[3])
    code = (
        f"import sys; sys.path.insert(0, {here!r})\n"
        "from pipeline.demo.drawing.sample import main; main()"
    )
    command = [sys.executable, "-P", "-c", code, str(root), str(n_processes)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(share)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
            )
            for share in range(n_processes)
        ]
        try:
            while any(worker.poll() is None for worker in workers):
                time.sleep(_POLL_SECONDS)
                yield sum(path.is_file() for path in missing)
            for worker in workers:
                _, complaint = worker.communicate()
                if worker.returncode:
                    lines = complaint.strip().splitlines() or [f"exit {worker.returncode}"]
                    raise OutputUnwritable(
                        f"Every clip of a sample must be drawn. '{root}': {lines[-1]}."
                    )
        finally:
            for worker in workers:
                worker.kill()


def _draw_missing(root: Path, spec: SampleSpec, *, n_shares: int, share: int) -> Iterator[int]:
    n_drawn = 0
    for clip in list_clips(spec)[share::n_shares]:
        if not (root / clip.clip_id).is_file():
            write_clip(root / clip.clip_id, draw_frames(clip, spec))
            n_drawn += 1
            yield n_drawn


def main() -> None:
    """Draw one share of a sample: ``FOLDER SHARES SHARE``, as `make_sample` asks."""
    folder, n_shares, share = sys.argv[1:]
    settings = json.loads((Path(folder) / SETTINGS_NAME).read_text(encoding="utf-8"))
    del settings["drawing"]
    spec = SampleSpec(**settings | {"actions": tuple(settings["actions"])})
    try:
        for _ in _draw_missing(Path(folder), spec, n_shares=int(n_shares), share=int(share)):
            pass
    except FrameHeadError as problem:
        sys.exit(str(problem))
