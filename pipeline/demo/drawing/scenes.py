"""One scene: an actor, an action, a camera and a place, and the frames that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.actions import ACTIONS, GRASP, Action, mirror_pose, pose_at
from pipeline.demo.drawing.brush import Colour, fill_polygon, random_colour, shade
from pipeline.demo.drawing.figure import Clothes, Thing, draw_clothes, draw_figure
from pipeline.demo.drawing.scenery import draw_background, draw_occluder, soften
from pipeline.demo.drawing.skeleton import (
    JOINTS,
    POSE,
    Body,
    View,
    draw_body,
    place_joints,
    project,
)

_ANGLES = np.array([name in ("lean", "tilt", "twist", "nod") for name in POSE])
# A figure keeps its height and its feet on the ground.
_STEADY = np.array([name.endswith("foot_up") or name in ("pelvis_up", "lift") for name in POSE])
_HANDS = [JOINTS.index("left_hand"), JOINTS.index("right_hand")]
_FEET = [JOINTS.index("left_foot"), JOINTS.index("right_foot")]
# Of places that do not drown the actor for a backbone that was not made for drawings.
_CONTRASTS = (0.03, 0.18)
_BOX_SIZE = 0.13
_SEAT_HEIGHT = 0.4


@dataclass(frozen=True, slots=True)
class Actor:
    """One drawn person."""

    body: Body
    clothes: Clothes
    tempo: float  # how quick the person is; 1 is usual


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that `render_frame` needs; nothing in it is random any more."""

    actor: Actor
    action: Action
    view: View
    backdrop: FrameArray  # as high and wide as the picture
    phases: FloatArray  # of the action, shape (n_frames,)
    travel: FloatArray  # legs ahead of the place in the middle of the clip, shape (n_frames,)
    follow: float  # how much of the travel the camera goes along with, 0 to 1
    manner: FloatArray  # factor on and offset from the key poses, shape (2, len(POSE))
    is_mirrored: bool  # left and right are exchanged in the movement
    shake_px: FloatArray  # shape (n_frames, 2)
    occluders: tuple[tuple[FloatArray, Colour], ...]  # corners in pixels
    thing_colour: Colour
    gain: float
    gamma: float
    noise: float
    blur_px: float
    jpeg_quality: int
    seed: int  # of the noise, which differs from frame to frame


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
    """Choose a performance, a camera and a place for an actor; `action_name` is one of ACTIONS.

    The picture is `size_px` high and a third wider. The place behind the actor has a contrast
    within `contrasts`, of which 1 is what `draw_background` makes.
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
    spread = np.where(_ANGLES, 3.0, 0.03) * ~_STEADY
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


def render_frame(scene: Scene, index: int) -> tuple[FrameArray, FloatArray]:
    """Draw one frame of a scene, and say where the joints are in it.

    The picture is uint8, (height_px, width_px, 3), blue, green, red; the joints are float64,
    (len(JOINTS), 2), in pixels.
    """
    view, shake = scene.view, scene.shake_px[index]
    ahead = scene.travel[index] * view.leg_px
    way = [np.cos(view.heading), -np.sin(view.heading) * np.sin(view.pitch)]
    crossing = ahead * np.array(way)
    followed = crossing * scene.follow
    canvas = _crop_backdrop(scene.backdrop, shake - followed * [1.0, 0.0])
    x, y = view.origin_px + crossing - followed + shake
    view = replace(view, origin_px=(float(x), float(y)))
    joints = place_joints(_perform(scene, float(scene.phases[index])), scene.actor.body)
    _draw_shadow(canvas, joints, view)
    things = _place_things(scene, joints, view, float(scene.phases[index]))
    draw_figure(canvas, joints, scene.actor.body, scene.actor.clothes, view, things=things)
    for corners, colour in scene.occluders:
        fill_polygon(canvas, corners + shake, colour)
    return _photograph(scene, canvas, index), project(joints, view)[0]


def _choose_phases(
    generator: np.random.Generator, action: Action, n_frames: int, fps: float
) -> FloatArray:
    """Choose the phase of every frame: rising, and at rest before and after what is no cycle."""
    frames = np.arange(n_frames)
    if action.is_cycle:
        rising: FloatArray = generator.uniform() + frames / (fps * action.seconds)
        return rising
    still = generator.uniform(0.0, 0.22, 2)
    moved: FloatArray = ((frames / (n_frames - 1) - still[0]) / (1 - still.sum())).clip(0, 1)
    return moved


def _perform(scene: Scene, phase: float) -> FloatArray:
    """Return the pose at a phase in this performance's manner."""
    pose = pose_at(scene.action, phase)
    if scene.is_mirrored:
        pose = mirror_pose(pose)
    factor, offset = scene.manner
    performed: FloatArray = np.where(_STEADY, pose, factor * pose + offset)
    return performed


