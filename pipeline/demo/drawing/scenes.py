"""One clip before it is a file: an actor, an action, a camera and a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.records import FloatArray, FrameArray
from pipeline.demo.drawing.actions import ACTIONS, Action
from pipeline.demo.drawing.brush import Colour, random_colour
from pipeline.demo.drawing.camera import View
from pipeline.demo.drawing.scenery import draw_background, draw_occluder, soften
from pipeline.demo.drawing.skeleton import POSE, Body, draw_body
from pipeline.demo.drawing.wardrobe import Clothes, draw_clothes

_ANGLES = np.array([name in ("lean", "tilt", "twist", "nod") for name in POSE])
# Of places that do not drown the actor for a backbone that was not made for drawings.
_CONTRASTS = (0.03, 0.18)
# A figure keeps its height and its feet on the ground.
STEADY = np.array([name.endswith("foot_up") or name in ("pelvis_up", "lift") for name in POSE])


@dataclass(frozen=True, slots=True)
class Actor:
    """One drawn person.

    Attributes
    ----------
    body : Body
    clothes : Clothes
    tempo : float
        How quick the person is; 1 is usual.
    """

    body: Body
    clothes: Clothes
    tempo: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that `render_frame` needs; nothing in it is random any more.

    Attributes
    ----------
    actor : Actor
    action : Action
    view : View
    backdrop : ndarray of uint8, shape (height_px, any, 3)
        As wide as the picture, or wider if the camera follows the figure.
    phases : ndarray of float64, shape (n_frames,)
    travel : ndarray of float64, shape (n_frames,)
        Legs that the figure is ahead of its place in the middle of the clip.
    follow : float
        Which part of the travel the camera goes along with, 0 to 1.
    manner : ndarray of float64, shape (2, len(POSE))
        How this performance differs from the key poses: factor and offset.
    is_mirrored : bool
        Whether left and right are exchanged in the figure's movement.
    shake_px : ndarray of float64, shape (n_frames, 2)
    occluders : tuple of (ndarray of float64, shape (n, 2), Colour)
    thing_colour : Colour
    gain, gamma, noise, blur_px : float
    jpeg_quality : int
    seed : int
        Of the noise, which differs from frame to frame.
    """

    actor: Actor
    action: Action
    view: View
    backdrop: FrameArray
    phases: FloatArray
    travel: FloatArray
    follow: float
    manner: FloatArray
    is_mirrored: bool
    shake_px: FloatArray
    occluders: tuple[tuple[FloatArray, Colour], ...]
    thing_colour: Colour
    gain: float
    gamma: float
    noise: float
    blur_px: float
    jpeg_quality: int
    seed: int


def draw_actor(generator: np.random.Generator) -> Actor:
    """Choose a person."""
    return Actor(draw_body(generator), draw_clothes(generator), generator.uniform(0.8, 1.25))


def draw_scene(
    generator: np.random.Generator,
    action_name: str,
    actor: Actor,
    *,
    n_frames: int,
    fps: float,
    size_px: int,
    contrasts: tuple[float, float] = _CONTRASTS,
) -> Scene:
    """Choose a performance, a camera and a place for an actor.

    Parameters
    ----------
    generator : numpy.random.Generator
    action_name : str
        A key of `pipeline.demo.drawing.actions.ACTIONS`.
    actor : Actor
    n_frames : int
        At least 2.
    fps : float
    size_px : int
        Height of the picture; its width is a third more.
    contrasts : tuple of float, default (0.03, 0.18)
        Least and greatest contrast of the place behind the actor; 1 leaves it as loud as
        `draw_background` makes it.

    Returns
    -------
    Scene
    """
    action = ACTIONS[action_name]
    u = generator.uniform
    width_px = size_px * 4 // 3
    leg_px = size_px * u(0.32, 0.4)
    view = View(
        # From the side or half from the side: from the front, sitting down looks like squatting.
        heading=-np.pi / 2 + generator.choice([-1.0, 1.0]) * u(0.4, 1.4),
        pitch=u(-0.06, 0.4),
        roll=np.radians(generator.normal(0, 2.5)),
        leg_px=leg_px,
        origin_px=(width_px * u(0.36, 0.64), size_px * u(0.84, 0.94)),
        light=float(generator.choice([-1.0, 1.0])) * u(0.3, 1.0),
    )
    phases = _choose_phases(generator, action, n_frames, fps * u(0.85, 1.2) / actor.tempo)
    travel = action.travel * (phases - phases.mean())
    across_px = abs(np.cos(view.heading)) * leg_px * float(np.ptp(travel))
    # What the camera does not follow crosses at most a third of the picture.
    follow = 1 - min(1.0, width_px * u(0.0, 0.33) / max(across_px, 1e-6))
    spread = np.where(_ANGLES, 3.0, 0.03) * ~STEADY
    horizon_px = view.origin_px[1] - leg_px * u(0.05, 0.9)
    shake = np.cumsum(generator.normal(0, 1, (n_frames, 2)), axis=0) * size_px * 0.004
    return Scene(
        actor=actor,
        action=action,
        view=view,
        backdrop=soften(
            draw_background(generator, width_px, size_px, horizon_px), contrast=u(*contrasts)
        ),
        phases=1 - phases if action.is_reversed else phases,
        travel=travel,
        follow=follow,
        manner=np.stack(
            [u(0.85, 1.1) * np.ones(len(POSE)), generator.normal(0, 1, len(POSE)) * spread]
        ),
        is_mirrored=bool(generator.random() < 0.5),
        shake_px=(shake - shake.mean(axis=0)) * generator.choice([0.0, 0.4, 1.0]),
        occluders=tuple(draw_occluder(generator, width_px, size_px) if u() < 0.3 else ()),
        thing_colour=random_colour(generator),
        gain=u(0.75, 1.25),
        gamma=u(0.75, 1.35),
        noise=float(generator.choice([0.0, u(1, 4), u(4, 12)])),
        blur_px=float(generator.choice([0.0, 0.0, u(0.3, 0.9)])),
        jpeg_quality=int(generator.integers(25, 96)),
        seed=int(generator.integers(2**31)),
    )


def _choose_phases(
    generator: np.random.Generator, action: Action, n_frames: int, fps: float
) -> FloatArray:
    """Return the phase of every frame: a rising line, still before and after what is no cycle."""
    frames = np.arange(n_frames)
    if action.is_cycle:
        rising: FloatArray = generator.uniform() + frames / (fps * action.seconds)
        return rising
    still = generator.uniform(0.0, 0.22, 2)
    moved: FloatArray = ((frames / (n_frames - 1) - still[0]) / (1 - still.sum())).clip(0, 1)
    return moved
