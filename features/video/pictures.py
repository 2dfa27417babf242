"""Pictures of clips: the middle one of the embedded frames, as a small JPEG, for reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from features.errors import FrameHeadError
from features.records import Clip, ClipRecord, FrameSampling, SourceFile
from features.store.store import Store, read_clip
from features.system.machine import usable_cores
from features.workers.pool import decode_clips
from features.workers.process import ClipRows, WorkerSettings

MOST_PX = 320
_STALL_SECONDS = 10.0
_MEMORY_BYTES = 2 * 2**30
_NO_FOLDER = "the store does not say where the videos lie; --videos DIR does"


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """A picture of a clip, or why there is none.

    Attributes
    ----------
    jpeg : bytes
        The picture as a JPEG file, at most 320 pixels wide and high. Empty if there is none.
    problem : str
        Why there is none. Empty if there is one.
    """

    jpeg: bytes
    problem: str


def find_videos(store: Store) -> Path | None:
    """Tell which folder the last extraction read a store's clips from, if the store says so."""
    folders = [entry["videos"] for entry in store.history if "videos" in entry]
    return Path(folders[-1]) if folders else None


def take_pictures(
    store: Store, clip_ids: Iterable[str], *, videos: Path | None = None
) -> dict[str, Picture]:
    """Decode the middle one of the embedded frames of some clips that have embeddings, by id.

    Parameters
    ----------
    store : Store
        The store, as `open_store` returns it.
    clip_ids : iterable of str
        Which clips. Those that the store does not have are left out.
    videos : Path, optional
        Where the video folder is now. By default where it was when the store was made.

    Returns
    -------
    dict of str to Picture
        A picture for each clip id. Nothing is raised for a clip without one: its file may be gone,
        or hold something else than what was embedded.
    """
    wanted = set(clip_ids)
    records = {clip.clip_id: clip for clip in store.clips if clip.clip_id in wanted}
    folder = videos or find_videos(store)
    if folder is None:
        return dict.fromkeys(records, Picture(b"", _NO_FOLDER))
    try:
        return _decode(store, records.values(), folder)
    except FrameHeadError as problem:  # no worker can work at all: no reason to lose a result
        return dict.fromkeys(records, Picture(b"", problem.message))


def _decode(store: Store, records: Iterable[ClipRecord], folder: Path) -> dict[str, Picture]:
    records = list(records)
    sources = {clip.clip_id: clip.source for clip in records}
    clips = [Clip(clip.clip_id, folder / clip.file_id) for clip in records]
    settings = WorkerSettings(
        sampling=FrameSampling("stride", 1.0),
        size_px=MOST_PX,
        model_path=None,
        dtype="float32",
        stall_seconds=_STALL_SECONDS,
        memory_bytes=_MEMORY_BYTES,
        picture_of={clip_id: _middle_frame(store, clip_id) for clip_id in sources},
    )
    coded: dict[str, bytes] = {}
    pictures: dict[str, Picture] = {}
    events = decode_clips(clips, settings, n_workers=_choose_n_workers(clips))
    with closing(events):
        for event in events:
            clip_id = event.clip.clip_id
            if isinstance(event, ClipRows):
                coded[clip_id] = event.rows.tobytes()
                continue
            problem = event.failure or _compare_files(event.source, sources[clip_id])
            pictures[clip_id] = Picture(b"" if problem else coded.pop(clip_id), problem)
    return pictures


def _choose_n_workers(clips: Sequence[Clip]) -> int:
    # Starting a worker takes longer than decoding a few short clips.
    return min(usable_cores(), 1 + len(clips) // 4)


def _middle_frame(store: Store, clip_id: str) -> int:
    indices = read_clip(store, clip_id).frame_indices
    return int(indices[len(indices) // 2])


def _compare_files(now: SourceFile, then: SourceFile) -> str:
    if now.sha256 == then.sha256:
        return ""
    return "the file is another one than when it was embedded"
