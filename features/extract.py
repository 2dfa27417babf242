"""Stage 1: decode workers -> batches across clips -> engine -> store.

On a CPU each worker decodes and embeds its own clips on one core, so that only
embeddings travel between processes. On a GPU the workers send frames, and batches are
filled across clips here. Nothing is printed: progress goes to a callback.
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.backbone.engines import EnginePlan, choose_engine, engine_version
from features.backbone.weights import BackboneOptions, find_backbone
from features.clips.changes import plan_extraction, update_row
from features.clips.discover import discover_clips
from features.embed import EmbedOptions, embed_clips
from features.errors import Interrupted, StoreNotFound
from features.records import (
    ClipOutcome,
    Discovery,
    EmbeddedClip,
    FrameSampling,
    IgnoredFile,
    StoreHeader,
    VectorDtype,
)
from features.store.commit import commit_clips, lock_store, merge_parts
from features.store.store import Store, open_store, remove_store, require_same_settings
from features.system.versions import opencv_package, package_version
from features.video.sampling import choose_sampling
from features.video.source import decoder_version

# A commit costs about 10 ms. At least this far apart, and a hundredth of the elapsed
# time in long runs, so that a kill loses at most 1 % and parts stay few.
_COMMIT_SECONDS = 2.0
_MOST_COMMIT_SECONDS = 60.0
_MOST_PENDING_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an extraction is, passed to the callback after each clip.

    Attributes
    ----------
    n_clips : int
        Clips to decode in this extraction.
    n_finished : int
        Of them, done or failed.
    n_frames : int
        Frames embedded so far.
    outcome : ClipOutcome or None
        The clip that has just finished; None in the first call.
    """

    n_clips: int
    n_finished: int
    n_frames: int
    outcome: ClipOutcome | None


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """What an extraction did.

    Attributes
    ----------
    store : Path
    fingerprint : str
        Of the settings, see `StoreHeader`.
    engine : EnginePlan
    outcomes : tuple of ClipOutcome
        One per clip of the folder, sorted by id.
    changed : tuple of str
        Ids of clips whose file has other content than before; embedded anew.
    vanished : tuple of str
        Clips of the store whose file is gone from the folder.
    unlisted : tuple of str
        Clips of the store whose file is there, but not in the CSV. Like vanished ones they
        keep their embeddings and are not trained on.
    moved : tuple of (str, str)
        Old and new id.
    ignored : tuple of IgnoredFile
        Files of the folder that are not clips.
    notes : tuple of (str, str)
        Clips that are done but odd, and why: fewer frames than asked for (they give all
        they have), or fewer than their header claims.
    frames : int
        Frames embedded by this extraction.
    seconds : float
        Wall-clock time, start of workers and engine included.
    """

    store: Path
    fingerprint: str
    engine: EnginePlan
    outcomes: tuple[ClipOutcome, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]
    unlisted: tuple[str, ...]
    moved: tuple[tuple[str, str], ...]
    ignored: tuple[IgnoredFile, ...]
    notes: tuple[tuple[str, str], ...]
    frames: int
    seconds: float

    @property
    def failures(self) -> tuple[ClipOutcome, ...]:
        """The clips that failed, now or before."""
        return tuple(item for item in self.outcomes if item.status == "failed")

    def count(self, status: str) -> int:
        """Count the clips with a status."""
        return sum(item.status == status for item in self.outcomes)


