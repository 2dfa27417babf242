"""Clips that are spans of a file: in the clip table, and when a folder is read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import tiny_backbone
from hypothesis import given
from hypothesis import strategies as st
from made_clips import Recipe, read_numbers, write_clip
from stage2_helpers import make_clips
from stage2_helpers import write_store as write_labelled_store
from store_helpers import make_clip, write_store

from features import EmbedOptions, ExtractSummary, choose_sampling, extract_features
from features.clips.changes import plan_extraction, update_row
from features.clips.discover import FolderOptions
from features.errors import SplitImpossible
from features.places.places import stat_source
from features.records import Clip, ClipRecord, EmbeddedClip, FrameSampling, split_clip_id
from features.store.inspect import inspect_store
from features.store.store import Store, open_store, read_clip
from features.system.files import hash_file
from features.video.pictures import take_pictures
from pipeline.splits.choose import SplitOptions, choose_split, count_unlabelled
from pipeline.splits.split import describe_class_gaps, find_class_gaps


def make_span(file_id: str, start: float, end: float | None) -> EmbeddedClip:
    name = f"{file_id}#{start}-{'end' if end is None else end}"
    clip = make_clip(name, 5, seed=int(10 * start))
    return replace(clip, record=replace(clip.record, start_seconds=start, end_seconds=end))


def test_spans_come_back_from_the_store(tmp_path: Path) -> None:
    spans = [make_span("a.avi", 0.0, 2.5), make_span("a.avi", 2.5, None)]
    path = write_store(tmp_path / "s.h5", [spans[0], make_clip("b.avi", 3)], [spans[1]])
    found = {clip.clip_id: clip for clip in open_store(path).clips}
    bounds = {name: (clip.start_seconds, clip.end_seconds) for name, clip in found.items()}
    assert bounds == {
        "a.avi#0.0-2.5": (0.0, 2.5),
        "a.avi#2.5-end": (2.5, None),
        "b.avi": (None, None),
    }
    assert [clip.file_id for clip in found.values()] == ["a.avi", "a.avi", "b.avi"]
    assert inspect_store(path, verify=True).damaged == ()


def test_a_store_without_spans_has_no_columns_for_them(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("b.avi", 3)])
    with h5py.File(path) as file:
        assert not {"start_seconds", "end_seconds"} & set(file["clips"])


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1),
    st.sampled_from(["12.0-15.5", "0.0-end", "f3-f9", "f3-end"]),
)
def test_ids_of_spans_are_divided(file_id: str, span: str) -> None:
    assert split_clip_id(f"{file_id}#{span}") == (file_id, span)
    assert split_clip_id(f"{file_id}.avi") == (f"{file_id}.avi", "")


def test_moved_files_take_each_span_along(tmp_path: Path) -> None:
    (tmp_path / "new.avi").write_bytes(b"content")
    source = replace(
        stat_source(tmp_path / "new.avi"), sha256=hash_file(tmp_path / "new.avi"), mtime_ns=1
    )
    names = ("#0.0-2.5", "#2.5-5.0")
    rows = [replace(make_clip(f"old.avi{name}", 5).record, source=source) for name in names]
    bounds = {"#0.0-2.5": (0.0, 2.5), "#2.5-5.0": (2.5, 5.0)}
    clips = [
        Clip(f"new.avi{n}", tmp_path / "new.avi", "x", start_seconds=s, end_seconds=e)
        for n, (s, e) in bounds.items()
    ]
    plan = plan_extraction(clips, rows)
    assert plan.moved == {f"old.avi{name}": f"new.avi{name}" for name in names}
    assert not plan.to_decode
    other = [replace(clips[0], clip_id="new.avi#1.0-2.0", start_seconds=1.0)]
    assert plan_extraction(other, rows).to_decode == tuple(other)
    row = update_row(
        replace(rows[0], start_seconds=0.0), {clip.clip_id: clip for clip in clips}, plan.moved
    )
    assert (row.clip_id, row.label, row.start_seconds) == ("new.avi#0.0-2.5", "x", 0.0)


@pytest.mark.parametrize("rows", ["0.4,0.8\n{0},1.6,", "10,20\n{0},40,"])
def test_spans_of_a_video_are_embedded(tmp_path: Path, tiny_weights: Path, rows: str) -> None:
    (tmp_path / "v").mkdir()
    path = write_clip(tmp_path / "v" / "a.mp4", Recipe(".mp4", "libx264", {"g": "12"}))
    (tmp_path / "c.csv").write_text(f"path,start,end\n{path.name}," + rows.format(path.name) + "\n")
    summary = extract_features(
        tmp_path / "v",
        tmp_path / "s.h5",
        folder=FolderOptions(
            labels=tmp_path / "c.csv", time_unit="seconds" if "." in rows else "frames"
        ),
        sampling=choose_sampling(all_frames=True),
        backbone=tiny_backbone(tiny_weights),
        embedding=EmbedOptions(n_workers=1),
    )
    assert summary.count("done") == 2, summary
    store = open_store(tmp_path / "s.h5")
    found = [read_clip(store, clip.clip_id) for clip in store.clips]
    assert [item.frame_indices.tolist() for item in found] == [
        list(range(10, 20)),
        list(range(40, 60)),
    ]
    assert [(clip.start_seconds, clip.end_seconds) for clip in store.clips] == [
        (0.4, 0.8),
        (1.6, None),
    ]
    pictures = take_pictures(store, [clip.clip_id for clip in store.clips])
    shown: list[int] = []
    for item in pictures.values():
        picture = cv2.imdecode(np.frombuffer(item.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        shown += read_numbers([picture.astype(np.uint8)])
    assert shown == [15, 50]


@pytest.mark.parametrize(
    ("suffix", "sampling"),
    [(".ts", choose_sampling(n_frames=3)), (".mp4", choose_sampling(fps=10))],
)
def test_spans_of_a_file_together_are_what_each_is_alone(
    tmp_path: Path, tiny_weights: Path, suffix: str, sampling: FrameSampling
) -> None:
    (tmp_path / "v").mkdir()
    path = write_clip(tmp_path / "v" / f"a{suffix}", Recipe(suffix, "libx264", {"g": "12"}))
    spans = ["0.4,0.8", "0.0,1.2", "1.6,", "7.0,8.0"]

    def extract(rows: list[str], name: str) -> tuple[ExtractSummary, Store]:
        lines = "\n".join(f"{path.name},{row}" for row in rows)
        (tmp_path / f"{name}.csv").write_text(f"path,start,end\n{lines}\n")
        summary = extract_features(
            tmp_path / "v",
            tmp_path / f"{name}.h5",
            folder=FolderOptions(labels=tmp_path / f"{name}.csv", time_unit="seconds"),
            sampling=sampling,
            backbone=tiny_backbone(tiny_weights),
            embedding=EmbedOptions(n_workers=1),
        )
        return summary, open_store(tmp_path / f"{name}.h5")

    summary, together = extract(spans, "all")
    assert [item.clip_id for item in summary.failures] == [f"a{suffix}#7.0-8.0"]
    assert "no frame between 7 and 8 s" in summary.failures[0].reason
    _, good = extract(spans[:3], "good")
    for number, span in enumerate(spans[:3]):
        _, alone = extract([span], f"one{number}")
        (clip,) = alone.clips
        wanted = read_clip(alone, clip.clip_id)
        for store in (together, good):
            found = read_clip(store, clip.clip_id)
            np.testing.assert_array_equal(found.vectors, wanted.vectors)
            np.testing.assert_array_equal(found.frame_indices, wanted.frame_indices)
            np.testing.assert_array_equal(found.timestamps_seconds, wanted.timestamps_seconds)


def write_changed(path: Path, change: dict[str, tuple[str, str]]) -> list[ClipRecord]:
    """Write a store of three classes, with another label and split for some clips."""
    clips = [
        replace(clip, label=new[0], split=new[1]) if (new := change.get(clip.clip_id)) else clip
        for clip in make_clips()
    ]
    write_labelled_store(path, clips)
    return clips


def test_clips_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    names = [clip.clip_id for clip in make_clips()]
    write_changed(tmp_path / "s.h5", dict.fromkeys(names[:2], ("", "")))
    store = open_store(tmp_path / "s.h5")
    split, groups = choose_split(store, SplitOptions())
    assert count_unlabelled(store) == 2
    assert not {*split.train, *split.val, *split.test, *groups} & set(names[:2])
    write_changed(tmp_path / "t.h5", dict.fromkeys(names, ("", "")))
    with pytest.raises(SplitImpossible, match=f"None of {len(names)} has one. Hint: run extract"):
        choose_split(open_store(tmp_path / "t.h5"), SplitOptions())


def test_classes_without_clips_in_a_part_are_named(tmp_path: Path) -> None:
    parts = {
        clip.clip_id: (clip.label, "test" if clip.group in ("jump_g01", "walk_g01") else "train")
        for clip in make_clips()
    }
    clips = write_changed(tmp_path / "s.h5", parts)
    split, _ = choose_split(open_store(tmp_path / "s.h5"), SplitOptions())
    gaps = find_class_gaps(clips, [split])
    assert gaps == {"test": ["dive"]}
    (said,) = describe_class_gaps(gaps, 3)
    assert said.startswith("No test clip of class 'dive': balanced accuracy is the mean of the ")
    assert "the other 2 of 3 classes" in said
    assert describe_class_gaps({"train": ["x"]}, 3) == [
        "No training clip of class 'x': a head never names it, and no score counts it"
    ]
