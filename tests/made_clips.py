"""Clips that the tests write with PyAV: every frame has its number in it, as a bar code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from features.records import FrameArray

N_BITS = 10
_BAR_PX = 16
WIDTH = N_BITS * _BAR_PX


@dataclass(frozen=True)
class Recipe:
    """How a clip is written."""

    suffix: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (WIDTH, 96)
    rate: Fraction = Fraction(25)
    format: str | None = None
    mux: Mapping[str, str] = field(default_factory=dict)
    is_interlaced: bool = False


def draw_number(number: int, size: tuple[int, int] = (WIDTH, 96)) -> FrameArray:
    """Draw a frame: dark and light bars for the bits of its number."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    bar = width / N_BITS
    for bit in range(N_BITS):
        value = 220 if number >> bit & 1 else 30
        picture[:, round(bit * bar) : round((bit + 1) * bar)] = value
    return picture


def read_numbers(frames: Iterable[FrameArray]) -> list[int]:
    """Read the numbers back; -1 where a frame shows none."""
    numbers = []
    for frame in frames:
        bar = frame.shape[1] / N_BITS
        number = 0
        for bit in range(N_BITS):
            inside = frame[:, round((bit + 0.25) * bar) : round((bit + 0.75) * bar)].mean()
            if 95 < inside < 155:
                number = -1
                break
            number |= int(inside > 125) << bit
        numbers.append(number)
    return numbers


def encode(recipe: Recipe, numbers: Sequence[int], target: Any, stream: Any) -> None:
    """Encode frames, in order, a tick of the rate apart, and put them into an open file."""
    for place, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(draw_number(number, recipe.size), format="rgb24")
        frame = frame.reformat(format=recipe.pix_fmt)
        frame.pts, frame.time_base = place, 1 / recipe.rate
        target.mux(stream.encode(frame))
    target.mux(stream.encode(None))


def add_stream(target: Any, recipe: Recipe) -> Any:
    stream = target.add_stream(recipe.codec, rate=recipe.rate, options=dict(recipe.options))
    stream.width, stream.height = recipe.size
    stream.pix_fmt = recipe.pix_fmt
    stream.codec_context.time_base = 1 / recipe.rate
    stream.codec_context.thread_count = 1
    if recipe.is_interlaced:
        stream.codec_context.flags |= 0x20040000  # interlaced DCT and motion
    return stream


def write_clip(path: Path, recipe: Recipe, n_frames: int | Sequence[int] = 60) -> Path:
    """Write a clip; frames are numbered from 0, or as given."""
    numbers = list(range(n_frames)) if isinstance(n_frames, int) else list(n_frames)
    options = dict(recipe.mux)
    with av.open(str(path), "w", format=recipe.format, options=options) as target:
        encode(recipe, numbers, target, add_stream(target, recipe))
    return path


def remux(
    source: Path,
    target: Path,
    *,
    shift: int = 0,
    drop: Sequence[int] = (),
    mux: Mapping[str, str] | None = None,
    format: str | None = None,
    times: Sequence[int] | None = None,
) -> Path:
    """Copy packets without encoding: shifted in time, some left out, or at other times."""
    with (
        av.open(str(source)) as old,
        av.open(str(target), "w", format=format, options=dict(mux or {})) as new,
    ):
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(old.demux(stream)):
            if packet.size == 0 or number in drop:
                continue
            packet.stream = copy
            if times is not None:
                packet.pts = packet.dts = times[number]
            elif packet.pts is not None:
                packet.pts += shift
                packet.dts = None if packet.dts is None else packet.dts + shift
            new.mux(packet)
    return target


def packets_of(path: Path) -> list[bytes]:
    """Return the packets of a file's first video stream."""
    with av.open(str(path)) as source:
        return [bytes(packet) for packet in source.demux(source.streams.video[0]) if packet.size]


def damage(path: Path, target: Path, *, seed: int, n_bytes: int = 60, at: float = 0.4) -> Path:
    """Copy a file with some random bytes in one place of it."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * at)
    noise = np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8).tobytes()
    content[start : start + n_bytes] = noise
    target.write_bytes(content)
    return target
