"""Embeddings out of the store, for other programs: npz, csv, parquet, TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from features.errors import (
    FrameHeadError,
    NoClips,
    OptionInvalid,
    OutputExists,
    PluginUnusable,
)
from features.records import ClipEmbedding, ClipRecord, StoreHeader
from features.store.hdf5 import coalesce, read_frame_range
from features.store.store import (
    Store,
    is_multilabel,
    is_usable,
    open_store,
    require_same_settings,
)
from features.system.files import report_unwritable, require_outside, staged_file, staged_folder
from pipeline.data.sequences import sequence_from_vectors
from pipeline.export.formats import FORMATS, Block, ExportFormat
from pipeline.runs.run import RUN_FILE, Run, load_model, read_run

ExportLevel = Literal["frame", "clip"]

# Frames read at once: a few dozen megabytes.
_BLOCK_FRAMES = 4096


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was exported.

    Attributes
    ----------
    path : str
    format : str
    level : {"frame", "clip"}
    n_clips : int
    n_rows : int
        Frames or clips.
    dim : int
        Length of each vector.
    n_failed : int
        Clips of the store that have no embeddings and are not in the output.
    """

    path: str
    format: str
    level: ExportLevel
    n_clips: int
    n_rows: int
    dim: int
    n_failed: int


def export_embeddings(
    store_path: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    level: ExportLevel | None = None,
    run: str | Path | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the embeddings of a store in a format that other programs read.

    Every row has clip_id, label, group and split; a frame has frame_index and
    timestamp_seconds as well. Where clips may have several classes, csv and projector have a
    column of 0 and 1 for each, parquet a column labels of lists, and npz an array labels with a
    column for each of classes. csv and parquet are written in bounded memory.

    Parameters
    ----------
    store_path : str or Path
    out : str or Path
        File, or folder for the projector.
    format : str, optional
        "npz", "csv", "parquet", "projector", or a registered one; by default what the suffix of
        `out` says, and without a suffix the projector.
    level : {"frame", "clip"}, optional
        One row per frame, or one per clip: the mean over its frames. By default "frame",
        with `run` "clip".
    run : str or Path, optional
        A trained head; exports the vector that its last layer classifies, one per clip.
    overwrite : bool, default False
        Replace what stands at `out`, unless that is the store itself or part of a run.

    Returns
    -------
    ExportSummary

    Raises
    ------
    StoreNotFound, StoreDamaged, RunNotFound, RunDamaged
        If what is to be read cannot be read.
    StoreMismatch
        If the run was trained on embeddings made in another way.
    OptionInvalid
        If format or level has no legal value, or frames of a head are asked for.
    NoClips
        If the store holds no embeddings.
    ExtraMissing
        If parquet is asked for and pyarrow is not installed.
    OutputExists, OutputUnwritable
        If `out` cannot be written, or must not be replaced.
    PluginUnusable
        If a format of the user's own fails.
    """
    target = Path(out)
    wanted = _choose_format(target, format)
    depth = _choose_level(level, has_run=run is not None)
    store = open_store(store_path)
    head = None if run is None else read_run(run)
    if head is not None:
        require_same_settings(store.header, head.header, where=str(store.path))
    clips = [clip for clip in store.clips if _is_exported(clip)]
    if not clips:
        raise NoClips(
            f"An export needs a clip with embeddings. '{store.path}' has none.",
            hint="run extract-features first",
        )
    _require_no_source(target, store, run)
    _require_replaceable(target, wanted, overwrite=overwrite)
    blocks = _read_blocks(store)
    if head is not None:
        blocks = _apply_head(blocks, head)
    elif depth == "clip":
        blocks = map(_average, blocks)
    first = next(blocks)
    n_rows = sum(clip.n_frames for clip in clips) if depth == "frame" else len(clips)
    stage = staged_folder if wanted.marker else staged_file
    with stage(target) as partial, report_unwritable(target):
        _write(wanted, partial, chain([first], blocks), store.header)
    return ExportSummary(
        path=str(out),
        format=wanted.name,
        level=depth,
        n_clips=len(clips),
        n_rows=n_rows,
        dim=first.vectors.shape[1],
        n_failed=sum(clip.status == "failed" for clip in store.clips),
    )


def _write(format: ExportFormat, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
    """Have a format write; an error in a user's own one is said as such."""
    try:
        format.write(path, blocks, header)
    except (FrameHeadError, OSError, MemoryError):
        raise
    except Exception as problem:
        if type(format).__module__ == ExportFormat.__module__:
            raise
        raise PluginUnusable(
            f"The format '{format.name}' must write without errors. It raised "
            f"{type(problem).__name__}: {problem}.",
            hint="--debug shows the traceback",
        ) from problem
    if not (path / format.marker).exists():
        what = f"the file '{format.marker}'" if format.marker else "its file"
        raise PluginUnusable(f"The format '{format.name}' must write {what}. It did not.")


def _choose_format(target: Path, format: str | None) -> ExportFormat:
    if format is None:
        suffix = target.suffix.lower()
        format = next((name for name, kind in FORMATS.items() if kind.suffix == suffix), "")
        received = f"the suffix {target.suffix!r}"
    else:
        received = repr(format)
    if format in FORMATS:
        return FORMATS[format]()
    suffixes = [kind.suffix for kind in FORMATS.values() if kind.suffix]
    raise OptionInvalid(
        f"--format must be one of {', '.join(FORMATS)}. Received: {received}.",
        hint=f"end --out in {', '.join(suffixes[:-1])} or {suffixes[-1]}, or give --format",
    )


def _choose_level(level: str | None, *, has_run: bool) -> ExportLevel:
    if level not in (None, "frame", "clip"):
        raise OptionInvalid(f"--level must be frame or clip. Received: '{level}'.")
    if has_run and level == "frame":
        raise OptionInvalid(
            "A trained head has one vector per clip, not per frame. Received: --level frame "
            "with --head.",
            hint="--level clip",
        )
    return "clip" if has_run or level == "clip" else "frame"


def _require_no_source(target: Path, store: Store, run: str | Path | None) -> None:
    for source in (store.path, *([] if run is None else [Path(run)])):
        require_outside(target, source)
    if target.is_file() and (target.parent / RUN_FILE).is_file():
        raise OutputExists(
            f"--out must not be part of a run. '{target}' is, and is left alone even with "
            "--overwrite.",
            hint="give another --out",
        )


def _require_replaceable(target: Path, format: ExportFormat, *, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if target.is_dir():
        is_ours = bool(format.marker) and (target / format.marker).exists()
    else:
        is_ours = not format.marker
    if not is_ours or not overwrite:
        raise OutputExists(
            f"--out must be new. '{target}' exists"
            f"{'' if is_ours else ' and is not an export of this format'}.",
            hint="give another --out" + (", or --overwrite to replace it" if is_ours else ""),
        )


def _read_blocks(store: Store) -> Iterator[Block]:
    classes = _list_classes(store)
    batch: list[int] = []
    n_frames = 0
    for index, clip in enumerate(store.clips):
        if not _is_exported(clip):
            continue
        if batch and n_frames + clip.n_frames > _BLOCK_FRAMES:
            yield replace(_read_block(store, batch), classes=classes)
            batch, n_frames = [], 0
        batch.append(index)
        n_frames += clip.n_frames
    if batch:
        yield replace(_read_block(store, batch), classes=classes)


def _is_exported(clip: ClipRecord) -> bool:
    return is_usable(clip) and clip.n_frames > 0


def _list_classes(store: Store) -> tuple[str, ...] | None:
    """List the classes of the clips that are exported, where each may have several."""
    if not is_multilabel(store):
        return None
    exported = filter(_is_exported, store.clips)
    return tuple(sorted({name for clip in exported for name in clip.classes}))


def _read_block(store: Store, indices: list[int]) -> Block:
    pieces = [read_frame_range(r) for r in coalesce([store.ranges[index] for index in indices])]
    clips = [store.clips[index] for index in indices]
    joined = ClipEmbedding(
        np.concatenate([piece.vectors for piece in pieces]),
        np.concatenate([piece.timestamps_seconds for piece in pieces]),
        np.concatenate([piece.frame_indices for piece in pieces]),
    )
    return Block(
        clips=tuple(clip for clip in clips for _ in range(clip.n_frames)),
        vectors=joined.vectors,
        frame_indices=joined.frame_indices,
        timestamps_seconds=joined.timestamps_seconds,
    )


def _split_clips(block: Block) -> Iterator[tuple[ClipRecord, Any]]:
    start = 0
    while start < len(block.clips):
        clip = block.clips[start]
        yield clip, block.vectors[start : start + clip.n_frames]
        start += clip.n_frames


def _average(block: Block) -> Block:
    pairs = list(_split_clips(block))
    means = np.stack([vectors.astype(np.float32).mean(axis=0) for _, vectors in pairs])
    return Block(tuple(clip for clip, _ in pairs), means, None, None, block.classes)


def _apply_head(blocks: Iterator[Block], run: Run) -> Iterator[Block]:
    from features.system.keras import import_keras
    from pipeline.data.windows import average_windows, cut_windows
    from pipeline.heads.model import look_inside, predict_probabilities

    model = load_model(run)
    # Up to the layer that classifies: what the head, or each member, made of the whole clip.
    side_by_side = import_keras().layers.Concatenate()
    inner = look_inside(model, lambda member: member.get_layer("logits").input, side_by_side)
    for block in blocks:
        pairs = list(_split_clips(block))
        sequences = sequence_from_vectors([vectors for _, vectors in pairs])
        windows, owners = cut_windows(sequences, run.head_options.window)
        vectors = average_windows(predict_probabilities(inner, windows), owners)
        yield Block(tuple(clip for clip, _ in pairs), vectors, None, None, block.classes)
