"""The pool of drawn pictures that the built-in backbone trains on, as shards on disk.

A shard is a pure function of its kind, its number and the seed. Several processes may draw
shards of one pool; training starts when the first ones are there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pretext_images import draw_fractal, draw_system, draw_texture

from features.records import FrameArray
from features.video.frames import import_cv2, resize_frame
from pipeline.demo.drawing.actions import ACTIONS
from pipeline.demo.drawing.scenes import draw_actor, draw_scene, render_frame
from pipeline.demo.drawing.skeleton import JOINTS

POOL_PX = 104
N_CATEGORIES = 400
N_PHASES = 4
_SHARD = 1_500
_FRAMES_PER_SCENE = 3
# The two directions of one movement look alike in a single frame.
_MOVEMENTS = [name for name, action in ACTIONS.items() if not action.is_reversed]
N_MOMENTS = N_PHASES * len(_MOVEMENTS)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Some drawn pictures and what is known about them.

    Attributes
    ----------
    frames : ndarray of uint8, shape (n, POOL_PX, POOL_PX, 3)
        RGB.
    joints : ndarray of float32, shape (n, len(JOINTS), 2)
        In widths and heights of the picture; zero without a figure.
    heading : ndarray of float32, shape (n, 2)
        Cosine and sine of where the figure looks.
    moments : ndarray of int32, shape (n,)
        Movement and part of it; -1 without a figure.
    categories : ndarray of int32, shape (n,)
        Of fractals; -1 elsewhere.
    """

    frames: FrameArray
    joints: Floats
    heading: Floats
    moments: Ints
    categories: Ints


def draw_shard(kind: str, number: int, seed: int) -> Pictures:
    """Draw the pictures of one shard.

    Parameters
    ----------
    kind : {"figures", "fractals", "textures"}
    number : int
    seed : int

    Returns
    -------
    Pictures
    """
    generator = np.random.default_rng(
        [seed, ("figures", "fractals", "textures").index(kind), number]
    )
    shard = Pictures(
        frames=np.zeros((_SHARD, POOL_PX, POOL_PX, 3), np.uint8),
        joints=np.zeros((_SHARD, len(JOINTS), 2), np.float32),
        heading=np.zeros((_SHARD, 2), np.float32),
        moments=np.full(_SHARD, -1, np.int32),
        categories=np.full(_SHARD, -1, np.int32),
    )
    if kind == "figures":
        for first in range(0, _SHARD, _FRAMES_PER_SCENE):
            _draw_figures(generator, shard, first)
        return shard
    systems: dict[int, Any] = {}
    for index in range(_SHARD):
        if kind == "fractals":
            category = int(generator.integers(N_CATEGORIES))
            if category not in systems:
                systems[category] = draw_system(category, seed)
            picture = draw_fractal(generator, systems[category], POOL_PX)
            shard.categories[index] = category
        else:
            # Drawn larger and made smaller, textures have the sharpness of filmed ones.
            picture = draw_texture(generator, int(POOL_PX * generator.choice([1.0, 1.5, 2.3])))
        shard.frames[index] = resize_frame(picture, POOL_PX)[..., ::-1]
    return shard


def _draw_figures(generator: np.random.Generator, shard: Pictures, first: int) -> None:
    """Draw a few frames of one scene, far apart in time."""
    cv2 = import_cv2()
    name = _MOVEMENTS[generator.integers(len(_MOVEMENTS))]
    height_px = int(generator.choice([104, 120, 180, 240]))
    scene = draw_scene(
        generator,
        name,
        draw_actor(generator),
        n_frames=24,
        fps=12.0,
        size_px=height_px,
        contrasts=(0.15, 1.0),
    )
    for offset, moment in enumerate(generator.choice(24, _FRAMES_PER_SCENE, replace=False)):
        picture, joints_px = render_frame(scene, int(moment))
        at = first + offset
        shard.frames[at] = cv2.cvtColor(resize_frame(picture, POOL_PX), cv2.COLOR_BGR2RGB)
        shard.joints[at] = joints_px / [picture.shape[1], picture.shape[0]]
        shard.heading[at] = np.cos(scene.view.heading), np.sin(scene.view.heading)
        phase = min(int(scene.phases[moment] % 1.0 * N_PHASES), N_PHASES - 1)
        if scene.phases[moment] >= 1.0 and not scene.action.is_cycle:
            phase = N_PHASES - 1
        shard.moments[at] = _MOVEMENTS.index(name) * N_PHASES + phase


def fill_pool(
    folder: Path, *, shards: Sequence[tuple[str, int]], seed: int, n_processes: int
) -> None:
    """Draw the shards that a pool still lacks.

    Parameters
    ----------
    folder : Path
    shards : sequence of (str, int)
        Kind and number, drawn in this order.
    seed, n_processes : int
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        (kind, number) for kind, number in shards if not _path(folder, kind, number).exists()
    ]
    with ProcessPoolExecutor(n_processes) as workers:
        for _ in workers.map(
            _draw_into, ((folder, kind, number, seed) for kind, number in missing)
        ):
            pass


def read_shard(path: Path) -> Pictures:
    """Read a shard that `fill_pool` wrote."""
    with np.load(path) as file:
        return Pictures(**{field.name: file[field.name] for field in fields(Pictures)})


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:03d}.npz"


def _draw_into(task: tuple[Path, str, int, int]) -> None:
    folder, kind, number, seed = task
    shard = draw_shard(kind, number, seed)
    path = _path(folder, kind, number)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, **{field.name: getattr(shard, field.name) for field in fields(Pictures)})
    partial.replace(path)
