"""A run applied to video files, by exactly the preprocessing that its store recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.backbone.converted import converted_path
from features.backbone.engines import choose_engine
from features.backbone.weights import IMAGENET, BackboneFiles, BackboneOptions, find_backbone
from features.clips.discover import NO_LABELS, FolderOptions, discover_clips
from features.embed import EmbedOptions, embed_clips, require_frame_rates
from features.errors import NoClips, VideosNotFound, VideoUnreadable, WeightsMismatch
from features.extract import Progress
from features.places.archives import is_archive, refuse_packed
from features.places.places import is_folder, is_there, read_pictures_of
from features.records import (
    LABEL_JOINT,
    Clip,
    ClipEmbedding,
    ClipOutcome,
    ClipRecord,
    split_clip_id,
)
from pipeline.data.sequences import Float32Array, sequence_from_vectors
from pipeline.heads.model import predict_clips
from pipeline.runs.attention import read_attention
from pipeline.runs.coverage import choose_set, find_threshold, read_held_out
from pipeline.runs.overlay import caption_prediction, draw_overlays, plan_overlays
from pipeline.runs.run import Run, load_model, read_run

# Clips whose probabilities are computed in one go; bounds the memory of a long list.
_CLIPS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a head says of one clip.

    Attributes
    ----------
    path : str
        As given, or below the folder that was given.
    label : str
        The most probable class. Where clips may have several, those of `labels`, joined by ";".
    probabilities : tuple of float
        Aligned with the run's classes; they sum to 1, unless clips may have several.
    n_frames : int
        Frames the prediction rests on.
    frame_seconds : tuple of float
        When they come.
    attention : tuple of float or None
        Weight of each frame in the prediction, summing to 1, if the head has such weights and
        sees clips whole.
    note : str
        What is odd about the clip, such as fewer frames than asked for; often empty.
    overlay : Path or None
        The copy of the video with the prediction drawn below; None if there is none.
    labels : tuple of str or None
        Where clips may have several classes: those whose probability reaches their threshold, the
        most probable first. None where every clip has one class.
    likely : tuple of str or None
        With `coverage`, the classes of which one is right as often as was asked for, the most
        probable first; there may be none. Else None.
    """

    path: str
    label: str
    probabilities: tuple[float, ...]
    n_frames: int
    frame_seconds: tuple[float, ...]
    attention: tuple[float, ...] | None
    note: str
    overlay: Path | None = None
    labels: tuple[str, ...] | None = None
    likely: tuple[str, ...] | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether the set of likely classes says nothing: it has none, or all of them."""
        return self.likely is not None and len(self.likely) in (0, len(self.probabilities))


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """The predictions of one call.

    Attributes
    ----------
    run : Run
    predictions : tuple of Prediction
        Sorted by path.
    failures : tuple of ClipOutcome
        Clips that could not be read, or of which no overlay could be made; their `clip_id` is
        the path.
    seconds : float
        Wall-clock time.
    """

    run: Run
    predictions: tuple[Prediction, ...]
    failures: tuple[ClipOutcome, ...]
    seconds: float


def predict_videos(
    run_path: str | Path,
    videos: Sequence[str | Path],
    *,
    weights: str | Path | None = None,
    embedding: EmbedOptions = EmbedOptions(),
    coverage: float | None = None,
    overlay: str | Path | None = None,
    overwrite: bool = False,
    frame_rate: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> PredictSummary:
    """Classify video files with a trained head.

    Needs the run and the backbone's weights; the store may be gone.

    Parameters
    ----------
    run_path : str or Path
        Folder written by ``train-head``.
    videos : sequence of str or Path
        Files, of any type, and parts of them: ``path#12.0-15.5`` in seconds, ``path#f300-f388``
        in frames, ``end`` for the file's end; folders of numbered pictures, each one clip; other
        folders and archives (.zip, .tar), of which every clip is taken.
    weights : str or Path, optional
        Where the backbone's weights are now; by default where they were when the store was
        made. They must be the same weights.
    embedding : EmbedOptions
        Engine, processes and limits; they decide speed, not values.
    coverage : float, optional
        How often the right class is to be among the `likely` ones of a prediction, over new
        groups; between 0 and 1.
    overlay : str or Path, optional
        Where to write copies of the videos with the prediction drawn below: a file for one
        video, its suffix one of ``.mp4``, ``.webm``, ``.avi``; a folder for several.
    overwrite : bool, default False
        Whether overlays that stand there may be replaced.
    frame_rate : float, optional
        Frames per second of folders of pictures; needed if the store was made with ``--fps``.
    on_progress : callable, optional
        Called with a `Progress` at the start and after each clip; with overlays, each clip
        counts once more.

    Returns
    -------
    PredictSummary

    Raises
    ------
    RunNotFound, RunDamaged
        If the run cannot be used.
    VideosNotFound, NoClips, ArchiveUnreadable
        If a path does not exist, a folder holds no video, or an archive cannot be read.
    WeightsNotFound, WeightsMismatch
        If the weights are gone, or others are there.
    OptionInvalid
        If `overlay` cannot be written so, `frame_rate` is none or lacks, or the run has too few
        groups for `coverage`.
    OutputExists, OutputUnwritable
        If something stands where an overlay should go, or it cannot be written.
    """
    started = time.perf_counter()
    run = read_run(run_path)
    threshold = None if coverage is None else find_threshold(read_held_out(run.path), coverage)
    named = _list_clips(videos, frame_rate)
    clips = [clip for clip, _ in named]
    require_frame_rates(clips, run.header.sampling)
    targets = {} if overlay is None else plan_overlays(named, overlay, overwrite=overwrite)
    n_steps = len(clips) + len(targets)
    backbone = find_run_backbone(run, weights)
    on_progress(Progress(n_steps, 0, 0, None))
    plan = choose_engine(embedding.engine, backbone.spec.precision)
    predictions: list[Prediction] = []
    failures: list[ClipOutcome] = []
    waiting: list[tuple[ClipRecord, ClipEmbedding]] = []
    n_frames = 0
    # Closed whatever happens here: its workers would outlive a callback that raises.
    with closing(embed_clips(clips, run.header, backbone, plan, embedding)) as embedded:
        model = load_model(run)
        for n_finished, item in enumerate(embedded, start=1):
            record = item.record
            outcome = ClipOutcome(record.clip_id, record.status, record.reason, record.n_frames)
            n_frames += record.n_frames
            if item.embedding is None:
                failures.append(outcome)
            else:
                waiting.append((record, item.embedding))
            if len(waiting) == _CLIPS_AT_ONCE:
                predictions += _classify(run, model, waiting, threshold)
                waiting = []
            on_progress(Progress(n_steps, n_finished, n_frames, outcome))
    if waiting:
        predictions += _classify(run, model, waiting, threshold)
    if targets:
        leaks = run.split.leaks
        n_before = n_steps - len(predictions)
        undrawn = draw_overlays(
            clips,
            {
                item.path: caption_prediction(
                    item.path,
                    run.head,
                    run.classes,
                    item.probabilities,
                    leaks=leaks,
                    thresholds=run.thresholds,
                )
                for item in predictions
            },
            targets,
            options=embedding,
            on_drawn=lambda n, outcome: on_progress(
                Progress(n_steps, n_before + n, n_frames, outcome)
            ),
        )
        failures += undrawn
        lacking = {outcome.clip_id for outcome in undrawn}
        predictions = [
            item if item.path in lacking else replace(item, overlay=targets[item.path])
            for item in predictions
        ]
    return PredictSummary(
        run=run,
        predictions=tuple(sorted(predictions, key=lambda item: item.path)),
        failures=tuple(sorted(failures, key=lambda item: item.clip_id)),
        seconds=time.perf_counter() - started,
    )


def find_run_backbone(run: Run, weights: str | Path | None = None) -> BackboneFiles:
    """Find the backbone that a run's embeddings were made with, or say that others are there.

    Without `weights` they are looked for where they were when the store was made.
    """
    wanted = run.header.backbone
    place = wanted.weights if weights is None else weights
    found = find_backbone(BackboneOptions(place, wanted.alpha, wanted.size_px, wanted.precision))
    if found.spec.weights_sha256 != wanted.weights_sha256:
        raise WeightsMismatch(
            "A run predicts with the weights that its embeddings were made with. "
            f"'{run.path}' asks for sha256 {wanted.weights_sha256[:12]}, "
            f"'{found.weights_path}' has {found.spec.weights_sha256[:12]}.",
            hint="give the right file with --weights"
            + ("" if wanted.weights != IMAGENET else " PATH, or delete it to download it anew"),
        )
    if found.spec.model_sha256 != wanted.model_sha256:
        path = converted_path(found.spec)
        raise WeightsMismatch(
            "A run predicts with the same quantised network that its embeddings were made with. "
            f"'{run.path}' asks for sha256 {wanted.model_sha256[:12]}, '{path}' has "
            f"{found.spec.model_sha256[:12]}.",
            hint=f"delete '{path}' to quantise it anew; if that gives no other, copy the file of "
            "this name from the machine where the store was made (framehead weights says where)",
        )
    return found


def _list_clips(videos: Iterable[str | Path], frame_rate: float | None) -> list[tuple[Clip, str]]:
    """List the clips, each with its name below the folder that was given."""
    options = FolderOptions(labels=NO_LABELS, frame_rate=frame_rate)
    clips: dict[str, tuple[Clip, str]] = {}
    for video in videos:
        path, span = Path(video), ""
        if not is_there(path):
            name, span = split_clip_id(str(path))
            path = Path(name)
        refuse_packed(path)
        found: Sequence[Clip] = ()
        if is_folder(path) or is_archive(path):
            found = _find_clips(path, options)
        elif is_there(path):
            found = [Clip(str(path), path)]
        if not found or (span and found[0].path != path):
            raise VideosNotFound(
                "VIDEO must be a video file, a part of one such as 'FILE#12.0-15.5', or a folder "
                f"or archive of files. '{video}' does not exist.",
                hint="check the path",
            )
        for clip in found:
            named = clip.clip_id if clip.path != path else path.name
            clip = replace(clip, clip_id=str(clip.path), group="")
            if span:
                clip, named = _cut(clip, span), path.with_stem(f"{path.stem}#{span}").name
            clips[clip.clip_id] = (clip, named)
    return list(clips.values())


def _find_clips(folder: Path, options: FolderOptions) -> Sequence[Clip]:
    """Find the clips of a folder or archive, or the one that the pictures of a folder are."""
    try:
        return discover_clips(folder, options).clips
    except NoClips:
        try:
            pictures = read_pictures_of(folder)
        except VideoUnreadable:
            pictures = None
        if pictures is None:
            raise
        rate = options.frame_rate
        return [Clip(str(folder), folder, is_pictures=True, frame_rate=rate)]


def _cut(clip: Clip, span: str) -> Clip:
    """Make of a file's clip that of a span, given as in clip ids: in seconds, or f and frames."""
    name = f"{clip.clip_id}#{span}"
    start, end = span.split("-")
    if span.startswith("f"):
        last = None if end == "end" else int(end[1:])
        return replace(clip, clip_id=name, start_frame=int(start[1:]), end_frame=last)
    until = None if end == "end" else float(end)
    return replace(clip, clip_id=name, start_seconds=float(start), end_seconds=until)


