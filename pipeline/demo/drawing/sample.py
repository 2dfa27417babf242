"""A folder of drawn clips, as a person would have of real ones: class folders and a CSV."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from features.errors import FrameHeadError, OptionInvalid, OutputExists, OutputUnwritable, resuming
from features.records import FrameArray
from features.system.files import (
    clear_partials,
    private_folder,
    report_unwritable,
    write_csv,
    write_text,
)
from features.system.machine import usable_cores
from features.system.processes import Helper, claim_output, describe_problem, rebuild_problem
from features.video.write import writing_video
from pipeline.demo.drawing.actions import ACTIONS
from pipeline.demo.drawing.scenes import draw_actor, draw_scene, render_frame

_SETTINGS_NAME = "sample.json"
_CSV_NAME = "clips.csv"
# What makes other clips of the same settings; raised whenever the drawing changes.
_DRAWING_VERSION = 3
_FPS = 12.0
_FRAMES = (20, 32)
_MOST_ACTORS = 999
_MOST_TAKES = 99
_SIZES_PX = (32, 1080)
# A process takes a second to start, which fewer clips do not pay back.
_CLIPS_PER_PROCESS = 8


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """What a sample of drawn clips is made of; the same spec gives the same clips.

    Attributes
    ----------
    n_actors : int, default 12
        Number of people to draw, 1 to 999; each is a group. Each does every action.
    n_takes : int, default 2
        Number of clips of each person and action, 1 to 99. Each is in another place.
    actions : tuple of str
        Actions to draw; by default all that there are. Keys of
        `pipeline.demo.drawing.actions.ACTIONS`.
    size_px : int, default 180
        Height of the pictures in pixels, 32 to 1080. They are a third wider.
    seed : int, default 0
        Seed of the drawings, at least 0; another seed draws other people.

    Raises
    ------
    OptionInvalid
        If a value is not legal.
    """

    n_actors: int = field(default=12, metadata={"flag": "--actors"})
    n_takes: int = field(default=2, metadata={"flag": "--takes"})
    actions: tuple[str, ...] = field(
        default=tuple(ACTIONS), metadata={"flag": "--actions", "metavar": "NAME,NAME..."}
    )
    size_px: int = field(default=180, metadata={"flag": "--size"})
    seed: int = field(default=0, metadata={"flag": "--seed"})

    def __post_init__(self) -> None:
        """Check the values."""
        unknown = [name for name in self.actions if name not in ACTIONS]
        if unknown or not self.actions:
            raise OptionInvalid(
                f"Actions that can be drawn: {', '.join(ACTIONS)}. "
                f"Received: actions={','.join(unknown) or 'none'}."
            )
        if not 1 <= self.n_actors <= _MOST_ACTORS or not 1 <= self.n_takes <= _MOST_TAKES:
            raise OptionInvalid(
                f"A sample has 1 to {_MOST_ACTORS} actors and 1 to {_MOST_TAKES} takes. "
                f"Received: actors={self.n_actors}, takes={self.n_takes}."
            )
        if not _SIZES_PX[0] <= self.size_px <= _SIZES_PX[1] or self.seed < 0:
            raise OptionInvalid(
                f"Pictures are {_SIZES_PX[0]} to {_SIZES_PX[1]} pixels high, seeds at least 0. "
                f"Received: size={self.size_px}, seed={self.seed}."
            )


@dataclass(frozen=True, slots=True)
class SampleProgress:
    """How far drawing is."""

    n_clips: int  # of the whole sample
    n_done: int  # those that are there


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What `make_sample` left in its folder.

    Attributes
    ----------
    folder, csv_path : Path
        The CSV has the columns path, label and group.
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


@dataclass(frozen=True, slots=True)
class DrawnClip:
    """One clip of a sample, drawn or not yet; actors and takes are counted from 1."""

    # Path below the sample's folder. Names are KTH's, from which framehead infers the group.
    clip_id: str
    label: str
    group: str
    actor: int
    take: int


@resuming()
def make_sample(
    folder: str | Path,
    spec: SampleSpec = SampleSpec(),
    *,
    n_workers: int | None = None,
    on_progress: Callable[[SampleProgress], None] = lambda progress: None,
) -> SampleSummary:
    """Draw a folder of action clips to try the other commands on.

    Every actor (body and clothes) is a group and does every action; places and cameras
    differ from clip to clip. Running it again with the same spec draws only what is missing.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist. It gets a folder of Motion JPEG files per action,
        ``clips.csv`` and ``sample.json``.
    spec : SampleSpec, optional
        What to draw.
    n_workers : int, optional
        Processes that draw, at least 1; by default one per core. Few clips take fewer.
    on_progress : callable, optional
        Called with a `SampleProgress` first and after each clip.

    Returns
    -------
    SampleSummary

    Raises
    ------
    OptionInvalid
        If `n_workers` is less than 1.
    OutputExists
        If the folder holds something else, or a sample with another spec.
    OutputUnwritable
        If it cannot be written.
    """
    started = time.perf_counter()
    if n_workers is not None and n_workers < 1:
        raise OptionInvalid(f"At least one process must draw. Received: n_workers={n_workers}.")
    root = Path(folder)
    _claim(root, spec)
    with ExitStack() as stack:
        with report_unwritable(root):
            # Made even where nothing is missing, for it clears away what killed processes left.
            room = stack.enter_context(private_folder(root / "clips"))
        clips = list_clips(spec)
        missing = [clip for clip in clips if not (root / clip.clip_id).is_file()]
        n_before = len(clips) - len(missing)
        on_progress(SampleProgress(len(clips), n_before))
        n_processes = min(n_workers or usable_cores(), len(missing) // _CLIPS_PER_PROCESS)
        if n_processes > 1:
            drawn = _draw_side_by_side(root, room, spec, missing, n_processes)
        else:
            drawn = (_draw(root, room, spec, clip) for clip in missing)
        # Closed also if `on_progress` raises: no process draws on.
        for n_drawn, _ in enumerate(stack.enter_context(closing(drawn)), 1):
            on_progress(SampleProgress(len(clips), n_before + n_drawn))
        with report_unwritable(root):
            rows = [(clip.clip_id, clip.label, clip.group) for clip in clips]
            write_csv(room / _CSV_NAME, ("path", "label", "group"), rows)
            (room / _CSV_NAME).replace(root / _CSV_NAME)
    return SampleSummary(
        folder=root,
        csv_path=root / _CSV_NAME,
        spec=spec,
        n_clips=len(clips),
        n_drawn=len(missing),
        n_bytes=sum((root / clip.clip_id).stat().st_size for clip in clips),
        seconds=time.perf_counter() - started,
    )


def list_clips(spec: SampleSpec) -> tuple[DrawnClip, ...]:
    """List the clips of a sample.

    >>> [clip.clip_id for clip in list_clips(SampleSpec(1, 2, ("bow",)))]
    ['bow/person01_bow_01.avi', 'bow/person01_bow_02.avi']
    """
    clips = []
    for action in spec.actions:
        for actor in range(1, spec.n_actors + 1):
            for take in range(1, spec.n_takes + 1):
                group = f"person{actor:02d}"
                name = f"{action}/{group}_{action}_{take:02d}.avi"
                clips.append(DrawnClip(name, action, group, actor, take))
    return tuple(clips)


def draw_frames(clip: DrawnClip, spec: SampleSpec) -> list[FrameArray]:
    """Draw all frames of a clip: uint8, (size_px, size_px * 4 // 3, 3), blue, green, red."""
    actor = draw_actor(np.random.default_rng([spec.seed, 0, clip.actor]))
    number = list(ACTIONS).index(clip.label)
    # Place and camera differ from clip to clip, so that they tell nothing about the action.
    generator = np.random.default_rng([spec.seed, 1, clip.actor, number, clip.take])
    n_frames = int(generator.integers(*_FRAMES, endpoint=True))
    scene = draw_scene(
        generator, clip.label, actor, n_frames=n_frames, fps=_FPS, size_px=spec.size_px
    )
    return [render_frame(scene, index)[0] for index in range(n_frames)]


def write_clip(path: Path, frames: Sequence[FrameArray], *, room: Path) -> None:
    """Write a video file into a folder of one's own, and move it to its place when complete."""
    partial = room / path.name
    with report_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with writing_video(partial, _FPS) as write:
                for frame in frames:
                    write(frame)
        except OutputUnwritable as problem:
            raise OutputUnwritable(
                f"A sample needs room for its clips. Drawing '{path}': {problem.message}.",
                hint="free disk space, or give another folder",
            ) from problem
        partial.replace(path)


def main() -> None:
    """Draw the clips that standard input names, one a line, and answer each with its error."""
    answers = claim_output()
    root, room = Path(sys.argv[1]), Path(sys.argv[2])
    settings = json.loads(sys.argv[3])
    spec = SampleSpec(**{**settings, "actions": tuple(settings["actions"])})
    clips = {clip.clip_id: clip for clip in list_clips(spec)}
    for line in sys.stdin:
        error: dict[str, str] = {}
        try:
            _draw(root, room, spec, clips[line.strip()])
        except FrameHeadError as problem:
            error = describe_problem(problem)
        answers.write(json.dumps(error).encode("ascii") + b"\n")
        answers.flush()


def _claim(root: Path, spec: SampleSpec) -> None:
    """Make the folder this sample's, or see that it is already."""
    content = json.dumps({"drawing": _DRAWING_VERSION, **asdict(spec)}, indent=1) + "\n"
    settings = root / _SETTINGS_NAME
    with report_unwritable(root):
        root.mkdir(parents=True, exist_ok=True)
        clear_partials(settings)
        if settings.is_file():
            if settings.read_text(encoding="utf-8", errors="replace") != content:
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
        write_text(settings, content)


def _draw(root: Path, room: Path, spec: SampleSpec, clip: DrawnClip) -> DrawnClip:
    write_clip(root / clip.clip_id, draw_frames(clip, spec), room=room)
    return clip


def _draw_side_by_side(
    root: Path, room: Path, spec: SampleSpec, missing: Sequence[DrawnClip], n_processes: int
) -> Generator[DrawnClip, None, None]:
    """Let several processes draw the clips, and yield after each."""
    idle: SimpleQueue[Helper] = SimpleQueue()
    with ExitStack() as stack:
        threads = ThreadPoolExecutor(n_processes)
        # Last: with its process gone, a thread that waits for an answer ends.
        stack.callback(threads.shutdown, cancel_futures=True)
        for _ in range(n_processes):
            helper = Helper(__name__, str(root), str(room), json.dumps(asdict(spec)))
            stack.callback(helper.close)
            idle.put(helper)
        futures = [threads.submit(_ask, idle, clip) for clip in missing]
        for future in as_completed(futures):
            yield future.result()


def _ask(idle: SimpleQueue[Helper], clip: DrawnClip) -> DrawnClip:
    """Let the next idle process draw a clip."""
    helper = idle.get()
    answer = b""
    try:
        helper.requests.write(f"{clip.clip_id}\n".encode("ascii"))
        helper.requests.flush()
        answer = helper.replies.readline()
    except BrokenPipeError:
        pass  # it has ended, as if it had not answered
    finally:
        idle.put(helper)
    if not answer:
        raise OutputUnwritable(
            "Every clip of a sample must be drawn. The process that was to draw "
            f"'{clip.clip_id}' ended: {helper.how_it_ended()}."
        )
    if error := json.loads(answer):
        raise rebuild_problem(error, OutputUnwritable)
    return clip
