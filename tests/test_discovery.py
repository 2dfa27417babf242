from __future__ import annotations

import os
from pathlib import Path

import pytest

from features.clips.discover import FolderOptions, discover_clips
from features.clips.groups import infer_groups
from features.errors import ManifestError, NoClips, OptionInvalid, VideosNotFound
from features.records import Clip, Discovery


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def labels_of(found: Discovery) -> dict[str, str]:
    return {clip.clip_id: clip.label for clip in found.clips}


def test_label_is_the_folder_where_folders_branch(tmp_path: Path) -> None:
    make_files(tmp_path, "UCF-101/jump/a.avi", "UCF-101/walk/day1/b.MP4", "UCF-101/walk/b.MP4")
    assert labels_of(discover_clips(tmp_path)) == {
        "UCF-101/jump/a.avi": "jump",
        "UCF-101/walk/b.MP4": "walk",
        "UCF-101/walk/day1/b.MP4": "walk",
    }


def test_one_class_folder_is_a_label_too(tmp_path: Path) -> None:
    make_files(tmp_path, "jump/a.avi", "jump/b.avi")
    assert set(labels_of(discover_clips(tmp_path)).values()) == {"jump"}


def test_files_at_the_top_have_no_label(tmp_path: Path) -> None:
    make_files(tmp_path, "a.avi", "jump/b.avi")
    assert labels_of(discover_clips(tmp_path)) == {"a.avi": "", "jump/b.avi": "jump"}


def test_split_folders_above_the_class_folders(tmp_path: Path) -> None:
    make_files(tmp_path, "Train/jump/a.avi", "validation/jump/b.avi", "test/walk/c.avi")
    found = [(clip.label, clip.split) for clip in discover_clips(tmp_path).clips]
    assert found == [("jump", "train"), ("walk", "test"), ("jump", "val")]


def test_everything_else_is_passed_over_and_listed(tmp_path: Path) -> None:
    make_files(tmp_path, "a.avi", ".b.avi", ".cache/c.avi", "readme.txt")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = discover_clips(tmp_path)
    assert [clip.clip_id for clip in found.clips] == ["a.avi"]
    assert {item.path: item.reason for item in found.ignored} == {
        ".b.avi": "hidden file",
        ".cache": "hidden folder",
        "gone.mp4": "broken link",
        "loop": "a link to a folder seen before",
        "pipe.mp4": "not a regular file",
        "readme.txt": "not a video file type",
    }


def test_a_link_never_takes_the_place_of_its_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "walk/a.avi", "jump/b.avi")
    (tmp_path / "0link").symlink_to(tmp_path / "walk", target_is_directory=True)
    found = discover_clips(tmp_path)
    assert set(labels_of(found).values()) == {"walk", "jump"}
    assert [item.path for item in found.ignored] == ["0link"]


def test_odd_names_stay_what_they_are(tmp_path: Path) -> None:
    names = ["a\nb.avi", 'say "hi" 100%.avi', "a..b.avi", os.fsdecode(b"\xff\xfe.avi")]
    make_files(tmp_path, *names)
    assert {clip.clip_id for clip in discover_clips(tmp_path).clips} == set(names)


@pytest.mark.parametrize(
    ("clip_id", "label", "group"),
    [
        ("Archery/v_Archery_g01_c02.avi", "Archery", "v_Archery_g01"),
        ("golf/v_golf_01/v_golf_01_03.mpg", "golf", "v_golf_01"),
        ("boxing/person07_boxing_d1_uncomp.avi", "boxing", "person07"),
        ("x/S001C002P003R001A060_rgb.avi", "x", "P003"),
        ("dive/-3KkcIqO0SY_000010_000020.mp4", "dive", "-3KkcIqO0SY"),
        ("wave/April_09_wave_u_nm_np1_ba_goo_0.avi", "wave", "April_09"),
        ("wave/my holiday.mp4", "wave", ""),
    ],
)
def test_groups_are_inferred_from_known_names(clip_id: str, label: str, group: str) -> None:
    found = infer_groups([Clip(clip_id, Path(clip_id), label)])
    assert found.groups.get(clip_id, "") == group


def test_group_regex(tmp_path: Path) -> None:
    make_files(tmp_path, "jump/anna-1.avi", "jump/bert-1.avi")
    found = discover_clips(tmp_path, FolderOptions(group_regex=r"(\w+)-\d"))
    assert [clip.group for clip in found.clips] == ["anna", "bert"]
    with pytest.raises(OptionInvalid, match="not match 1 of 2 clips, .* being 'jump/bert-1.avi'"):
        discover_clips(tmp_path, FolderOptions(group_regex="anna"))
    with pytest.raises(OptionInvalid, match="does not match 2 of 2 clips"):
        discover_clips(tmp_path, FolderOptions(group_regex="(x*)"))
    with pytest.raises(OptionInvalid, match="must be a regular expression"):
        discover_clips(tmp_path, FolderOptions(group_regex="("))


def write_csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "clips.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_names_the_clips_exactly(tmp_path: Path) -> None:
    videos = make_files(tmp_path / "videos", "a.avi", "b.avi", "d/v_x_g01_c01.avi")
    csv = write_csv(
        tmp_path,
        "\ufeffpath,label,group,split\na.avi,jump,p1,Train\nmissing.avi,walk,,test\n"
        "d/v_x_g01_c01.avi,walk,,\n",
    )
    found = discover_clips(videos, FolderOptions(labels=csv))
    assert [(c.clip_id, c.label, c.group, c.split) for c in found.clips] == [
        ("a.avi", "jump", "p1", "train"),
        ("d/v_x_g01_c01.avi", "walk", "", ""),
        ("missing.avi", "walk", "", "test"),
    ]
    assert found.notes[0].startswith(f"1 listed file missing from '{videos}', such as ")
    assert [(item.path, item.reason) for item in found.ignored] == [
        ("b.avi", "not in the annotation file")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.avi,jump,x\n", "starts with a header line .* has: a.avi, jump, x"),
        ("", "has: nothing"),
        ("path,lable\na.avi,x\n", "columns .* are named path, label, .* has 'lable'"),
        ("path,label\na.avi,x,y,z\n", "has 2 fields, as its first line. .* line 2 has more"),
        ("path,label\n,jump\n", "needs a path. .* line 2 has none"),
        ("path,label\na.avi,x\na.avi,x\n", "names each file once. .* line 3 repeats 'a.avi'"),
        ("path\n../secret.avi\n", "lie inside VIDEOS. .* names '../secret.avi'"),
        ("path,split\na.avi,holdout\n", "train, val, test or empty. .* split='holdout'"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    videos = make_files(tmp_path / "videos", "a.avi")
    with pytest.raises(ManifestError, match=message):
        discover_clips(videos, FolderOptions(labels=write_csv(tmp_path, text)))


def test_missing_csv(tmp_path: Path) -> None:
    make_files(tmp_path, "a.avi")
    with pytest.raises(ManifestError, match="must be readable"):
        discover_clips(tmp_path, FolderOptions(labels=tmp_path / "none.csv"))


def test_no_folder_and_no_clips(tmp_path: Path) -> None:
    with pytest.raises(VideosNotFound, match="does not exist"):
        discover_clips(tmp_path / "nowhere")
    make_files(tmp_path, "readme.txt")
    with pytest.raises(VideosNotFound, match="is a file"):
        discover_clips(tmp_path / "readme.txt")
    with pytest.raises(NoClips, match=r"holds none \(1 other file, such as"):
        discover_clips(tmp_path)