def _classify(
    run: Run,
    model: object,
    waiting: Sequence[tuple[ClipRecord, ClipEmbedding]],
    threshold: float | None,
) -> list[Prediction]:
    sequences = sequence_from_vectors([embedding.vectors for _, embedding in waiting])
    attention = read_attention(model, sequences, run.head_options)
    probabilities = predict_clips(model, sequences, run.head_options)
    named = [_name_labels(run, row) for row in probabilities]
    return [
        Prediction(
            path=record.clip_id,
            label=run.classes[int(row.argmax())] if labels is None else LABEL_JOINT.join(labels),
            probabilities=tuple(float(value) for value in row),
            n_frames=record.n_frames,
            frame_seconds=tuple(float(time) for time in embedding.timestamps_seconds),
            attention=weights,
            likely=None if threshold is None else choose_set(row, run.classes, threshold),
            note=record.reason,
            labels=labels,
        )
        for (record, embedding), row, weights, labels in zip(
            waiting, probabilities, attention, named, strict=True
        )
    ]


def _name_labels(run: Run, probabilities: Float32Array) -> tuple[str, ...] | None:
    """List the classes that reach their threshold, the most probable first."""
    if run.thresholds is None:
        return None
    order = np.argsort(-probabilities, kind="stable")
    return tuple(run.classes[i] for i in order if probabilities[i] >= run.thresholds[i])
