"""Sequences: padding, order, and statistics that ignore padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stage2_helpers import DIM, make_clip, make_clips, make_header, write_store

from features.errors import NoClips, OptionInvalid, StoreDamaged
from features.store.store import open_store, read_clip
from features.system.machine import memory_limit_bytes
from pipeline.data.sequences import (
    frame_statistics,
    load_sequences,
    model_inputs,
    require_memory,
    sequence_from_vectors,
    take_clips,
)
from pipeline.heads.registry import HeadOptions
from pipeline.splits.split import Split
from pipeline.training.fit import require_memory_for_fit

CLASSES = ("dive", "jump", "walk")


def test_clips_come_in_the_order_asked_for(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    ids = [clip.clip_id for clip in store.clips]
    wanted = [ids[20], ids[3], ids[35]]
    sequences = load_sequences(store, wanted, CLASSES)
    assert sequences.clip_ids == tuple(wanted)
    assert sequences.class_indices.tolist() == [1, 0, 2]
    for row, clip_id in enumerate(wanted):
        vectors = read_clip(store, clip_id).vectors
        n_frames = len(vectors)
        assert sequences.mask[row].sum() == n_frames
        np.testing.assert_array_equal(sequences.vectors[row, :n_frames], vectors)
        assert not sequences.vectors[row, n_frames:].any()
    assert sequences.vectors.shape[1] == sequences.mask.sum(axis=1).max()


def test_pieces_read_at_once_change_nothing(tmp_path: Path) -> None:
    # More frames than are read at once, and gaps longer than what is read in vain.
    header = make_header(3)
    path = write_store(tmp_path / "s.h5", make_clips(), header=header, n_frames=(100, 700))
    store = open_store(path)
    ids = [clip.clip_id for clip in store.clips]
    for wanted in (ids, ids[::2], ids[5:30:7], ids[::-1]):
        sequences = load_sequences(store, wanted, CLASSES)
        for row, clip_id in enumerate(wanted):
            vectors = read_clip(store, clip_id).vectors
            np.testing.assert_array_equal(sequences.vectors[row][sequences.mask[row]], vectors)


def test_changed_clip_is_refused(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    ids = [clip.clip_id for clip in store.clips]
    first = read_clip(store, ids[3]).vectors[0].tobytes()
    content = bytearray(store.path.read_bytes())
    content[content.index(first)] ^= 1
    store.path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=rf"checksum. '{ids[3]}' .*--verify"):
        load_sequences(store, ids, CLASSES)
    load_sequences(store, [*ids[:3], *ids[4:]], CLASSES)


def test_store_type_is_kept_and_batches_are_float32(tmp_path: Path) -> None:
    header = replace(make_header(), dtype="float16")
    store = open_store(write_store(tmp_path / "s.h5", make_clips(), header=header))
    sequences = load_sequences(store, [store.clips[0].clip_id], CLASSES)
    assert sequences.vectors.dtype == np.float16
    inputs = model_inputs(sequences, slice(0, 1))
    assert inputs["vectors"].dtype == np.float32
    assert inputs["mask"].dtype == np.bool_


def test_failed_and_unknown_clips_are_refused(tmp_path: Path) -> None:
    failed = [make_clip("dive/broken.avi", "dive")]
    store = open_store(write_store(tmp_path / "s.h5", make_clips(), failed=failed))
    for clip_id in ("dive/broken.avi", "nowhere.avi"):
        with pytest.raises(NoClips, match=rf"has 1 of 2; missing: '{clip_id}'"):
            load_sequences(store, [store.clips[1].clip_id, clip_id], CLASSES)
    with pytest.raises(NoClips, match="missing: 'none given'"):
        load_sequences(store, [], CLASSES)


def test_more_than_memory_is_refused(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    ids = [clip.clip_id for clip in store.clips]
    require_memory(store, ids)
    message = r"must fit into memory. 36 clips .* 1e\+12 times at once.*--frames N"
    with pytest.raises(OptionInvalid, match=message):
        require_memory(store, ids, copies=1e12)


def test_memory_is_counted_for_the_widest_head_and_all_fits_at_once(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    ids = tuple(clip.clip_id for clip in store.clips)
    splits = [Split(ids[:9], ids[9:12], ids[12:], "m"), Split(ids[:20], ids[20:24], ids[24:], "m")]
    heads = ["mean-linear", "lstm:motion"]
    limit = memory_limit_bytes()
    assert limit is not None
    # Clips, and prepared frames of 2 * DIM + 1; of the larger split.
    longest = max(clip.n_frames for clip in store.clips if clip.clip_id in ids[:24])
    one_fit = 24 * longest * DIM * 4 * (1 + (2 * DIM + 1) / DIM)
    fits = int(limit / one_fit)
    require_memory_for_fit(store, splits, heads, HeadOptions(), n_at_once=fits)
    with pytest.raises(OptionInvalid, match="24 clips .*fewer --jobs"):
        require_memory_for_fit(store, splits, heads, HeadOptions(), n_at_once=fits + 1)
    reduced = HeadOptions(reduce="pca:1")
    require_memory_for_fit(store, splits, heads, reduced, n_at_once=fits + 1)
    windowed = HeadOptions(window=3)
    with pytest.raises(OptionInvalid, match="must fit into memory"):
        require_memory_for_fit(store, splits, heads, windowed, n_at_once=fits)


def test_vectors_at_hand_are_padded() -> None:
    clips = [np.full((n, DIM), n, dtype=np.float16) for n in (3, 1, 5)]
    sequences = sequence_from_vectors(clips)
    assert sequences.vectors.shape == (3, 5, DIM)
    assert sequences.mask.sum(axis=1).tolist() == [3, 1, 5]
    assert sequences.vectors[:, :, 0].sum(axis=1).tolist() == [9, 1, 25]
    with pytest.raises(NoClips, match="must have a frame"):
        sequence_from_vectors([clips[0], clips[0][:0]])
    with pytest.raises(NoClips):
        sequence_from_vectors([])


def test_rows_of_padding_only_cannot_be_made() -> None:
    sequences = sequence_from_vectors([np.ones((2, DIM), dtype=np.float32)])
    with pytest.raises(ValueError, match="padded on the right"):
        replace(sequences, mask=np.array([[False, False]]))
    with pytest.raises(ValueError, match="padded on the right"):
        replace(sequences, mask=np.array([[False, True]]))


def test_statistics_ignore_padding() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(3.0, 2.0, size=(n, DIM)).astype(np.float32) for n in (3, 100, 7)]
    clips[0][:, 4] = clips[1][:, 4] = clips[2][:, 4] = 1.5  # a dimension that never varies
    mean, deviation = frame_statistics([sequence_from_vectors(clips)])
    frames = np.concatenate(clips)
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-5)
    varying = np.arange(DIM) != 4
    np.testing.assert_allclose(deviation[varying], frames.std(axis=0)[varying], rtol=1e-5)
    assert deviation[4] == pytest.approx(0.1 * frames.std(axis=0).mean(), rel=1e-4)
    constant = sequence_from_vectors([np.ones((4, DIM), dtype=np.float32)])
    assert frame_statistics([constant])[1].tolist() == [1.0] * DIM


def test_taken_clips_keep_their_rows() -> None:
    clips = [np.full((2, DIM), n, dtype=np.float32) for n in range(4)]
    taken = take_clips(sequence_from_vectors(clips), ["3", "1"])
    assert taken.vectors[:, 0, 0].tolist() == [3, 1]
    assert taken.clip_ids == ("3", "1")