def _crop_backdrop(backdrop: FrameArray, shift_px: FloatArray) -> FrameArray:
    """Move the backdrop; what leaves on one side comes back mirrored on the other."""
    height_px, width_px = backdrop.shape[:2]
    columns = (np.arange(width_px) - round(float(shift_px[0]))) % (2 * width_px)
    columns = np.where(columns < width_px, columns, 2 * width_px - 1 - columns)
    rows = (np.arange(height_px) - round(float(shift_px[1]))).clip(0, height_px - 1)
    # `take`, not an index: OpenCV draws only into arrays that lie in memory row by row.
    moved: FrameArray = backdrop.take(rows, axis=0).take(columns, axis=1)
    return moved


def _draw_shadow(canvas: FrameArray, joints: FloatArray, view: View) -> None:
    """Darken the ground under the figure."""
    cv2 = import_cv2()
    circle = np.linspace(0, 2 * np.pi, 17)[:-1]
    middle = joints[[*_FEET, 0]].mean(axis=0)
    reach = 0.2 + 0.5 * np.ptp(joints[_FEET, 0])
    ground = np.stack(
        [middle[0] + reach * np.cos(circle), middle[1] + 0.22 * np.sin(circle), 0 * circle], axis=1
    )
    shadow = canvas.copy()
    fill_polygon(shadow, project(ground, view)[0], (0, 0, 0))
    cv2.addWeighted(canvas, 0.72, shadow, 0.28, 0, dst=canvas)


def _place_things(scene: Scene, joints: FloatArray, view: View, phase: float) -> list[Thing]:
    """Put the seat behind the figure, or the box into its hands or on the ground."""
    if scene.action.prop == "seat":
        seat = np.array([-0.5, 0.0, _SEAT_HEIGHT / 2])
        return [_draw_block(seat, np.array([0.2, 0.22, _SEAT_HEIGHT / 2]), scene, view)]
    if scene.action.prop == "box":
        held = joints if phase > GRASP else place_joints(_perform(scene, GRASP), scene.actor.body)
        middle = held[_HANDS].mean(axis=0)
        middle[2] = max(middle[2], _BOX_SIZE) if phase > GRASP else _BOX_SIZE
        return [_draw_block(middle, np.full(3, _BOX_SIZE), scene, view)]
    return []


def _draw_block(middle: FloatArray, half: FloatArray, scene: Scene, view: View) -> Thing:
    """Turn a block into the faces that the camera sees, far ones first."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    pixels, depths = project(middle + corners * half, view)
    faces = []
    for axis, factor in ((0, 0.75), (1, 0.9), (2, 1.15)):
        for sign in (-1, 1):
            chosen = np.flatnonzero(corners[:, axis] == sign)[[0, 1, 3, 2]]
            colour = shade(scene.thing_colour, factor)
            faces.append((float(depths[chosen].mean()), pixels[chosen], colour))
    faces.sort(key=lambda face: face[0], reverse=True)
    return Thing(float(depths.mean()), tuple((face, colour) for _, face, colour in faces))


def _photograph(scene: Scene, canvas: FrameArray, index: int) -> FrameArray:
    """Add light, blur, noise and compression."""
    cv2 = import_cv2()
    generator = np.random.default_rng([scene.seed, index])
    if scene.blur_px:
        canvas = cv2.GaussianBlur(canvas, (0, 0), scene.blur_px)
    table = 255 * scene.gain * (np.arange(256) / 255) ** scene.gamma
    picture = cv2.LUT(canvas, table.clip(0, 255).astype(np.uint8))
    if scene.noise:
        grain = generator.standard_normal(picture.shape, np.float32) * scene.noise
        picture = cv2.add(picture, grain, dtype=cv2.CV_8U)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality])
    decoded: FrameArray = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return decoded
