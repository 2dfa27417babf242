"""From a pose to the joints of a body in space, and to where a camera sees them.

Axes: x forward (where the figure looks), y to its left, z up; the ground is z = 0. Lengths
are in units of the leg, so that one pose fits every body. A pose gives hands and feet; elbows
and knees follow from the lengths of the limbs (two-link inverse kinematics).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.records import FloatArray

POSE = (
    *("pelvis_forward", "pelvis_up", "lift", "lean", "tilt", "twist", "nod"),
    *("left_hand_forward", "left_hand_out", "left_hand_up"),
    *("right_hand_forward", "right_hand_out", "right_hand_up"),
    *("left_foot_forward", "left_foot_out", "left_foot_up"),
    *("right_foot_forward", "right_foot_out", "right_foot_up"),
)
JOINTS = (
    *("pelvis", "neck", "head"),
    *("left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand"),
    *("left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot"),
    *("left_toe", "right_toe"),
)


@dataclass(frozen=True, slots=True)
class Body:
    """The proportions of one body, in units of its leg."""

    torso: float  # pelvis to neck
    neck: float  # neck to the middle of the head
    head: float  # radius
    shoulder: float  # half the width between the shoulders
    hip: float  # half the width between the hips
    arm: float  # shoulder to hand; the elbow is in the middle, as the knee is in the leg's
    girth: float  # how stout limbs and trunk are; 1 is usual


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stands; angles are in radians."""

    heading: float  # 0 shows the figure's right side, looking right; -pi / 2 shows its face
    pitch: float
    roll: float
    leg_px: float  # what one leg measures in the picture
    origin_px: tuple[float, float]  # the point between the feet
    light: float  # -1 lights the left of things, 1 the right


def draw_body(generator: np.random.Generator) -> Body:
    """Choose the proportions of a body."""
    u = generator.uniform
    return Body(
        torso=u(0.58, 0.74),
        neck=u(0.2, 0.25),
        head=u(0.125, 0.175),
        shoulder=u(0.17, 0.27),
        hip=u(0.09, 0.13),
        arm=u(0.7, 0.85),
        girth=u(0.75, 1.45),
    )


def place_joints(pose: FloatArray, body: Body) -> FloatArray:
    """Return where the joints of a body are in a pose, shape (len(JOINTS), 3), in legs.

    A pose has shape (len(POSE),): lengths in legs, angles in degrees, hands relative to the
    shoulders and in arm lengths.
    """
    p = dict(zip(POSE, pose.tolist(), strict=True))
    at: dict[str, FloatArray] = {}
    lean, tilt, twist = np.radians([p["lean"], p["tilt"], p["twist"]])
    up = np.array([np.sin(lean), np.sin(tilt) * np.cos(lean), np.cos(lean) * np.cos(tilt)])
    left = np.array([-np.sin(twist), np.cos(twist), -np.sin(tilt)])
    at["pelvis"] = np.array([p["pelvis_forward"], 0.0, p["pelvis_up"] + p["lift"]])
    at["neck"] = at["pelvis"] + body.torso * up
    nod = np.radians(p["nod"]) + lean
    at["head"] = at["neck"] + body.neck * np.array(
        [np.sin(nod), np.sin(tilt), np.cos(nod) * np.cos(tilt)]
    )
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shoulder = at["neck"] - 0.06 * body.torso * up + sign * body.shoulder * left
        hand = shoulder + body.arm * np.array(
            [p[f"{side}_hand_forward"], sign * p[f"{side}_hand_out"], p[f"{side}_hand_up"]]
        )
        # Elbows point backward, down and outward; knees forward.
        pole = np.array([-0.8, 0.7 * sign, -0.6])
        elbow, hand = _bend(shoulder, hand, body.arm, pole)
        hip = at["pelvis"] + np.array([0.0, sign * body.hip, 0.0])
        out, high = body.hip + p[f"{side}_foot_out"], p[f"{side}_foot_up"] + p["lift"]
        foot = np.array([p[f"{side}_foot_forward"], sign * out, high])
        knee, foot = _bend(hip, foot, 0.97, np.array([1.0, 0.25 * sign, 0.15]))
        at |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}
        at |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_foot": foot}
        # The sole is at a right angle to the shin, but does not dig into the ground.
        shin = foot - knee
        toe = foot + 0.2 * np.array([-shin[2], 0.25 * sign * abs(shin[2]), shin[0]]) / 0.5
        toe[2] = max(toe[2], 0.0)
        at[f"{side}_toe"] = toe
    return np.stack([at[name] for name in JOINTS])


def project(points: FloatArray, view: View) -> tuple[FloatArray, FloatArray]:
    """Return where points in space, shape (n, 3), are in the picture, and how far away.

    Pixels have shape (n, 2); depths are in legs, greater is farther.
    """
    cos, sin = np.cos(view.heading), np.sin(view.heading)
    right = cos * points[:, 0] - sin * points[:, 1]
    away = sin * points[:, 0] + cos * points[:, 1]
    up = points[:, 2] * np.cos(view.pitch) + away * np.sin(view.pitch)
    depths = away * np.cos(view.pitch) - points[:, 2] * np.sin(view.pitch)
    # Near things are larger, as at a distance of eight legs.
    scale = view.leg_px / (1 + depths / 8)
    cos, sin = np.cos(view.roll), np.sin(view.roll)
    x = view.origin_px[0] + scale * (cos * right + sin * up)
    y = view.origin_px[1] - scale * (cos * up - sin * right)
    return np.stack([x, y], axis=1), depths


def _bend(
    root: FloatArray, target: FloatArray, length: float, pole: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Find the middle joint of a limb, and its end where the target is out of reach."""
    reach = target - root
    distance = float(np.linalg.norm(reach))
    direction = reach / max(distance, 1e-6)
    distance = min(max(distance, 0.15 * length), 0.999 * length)
    side = pole - direction * float(pole @ direction)
    side /= max(float(np.linalg.norm(side)), 1e-6)
    height = float(np.sqrt((length / 2) ** 2 - (distance / 2) ** 2))
    return root + direction * distance / 2 + side * height, root + direction * distance
