"""How much of what heads see in motion is the files, not the motion: on copies made alike.

    python benchmarks/motion.py fights_mini --labels fights_mini/clips.csv --alpha 0.35

Compares heads on the clips as they are; without frames that repeat the one before; re-timed to
one frame rate without making frames; encoded anew, all by one codec at one size; and all of these
together.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np

from features import BackboneOptions, FolderOptions, extract_features
from features.system.text import format_table
from features.video.write import FORMATS, writing_video
from pipeline import compare_heads

# Mean difference of grey levels up to which a frame repeats the one before.
_REPEATS_BELOW = 0.3
_RATE = 10.0
_SIZE = (320, 240)
_FORM = replace(FORMATS[".mp4"], options={"preset": "veryfast", "crf": "28"})
COPIES = {
    "as they are": (),
    "repeats removed": ("unique",),
    "one frame rate": ("rate",),
    "one encoding": ("encoding",),
    "all three": ("unique", "rate", "encoding"),
}


def read_frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield every frame with its time."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            time = frame.time if frame.time is not None else index / 25
            yield float(time), frame.to_ndarray(format="bgr24")


def copy_clip(source: Path, target: Path, how: tuple[str, ...]) -> None:
    """Write a copy of a clip; what is not asked for stays nearly lossless."""
    frames = list(read_frames(source))
    if "unique" in how:
        kept = frames[:1]
        for time, picture in frames[1:]:
            if np.abs(picture.astype(np.int16) - kept[-1][1]).mean() > _REPEATS_BELOW:
                kept.append((time, picture))
        frames = kept
    if "rate" in how:
        # The frame that is shown at each tick; between two ticks none is needed twice, because no
        # clip has fewer frames per second.
        times = np.array([time for time, _ in frames])
        ticks = np.arange(times[0], times[-1] + 1e-6, 1 / _RATE)
        places = np.searchsorted(times, ticks + 1e-6, side="right") - 1
        frames = [frames[place] for place in dict.fromkeys(places.tolist())]
    span = frames[-1][0] - frames[0][0]
    rate = float(Fraction(max(len(frames) - 1, 1) / span if span > 0 else 25).limit_denominator(50))
    target.parent.mkdir(parents=True, exist_ok=True)
    fine = replace(_FORM, options={"preset": "veryfast", "crf": "8"})
    with writing_video(target, rate, form=_FORM if "encoding" in how else fine) as write:
        for _, picture in frames:
            height, width = picture.shape[:2]
            size = _SIZE if "encoding" in how else (width // 2 * 2, height // 2 * 2)
            write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


@click.command()
@click.argument("videos", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), required=True)
@click.option("--heads", default="logreg:tempo,logreg:motion,logreg:appearance", show_default=True)
@click.option("--alpha", default=0.35, show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--seeds", default=1, show_default=True)
def main(videos: Path, labels: Path, heads: str, alpha: float, weights: str, seeds: int) -> None:
    """Compare heads on copies that are more and more alike."""
    with labels.open(newline="", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for number, (name, how) in enumerate(COPIES.items()):
            folder = Path(made) / str(number)
            for clip in names if how else ():
                copy_clip(videos / clip, folder / clip, how)
            extract_features(
                folder if how else videos,
                folder.with_suffix(".h5"),
                folder=FolderOptions(labels=labels),
                backbone=BackboneOptions(weights, alpha=alpha),
            )
            comparison = compare_heads(
                folder.with_suffix(".h5"),
                folder.with_suffix(".comparison"),
                heads=heads.split(","),
                seeds=seeds,
            )
            found = {head.name: f"{head.accuracy.mean:.1%}" for head in comparison.heads}
            rows.append([name, *(found[head] for head in heads.split(","))])
            print(rows[-1], flush=True)
    print(format_table(["copies", *heads.split(",")], rows))


if __name__ == "__main__":
    main()
