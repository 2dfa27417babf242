"""Drawn clips as video files: which ones a sample has, and writing each of them whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import OptionInvalid, OutputUnwritable
from features.records import FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.actions import ACTIONS
from pipeline.demo.drawing.rendering import render_frame
from pipeline.demo.drawing.scenes import draw_actor, draw_scene

# OpenCV writes and reads Motion JPEG itself, so every wheel can, whatever FFmpeg it has.
SUFFIX = ".avi"
_CODEC = "MJPG"
_FPS = 12.0
_FRAMES = (20, 32)
_MOST_ACTORS = 999
_SIZES_PX = (32, 1080)


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """What a sample of drawn clips is made of; the same one gives the same clips.

    Attributes
    ----------
    n_actors : int
        Every actor does every action.
    n_takes : int
        Clips of one actor doing one action, each in another place.
    actions : tuple of str
        Keys of `pipeline.demo.drawing.actions.ACTIONS`.
    size_px : int
        Height of the pictures; they are a third wider.
    seed : int
    """

    n_actors: int
    n_takes: int
    actions: tuple[str, ...]
    size_px: int
    seed: int

    def __post_init__(self) -> None:
        """Check the values; see `OptionInvalid`."""
        unknown = [name for name in self.actions if name not in ACTIONS]
        if unknown or not self.actions:
            raise OptionInvalid(
                f"Actions that can be drawn: {', '.join(ACTIONS)}. "
                f"Received: actions={','.join(unknown) or 'none'}."
            )
        if not 1 <= self.n_actors <= _MOST_ACTORS or not 1 <= self.n_takes <= 99:
            raise OptionInvalid(
                f"A sample has 1 to {_MOST_ACTORS} actors and 1 to 99 takes. "
                f"Received: actors={self.n_actors}, takes={self.n_takes}."
            )
        if not _SIZES_PX[0] <= self.size_px <= _SIZES_PX[1] or self.seed < 0:
            raise OptionInvalid(
                f"Pictures are {_SIZES_PX[0]} to {_SIZES_PX[1]} pixels high, seeds at least 0. "
                f"Received: size={self.size_px}, seed={self.seed}."
            )


@dataclass(frozen=True, slots=True)
class DrawnClip:
    """One clip of a sample, drawn or not yet.

    Attributes
    ----------
    clip_id : str
        Its path below the sample's folder. Names are those of KTH, whose group framehead
        reads off the file name.
    label, group : str
    actor, take : int
        From 1.
    """

    clip_id: str
    label: str
    group: str
    actor: int
    take: int


def list_clips(spec: SampleSpec) -> tuple[DrawnClip, ...]:
    """List the clips of a sample.

    Examples
    --------
    >>> [clip.clip_id for clip in list_clips(SampleSpec(1, 2, ("bow",), 96, 0))]
    ['bow/person01_bow_01.avi', 'bow/person01_bow_02.avi']
    """
    clips = []
    for action in spec.actions:
        for actor in range(1, spec.n_actors + 1):
            for take in range(1, spec.n_takes + 1):
                group = f"person{actor:02d}"
                name = f"{action}/{group}_{action}_{take:02d}{SUFFIX}"
                clips.append(DrawnClip(name, action, group, actor, take))
    return tuple(clips)


def draw_frames(clip: DrawnClip, spec: SampleSpec) -> list[FrameArray]:
    """Draw all frames of a clip.

    Parameters
    ----------
    clip : DrawnClip
    spec : SampleSpec

    Returns
    -------
    list of ndarray of uint8, shape (size_px, size_px * 4 // 3, 3)
        Blue, green, red.
    """
    actor = draw_actor(np.random.default_rng([spec.seed, 0, clip.actor]))
    number = list(ACTIONS).index(clip.label)
    # Place and camera differ from clip to clip, so that they tell nothing about the action.
    generator = np.random.default_rng([spec.seed, 1, clip.actor, number, clip.take])
    n_frames = int(generator.integers(*_FRAMES, endpoint=True))
    scene = draw_scene(
        generator, clip.label, actor, n_frames=n_frames, fps=_FPS, size_px=spec.size_px
    )
    return [render_frame(scene, index)[0] for index in range(n_frames)]


def write_clip(path: Path, frames: list[FrameArray]) -> None:
    """Write a video file: under a hidden name first, then renamed.

    Parameters
    ----------
    path : Path
        With the suffix `SUFFIX`; its folder is made.
    frames : list of ndarray of uint8, shape (height_px, width_px, 3)
        Blue, green, red.

    Raises
    ------
    OutputUnwritable
        If the folder cannot be written.
    """
    cv2 = import_cv2()
    partial = path.with_name(f".{path.stem}.partial{SUFFIX}")
    height_px, width_px = frames[0].shape[:2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"")  # OpenCV would not say why it cannot write
        try:
            writer = cv2.VideoWriter(
                str(partial),
                cv2.CAP_OPENCV_MJPEG,
                cv2.VideoWriter.fourcc(*_CODEC),
                _FPS,
                (width_px, height_px),
            )
            for frame in frames:
                writer.write(frame)
            writer.release()
            if partial.stat().st_size == 0:
                raise OSError("OpenCV wrote nothing")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as problem:
        raise OutputUnwritable(
            f"The folder of a sample must be writable. Writing '{path}' failed: {problem}.",
            hint="give a folder where you may write, on a disk with room",
        ) from problem
