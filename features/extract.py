"""Stage 1: decode workers -> batches across clips -> engine -> store.

On a CPU each worker decodes and embeds its own clips on one core, so that only
embeddings travel between processes. On a GPU the workers send frames, and batches are
filled across clips here. Nothing is printed: progress goes to a callback.
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.backbone.engines import EnginePlan, choose_engine, engine_version
from features.backbone.weights import BackboneOptions, find_backbone
from features.clips.changes import plan_extraction, update_row
from features.clips.discover import FolderOptions, discover_clips
from features.clips.summary import FolderSummary, summarise_folder
from features.embed import EmbedOptions, embed_clips, require_frame_rates
from features.errors import Interrupted, StoreNotFound
from features.places.places import is_there, stat_source
from features.records import (
    Clip,
    ClipOutcome,
    Discovery,
    EmbeddedClip,
    FrameSampling,
    IgnoredFile,
    StoreHeader,
    VectorDtype,
    split_clip_id,
)
from features.store.commit import commit_clips, lock_store, merge_parts
from features.store.store import Store, open_store, remove_store, require_same_settings
from features.system.versions import opencv_package, package_version
from features.video.sampling import choose_sampling, sample_indices
from features.video.source import decoder_version

# A commit costs about 10 ms. At least this far apart, and a hundredth of the elapsed
# time in long runs, so that a kill loses at most 1 % and parts stay few.
_COMMIT_SECONDS = 2.0
_MOST_COMMIT_SECONDS = 60.0
_MOST_PENDING_BYTES = 64 * 2**20
# Timestamp and index of a frame; about what a row of the clip table takes.
_BYTES_PER_FRAME = 16
_BYTES_PER_CLIP = 300


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
    found : FolderSummary
        What the folder holds: classes, groups, splits.
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
    found: FolderSummary
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


@dataclass(frozen=True, slots=True)
class ExtractPreview:
    """What an extraction would do, see `preview_features`.

    Attributes
    ----------
    found : FolderSummary
    ignored : tuple of IgnoredFile
        Files of the folder that are not clips.
    engine : EnginePlan
    n_to_decode, n_already : int
        Clips that are new or changed, and those that the store has.
    n_measured : int
        Clips from which time and bytes were estimated.
    seconds : float
        Wall-clock time.
    frames : int
        To be embedded.
    store_bytes : int
        What is added to the store.
    """

    found: FolderSummary
    ignored: tuple[IgnoredFile, ...]
    engine: EnginePlan
    n_to_decode: int
    n_already: int
    n_measured: int
    seconds: float
    frames: int
    store_bytes: int


def extract_features(
    videos: str | Path,
    out: str | Path,
    *,
    folder: FolderOptions = FolderOptions(),
    sampling: FrameSampling | None = None,
    backbone: BackboneOptions = BackboneOptions(),
    dtype: VectorDtype = "float16",
    embedding: EmbedOptions = EmbedOptions(),
    retry_failed: bool = False,
    overwrite: bool = False,
    on_found: Callable[[FolderSummary], None] = lambda found: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ExtractSummary:
    """Embed every clip of a folder into a store.

    Running it again with the same arguments decodes only what is new or changed.

    Parameters
    ----------
    videos : str or Path
        Folder of videos or of folders of numbered pictures, walked to any depth; or a .zip or
        .tar of these. Unless `folder` says otherwise, the label of a clip
        is its folder at the first level where folders branch; folders named train, val and test
        above the class folders, or in each of them, set the split.
    out : str or Path
        The store, an HDF5 file.
    folder : FolderOptions
        Which files are clips, and what says their labels, splits and groups.
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
    on_found : callable, optional
        Called once with a `FolderSummary`, before anything is decoded.
    on_progress : callable, optional
        Called with a `Progress` at the start and after each clip.

    Returns
    -------
    ExtractSummary

    Raises
    ------
    FrameHeadError
        Of the kinds VideosNotFound, NoClips, ArchiveUnreadable, ManifestError, LayoutUnclear,
        OptionInvalid, WeightsNotFound, WeightsUnreadable, EngineUnavailable, DecoderBroken,
        OpenCVBroken, StoreMismatch, StoreBusy, StoreDamaged, OutputUnwritable, and Interrupted on
        Ctrl-C. A clip that cannot be read raises nothing: it is a failed outcome.
    """
    started = time.perf_counter()
    store_path = Path(out)
    discovery = discover_clips(videos, folder)
    files = find_backbone(backbone)
    header = StoreHeader(files.spec, sampling or choose_sampling(), dtype)
    require_frame_rates(discovery.clips, header.sampling)
    with lock_store(store_path):
        engine_plan = choose_engine(embedding.engine, backbone.precision)
        if overwrite:
            remove_store(store_path)
        existing = _open_existing(store_path, header)
        plan = plan_extraction(
            discovery.clips, existing.clips if existing else (), retry_failed=retry_failed
        )
        entry = _history_entry(engine_plan, discovery.folder)
        if existing is None or plan.to_decode:
            commit_clips(store_path, header, [], entry)
        found = summarise_folder(discovery)
        on_found(found)
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
        vanished=tuple(i for i in plan.vanished if not _has_file(discovery.folder, i)),
        unlisted=tuple(i for i in plan.vanished if _has_file(discovery.folder, i)),
        moved=tuple(plan.moved.items()),
        found=found,
        ignored=discovery.ignored,
        notes=_clips_with_notes(store, discovery),
        frames=fresh,
        seconds=time.perf_counter() - started,
    )


def preview_features(
    videos: str | Path,
    out: str | Path,
    *,
    folder: FolderOptions = FolderOptions(),
    sampling: FrameSampling | None = None,
    backbone: BackboneOptions = BackboneOptions(),
    dtype: VectorDtype = "float16",
    embedding: EmbedOptions = EmbedOptions(),
    retry_failed: bool = False,
    overwrite: bool = False,
) -> ExtractPreview:
    """Say what `extract_features` would do, without writing anything.

    A few clips of small, middle and large files are embedded, and thrown away, to estimate time
    and bytes.

    Parameters
    ----------
    videos, out, folder, sampling, backbone, dtype, embedding, retry_failed, overwrite
        As of `extract_features`.

    Returns
    -------
    ExtractPreview

    Raises
    ------
    FrameHeadError
        As `extract_features`, but for what concerns writing.
    """
    discovery = discover_clips(videos, folder)
    files = find_backbone(backbone)
    header = StoreHeader(files.spec, sampling or choose_sampling(), dtype)
    require_frame_rates(discovery.clips, header.sampling)
    existing = None if overwrite else _open_existing(Path(out), header)
    plan = plan_extraction(
        discovery.clips, existing.clips if existing else (), retry_failed=retry_failed
    )
    clips = _choose_sample(plan.to_decode, embedding.count_workers())
    engine = choose_engine(embedding.engine, backbone.precision)
    started = time.perf_counter()
    finished: list[tuple[float, int]] = []
    if clips:
        with closing(embed_clips(clips, header, files, engine, embedding)) as embedded:
            for item in embedded:
                finished.append((time.perf_counter() - started, item.record.n_frames))
    seconds = n_frames = 0.0
    if finished:
        # The first clip waits for workers and engine, the others do not.
        first, last = finished[0][0], finished[-1][0]
        per_clip = (last - first) / (len(finished) - 1) if len(finished) > 2 else last
        seconds = first + per_clip * (len(plan.to_decode) - 1)
        n_frames = len(plan.to_decode) * sum(n for _, n in finished) / len(finished)
    row_bytes = header.backbone.embedding_dim * np.dtype(dtype).itemsize + _BYTES_PER_FRAME
    return ExtractPreview(
        found=summarise_folder(discovery),
        ignored=discovery.ignored,
        engine=engine,
        n_to_decode=len(plan.to_decode),
        n_already=len(plan.already),
        n_measured=len(finished),
        seconds=seconds,
        frames=round(n_frames),
        store_bytes=round(n_frames * row_bytes) + _BYTES_PER_CLIP * len(plan.to_decode),
    )


def _choose_sample(clips: Sequence[Clip], n_workers: int) -> list[Clip]:
    """Take clips of small, middle and large files, enough to see how fast workers go."""
    by_size = sorted(clips, key=lambda clip: stat_source(clip.path).size_bytes)
    chosen = sample_indices(len(clips), n_wanted=min(3 * n_workers, 12)) if clips else ()
    return [by_size[index] for index in chosen]


def _has_file(folder: Path, clip_id: str) -> bool:
    """Tell whether the file of a clip or of a span is there."""
    return any(is_there(folder / name) for name in {clip_id, split_clip_id(clip_id)[0]})


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
