"""From the store to arrays: right-padded sequences with a mask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from features.errors import NoClips, OptionInvalid, StoreDamaged
from features.records import ClipRecord, IntArray, VectorArray
from features.store.hdf5 import FrameRange, clip_crc32, read_frame_range
from features.store.store import Store, is_multilabel
from features.system.machine import memory_limit_bytes

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

# Frames read at once, and frames of other clips read in vain rather than opening the file again.
_READ_FRAMES = 4096
_READ_GAP = 512
# Bytes; of the widest registers that any build of TensorFlow uses.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, repr=False)
class Sequences:
    """Embeddings of several clips in one array.

    Attributes
    ----------
    vectors : ndarray of float16 or float32, shape (n_clips, max_frames, embedding_dim)
        In the type of the store; a batch is converted to float32 when it is used.
        Frames behind the end of a clip are zero.
    mask : ndarray of bool, shape (n_clips, max_frames)
        True where a frame is; every row starts with at least one.
    class_indices : ndarray of int64, shape (n_clips,)
        Position of each clip's label among the classes; -1 where it is unknown, and where clips
        may have several.
    clip_ids : tuple of str
    targets : ndarray of float32, shape (n_clips, n_classes), or None
        Where clips may have several classes: 1 for those of the clip, 0 for the others.
    """

    vectors: VectorArray
    mask: BoolArray
    class_indices: IntArray
    clip_ids: tuple[str, ...]
    targets: Float32Array | None = None

    def __post_init__(self) -> None:
        """Check that no clip is without frames and that frames come first."""
        if not self.mask[:, 0].all() or (self.mask[:, 1:] > self.mask[:, :-1]).any():
            raise ValueError("Every clip must have frames, padded on the right.")

    def __repr__(self) -> str:
        """Show shapes instead of numbers."""
        return f"Sequences(vectors={self.vectors.dtype}{self.vectors.shape})"

    @property
    def truth(self) -> IntArray | Float32Array:
        """What a head learns: `targets` where clips may have several classes."""
        return self.class_indices if self.targets is None else self.targets

    def take_targets(self, rows: IntArray) -> Float32Array | None:
        """Return the targets of some clips, if there are any."""
        return None if self.targets is None else self.targets[rows]


def load_sequences(store: Store, clip_ids: Sequence[str], classes: Sequence[str]) -> Sequences:
    """Read clips of a store in the order asked for; classes are in the order of the outputs."""
    position = {clip_id: index for index, clip_id in enumerate(clip_ids)}
    # In the order of the store, so that neighbours are read together.
    records = [clip for clip in store.clips if clip.clip_id in position and clip.n_frames > 0]
    if len(records) < max(1, len(position)):
        have = {clip.clip_id for clip in records}
        missing = next((clip_id for clip_id in clip_ids if clip_id not in have), "none given")
        raise NoClips(
            f"The store must hold embeddings of every clip asked for. '{store.path}' has "
            f"{len(records)} of {len(position)}; missing: '{missing}'.",
            hint="run extract-features again, or make the split anew",
        )
    require_memory(store, clip_ids)
    max_frames = max(clip.n_frames for clip in records)
    dim = store.header.backbone.embedding_dim
    dtype = np.dtype(store.header.dtype)
    index_of = {label: index for index, label in enumerate(classes)}
    vectors = np.zeros((len(records), max_frames, dim), dtype=dtype)
    mask = np.zeros((len(records), max_frames), dtype=np.bool_)
    class_indices = np.full(len(records), -1, dtype=np.int64)
    targets = (
        np.zeros((len(records), len(classes)), dtype=np.float32) if is_multilabel(store) else None
    )
    for record, frames in _read_checked(store, {clip.clip_id for clip in records}):
        row = position[record.clip_id]
        vectors[row, : record.n_frames] = frames
        mask[row, : record.n_frames] = True
        if targets is None:
            class_indices[row] = index_of.get(record.label, -1)
        else:
            targets[row, [index_of[name] for name in record.classes if name in index_of]] = 1
    return Sequences(vectors, mask, class_indices, tuple(clip_ids), targets)


def _read_checked(store: Store, wanted: set[str]) -> Iterator[tuple[ClipRecord, VectorArray]]:
    rows = zip(store.clips, store.ranges, strict=True)
    for whole, clips in _join_neighbours(row for row in rows if row[0].clip_id in wanted):
        piece = read_frame_range(whole)
        for record, place in clips:
            start = place.offset - whole.offset
            frames = slice(start, start + record.n_frames)
            vectors = piece.vectors[frames]
            times, indices = piece.timestamps_seconds[frames], piece.frame_indices[frames]
            if clip_crc32(vectors, times, indices) != record.crc32:
                raise StoreDamaged(
                    f"Every clip must match its checksum. '{record.clip_id}' in '{place.path}' "
                    "does not: the file was changed or damaged.",
                    hint="list the damage with framehead inspect STORE --verify, and mend it with "
                    "--repair",
                )
            yield record, vectors


def _join_neighbours(
    rows: Iterable[tuple[ClipRecord, FrameRange]],
) -> Iterator[tuple[FrameRange, list[tuple[ClipRecord, FrameRange]]]]:
    clips: list[tuple[ClipRecord, FrameRange]] = []
    whole = FrameRange(Path(), 0, 0)
    for record, place in rows:
        end = whole.offset + whole.n_frames
        n_frames = place.offset + place.n_frames - whole.offset
        is_near = place.path == whole.path and 0 <= place.offset - end <= _READ_GAP
        if clips and is_near and n_frames <= _READ_FRAMES:
            whole = FrameRange(whole.path, whole.offset, n_frames)
        else:
            if clips:
                yield whole, clips
            clips, whole = [], place
        clips.append((record, place))
    if clips:
        yield whole, clips


def sequence_from_vectors(vectors: Sequence[VectorArray]) -> Sequences:
    """Pad clips whose embeddings are at hand, (n_frames, embedding_dim) each, none empty."""
    if not vectors or any(len(clip) == 0 for clip in vectors):
        raise NoClips(
            f"Every clip must have a frame. Received: {[len(v) for v in vectors]} frames."
        )
    lengths = np.array([len(clip) for clip in vectors])
    padded = np.zeros((len(vectors), lengths.max(), vectors[0].shape[1]), dtype=np.float32)
    for row, clip in zip(padded, vectors, strict=True):
        row[: len(clip)] = clip
    mask = np.arange(lengths.max()) < lengths[:, np.newaxis]
    class_indices = np.full(len(vectors), -1, dtype=np.int64)
    return Sequences(padded, mask, class_indices, tuple(str(i) for i in range(len(vectors))))


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> VectorArray:
    """Make an array that TensorFlow can use without a copy, see `is_aligned`."""
    n_bytes = math.prod(shape) * dtype.itemsize
    buffer = np.zeros(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + n_bytes].view(dtype).reshape(shape)


def is_aligned(array: VectorArray) -> bool:
    """Tell whether an array begins where TensorFlow wants its tensors to begin."""
    return array.ctypes.data % _ALIGNMENT == 0


def take_clips(sequences: Sequences, clip_ids: Sequence[str]) -> Sequences:
    """Copy some clips out of sequences."""
    position = {clip_id: index for index, clip_id in enumerate(sequences.clip_ids)}
    rows = np.array([position[clip_id] for clip_id in clip_ids], dtype=np.int64)
    return Sequences(
        sequences.vectors[rows],
        sequences.mask[rows],
        sequences.class_indices[rows],
        tuple(clip_ids),
        sequences.take_targets(rows),
    )


class _Rows:
    """Some rows of an array that stays where it is, such as in a file; read when they are used."""

    def __init__(self, array: Any, rows: IntArray) -> None:
        self.array, self.rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def __getitem__(self, key: Any) -> Any:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        return self.array[(self.rows[rows], *rest)]


def view_clips(sequences: Sequences, clip_ids: Sequence[str]) -> Sequences:
    """Take some clips out of sequences without copying their embeddings."""
    position = {clip_id: index for index, clip_id in enumerate(sequences.clip_ids)}
    rows = np.array([position[clip_id] for clip_id in clip_ids], dtype=np.int64)
    return Sequences(
        cast(Any, _Rows(sequences.vectors, rows)),
        sequences.mask[rows],
        sequences.class_indices[rows],
        tuple(clip_ids),
        sequences.take_targets(rows),
    )


def join_clips(first: Sequences, second: Sequences) -> Sequences:
    """Put the clips of two sequences into one, as long as the longest needs."""
    n_frames = max(first.mask.shape[1], second.mask.shape[1])

    def lengthen(array: Any) -> Any:
        missing = [(0, 0)] * array.ndim
        missing[1] = (0, n_frames - array.shape[1])
        return np.pad(array, missing) if missing[1][1] else array

    views: list[Any] = [first.vectors, second.vectors]
    if all(isinstance(view, _Rows) and view.array is views[0].array for view in views):
        vectors: Any = _Rows(views[0].array, np.concatenate([view.rows for view in views]))
    else:
        vectors = np.concatenate([lengthen(view[:]) for view in views])
    return Sequences(
        vectors,
        np.concatenate([lengthen(first.mask), lengthen(second.mask)]),
        np.concatenate([first.class_indices, second.class_indices]),
        (*first.clip_ids, *second.clip_ids),
        None
        if first.targets is None or second.targets is None
        else np.concatenate([first.targets, second.targets]),
    )


def model_inputs(sequences: Sequences, rows: IntArray | slice) -> dict[str, Any]:
    """Cut one batch as heads take it: "vectors", (n, max_frames, embedding_dim), and "mask"."""
    vectors = sequences.vectors[rows].astype(np.float32)
    return {"vectors": vectors, "mask": sequences.mask[rows]}


def frame_statistics(blocks: Iterable[Sequences]) -> tuple[Float32Array, Float32Array]:
    """Measure mean and spread of each embedding dimension over all frames of the training part.

    The clips come in blocks. A dimension that hardly varies gets a tenth of the mean deviation,
    so that a test clip in which it does vary is not blown up.
    """
    n_frames, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        for frames in _valid_frames(block):
            # Chan, Golub and LeVeque (1979): in one pass, without the differences of large sums.
            shift = frames.mean(axis=0) - mean
            n_all = n_frames + len(frames)
            squares = squares + np.square(frames - frames.mean(axis=0)).sum(axis=0)
            squares += np.square(shift) * (n_frames * len(frames) / n_all)
            mean = mean + shift * (len(frames) / n_all)
            n_frames = n_all
    deviation = np.sqrt(squares / n_frames)
    floor = 0.1 * deviation.mean()
    deviation = np.maximum(deviation, floor if floor > 0 else 1.0)
    return mean.astype(np.float32), deviation.astype(np.float32)


def frame_components(
    sequences: Sequences, mean: Float32Array, deviation: Float32Array, n_components: int
) -> Float32Array:
    """Find the strongest principal components of standardised frames, as orthonormal columns.

    They come by falling variance, and the largest entry of each is positive.
    """
    dim = sequences.vectors.shape[2]
    products = np.zeros((dim, dim))
    for frames in _valid_frames(sequences):
        scaled = ((frames - mean) / deviation).astype(np.float32)
        products += scaled.T @ scaled
    _, vectors = np.linalg.eigh(products)
    components = vectors[:, ::-1][:, :n_components]
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(n_components)])
    oriented: Float32Array = (components * signs).astype(np.float32)
    return oriented


def _valid_frames(sequences: Sequences) -> Iterator[npt.NDArray[np.float64]]:
    for start in range(0, len(sequences.clip_ids), 64):
        rows = slice(start, start + 64)
        yield sequences.vectors[rows][sequences.mask[rows]].astype(np.float64)


def require_memory(store: Store, clip_ids: Iterable[str], *, copies: float = 1) -> None:
    """Refuse clips whose padded array does not fit into memory as many times as it is needed."""
    wanted = set(clip_ids)
    lengths = [clip.n_frames for clip in store.clips if clip.clip_id in wanted]
    have_bytes = memory_limit_bytes()
    if not lengths or have_bytes is None:
        return
    n_values = len(lengths) * max(lengths) * store.header.backbone.embedding_dim
    want_bytes = copies * n_values * np.dtype(store.header.dtype).itemsize
    if want_bytes > have_bytes:
        raise OptionInvalid(
            f"The padded clips must fit into memory. {len(lengths)} clips of up to {max(lengths)} "
            f"frames, {copies:.3g} times at once, need {want_bytes / 1e9:.1f} GB; there are "
            f"{have_bytes / 1e9:.1f} GB.",
            hint="extract with --frames N instead of a rate or all frames, keep fewer dimensions "
            "with --reduce pca:N, or compare with fewer --jobs",
        )
