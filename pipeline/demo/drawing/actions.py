"""What the figures do: each action is a handful of key poses on a line of time.

Three pairs differ only in the order of their frames: sit-down and stand-up, pick-up and put-down,
drill and drill-back are one movement run forward and backward, with the same random choices. The
last goes round and round from a random pose on, so that no time in a clip tells it from the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from features.records import FloatArray
from pipeline.demo.drawing.skeleton import POSE

_LIMBS = {"h": "hand", "f": "foot"}
_WAYS = {"f": "forward", "o": "out", "u": "up"}
_SIDES = {"l": ("left",), "r": ("right",), "b": ("left", "right")}
# The mirror image of a pose: left and right change places, sideways angles change their sign.
_MIRROR = [
    POSE.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
    for name in POSE
]
_SIGN = np.array([-1.0 if name in ("tilt", "twist") else 1.0 for name in POSE])


@dataclass(frozen=True, slots=True)
class Action:
    """One action as key poses."""

    times: tuple[float, ...]  # when each key pose is reached, rising from 0 to 1
    poses: FloatArray  # shape (len(times), len(POSE))
    seconds: float  # what one passage takes at usual speed
    is_cycle: bool = False  # repeats; the last key pose then equals the first
    is_reversed: bool = False  # runs backward in time
    travel: float = 0.0  # legs that it moves forward in one passage
    prop: str = ""  # the thing it needs: seat, box or none


def _pose(**changes: float) -> FloatArray:
    """Make a pose from what differs from standing; ``l_``, ``r_`` or ``b_`` (both) name limbs."""
    pose = np.zeros(len(POSE))
    standing = {"pelvis_up": 0.96, "b_hf": 0.06, "b_ho": 0.1, "b_hu": -0.97, "b_fo": 0.04}
    for name, value in (standing | changes).items():
        names = [name]
        if name[1] == "_":  # such as l_hf: left_hand_forward
            names = [f"{side}_{_LIMBS[name[2]]}_{_WAYS[name[3]]}" for side in _SIDES[name[0]]]
        for each in names:
            pose[POSE.index(each)] = value
    return pose


def mirror_pose(pose: FloatArray) -> FloatArray:
    """Return the mirror image of a pose: the other hand waves."""
    mirrored: FloatArray = pose[_MIRROR] * _SIGN
    return mirrored


def _action(seconds: float, timeline: str, *, prop: str = "", **poses: FloatArray) -> Action:
    """Make an action from named poses and their times; it is a cycle if it ends as it begins."""
    times, names = zip(*(key.split() for key in timeline.split(", ")), strict=True)
    return Action(
        times=tuple(map(float, times)),
        poses=np.stack([poses[name] for name in names]),
        seconds=seconds,
        is_cycle=names[0] == names[-1],
        prop=prop,
    )


def _stride(seconds: float, travel: float, *half: FloatArray) -> Action:
    """Make a gait from the poses of its left half; the right half is their mirror image."""
    poses = np.stack([*half, *map(mirror_pose, half), half[0]])
    times = np.linspace(0, 1, len(poses)).tolist()
    return Action(tuple(times), poses, seconds, is_cycle=True, travel=travel)


_PUNCH = {
    **{"b_hf": 0.42, "b_ho": -0.12, "b_hu": 0.02, "pelvis_up": 0.87},
    **{"l_ff": 0.26, "r_ff": -0.24, "b_fo": 0.08},
}
# fmt: off
_DRILL = _action(
    1.8, "0 reach, 0.08 reach, 0.33 squat, 0.41 squat, 0.67 bow, 0.75 bow, 1 reach",
    reach=_pose(b_hf=0.1, b_ho=0.12, b_hu=0.95),
    squat=_pose(pelvis_up=0.42, pelvis_forward=-0.22, lean=34, nod=-20, b_hf=0.92, b_hu=-0.05,
                b_fo=0.12),
    bow=_pose(lean=76, pelvis_forward=-0.12, nod=14, b_hf=0.16, b_hu=-0.6, b_ho=0.0),
)
_SIT = _action(
    2.2, "0 stand, 0.12 stand, 0.5 halfway, 0.82 seated, 1 seated", prop="seat",
    stand=_pose(b_hf=0.08),
    halfway=_pose(pelvis_up=0.74, pelvis_forward=-0.3, lean=40, nod=-12, b_hf=0.45, b_hu=-0.75),
    seated=_pose(pelvis_up=0.5, pelvis_forward=-0.48, lean=2, b_hf=0.5, b_hu=-0.66),
)
_LIFT = _action(
    2.4, "0 stand, 0.1 stand, 0.45 low, 0.55 low, 0.9 held, 1 held", prop="box",
    stand=_pose(),
    low=_pose(pelvis_up=0.5, pelvis_forward=-0.3, lean=74, nod=-14, b_hf=0.42, b_hu=-0.88,
              b_ho=-0.06),
    held=_pose(b_hf=0.55, b_hu=-0.42, b_ho=-0.06, lean=-3),
)
ACTIONS: dict[str, Action] = {
    "walk": _stride(
        1.1, 1.5,
        _pose(lean=4, pelvis_up=0.9, l_ff=0.42, r_ff=-0.42, r_fu=0.07, l_hf=-0.42, r_hf=0.42,
              b_hu=-0.84, twist=-9),
        _pose(lean=4, pelvis_up=0.95, l_ff=0.02, r_ff=-0.12, r_fu=0.2, l_hf=-0.05, r_hf=0.1,
              b_hu=-0.93),
    ),
    "run": _stride(
        0.68, 2.6,
        _pose(lean=17, pelvis_up=0.88, lift=0.1, l_ff=0.52, l_fu=0.22, r_ff=-0.72, r_fu=0.42,
              l_hf=-0.42, l_hu=-0.42, r_hf=0.62, r_hu=-0.08, twist=-16, nod=-8),
        _pose(lean=17, pelvis_up=0.84, l_ff=0.06, l_fu=0.0, r_ff=-0.3, r_fu=0.5,
              l_hf=-0.05, l_hu=-0.55, r_hf=0.3, r_hu=-0.4, nod=-8),
    ),
    "jump": _action(
        1.5, "0 stand, 0.25 crouch, 0.4 rise, 0.55 top, 0.7 rise, 0.82 crouch, 1 stand",
        stand=_pose(),
        crouch=_pose(pelvis_up=0.66, pelvis_forward=-0.1, lean=36, b_hf=-0.55, b_hu=-0.7),
        rise=_pose(pelvis_up=0.98, lift=0.1, b_hf=0.5, b_hu=0.7, b_fu=-0.04),
        top=_pose(pelvis_up=0.92, lift=0.32, b_hf=0.3, b_hu=0.85, b_fu=0.1, lean=4),
    ),
    "wave": _action(
        0.8, "0 inward, 0.5 outward, 1 inward",
        inward=_pose(r_hf=0.12, r_ho=0.18, r_hu=0.82, tilt=2),
        outward=_pose(r_hf=0.12, r_ho=0.72, r_hu=0.52, tilt=2),
    ),
    "squat": _action(
        1.9, "0 stand, 0.45 low, 0.58 low, 1 stand",
        stand=_pose(b_fo=0.12, b_hf=0.3, b_hu=-0.85),
        low=_pose(pelvis_up=0.42, pelvis_forward=-0.22, lean=34, nod=-20, b_hf=0.92, b_hu=-0.05,
                  b_fo=0.12),
    ),
    "bow": _action(
        2.2, "0 stand, 0.42 low, 0.62 low, 1 stand",
        stand=_pose(b_ho=0.05),
        low=_pose(lean=76, pelvis_forward=-0.12, nod=14, b_hf=0.16, b_hu=-0.6, b_ho=0.0),
    ),
    "punch": _action(
        1.1, "0 ready, 0.2 left, 0.45 ready, 0.65 right, 1 ready",
        ready=_pose(**_PUNCH, lean=6),
        left=_pose(**_PUNCH, l_hf=0.99, l_hu=0.05, lean=13, twist=-30),
        right=_pose(**_PUNCH, r_hf=0.99, r_hu=0.05, lean=15, twist=34),
    ),
    "kick": _action(
        1.3, "0 ready, 0.25 knee, 0.42 out, 0.55 out, 0.72 knee, 1 ready",
        ready=_pose(l_ff=0.12, r_ff=-0.32, b_hf=0.4, b_hu=-0.25),
        knee=_pose(r_ff=0.3, r_fu=0.34, lean=-6, b_hf=0.35, b_hu=-0.25, b_ho=0.25),
        out=_pose(r_ff=0.9, r_fu=0.72, lean=-22, l_hf=0.3, r_hf=-0.4, b_hu=-0.5, b_ho=0.4),
    ),
    "clap": _action(
        0.6, "0 apart, 0.45 together, 0.55 together, 1 apart",
        apart=_pose(b_hf=0.5, b_ho=0.34, b_hu=-0.2),
        together=_pose(b_hf=0.62, b_ho=-0.3, b_hu=-0.12),
    ),
    "star-jump": _action(
        1.0, "0 closed, 0.25 flight, 0.5 open, 0.75 flight, 1 closed",
        closed=_pose(pelvis_up=0.95),
        open=_pose(pelvis_up=0.84, lift=0.02, b_fo=0.42, b_ho=0.5, b_hu=0.85, b_hf=0.0),
        flight=_pose(pelvis_up=0.9, lift=0.14, b_fo=0.2, b_ho=0.97, b_hu=0.0, b_hf=0.0),
    ),
    "sit-down": _SIT,
    "stand-up": replace(_SIT, is_reversed=True),
    "pick-up": _LIFT,
    "put-down": replace(_LIFT, is_reversed=True),
    "drill": _DRILL,
    "drill-back": replace(_DRILL, is_reversed=True),
}
# fmt: on
# From this phase on a box is in the hands; before, it is on the ground.
GRASP = 0.5


def pose_at(action: Action, phase: float) -> FloatArray:
    """Return the pose of an action at a phase from 0 to 1, eased between its key poses.

    Whether the action is reversed plays no part: phase 0 is always the first key pose.
    """
    phase = phase % 1.0 if action.is_cycle else min(max(phase, 0.0), 1.0)
    after = min(int(np.searchsorted(action.times, phase, side="right")), len(action.times) - 1)
    start, end = action.times[after - 1], action.times[after]
    share = min((phase - start) / (end - start), 1.0)
    eased = share if action.travel else 0.5 - 0.5 * np.cos(np.pi * share)
    blend: FloatArray = action.poses[after - 1] * (1 - eased) + action.poses[after] * eased
    return blend