def extract_features(
    videos: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    group_regex: str | None = None,
    sampling: FrameSampling | None = None,
    backbone: BackboneOptions = BackboneOptions(),
    dtype: VectorDtype = "float16",
    embedding: EmbedOptions = EmbedOptions(),
    retry_failed: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ExtractSummary:
    """Embed every clip of a folder into a store.

    Running it again with the same arguments decodes only what is new or changed.

    Parameters
    ----------
    videos : str or Path
        Folder of videos, walked to any depth. Without a CSV the label of a clip is its folder
        at the first level where folders branch; folders named train, val and test above the
        class folders set the split.
    out : str or Path
        The store, an HDF5 file.
    labels : str or Path, optional
        CSV with a header line and the columns path (relative to `videos`), label, group and
        split, of which only path must exist. It names the clips exactly.
    group_regex : str, optional
        What names the group in a clip's path, its first parenthesis. By default the CSV's
        group column, or what the file names of well-known collections say.
    sampling : FrameSampling, optional
        Which frames are embedded, from `choose_sampling`; by default 20 frames per clip.
    backbone : BackboneOptions
        Weights, width and input size of MobileNetV2.
    dtype : {"float16", "float32"}, default "float16"
        Type in which embeddings are stored.
    embedding : EmbedOptions
        Engine, processes and limits; they decide speed, not values.
    retry_failed : bool, default False
        Try unchanged clips again that failed before.
    overwrite : bool, default False
        Delete a store that stands at `out` first.
    on_progress : callable, optional
        Called with a `Progress` at the start and after each clip.

    Returns
    -------
    ExtractSummary

    Raises
    ------
    FrameHeadError
        Of the kinds VideosNotFound, NoClips, ManifestError, OptionInvalid,
        WeightsNotFound, WeightsUnreadable, EngineUnavailable, DecoderBroken, OpenCVBroken,
        StoreMismatch, StoreBusy, StoreDamaged, OutputUnwritable, and Interrupted on
        Ctrl-C. A clip that cannot be read raises nothing: it is a failed outcome.
    """
    started = time.perf_counter()
    store_path = Path(out)
    discovery = discover_clips(videos, labels=labels, group_regex=group_regex)
    files = find_backbone(backbone)
    header = StoreHeader(files.spec, sampling or choose_sampling(), dtype)
    with lock_store(store_path):
        engine_plan = choose_engine(embedding.engine)
        if overwrite:
            remove_store(store_path)
        existing = _open_existing(store_path, header)
        plan = plan_extraction(
            discovery.clips, existing.clips if existing else (), retry_failed=retry_failed
        )
        entry = _history_entry(engine_plan, discovery.folder)
        if existing is None or plan.to_decode:
            commit_clips(store_path, header, [], entry)
        on_progress(Progress(len(plan.to_decode), 0, 0, None))
        outcomes: list[ClipOutcome] = []
        clips = {clip.clip_id: clip for clip in discovery.clips}
        try:
            if plan.to_decode:
                embedded = embed_clips(plan.to_decode, header, files, engine_plan, embedding)
                job = _Job(store_path, header, entry, len(plan.to_decode), started)
                with closing(embedded):
                    _run(job, embedded, outcomes, on_progress)
            store = merge_parts(store_path, update=lambda row: update_row(row, clips, plan.moved))
        except KeyboardInterrupt as problem:
            raise Interrupted(
                f"Interrupted: {len(outcomes)} of {len(plan.to_decode)} clips are committed to "
                f"'{store_path}'.",
                hint="run the same command again to go on",
            ) from problem
        outcomes += plan.already
    fresh = sum(item.n_frames for item in outcomes if item.status == "done")
    return ExtractSummary(
        store=store_path,
        fingerprint=header.fingerprint,
        engine=engine_plan,
        outcomes=tuple(sorted(outcomes, key=lambda item: item.clip_id)),
        changed=plan.changed,
        vanished=tuple(name for name in plan.vanished if not (discovery.folder / name).exists()),
        unlisted=tuple(name for name in plan.vanished if (discovery.folder / name).exists()),
        moved=tuple(plan.moved.items()),
        ignored=discovery.ignored,
        notes=_clips_with_notes(store, discovery),
        frames=fresh,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    store_path: Path
    header: StoreHeader
    entry: dict[str, Any]
    n_clips: int
    started: float


def _open_existing(path: Path, header: StoreHeader) -> Store | None:
    try:
        store = open_store(path, allow_unfinished=True)
    except StoreNotFound:
        return None
    require_same_settings(store.header, header, where=str(path))
    return store


def _run(
    job: _Job,
    clips: Iterator[EmbeddedClip],
    outcomes: list[ClipOutcome],
    on_progress: Callable[[Progress], None],
) -> None:
    """Commit clips as they come, and append what became of each to `outcomes`."""
    pending: list[EmbeddedClip] = []
    n_frames = n_bytes = 0
    last_commit = time.perf_counter()
    try:
        for finished in clips:
            pending.append(finished)
            record = finished.record
            outcome = ClipOutcome(record.clip_id, record.status, record.reason, record.n_frames)
            outcomes.append(outcome)
            n_frames += record.n_frames
            if finished.embedding is not None:
                n_bytes += finished.embedding.vectors.nbytes
            now = time.perf_counter()
            due = min(max(_COMMIT_SECONDS, (now - job.started) / 100), _MOST_COMMIT_SECONDS)
            if now - last_commit > due or n_bytes > _MOST_PENDING_BYTES:
                commit_clips(job.store_path, job.header, pending, job.entry)
                pending, n_bytes, last_commit = [], 0, time.perf_counter()
            on_progress(Progress(job.n_clips, len(outcomes), n_frames, outcome))
    finally:
        # Whatever stopped the loop, finished clips are kept.
        if pending:
            commit_clips(job.store_path, job.header, pending, job.entry)


def _clips_with_notes(store: Store, discovery: Discovery) -> tuple[tuple[str, str], ...]:
    ids = {clip.clip_id for clip in discovery.clips}
    return tuple(
        (row.clip_id, row.reason)
        for row in store.clips
        if row.status == "done" and row.reason and row.clip_id in ids
    )


def _history_entry(engine_plan: EnginePlan, folder: Path) -> dict[str, Any]:
    return {
        "videos": str(folder.resolve()),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "engine": engine_plan.name,
        "engine_version": engine_version(engine_plan.name),
        "opencv": f"{opencv_package()} {package_version(opencv_package())}",
        "decoder": decoder_version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
