"""Microseconds per frame of the resize rule against OpenCV's own ways, and of decoding.

    python benchmarks/resize.py VIDEOS

On frames of the folder's clips as they are, and scaled to 1280 x 720, to 224 px; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from features.clips.discover import discover_clips
from features.records import FrameArray
from features.system.text import format_table
from features.video.frames import import_cv2, resize_frame

SIZE_PX = 224


def microseconds(work: Callable[[FrameArray], object], frames: list[FrameArray]) -> float:
    """Return core-microseconds per frame, the best of three rounds."""
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for frame in frames:
            work(frame)
        rounds.append((time.process_time() - started) / len(frames) * 1e6)
    return min(rounds)


@click.command()
@click.argument("videos", type=click.Path(path_type=Path, exists=True))
def main(videos: Path) -> None:
    """Print one table."""
    cv2 = import_cv2()
    frames: list[FrameArray] = []
    n_decoded = 0
    started = time.process_time()
    for clip in discover_clips(videos).clips[:20]:
        capture = cv2.VideoCapture(str(clip.path), cv2.CAP_FFMPEG)
        while capture.grab():
            n_decoded += 1
            if n_decoded % 20 == 0:
                frames.append(capture.retrieve()[1])
        capture.release()
    decoding = (time.process_time() - started) / n_decoded * 1e6
    large = [cv2.resize(frame, (1280, 720)) for frame in frames[:60]]
    side = (SIZE_PX, SIZE_PX)
    ways: dict[str, Callable[[FrameArray], object]] = {
        "halve, then bilinear": lambda frame: resize_frame(frame, SIZE_PX),
        "INTER_LINEAR": lambda frame: cv2.resize(frame, side, interpolation=cv2.INTER_LINEAR),
        "INTER_AREA": lambda frame: cv2.resize(frame, side, interpolation=cv2.INTER_AREA),
    }
    rows = [
        [name, f"{microseconds(way, frames):.0f}", f"{microseconds(way, large):.0f}"]
        for name, way in ways.items()
    ]
    height, width = frames[0].shape[:2]
    click.echo(format_table(["way", f"{width}x{height} us", "1280x720 us"], rows))
    click.echo(f"decoding takes {decoding:.0f} us per frame of {width}x{height}")


if __name__ == "__main__":
    main()
