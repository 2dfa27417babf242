"""What the figures do: each action is a handful of key poses on a line of time.

Two pairs differ only in the order of their frames: sit-down and stand-up, pick-up and put-down
are one movement run forward and backward, with the same random choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from features.records import FloatArray
from pipeline.demo.drawing.skeleton import POSE

_INDEX = {name: index for index, name in enumerate(POSE)}
_SHORT = {"hf": "hand_forward", "ho": "hand_out", "hu": "hand_up"} | {
    "ff": "foot_forward",
    "fo": "foot_out",
    "fu": "foot_up",
}
# Mirror image of a pose: left and right change places, and sideways angles their sign.
_MIRROR = [
    _INDEX[name.replace("left", "?").replace("right", "left").replace("?", "right")]
    for name in POSE
]
_SIGN = np.array([-1.0 if name in ("tilt", "twist") else 1.0 for name in POSE])


@dataclass(frozen=True, slots=True)
class Action:
    """One action as key poses.

    Attributes
    ----------
    times : tuple of float
        When each key pose is reached, rising from 0 to 1.
    poses : ndarray of float64, shape (len(times), len(POSE))
    is_cycle : bool
        Whether it repeats; the last key pose then equals the first.
    seconds : float
        What one passage takes at usual speed.
    is_reversed : bool
        Whether it runs backward in time.
    travel : float
        Legs that it moves forward in one passage.
    prop : {"", "seat", "box"}
        The thing it needs.
    """

    times: tuple[float, ...]
    poses: FloatArray
    is_cycle: bool
    seconds: float
    is_reversed: bool = False
    travel: float = 0.0
    prop: str = ""


def _pose(**changes: float) -> FloatArray:
    """Write a pose as what differs from standing; ``l_``, ``r_`` or ``b_`` (both) name limbs."""
    pose = np.zeros(len(POSE))
    standing = {"pelvis_up": 0.96, "b_hf": 0.06, "b_ho": 0.1, "b_hu": -0.97, "b_fo": 0.04}
    for name, value in (standing | changes).items():
        side, _, rest = name.partition("_")
        sides = {"b": ("left", "right"), "l": ("left",), "r": ("right",)}.get(side)
        if sides is None or rest not in _SHORT:
            pose[_INDEX[name]] = value
        else:
            for each in sides:
                pose[_INDEX[f"{each}_{_SHORT[rest]}"]] = value
    return pose


def mirror_pose(pose: FloatArray) -> FloatArray:
    """Return the mirror image of a pose: the other hand waves."""
    mirrored: FloatArray = pose[_MIRROR] * _SIGN
    return mirrored


def _action(keys: list[tuple[float, FloatArray]], seconds: float, **more: Any) -> Action:
    times = tuple(time for time, _ in keys)
    return Action(times, np.stack([pose for _, pose in keys]), seconds=seconds, **more)


def _stride(half: list[FloatArray], seconds: float, travel: float) -> Action:
    """Make a gait from the poses of its left half; the right half is their mirror image."""
    poses = [*half, *map(mirror_pose, half), half[0]]
    times = np.linspace(0, 1, len(poses)).tolist()
    keys = list(zip(times, poses, strict=True))
    return _action(keys, seconds, is_cycle=True, travel=travel)


def _walk() -> Action:
    half = [
        _pose(lean=4, pelvis_up=0.9, l_ff=0.42, r_ff=-0.42, r_fu=0.07, l_hf=-0.42, r_hf=0.42,
              b_hu=-0.84, twist=-9),
        _pose(lean=4, pelvis_up=0.95, l_ff=0.02, r_ff=-0.12, r_fu=0.2, l_hf=-0.05, r_hf=0.1,
              b_hu=-0.93),
    ]  # fmt: skip
    return _stride(half, 1.1, 1.5)


def _run() -> Action:
    half = [
        _pose(lean=17, pelvis_up=0.88, lift=0.1, l_ff=0.52, l_fu=0.22, r_ff=-0.72, r_fu=0.42,
              l_hf=-0.42, l_hu=-0.42, r_hf=0.62, r_hu=-0.08, twist=-16, nod=-8),
        _pose(lean=17, pelvis_up=0.84, l_ff=0.06, l_fu=0.0, r_ff=-0.3, r_fu=0.5,
              l_hf=-0.05, l_hu=-0.55, r_hf=0.3, r_hu=-0.4, nod=-8),
    ]  # fmt: skip
    return _stride(half, 0.68, 2.6)


def _jump() -> Action:
    crouch = _pose(pelvis_up=0.66, pelvis_forward=-0.1, lean=36, b_hf=-0.55, b_hu=-0.7)
    rise = _pose(pelvis_up=0.98, lift=0.1, b_hf=0.5, b_hu=0.7, b_fu=-0.04)
    top = _pose(pelvis_up=0.92, lift=0.32, b_hf=0.3, b_hu=0.85, b_fu=0.1, lean=4)
    stand = _pose()
    keys = [(0, stand), (0.25, crouch), (0.4, rise), (0.55, top), (0.7, rise), (0.82, crouch)]
    return _action([*keys, (1, stand)], 1.5, is_cycle=True)


def _wave() -> Action:
    inward = _pose(r_hf=0.12, r_ho=0.18, r_hu=0.82, tilt=2)
    outward = _pose(r_hf=0.12, r_ho=0.72, r_hu=0.52, tilt=2)
    return _action([(0, inward), (0.5, outward), (1, inward)], 0.8, is_cycle=True)


def _squat() -> Action:
    low = _pose(pelvis_up=0.42, pelvis_forward=-0.22, lean=34, nod=-20, b_hf=0.92, b_hu=-0.05,
                b_fo=0.12)  # fmt: skip
    stand = _pose(b_fo=0.12, b_hf=0.3, b_hu=-0.85)
    return _action([(0, stand), (0.45, low), (0.58, low), (1, stand)], 1.9, is_cycle=True)


def _bow() -> Action:
    low = _pose(lean=76, pelvis_forward=-0.12, nod=14, b_hf=0.16, b_hu=-0.6, b_ho=0.0)
    stand = _pose(b_ho=0.05)
    return _action([(0, stand), (0.42, low), (0.62, low), (1, stand)], 2.2, is_cycle=True)


def _punch() -> Action:
    guard = {"b_hf": 0.42, "b_ho": -0.12, "b_hu": 0.02, "pelvis_up": 0.87}
    feet = {"l_ff": 0.26, "r_ff": -0.24, "b_fo": 0.08}
    ready = _pose(**guard, **feet, lean=6)
    left = _pose(**(guard | {"l_hf": 0.99, "l_hu": 0.05}), **feet, lean=13, twist=-30)
    right = _pose(**(guard | {"r_hf": 0.99, "r_hu": 0.05}), **feet, lean=15, twist=34)
    keys = [(0, ready), (0.2, left), (0.45, ready), (0.65, right), (1, ready)]
    return _action(keys, 1.1, is_cycle=True)


def _kick() -> Action:
    ready = _pose(l_ff=0.12, r_ff=-0.32, b_hf=0.4, b_hu=-0.25)
    knee = _pose(r_ff=0.3, r_fu=0.34, lean=-6, b_hf=0.35, b_hu=-0.25, b_ho=0.25)
    out = _pose(r_ff=0.9, r_fu=0.72, lean=-22, l_hf=0.3, r_hf=-0.4, b_hu=-0.5, b_ho=0.4)
    keys = [(0, ready), (0.25, knee), (0.42, out), (0.55, out), (0.72, knee), (1, ready)]
    return _action(keys, 1.3, is_cycle=True)


def _clap() -> Action:
    apart = _pose(b_hf=0.5, b_ho=0.34, b_hu=-0.2)
    together = _pose(b_hf=0.62, b_ho=-0.3, b_hu=-0.12)
    return _action([(0, apart), (0.45, together), (0.55, together), (1, apart)], 0.6, is_cycle=True)


def _star() -> Action:
    closed = _pose(pelvis_up=0.95)
    opened = _pose(pelvis_up=0.84, lift=0.02, b_fo=0.42, b_ho=0.5, b_hu=0.85, b_hf=0.0)
    flight = _pose(pelvis_up=0.9, lift=0.14, b_fo=0.2, b_ho=0.97, b_hu=0.0, b_hf=0.0)
    keys = [(0, closed), (0.25, flight), (0.5, opened), (0.75, flight), (1, closed)]
    return _action(keys, 1.0, is_cycle=True)


def _sit(*, is_reversed: bool) -> Action:
    stand = _pose(b_hf=0.08)
    halfway = _pose(pelvis_up=0.74, pelvis_forward=-0.3, lean=40, nod=-12, b_hf=0.45, b_hu=-0.75)
    seated = _pose(pelvis_up=0.5, pelvis_forward=-0.48, lean=2, b_hf=0.5, b_hu=-0.66)
    keys = [(0, stand), (0.12, stand), (0.5, halfway), (0.82, seated), (1, seated)]
    return _action(keys, 2.2, is_cycle=False, is_reversed=is_reversed, prop="seat")


def _lift(*, is_reversed: bool) -> Action:
    stand = _pose()
    low = _pose(pelvis_up=0.5, pelvis_forward=-0.3, lean=74, nod=-14, b_hf=0.42, b_hu=-0.88,
                b_ho=-0.06)  # fmt: skip
    held = _pose(b_hf=0.55, b_hu=-0.42, b_ho=-0.06, lean=-3)
    keys = [(0, stand), (0.1, stand), (0.45, low), (0.55, low), (0.9, held), (1, held)]
    return _action(keys, 2.4, is_cycle=False, is_reversed=is_reversed, prop="box")


ACTIONS: dict[str, Action] = {
    "walk": _walk(),
    "run": _run(),
    "jump": _jump(),
    "wave": _wave(),
    "squat": _squat(),
    "bow": _bow(),
    "punch": _punch(),
    "kick": _kick(),
    "clap": _clap(),
    "star-jump": _star(),
    "sit-down": _sit(is_reversed=False),
    "stand-up": _sit(is_reversed=True),
    "pick-up": _lift(is_reversed=False),
    "put-down": _lift(is_reversed=True),
}
# A box is in the hands from this part of the movement on, and on the ground before.
GRASP = 0.5


def pose_at(action: Action, phase: float) -> FloatArray:
    """Return the pose of an action at a phase, eased between its key poses.

    Parameters
    ----------
    action : Action
        Its direction in time is not applied here: phase 0 is always the first key pose.
    phase : float
        Within [0, 1]; cycles take any value.

    Returns
    -------
    ndarray of float64, shape (len(POSE),)
    """
    phase = phase % 1.0 if action.is_cycle else min(max(phase, 0.0), 1.0)
    after = min(int(np.searchsorted(action.times, phase, side="right")), len(action.times) - 1)
    start, end = action.times[after - 1], action.times[after]
    share = min((phase - start) / (end - start), 1.0)
    eased = share if action.travel else 0.5 - 0.5 * np.cos(np.pi * share)
    blend: FloatArray = action.poses[after - 1] * (1 - eased) + action.poses[after] * eased
    return blend
