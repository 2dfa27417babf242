"""How fast frames reach an engine that needs no time, as on a GPU: what the way itself costs.

    python benchmarks/feed.py VIDEOS

* decode: core-seconds of decoding and resizing the clips in this process, nothing sent.
* fed: the same by workers that send frames, batches filled and the engine called; the core-seconds
  of all processes, without their start.
* sent: workers that send frames which are there already; frames per second that two cores would do,
  from core-seconds.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from features.clips.discover import discover_clips
from features.embed import EmbedOptions, embed_rows
from features.records import Clip, FrameArray
from features.system.text import format_table
from features.video.decode import read_frames
from features.video.sampling import choose_sampling
from features.workers.pool import decode_clips
from features.workers.process import ClipEnd, ClipRows, WorkerSettings
from features.workers.protocol import receive_message, send_message

SAMPLING = choose_sampling(n_frames=20)
SIZE_PX = 224
N_MESSAGES = 500


class InstantEngine:
    """An engine that answers at once."""

    batch_frames = 256

    def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
        """Return vectors of nothing."""
        return np.zeros((len(frames), 1280), np.float32)


def core_seconds() -> float:
    """Return the core-seconds of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(item.ru_utime + item.ru_stime for item in used)


def decode(paths: list[Path]) -> float:
    """Return core-seconds of decoding alone."""
    started = core_seconds()
    for path in paths:
        for _ in read_frames(path, SAMPLING, size_px=SIZE_PX):
            pass
    return core_seconds() - started


def feed(clips: list[Clip]) -> float:
    """Return core-seconds of decoding in workers and filling batches from what they send."""
    options = EmbedOptions()
    settings = WorkerSettings(SAMPLING, SIZE_PX, None, "float16", 60.0, options.memory_bytes)

    def run(some: list[Clip]) -> float:
        started = core_seconds()
        events = decode_clips(some, settings, n_workers=options.count_workers())
        for _ in embed_rows(events, InstantEngine(), "float16"):
            pass
        return core_seconds() - started

    # Twice as many clips on the same workers: the difference is without their start.
    return run([*clips, *clips]) - run(clips)


def send(n_messages: int) -> float:
    """Return core-seconds of two workers that send so many messages each, and of their parent."""
    started = core_seconds()
    command = [sys.executable, __file__, ".", "--only-send", str(n_messages)]
    senders = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]

    def events() -> Iterator[ClipRows | ClipEnd]:
        for _ in range(n_messages):
            for sender in senders:
                answer = receive_message(sender.stdout) if sender.stdout else None
                if answer and answer[1] is not None:
                    yield ClipRows(Clip("a", Path("a")), answer[1], [0.0] * 20, list(range(20)))

    for _ in embed_rows(events(), InstantEngine(), "float16"):
        pass
    for sender in senders:
        sender.communicate()
    return core_seconds() - started


@click.command()
@click.argument("videos", type=click.Path(path_type=Path, exists=True))
@click.option("--repeats", default=3, show_default=True)
@click.option("--only-send", type=int, hidden=True)
def main(videos: Path, repeats: int, only_send: int | None) -> None:
    """Measure the way to the engine on the folder VIDEOS."""
    if only_send:
        frames = np.zeros((20, SIZE_PX, SIZE_PX, 3), np.uint8)
        for _ in range(only_send):
            send_message(sys.stdout.buffer, {"kind": "frames"}, frames)
        return
    clips = list(discover_clips(videos).clips)
    paths = [clip.path for clip in clips]
    columns: dict[str, list[float]] = {}
    for _ in range(repeats):
        alone, fed = decode(paths), feed(clips)
        row = {
            "decode core-ms/clip": 1000 * alone / len(clips),
            "fed core-ms/clip": 1000 * fed / len(clips),
            "share of decoding alone": alone / fed,
            # The difference is without the start of the senders.
            "sent frames/s, two cores": 2
            * 2
            * 20
            * N_MESSAGES
            / (send(2 * N_MESSAGES) - send(N_MESSAGES)),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    rows = [
        [name, *(f"{value:.2f}" for value in values), f"{statistics.median(values):.2f}"]
        for name, values in columns.items()
    ]
    numbers = [f"repeat {number}" for number in range(1, repeats + 1)]
    click.echo(format_table(["", *numbers, "median"], rows))


if __name__ == "__main__":
    main()
