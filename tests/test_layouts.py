"""What class folders and split folders are read as: rightly, or not at all."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.clips.discover import FolderOptions, discover_clips
from features.clips.layout import read_layout
from features.clips.summary import summarise_folder
from features.errors import LayoutUnclear, OptionInvalid

SPLIT_WORDS = {
    "train": ("train", "Training", "TRAIN"),
    "val": ("val", "Valid", "validation", "dev"),
    "test": ("test", "Testing"),
}
CLASSES = ("Archery", "Dunk", "walk", "run fast")

words = st.fixed_dictionaries({part: st.sampled_from(names) for part, names in SPLIT_WORDS.items()})
wrappers = st.lists(st.sampled_from(("w", "UCF101_subset", "data.v2")), max_size=3)
labelled = st.dictionaries(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from(("train", "val", "test"))),
    st.integers(1, 3),
    min_size=3,
).filter(lambda found: len({part for _, part in found}) > 1 and len({c for c, _ in found}) > 1)


def make_files(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return root


@given(labelled, words, wrappers, st.integers(0, 2), st.booleans())
def test_split_folders_are_found_below_wrappers_on_both_sides_of_the_classes(
    counts: dict[tuple[str, str], int],
    words: dict[str, str],
    wrappers: list[str],
    n_stray: int,
    is_inside: bool,
) -> None:
    if is_inside and wrappers:
        n_stray = 0  # then the wrapper may be a class
    above = "".join(f"{wrapper}/" for wrapper in wrappers)
    labels: dict[str, str] = {}
    splits: dict[str, str] = {}
    for (label, part), n in counts.items():
        between = f"{label}/{words[part]}" if is_inside else f"{words[part]}/{label}"
        for number in range(n):
            name = f"{above}{between}/{number}.avi"
            labels[name], splits[name] = label, part
    stray = dict.fromkeys([f"{above}stray{number}.avi" for number in range(n_stray)], "")
    layout = read_layout([*labels, *stray])
    assert layout.labels == {**labels, **stray}
    assert {name: layout.splits.get(name, "") for name in labels} == splits
    assert bool(n_stray) == any("without a label" in note for note in layout.notes)


@given(st.lists(st.lists(st.sampled_from(("a", "B", "train", "test", "val", "x y")), max_size=4)))
def test_whatever_the_folders_no_class_is_called_like_a_split(folders: list[list[str]]) -> None:
    names = sorted({"/".join([*parts, f"{n}.avi"]) for n, parts in enumerate(folders)})
    try:
        layout = read_layout(names)
    except LayoutUnclear:
        return
    assert set(layout.labels) == set(names)
    assert set(layout.labels.values()) <= {"a", "B", "x y", ""}
    assert set(layout.splits.values()) <= {"train", "val", "test"}


def found_in(*names: str) -> list[tuple[str, str]]:
    layout = read_layout(names)
    return [(layout.labels[name], layout.splits.get(name, "")) for name in names]


def test_flat_test_folders_are_clips_without_a_label() -> None:
    names = ("train/jump/a.avi", "train/walk/b.avi", "test/c.avi", "test/d.avi")
    assert found_in(*names) == [("jump", "train"), ("walk", "train"), ("", "test"), ("", "test")]
    said = "2 clips in 'test' without a label: 'test/c.avi', 'test/d.avi'"
    assert read_layout(names).notes == (said,)
    assert found_in("test/c.avi", "test/d.avi") == [("", ""), ("", "")]


def test_eval_is_the_test_part_unless_there_is_one() -> None:
    pair = ("train/a/1.avi", "train/b/2.avi", "eval/a/3.avi")
    assert found_in(*pair)[2] == ("a", "test")
    assert found_in(*pair, "test/b/4.avi")[2] == ("a", "val")


def test_one_split_folder_alone_marks_nothing() -> None:
    names = ("data/train/jump/a.avi", "data/train/walk/b.avi")
    assert found_in(*names) == [("jump", ""), ("walk", "")]
    assert "only split folder" in read_layout(names).notes[0]


def test_a_wrapper_inside_of_every_split_folder() -> None:
    names = ("train/videos/jump/a.avi", "train/videos/walk/b.avi", "test/videos/jump/c.avi")
    assert found_in(*names) == [("jump", "train"), ("walk", "train"), ("jump", "test")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a.avi", "bus/b.avi", "car/c.avi"), "'train' stands beside 'bus', 'car'"),
        (("test/jump/a.avi", "jump/b.avi", "walk/c.avi"), "'test' stands beside 'jump', 'walk'"),
        (("train/train/a.avi", "test/bus/b.avi"), "'train' holds 'train', which is called like"),
        (
            ("jump/train/a.avi", "jump/test/b.avi", "walk/c.avi"),
            "'walk' holds 'walk/c.avi' besides",
        ),
        (
            ("jump/train/a.avi", "jump/b.avi", "walk/test/c.avi"),
            "'jump' holds 'jump/b.avi' besides",
        ),
        (("cam1/train/jump/a.avi", "cam2/test/walk/b.avi"), "'cam1' holds 'train/jump' besides"),
        (("jump/day1/train/a.avi", "jump/day1/test/a.avi", "walk/b.avi"), "further below"),
        (("train_set/a.avi", "test_set/b.avi"), "called like parts of a split"),
        (("UCF/intro.avi", "UCF/Archery/a.avi", "UCF/Dunk/b.avi"), "'UCF' holds 1 file .'UCF/in"),
        (("Jump/a.avi", "jump/b.avi"), "'Jump', 'jump' do not"),
        (("videos_train/a/1.avi", "videos_val/a/2.avi"), "'videos_train', 'videos_val' are called"),
        (
            ("Part-1/Abuse/a.avi", "Part-2/Arson/b.avi", "Normal/c.avi"),
            "'Part-1', 'Part-2' are called like parts of a split or of an archive",
        ),
        (
            ("Training_Normal/a.avi", "Testing_Normal/b.avi", "Abuse/c.avi"),
            "'Testing_Normal', 'Training_Normal' are called",
        ),
        (("train_set/a.avi", "walk/b.avi"), "'train_set' is called"),
        (("train/train_videos/a/1.avi", "test/test_videos/a/2.avi"), "'test_videos', 'train_vid"),
        (("01_train/a/1.avi", "02_test/a/2.avi"), "'01_train', '02_test' are called like parts"),
        (
            ("train/videos/jump/a.avi", "test/jump/b.avi", "test/walk/c.avi"),
            "'jump' is one of them, and lies in 'videos' as well",
        ),
        (
            ("cam1/jump/a.avi", "cam1/walk/b.avi", "cam2/jump/c.avi", "cam2/walk/d.avi"),
            "'cam1', 'cam2' differ in their numbers, and hold the same folders: 'jump', 'walk'",
        ),
        (("train/high jump/a.avi", "test/High_Jump /b.avi"), "'High_Jump ', 'high jump' do not"),
    ],
)
def test_two_readings_are_refused_with_what_was_found(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(LayoutUnclear, match=message):
        read_layout(names)


def test_classes_that_only_contain_a_word_of_splits_are_classes() -> None:
    assert found_in("training dog/a.avi", "test drive/b.avi", "part 1/c.avi") == [
        ("training dog", ""),
        ("test drive", ""),
        ("part 1", ""),
    ]


def test_numbered_takes_inside_of_class_folders_are_no_classes() -> None:
    names = [f"{label}/{take}/a.avi" for label in ("jump", "walk") for take in ("cam1", "cam2")]
    assert found_in(*names) == [("jump", "")] * 2 + [("walk", "")] * 2


def test_a_split_folder_that_was_unpacked_into_itself() -> None:
    names = ("train/train/jump/a.avi", "test/test/jump/b.avi", "test/test/walk/c.avi")
    assert found_in(*names) == [("jump", "train"), ("jump", "test"), ("walk", "test")]


def test_folders_of_the_system_are_no_classes(tmp_path: Path) -> None:
    names = ("jump/a.avi", "walk/b.avi", "$RECYCLE.BIN/c.avi", "walk/@eaDir/d.avi")
    found = discover_clips(make_files(tmp_path / "v", *names))
    assert [clip.clip_id for clip in found.clips] == ["jump/a.avi", "walk/b.avi"]
    assert {item.path for item in found.ignored} == {"$RECYCLE.BIN", "walk/@eaDir"}


def test_levels_that_may_be_classes_are_named() -> None:
    names = ("sport/golf/a.avi", "sport/tennis/b.avi", "music/c.avi")
    assert "'sport' holds 'golf', 'tennis'" in read_layout(names).notes[0]
    below_splits = read_layout([f"{part}/{name}" for part in ("train", "test") for name in names])
    assert "'sport' holds 'golf', 'tennis'" in below_splits.notes[0]
    assert "one class only: 'rgb'" in read_layout(("rgb/a.avi", "rgb/b.avi")).notes[0]
    assert found_in("train/a/1.avi", "train/b/1.avi", "validate/a/2.avi")[2] == ("a", "val")


def test_a_refused_folder_can_still_be_embedded_or_named_by_a_file(tmp_path: Path) -> None:
    videos = make_files(tmp_path / "v", "train/a.avi", "bus/b.avi")
    with pytest.raises(LayoutUnclear):
        discover_clips(videos)
    clips = discover_clips(videos, FolderOptions(labels="none")).clips
    assert [clip.label for clip in clips] == ["", ""]
    table = tmp_path / "c.csv"
    table.write_text("path,label\ntrain/a.avi,train\nbus/b.avi,bus\n")
    clips = discover_clips(videos, FolderOptions(labels=table)).clips
    assert [(clip.label, clip.split) for clip in clips] == [("bus", ""), ("train", "")]


def test_links_are_one_clip(tmp_path: Path) -> None:
    make_files(tmp_path, "jump/a.avi", "walk/b.avi")
    (tmp_path / "jump" / "0.avi").symlink_to("a.avi")
    os.link(tmp_path / "walk" / "b.avi", tmp_path / "walk" / "c.avi")
    found = discover_clips(tmp_path)
    assert [clip.clip_id for clip in found.clips] == ["jump/a.avi", "walk/b.avi"]
    assert {item.path: item.reason for item in found.ignored} == {
        "jump/0.avi": "a link to 'jump/a.avi'",
        "walk/c.avi": "a hard link of 'walk/b.avi'",
    }


def test_links_into_another_class_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "all/a.avi", "all/b.avi")
    for label, name in (("jump", "a"), ("walk", "b")):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{name}.avi").symlink_to(tmp_path / "all" / f"{name}.avi")
    with pytest.raises(LayoutUnclear, match=r"'jump/a.avi' \(class 'jump'\) is a link to 'all/a"):
        discover_clips(tmp_path)


def test_names_that_differ_only_in_form_are_one_clip_if_they_hold_the_same(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "né.avi") for form in ("NFC", "NFD"))
    for name, content in ((composed, b"1"), (apart, b"1"), ("B.avi", b"2"), ("b.avi", b"3")):
        (tmp_path / name).write_bytes(content)
    if len(list(tmp_path.iterdir())) < 4:
        pytest.skip("this file system takes such names for one")
    found = discover_clips(tmp_path)
    assert len(found.clips) == 3
    ((path, reason),) = [(item.path, item.reason) for item in found.ignored]
    assert {path} < {composed, apart}
    assert "differs only in the Unicode form of its name" in reason


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    names = [f"{unicodedata.normalize(form, 'né')}/{form}.avi" for form in ("NFC", "NFD")]
    assert len(set(read_layout(names).labels.values())) == 1


def test_more_suffixes(tmp_path: Path) -> None:
    make_files(tmp_path, "a.264", "b.DAV", "c.mxf", "d.xyz", "e", "f.txt")
    found = discover_clips(tmp_path)
    assert [clip.clip_id for clip in found.clips] == ["a.264", "b.DAV", "c.mxf"]
    assert {item.path: item.reason for item in found.ignored} == {
        "d.xyz": "its suffix '.xyz' is not known as a video's; --suffixes xyz takes it",
        "e": "it has no suffix; --suffixes all takes it",
        "f.txt": "not a video file type",
    }
    assert len(discover_clips(tmp_path, FolderOptions(suffixes="xyz,*.foo")).clips) == 4
    assert len(discover_clips(tmp_path, FolderOptions(suffixes="all")).clips) == 6
    with pytest.raises(OptionInvalid, match="endings of file names"):
        FolderOptions(suffixes="a/b")


def test_names_that_only_look_like_a_scheme_are_no_groups(tmp_path: Path) -> None:
    make_files(tmp_path, "jump/person01_x.avi", "jump/holiday.avi", "walk/clip_g2_final.avi")
    found = discover_clips(tmp_path)
    assert {clip.group for clip in found.clips} == {""}
    assert "1 of 3 file names look like those of KTH (person), 'jump/holiday.avi' does not" in (
        found.groups_from
    )


def test_films_of_hmdb51_are_groups_whatever_the_labels_are(tmp_path: Path) -> None:
    stems = [f"April_09_{c}_u_nm_np1_ba_goo_0" for c in ("brush_hair", "clap")]
    folder = make_files(tmp_path / "v", f"brush_hair/{stems[0]}.avi", f"clap/{stems[1]}.avi")
    table = tmp_path / "list.txt"
    table.write_text(f"brush_hair/{stems[0]}.avi 0\nclap/{stems[1]}.avi 1\n")
    found = discover_clips(folder, FolderOptions(labels=table))
    assert [clip.label for clip in found.clips] == ["0", "1"]
    assert {clip.group for clip in found.clips} == {"April_09"}


def test_what_was_inferred_is_said_with_two_examples(tmp_path: Path) -> None:
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Archery", "Dunk") for g in (1, 2)]
    make_files(tmp_path, *names, "intro.avi")
    found = discover_clips(tmp_path)
    assert found.groups_from == (
        "file names like those of UCF101 (source video): 'Archery/v_Archery_g01_c01.avi' is of "
        "'v_Archery_g01', 'Archery/v_Archery_g02_c01.avi' is of 'v_Archery_g02'"
    )
    without = discover_clips(tmp_path, FolderOptions(no_groups=True))
    assert {clip.group for clip in without.clips} == {""}
    by_regex = discover_clips(tmp_path, FolderOptions(group_regex=r"(\w+)\.avi"))
    assert "'Archery/v_Archery_g01_c01.avi' is of 'v_Archery_g01_c01'" in by_regex.groups_from
    with pytest.raises(OptionInvalid, match="exclude each other"):
        FolderOptions(no_groups=True, group_regex="x")


def test_classes_are_counted(tmp_path: Path) -> None:
    make_files(tmp_path, "train/jump/a.avi", "train/walk/b.avi", "test/jump/c.avi", "test/d.avi")
    summary = summarise_folder(discover_clips(tmp_path))
    counted = [(c.label, c.clips, c.groups, c.train, c.val, c.test) for c in summary.classes]
    assert counted == [("jump", 2, 0, 1, 0, 1), ("walk", 1, 0, 1, 0, 0), ("", 1, 0, 0, 0, 1)]
    assert (summary.clips, summary.unlabelled, summary.has_splits) == (4, 1, True)
