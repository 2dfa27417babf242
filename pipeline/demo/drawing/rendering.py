"""Frames of a scene: the figure, what it handles, what stands in front, and the camera's faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.actions import GRASP, mirror_pose, pose_at
from pipeline.demo.drawing.brush import fill_polygon, shade
from pipeline.demo.drawing.camera import View, project
from pipeline.demo.drawing.figure import Thing, draw_figure
from pipeline.demo.drawing.scenes import STEADY, Scene
from pipeline.demo.drawing.skeleton import JOINTS, place_joints

_HANDS = [JOINTS.index("left_hand"), JOINTS.index("right_hand")]
_FEET = [JOINTS.index("left_foot"), JOINTS.index("right_foot")]
_BOX_SIZE = 0.13
_SEAT_HEIGHT = 0.4


def render_frame(scene: Scene, index: int) -> tuple[FrameArray, FloatArray]:
    """Draw one frame of a scene.

    Parameters
    ----------
    scene : Scene
    index : int
        Within [0, n_frames).

    Returns
    -------
    picture : ndarray of uint8, shape (height_px, width_px, 3)
        Blue, green, red.
    joints_px : ndarray of float64, shape (len(JOINTS), 2)
        Where the joints are in it.
    """
    view, shake = scene.view, scene.shake_px[index]
    ahead = scene.travel[index] * view.leg_px
    crossing = ahead * np.array(
        [np.cos(view.heading), -np.sin(view.heading) * np.sin(view.pitch)]
    )  # fmt: skip
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


def _perform(scene: Scene, phase: float) -> FloatArray:
    """Return the pose at a phase in this performance's manner."""
    pose = pose_at(scene.action, phase)
    if scene.is_mirrored:
        pose = mirror_pose(pose)
    factor, offset = scene.manner
    performed: FloatArray = np.where(STEADY, pose, factor * pose + offset)
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
