"""Peak memory of extract-features on one very long video and on very many short clips.

    python benchmarks/memory.py FOLDER --minutes 60 --clips 10000

FOLDER needs about 1 GB of room; what is written there is removed again. Peak memory is the
largest sum of resident memory over the command and its workers, read four times a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def write_video(path: Path, n_frames: int, size: tuple[int, int]) -> None:
    """Write a video of drifting coarse noise, at 25 frames per second."""
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25, (width, height))
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height))
    for index in range(n_frames):
        writer.write(np.roll(picture, index, axis=1))
    writer.release()


def tree_memory_bytes(process_id: int) -> int:
    """Sum the resident memory of a process and its descendants."""
    total = 0
    waiting = [process_id]
    while waiting:
        number = waiting.pop()
        try:
            fields = Path(f"/proc/{number}/statm").read_text().split()
            for task in Path(f"/proc/{number}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        total += int(fields[1]) * 4096
    return total


def measure(videos: Path, out: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Return seconds and peak memory in MB of one extraction."""
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "extract-features",
        str(videos),
        "--out",
        str(out),
        "--quiet",
        *options,
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_memory_bytes(process.pid))
        time.sleep(0.25)
    if process.returncode:
        raise click.ClickException(f"extract-features ended with {process.returncode}")
    return time.perf_counter() - started, peak / 1e6


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--minutes", default=60, show_default=True, help="Length of the long video.")
@click.option("--clips", default=10_000, show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default="0.35", show_default=True)
@click.option("--all-frames", is_flag=True, help="Embed every frame of the long video.")
def main(
    folder: Path, minutes: int, clips: int, weights: str, alpha: str, all_frames: bool
) -> None:
    """Measure both cases."""
    work = folder / "benchmark-memory"
    work.mkdir(parents=True)
    options = ("--weights", weights, "--alpha", alpha)
    try:
        if minutes:
            write_video(work / "long" / "a" / "long.mp4", minutes * 60 * 25, (640, 360))
            chosen = (*options, "--all-frames") if all_frames else options
            seconds, peak = measure(work / "long", work / "long.h5", chosen)
            click.echo(f"one video of {minutes} min, 640x360: {seconds:.1f} s, peak {peak:.0f} MB")
        if clips:
            first = work / "many" / "a" / "000000.mp4"
            write_video(first, 12, (320, 240))
            content = first.read_bytes()
            for number in range(1, clips):
                # Another byte at the end: other content, so that none is taken for moved.
                first.with_name(f"{number:06d}.mp4").write_bytes(content + number.to_bytes(4))
            seconds, peak = measure(work / "many", work / "many.h5", options)
            click.echo(f"{clips} clips of 12 frames: {seconds:.1f} s, peak {peak:.0f} MB")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
