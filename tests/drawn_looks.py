"""Drawn footage of many looks, and copies of clips as people make them, for near-duplicates.

Every look draws four actions in several groups (a place, a person, a device), so that clips of
one action and different groups resemble each other as they do in footage of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from features.records import FrameArray
from features.video.write import VideoFormat, writing_video

WIDTH, HEIGHT = 192, 144
N_ACTIONS = 4
MPEG4 = VideoFormat("mpeg4", "yuv420p", {"qmin": "3", "qmax": "3"})

Draw = Callable[[int, np.random.Generator, np.random.Generator, int], list[FrameArray]]
"""An action, what the group decides, what the clip decides, and a number of frames."""


def _path(action: int, rng: np.random.Generator, n: int, spread: float = 0.12) -> np.ndarray:
    """Places in the unit square: across, up and down, in a circle, or there and back."""
    t = np.linspace(0, 1, n)
    if action == 0:
        way = np.stack([0.1 + 0.8 * t, 0.5 + 0 * t], 1)
    elif action == 1:
        way = np.stack([0.5 + 0 * t, 0.5 + 0.3 * np.sin(2 * np.pi * 2 * t)], 1)
    elif action == 2:
        way = 0.5 + 0.3 * np.stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], 1)
    else:
        way = np.stack([0.2 + 0.6 * (1 - np.abs(2 * t - 1)), 0.6 + 0 * t], 1)
    sway = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * t + rng.uniform())[:, None])
    return np.clip(way + rng.normal(0, spread, 2) + sway, 0.03, 0.97)


def _colour(rng: np.random.Generator, low: int = 20, high: int = 235) -> tuple[int, int, int]:
    one, two, three = (int(value) for value in rng.integers(low, high, 3))
    return one, two, three


def _texture(rng: np.random.Generator, height: int, width: int, *, coarse: int = 6) -> FrameArray:
    """Clouds of several scales in two colours."""
    total = np.zeros((height, width), np.float32)
    for scale in (coarse, 3 * coarse, 9 * coarse):
        noise = rng.normal(size=(scale, scale * width // height + 1)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / scale**0.4
    total = (total - total.min()) / np.ptp(total)
    one, two = np.array(_colour(rng)), np.array(_colour(rng))
    picture: FrameArray = (one + total[..., None] * (two - one)).astype(np.uint8)
    return picture


def _noisy(frames: Sequence[FrameArray], rng: np.random.Generator, sd: float) -> list[FrameArray]:
    return [
        np.clip(frame + rng.normal(0, sd, frame.shape), 0, 255).astype(np.uint8) for frame in frames
    ]


def _at(place: np.ndarray) -> tuple[int, int]:
    return int(place[0] * WIDTH), int(place[1] * HEIGHT)


def draw_flat(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """One flat shape moves before one flat colour, as in an explanatory cartoon."""
    ground, ink = _colour(group, 120, 250), _colour(group, 0, 140)
    is_round, size = group.random() < 0.5, int(clip.integers(12, 26))
    frames = []
    for place in _path(action, clip, n):
        frame = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
        x, y = _at(place)
        if is_round:
            cv2.circle(frame, (x, y), size, ink, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(frame, (x - size, y - size), (x + size, y + size), ink, -1)
        frames.append(frame)
    return frames


def draw_static_camera(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A fixed camera looks at one yard for all groups; a small mover crosses it, with noise."""
    yard = np.random.default_rng(4711)
    ground = _texture(yard, HEIGHT, WIDTH)
    cv2.rectangle(ground, (20, 10), (80, 70), _colour(yard), -1)
    cv2.rectangle(ground, (120, 30), (170, 90), _colour(yard), -1)
    ground = np.clip(ground * group.uniform(0.7, 1.25), 0, 255).astype(np.uint8)
    coat, size = _colour(group), int(group.integers(4, 8))
    frames = []
    for place in _path(action, clip, n):
        frame = ground.copy()
        x, y = _at(place)
        cv2.ellipse(frame, (x, y), (size, 2 * size), 0, 0, 360, coat, -1)
        cv2.circle(frame, (x, y - 2 * size), size // 2 + 1, (120, 150, 190), -1)
        frames.append(frame)
    return _noisy(frames, clip, 4)


def draw_cameras(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """As many fixed cameras as groups, two movers each."""
    ground = _texture(group, HEIGHT, WIDTH)
    for _ in range(4):
        x, y = int(group.integers(0, WIDTH)), int(group.integers(0, HEIGHT))
        cv2.rectangle(ground, (x, y), (x + 40, y + 30), _colour(group), -1)
    frames = [ground.copy() for _ in range(n)]
    for _ in range(2):
        coat, size = _colour(clip), int(clip.integers(5, 12))
        for frame, place in zip(frames, _path(action, clip, n), strict=True):
            cv2.ellipse(frame, _at(place), (size, 2 * size), 0, 0, 360, coat, -1, cv2.LINE_AA)
    return _noisy(frames, clip, 3)


def _words(rng: np.random.Generator, n_letters: int) -> str:
    return "".join(chr(c) for c in rng.choice([*range(97, 123), 32, 32, 32], n_letters))


def draw_screen(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A recorded screen: text is typed, scrolled, a window is opened, or a menu is used."""
    is_dark = group.random() < 0.4
    paper, ink = ((35, 32, 30), (220, 220, 220)) if is_dark else ((250, 250, 250), (30, 30, 30))
    accent = _colour(group, 60, 220)
    lines = [_words(clip, int(clip.integers(12, 34))) for _ in range(60)]
    start = clip.uniform(0, 0.2)
    x0, y0 = int(clip.integers(30, 90)), int(clip.integers(25, 70))
    frames = []
    for t in np.linspace(0, 1, n):
        frame = np.full((HEIGHT, WIDTH, 3), paper, np.uint8)
        done = max(0.0, t - start) / (1 - start)
        n_letters = int(done * 330) if action == 0 else 10**6
        first = done * 25 if action == 1 else 0
        for row in range(14):
            line = lines[int(first) + row]
            shown = line[: max(0, n_letters)]
            n_letters -= len(line)
            y = int(24 + 9 * (row - first % 1))
            cv2.putText(frame, shown, (24, y), 0, 0.28, ink, 1, cv2.LINE_AA)
        cv2.rectangle(frame, (0, 0), (WIDTH, 12), accent, -1)
        cv2.rectangle(frame, (0, 12), (18, HEIGHT), tuple(c // 2 for c in accent), -1)
        if action == 2 and t > 0.3 + start:
            scale = min(1.0, (t - 0.3 - start) * 8)
            corner = (x0 + int(85 * scale), y0 + int(60 * scale))
            cv2.rectangle(frame, (x0, y0), corner, accent, -1)
            cv2.rectangle(frame, (x0, y0), corner, ink, 1)
        if action == 3:
            for item in range(1 + int(done * 8)):
                y = 14 + 10 * item
                cv2.rectangle(frame, (x0, y), (x0 + 60, y + 10), (200, 200, 200), -1)
                cv2.putText(frame, lines[40 + item][:10], (x0 + 3, y + 8), 0, 0.25, (0, 0, 0), 1)
        pointer = _at(np.array([0.2 + 0.5 * t, 0.3 + 0.3 * np.sin(3 * t + 6 * start)]))
        cv2.drawMarker(frame, pointer, (0, 0, 0), cv2.MARKER_TILTED_CROSS, 6, 1)
        frames.append(frame)
    return frames


def draw_pans(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A camera follows players along a stand full of people and over a striped pitch."""
    wide = 4 * WIDTH
    stand = _texture(group, HEIGHT // 2, wide, coarse=20)
    grass = np.zeros((HEIGHT - HEIGHT // 2, wide, 3), np.uint8)
    for stripe in range(0, wide, 48):
        grass[:, stripe : stripe + 48] = (40, 110 + 25 * (stripe // 48 % 2), 50)
    world = np.concatenate([stand, grass])
    for x in group.integers(0, wide, 10):
        world[HEIGHT // 2 - 12 : HEIGHT // 2, x : x + 60] = _colour(group)
    shirts = _colour(group), _colour(group)
    speed = (1.0, -1.0, 0.45, -0.45)[action] * clip.uniform(0.8, 1.2)
    begin = clip.uniform(0.05, 0.3)
    frames = []
    runners = clip.uniform(0.15, 0.85, (5, 2))
    drift = clip.normal(0, 0.25, (5, 2)) * (1, 0.3)
    for t in np.linspace(0, 1, n):
        place = begin + (1 - 2 * begin) * (t if speed > 0 else 1 - t) * abs(speed)
        left = int(np.clip(place, 0, 1) * (wide - WIDTH))
        frame = world[:, left : left + WIDTH].copy()
        for number, (x, y) in enumerate(runners + t * drift):
            at = int(x * WIDTH), int((0.5 + 0.45 * y) * HEIGHT)
            cv2.ellipse(
                frame, at, (4, 10), 20 * np.sin(20 * t + number), 0, 360, shirts[number % 2], -1
            )
        frames.append(frame)
    return _noisy(frames, clip, 3)


def draw_slides(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A slide show: boxes and words, faded, pushed, wiped or cut from one to the next."""
    theme = _colour(group, 150, 250), _colour(group, 0, 120)
    slides = []
    for _ in range(4):
        slide = np.full((HEIGHT, WIDTH, 3), theme[0], np.uint8)
        cv2.putText(slide, _words(clip, 9), (10, 30), 0, 0.7, theme[1], 2, cv2.LINE_AA)
        for row in range(int(clip.integers(1, 5))):
            cv2.putText(slide, _words(clip, 20), (20, 60 + 20 * row), 0, 0.4, theme[1], 1)
        if clip.random() < 0.6:
            x, y = int(clip.integers(60, 140)), int(clip.integers(50, 100))
            cv2.rectangle(slide, (x, y), (x + 45, y + 35), _colour(clip), -1)
        slides.append(slide)
    frames = []
    for t in np.linspace(0, len(slides) - 1.001, n):
        one, two = slides[int(t)], slides[int(t) + 1]
        share = float(np.clip((t % 1 - 0.6) * 2.5, 0, 1))
        cut = int(share * WIDTH)
        if action == 0:
            frames.append(cv2.addWeighted(one, 1 - share, two, share, 0))
        elif action == 1:
            frames.append(np.concatenate([one[:, cut:], two[:, :cut]], axis=1))
        elif action == 2:
            frames.append(np.concatenate([two[:, :cut], one[:, cut:]], axis=1))
        else:
            frames.append(two if share > 0.5 else one)
    return frames


def draw_zoom(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A camera zooms in or out, or turns either way, over a landscape seen from above."""
    world = _texture(group, 3 * HEIGHT, 3 * WIDTH, coarse=10)
    for _ in range(25):
        x, y = int(group.integers(0, 3 * WIDTH)), int(group.integers(0, 3 * HEIGHT))
        cv2.rectangle(world, (x, y), (x + 30, y + 22), _colour(group), -1)
    x, y = clip.uniform(1.2, 1.8, 2) * (WIDTH, HEIGHT)
    speed = clip.uniform(0.7, 1.3)
    frames = []
    for t in np.linspace(0, 1, n):
        scale = (1 + speed * t, 1 + speed * (1 - t), 1.3, 1.3)[action]
        angle = (0.0, 0.0, 50 * speed * t, -50 * speed * t)[action]
        turn = cv2.getRotationMatrix2D((float(x), float(y)), angle, scale)
        turn[:, 2] += WIDTH / 2 - x, HEIGHT / 2 - y
        frames.append(cv2.warpAffine(world, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))
    return _noisy(frames, clip, 2)


def draw_face(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """A head before a webcam nods, shakes, talks or comes nearer."""
    ground, skin, shirt = _texture(group, HEIGHT, WIDTH), _colour(group, 80, 240), _colour(group)
    x0, y0 = 96 + clip.normal(0, 8), 70 + clip.normal(0, 5)
    pace, begin = clip.uniform(1.5, 3), clip.uniform(0, 6)
    frames = []
    for t in np.linspace(0, 1, n):
        swing = np.sin(2 * np.pi * pace * t + begin)
        x, y = x0 + 9 * swing * (action == 1), y0 + 7 * swing * (action == 0)
        size = 26 + 16 * t * (action == 3)
        frame = ground.copy()
        cv2.ellipse(frame, (int(x0), HEIGHT), (60, 40), 0, 0, 360, shirt, -1)
        cv2.ellipse(frame, (int(x), int(y)), (int(size), int(1.3 * size)), 0, 0, 360, skin, -1)
        for eye in (-0.4, 0.4):
            cv2.circle(frame, (int(x + eye * size), int(y - 0.2 * size)), 3, (20, 20, 20), -1)
        is_open = 2 + 5 * abs(swing) * (action == 2)
        cv2.ellipse(
            frame, (int(x), int(y + 0.6 * size)), (9, int(is_open)), 0, 0, 360, (40, 20, 90), -1
        )
        frames.append(frame)
    return _noisy(frames, clip, 4)


def draw_night(
    action: int, group: np.random.Generator, clip: np.random.Generator, n: int
) -> list[FrameArray]:
    """An infrared camera, grey and grainy: something warm crosses a dark field."""
    ground = cv2.cvtColor(_texture(group, HEIGHT, WIDTH), cv2.COLOR_BGR2GRAY) // 3 + 20
    size = int(clip.integers(4, 14))
    frames = []
    for place in _path(action, clip, n):
        glow = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(glow, _at(place), (size, int(1.6 * size)), 0, 0, 360, 200, -1)
        lit = cv2.add(ground, cv2.GaussianBlur(glow, (0, 0), 2))
        frames.append(cv2.cvtColor(lit, cv2.COLOR_GRAY2BGR))
    return _noisy(frames, clip, 9)


LOOKS: Mapping[str, Draw] = {
    "flat": draw_flat,
    "static-camera": draw_static_camera,
    "cameras": draw_cameras,
    "screen": draw_screen,
    "pans": draw_pans,
}
# Written after the criterion was fixed, to see whether it holds.
HELD_OUT: Mapping[str, Draw] = {
    "slides": draw_slides,
    "zoom": draw_zoom,
    "face": draw_face,
    "night": draw_night,
}


def draw_look(look: Draw, folder: Path, *, n_groups: int, n_takes: int, seed: int = 0) -> int:
    """Draw clips of every action and group into class folders; return how many."""
    for action in range(N_ACTIONS):
        (folder / f"action{action}").mkdir(parents=True, exist_ok=True)
        for group in range(n_groups):
            for take in range(n_takes):
                clip = np.random.default_rng((seed, action, group, take))
                n = int(clip.integers(36, 56))
                frames = look(action, np.random.default_rng((seed, group)), clip, n)
                path = folder / f"action{action}" / f"g{group:02d}_{take:02d}.avi"
                write_frames(path, frames)
    return N_ACTIONS * n_groups * n_takes


def write_frames(path: Path, frames: Sequence[FrameArray], form: VideoFormat = MPEG4) -> None:
    with writing_video(path, 25.0, form=form) as write:
        for frame in frames:
            write(frame)


@dataclass(frozen=True)
class Alteration:
    """How a copy differs from its original."""

    name: str
    change: Callable[[list[FrameArray]], list[FrameArray]] = lambda frames: frames
    form: VideoFormat = MPEG4
    suffix: str = ".avi"


def _each(
    change: Callable[[FrameArray], FrameArray],
) -> Callable[[list[FrameArray]], list[FrameArray]]:
    return lambda frames: [np.ascontiguousarray(change(frame)) for frame in frames]


def _brighten(factor: float) -> Callable[[list[FrameArray]], list[FrameArray]]:
    return _each(lambda frame: np.clip(frame * factor, 0, 255).astype(np.uint8))


def _crop(share: float) -> Callable[[list[FrameArray]], list[FrameArray]]:
    def crop(frame: FrameArray) -> FrameArray:
        height, width = frame.shape[:2]
        y, x = int(height * share), int(width * share)
        inside = frame[y : height - y, x : width - x]
        picture: FrameArray = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA)
        return picture

    return _each(crop)


def _resize(share: float) -> Callable[[list[FrameArray]], list[FrameArray]]:
    def resize(frame: FrameArray) -> FrameArray:
        size = [int(side * share) // 2 * 2 for side in (frame.shape[1], frame.shape[0])]
        picture: FrameArray = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        return picture

    return _each(resize)


def _trim(first: float, last: float) -> Callable[[list[FrameArray]], list[FrameArray]]:
    return lambda frames: frames[int(first * len(frames)) : len(frames) - int(last * len(frames))]


def _in_turn(
    *changes: Callable[[list[FrameArray]], list[FrameArray]],
) -> Callable[[list[FrameArray]], list[FrameArray]]:
    def change(frames: list[FrameArray]) -> list[FrameArray]:
        for step in changes:
            frames = step(frames)
        return frames

    return change


_VP9 = VideoFormat(
    "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "crf": "40", "b": "0"}
)
ALTERATIONS = (
    Alteration("mpeg4"),
    Alteration(
        "h264",
        form=VideoFormat("libx264", "yuv420p", {"preset": "veryfast", "crf": "32"}),
        suffix=".mp4",
    ),
    Alteration("vp9-half", _resize(0.5), _VP9, ".webm"),
    Alteration("jpeg-12", form=VideoFormat("mjpeg", "yuvj420p", {"qmin": "20", "qmax": "20"})),
    Alteration("half-size", _resize(0.5)),
    Alteration("no-first-tenth", _trim(0.1, 0)),
    Alteration("no-last-tenth", _trim(0, 0.1)),
    Alteration("no-ends", _trim(0.1, 0.1)),
    Alteration("brighter-10", _brighten(1.1)),
    Alteration("brighter-30", _brighten(1.3)),
    Alteration("mirrored", _each(lambda frame: frame[:, ::-1])),
    Alteration("cropped-3", _crop(0.03)),
    Alteration("cropped-5", _crop(0.05)),
    Alteration("cropped-10", _crop(0.1)),
    Alteration(
        "all-at-once",
        _in_turn(_trim(0.1, 0), _brighten(1.1), _resize(0.5)),
        VideoFormat("mjpeg", "yuvj420p", {"qmin": "20", "qmax": "20"}),
    ),
)


def copy_clip(path: Path, alteration: Alteration, target: Path) -> None:
    """Write an altered copy of a clip; its sides come out even."""
    import av

    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        rate = float(stream.average_rate)
        frames = [frame.to_ndarray(format="bgr24") for frame in source.decode(stream)]
    frames = alteration.change(frames)
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing_video(target, rate, form=alteration.form) as write:
        for frame in frames:
            write(np.ascontiguousarray(frame[:height, :width]))
