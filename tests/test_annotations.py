"""Annotation files as people have them: each published format, and tables of every kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from features.clips.discover import FolderOptions, discover_clips
from features.clips.formats import ANNOTATION_FORMATS
from features.errors import (
    LayoutUnclear,
    ManifestError,
    NoClips,
    OptionInvalid,
    PluginUnusable,
)
from features.records import Clip, Discovery
from features.system.plugins import PLUGINS_VARIABLE, load_plugins


def make_files(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return root


def discover(
    tmp_path: Path, name: str, text: str | bytes, *videos: str, **options: object
) -> Discovery:
    """Write an annotation file and the videos it is about, and read both."""
    folder = make_files(tmp_path / "videos", *videos)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return discover_clips(folder, FolderOptions(labels=path, **options))  # type: ignore[arg-type]


def rows(found: Discovery) -> list[tuple[str, str]]:
    return [(clip.clip_id, clip.label) for clip in found.clips]


TABLE = "path,label\njump/é.avi,jump\nwalk/b.avi,walk\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_in_every_coding(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = TABLE.replace(",", delimiter).replace("\n", "\r\n").encode(encoding)
    found = discover(tmp_path, "c.csv", text, "jump/é.avi", "walk/b.avi")
    assert rows(found) == [("jump/é.avi", "jump"), ("walk/b.avi", "walk")]
    assert "read as table: a table with a header line (columns path, label)" in found.labels_from


def test_the_first_line_of_excel_and_a_header_in_any_case(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", "sep=;\n Path ;LABEL; Split\na.avi;jump;DEV\n", "a.avi")
    assert [(c.label, c.split) for c in found.clips] == [("jump", "val")]


@pytest.mark.parametrize(
    "written",
    [
        *("jump/a.avi", "jump/a", "JUMP/A.AVI", "a.avi", "a", "videos/jump/a.avi", "jump\\a.avi"),
        *("jump/a.mp4", "/jump/a.avi", "./jump/a.avi", "../videos/jump/a.avi", "{root}/jump/a.avi"),
    ],
)
def test_paths_in_every_form(tmp_path: Path, written: str) -> None:
    written = written.format(root=tmp_path / "videos")
    found = discover(tmp_path, "c.csv", f"path,label\n{written},x\n", "jump/a.avi", "walk/b.avi")
    assert rows(found) == [("jump/a.avi", "x")]


def test_a_path_that_may_be_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 2 names 'a', which may be 'x/a.avi', 'y/a.avi'"):
        discover(tmp_path, "c.csv", "path\na\n", "x/a.avi", "y/a.avi")


def test_folders_that_disagree_are_not_the_same_file(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", "path,label\njump/a.avi,x\n", "walk/a.avi", "b.avi")
    assert rows(found) == [("jump/a.avi", "x")], "a failed clip later, never another file"


def test_columns_are_mapped_and_others_are_named(tmp_path: Path) -> None:
    text = "clip,activity,who,camera\na.avi,jump,anna,3\n"
    columns = "path=clip,label=ACTIVITY,group=who"
    found = discover(tmp_path, "c.csv", text, "a.avi", columns=columns)
    (clip,) = found.clips
    assert (clip.label, clip.group) == ("jump", "anna")
    assert "label = activity, group = who" in found.labels_from
    assert found.notes == ("columns that say nothing here: camera",)
    with pytest.raises(ManifestError, match="has no 'nothing', but: clip, activity"):
        discover(tmp_path, "c.csv", text, columns={"label": "nothing"})
    with pytest.raises(OptionInvalid, match=r"names columns for .* Received: 'lable'"):
        FolderOptions(labels="c.csv", columns="lable=x")
    with pytest.raises(OptionInvalid, match="--columns is about an annotation file"):
        FolderOptions(columns="label=x")


def test_two_columns_for_one_role_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    text = "path,class,action\na.avi,1,jump\n"
    with pytest.raises(ManifestError, match=r"'class' and 'action' for label. .*--columns label="):
        discover(tmp_path, "c.csv", text, "a.avi")
    found = discover(tmp_path, "c.csv", text, columns="label=action")
    assert rows(found) == [("a.avi", "jump")]


def spans(clips: tuple[Clip, ...]) -> list[tuple[object, ...]]:
    return [(c.clip_id, c.start_seconds, c.end_seconds, c.start_frame, c.end_frame) for c in clips]


def test_spans_in_seconds(tmp_path: Path) -> None:
    text = "path;label;start;end\na.avi;jump;12;15,5\na.avi;walk;0:20;\na.avi;;;3\nb.avi;x;;\n"
    found = discover(tmp_path, "c.csv", text, "a.avi", "b.avi")
    assert spans(found.clips) == [
        ("a.avi#0.0-3.0", 0.0, 3.0, None, None),
        ("a.avi#12.0-15.5", 12.0, 15.5, None, None),
        ("a.avi#20.0-end", 20.0, None, None, None),
        ("b.avi", None, None, None, None),
    ]
    assert [clip.group for clip in found.clips] == ["a.avi", "a.avi", "a.avi", ""]
    assert "the file of each span" in found.groups_from
    assert {clip.path for clip in found.clips} == {tmp_path / f"videos/{n}.avi" for n in "ab"}


def test_spans_in_frames(tmp_path: Path) -> None:
    text = "path,start,end,group\na.avi,10,20,anna\n"
    found = discover(tmp_path, "c.csv", text, "a.avi", time_unit="frames")
    assert spans(found.clips) == [("a.avi#f10-f20", None, None, 10, 20)]
    assert found.clips[0].group == "anna"
    with_rate = text.replace("group", "fps").replace("anna", "25")
    found = discover(tmp_path, "c.csv", with_rate, time_unit="frames")
    assert spans(found.clips) == [("a.avi#0.4-0.8", 0.4, 0.8, None, None)]
    by_name = "path,start_frame,end_frame\na.avi,10,20\n"
    assert discover(tmp_path, "c.csv", by_name).clips[0].clip_id == "a.avi#f10-f20"
    with pytest.raises(ManifestError, match="Frame numbers must be whole"):
        discover(tmp_path, "c.csv", "path,start,end\na.avi,1.5,2\n", time_unit="frames")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.avi,x\na.avi,x\n", "each file once. .* line 3 repeats.* start and end"),
        ("path,start,end\na.avi,1,2\na.avi,1,2\n", "each span once. .* line 3 repeats"),
        ("path,start,end\na.avi,2,1\n", "must end after its start. .* line 2 has 2 to 1"),
        ("path,start,end\na.avi,-1,1\n", "from 0 on, or H:MM:SS. .* has '-1'"),
        ("path,stat,end\na.avi,1,2\n", r"has 'stat'. .*--columns start=stat"),
        ("path,start,end,fps\na.avi,1,2,0\n", "A frame rate is above 0"),
    ],
)
def test_spans_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    unit = "frames" if "fps" in text else "seconds"
    with pytest.raises(ManifestError, match=message):
        discover(tmp_path, "c.csv", text, "a.avi", time_unit=unit)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,label,from,to", "a.avi,x,1,2", r"has 'from', 'to'. .*--columns start=NAME,end=NAME"),
        ("path,label,start_ms,end_ms", "a.avi,x,1,2", "has 'start_ms', 'end_ms'"),
        ("path,label,start,duration", "a.avi,x,1,2", "'start' and 'duration', but no end"),
        ("path,label,start_frame,end", "a.avi,x,1,2", "in the same unit. .* 'start_frame' and"),
        ("path,label,start,end,fps", "a.avi,x,1,2,25", "may be frames. .*--time-unit frames if"),
        (
            "path,label,start_frame,start_timestamp,stop_frame,stop_timestamp",
            "a.avi,x,1,0:00:01,2,0:00:02",
            "--columns start=start_timestamp,end=stop_timestamp",
        ),
        ("path,target", "a.avi,x", "has 'target', which may be it. .*--columns label=target"),
        ("path,label,label", "a.avi,x,y", "several called 'label'"),
        ("path,label,phase", "a.avi,x,train\nb.avi,x,test", "'test', 'train' in 'phase'"),
    ],
)
def test_columns_that_would_change_the_meaning_are_refused(
    tmp_path: Path, header: str, row: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        discover(tmp_path, "c.csv", f"{header}\n{row}\n", "a.avi", "b.avi")


@pytest.mark.parametrize(
    ("header", "clip_id"),
    [
        *(("path,begin,stop", "a.avi#1.0-2.0"), ("path,start_sec,end_sec", "a.avi#1.0-2.0")),
        *(
            ("path,startFrame,endFrame", "a.avi#f1-f2"),
            ("path,frame start,frame end", "a.avi#f1-f2"),
        ),
        ("path,start_timestamp,stop_timestamp", "a.avi#1.0-2.0"),
    ],
)
def test_bounds_under_other_names(tmp_path: Path, header: str, clip_id: str) -> None:
    found = discover(tmp_path, "c.csv", f"{header}\na.avi,1,2\n", "a.avi")
    assert [clip.clip_id for clip in found.clips] == [clip_id]


def test_a_whole_file_is_of_the_group_of_its_spans(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", "path,label,start,end\na.avi,x,,\na.avi,y,1,2\n", "a.avi")
    assert [clip.group for clip in found.clips] == ["a.avi", "a.avi"]


def test_missing_files_of_another_machine_are_failed_clips(tmp_path: Path) -> None:
    for place in ("/home/u/v/", "D:\\v\\"):
        rows_ = f"path,label\n{place}walk/c.avi,walk\n{place}jump/a.avi,jump\n"
        found = discover(tmp_path, "c.csv", rows_, "jump/a.avi", "b.avi")
        assert rows(found) == [("jump/a.avi", "jump"), ("walk/c.avi", "walk")]
        assert "1 listed file missing" in found.notes[0]
    with pytest.raises(ManifestError, match="lie inside VIDEOS"):
        discover(tmp_path, "c.csv", "path,label\n/elsewhere/c.avi,walk\njump/a.avi,jump\n")


def test_a_folder_is_no_file_of_that_name(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", "path,label\njump,x\n", "jump/a.avi", "jump.avi")
    assert rows(found) == [("jump.avi", "x")]
    with pytest.raises(ManifestError, match="lie inside VIDEOS"):
        discover(tmp_path, "c.csv", "path,label\n.,x\n")


def test_labels_that_look_alike_are_named_or_made_one(tmp_path: Path) -> None:
    text = "path,label\na.avi,Run\nb.avi,run\nc.avi,n\u00e9\nd.avi,ne\u0301\n"
    found = discover(tmp_path, "c.csv", text, *(f"{n}.avi" for n in "abcd"))
    assert len({clip.label for clip in found.clips}) == 3
    (note,) = found.notes
    assert "differ only in case" in note


def test_files_that_hold_no_text_or_no_rows(tmp_path: Path) -> None:
    for label, coding in (("caf\u00e9", "latin-1"), ("x", "utf-32")):
        with pytest.raises(ManifestError, match="is text in UTF-8 or UTF-16"):
            discover(tmp_path, "c.csv", f"path,label\na.avi,{label}\n".encode(coding), "a.avi")
    with pytest.raises(NoClips, match="names at least one clip. .* has no rows"):
        discover(tmp_path, "c.csv", "path,label\n")
    with pytest.raises(ManifestError, match="is JSON of another kind, with 'a', 'b'"):
        discover(tmp_path, "labels.json", '{"a": "0", "b": "1"}')
    with pytest.raises(ManifestError, match="is no valid JSON"):
        discover(tmp_path, "labels.json", '{"database": ')
    japanese = "\u8d70" * 99
    text = f"path,label\na.avi,{japanese}\n".encode("utf-16-le")
    assert rows(discover(tmp_path, "c.csv", text)) == [("a.avi", japanese)]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\ra.avi,x\rb.avi,y\r",
        "\ufeff\ufeffpath,label\na.avi,x\nb.avi,y\n",
        "# exported today\n# by us\npath,label\na.avi,x\nb.avi,y\n",
        'path, label\n"a.avi", "x"\nb.avi, y\n',
        "path,label\na.avi,x\npath,label\nb.avi,y\n",
    ],
)
def test_tables_as_programs_leave_them(tmp_path: Path, text: str) -> None:
    found = discover(tmp_path, "c.csv", text, "a.avi", "b.avi")
    assert rows(found) == [("a.avi", "x"), ("b.avi", "y")]


def test_lists_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def read(train: str, test: str) -> None:
        paths = tmp_path / "train.csv", tmp_path / "test.csv"
        for path, text in zip(paths, (train, test), strict=True):
            path.write_text(f"path,label\n{text}\n")
        (tmp_path / "v").mkdir(exist_ok=True)
        (tmp_path / "v" / "a.avi").write_bytes(b"a")
        discover_clips(tmp_path / "v", FolderOptions(labels=paths))

    with pytest.raises(ManifestError, match="one part of the split. .* as test, .* as train"):
        read("a.avi,x", "a.avi,x")
    with pytest.raises(ManifestError, match=r"train.csv' has numbers, and .*test.csv' has names"):
        read("a.avi,0", "b.avi,x")


def test_groups_that_look_alike_are_named(tmp_path: Path) -> None:
    text = "path,label,group\na.avi,x,Ann Lee\nb.avi,y,ann_lee\n"
    (note,) = discover(tmp_path, "c.csv", text, "a.avi", "b.avi").notes
    assert "'Ann Lee', 'ann_lee' differ only in case" in note
    assert "are 2 groups" in note


def test_cells_of_nothing_are_empty(tmp_path: Path) -> None:
    text = "path,label,group,start\na.avi,nan,NaN,\nb.avi,None,nan,nan\n"
    found = discover(tmp_path, "c.csv", text, "a.avi", "b.avi")
    assert [(c.label, c.group) for c in found.clips] == [("", ""), ("None", "")]
    assert found.notes == ("4 cells with 'nan' read as empty",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,label\na.avi,"x\nb.avi,y\n', "A quote that opens is closed in the same row"),
        ('path,label,note\na.avi,x,"5\nb.avi,y,6"\n', "goes on over 2 lines"),
        ("path,label,class_name\na.avi,0,x\nb.avi,-1,y\n", "'label', which holds numbers"),
        ("path,label,subject_id\na.avi,x,1\nb.avi,y,2\n", "has 'subject_id', which may be it"),
        ("path,label,is_train\na.avi,x,1\nb.avi,y,0\n", "in a column called split, as train"),
        ("path,x,y,test\na.avi,1,0,1\nb.avi,0,1,0\n", "Columns of 0 and 1 .* has 'test'"),
        ("path,x,y,fold\na.avi,1,0,1\nb.avi,0,1,0\n", "Columns of 0 and 1 .* has 'fold'"),
        ("path,label,first_frame,last_frame\na.avi,x,1,2\n", "has 'first_frame', 'last_frame'"),
        ("path,label\na.avi,\"['x', 'y']\"\nb.avi,y\n", "are lists, or names"),
        ('{"path": "a.avi", "label": "x"}\n{"path": "b.avi", "label": "y"}\n', "no valid JSON"),
        (
            '{"database": {"a": {"annotations": [{"segment": [-1, 2], "label": "x"}]}}}',
            "A span starts at 0 or later",
        ),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        discover(tmp_path, "c.csv", text, "a.avi", "b.avi")


def test_cells_may_have_several_lines(tmp_path: Path) -> None:
    text = 'path,label,script\na.avi,x,"He sits,\nand b stands."\nb.avi,"y\nz",\n'
    assert rows(discover(tmp_path, "c.csv", text, "a.avi", "b.avi")) == [
        ("a.avi", "x"),
        ("b.avi", "y\nz"),
    ]


def test_names_that_differ_in_case_alone_are_told_apart(tmp_path: Path) -> None:
    videos = ("x/abC.avi", "y/ABc.avi")
    found = discover(tmp_path, "c.csv", "path,label\nabC,x\nABc,y\n", *videos)
    assert rows(found) == [("x/abC.avi", "x"), ("y/ABc.avi", "y")]


def test_a_rate_that_says_nothing_is_named(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", "path,label,fps\na.avi,x,25\n", "a.avi")
    assert found.notes == ("columns that say nothing here: fps",)


def test_text_that_is_no_annotation_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is text in UTF-8 or UTF-16"):
        discover(tmp_path, "c.csv", b"\xff\xfe\x00", "a.avi")
    with pytest.raises(ManifestError, match="is of none, and its first line has: some words here"):
        discover(tmp_path, "c.csv", "some words here\n", "a.avi")


def format_of(found: Discovery) -> str:
    return found.labels_from.partition("read as ")[2].partition(":")[0]


def test_ucf101_lists(tmp_path: Path) -> None:
    videos = ("Archery/v_Archery_g08_c01.avi", "Diving/v_Diving_g01_c02.avi")
    train = "Archery/v_Archery_g08_c01.avi 1\r\nDiving/v_Diving_g01_c02.avi 2\r\n"
    found = discover(tmp_path, "trainlist01.txt", train, *videos)
    assert format_of(found) == "ucf101"
    assert rows(found) == [(videos[0], "Archery"), (videos[1], "Diving")]
    assert found.clips[0].group == "v_Archery_g08"
    without_numbers = train.replace(" 1", "").replace(" 2", "")
    assert rows(discover(tmp_path, "testlist01.txt", without_numbers)) == rows(found)
    with pytest.raises(ManifestError, match=r"line 2 gives 'Diving' the number 1"):
        discover(tmp_path, "trainlist02.txt", train.replace(" 2", " 1"))


def test_hmdb51_lists(tmp_path: Path) -> None:
    stems = [f"April_09_brush_hair_u_nm_np1_ba_goo_{n}" for n in range(3)]
    text = "".join(f"{stem}.avi {n} \n" for n, stem in enumerate(stems))
    videos = [f"brush_hair/{stem}.avi" for stem in stems]
    found = discover(tmp_path, "brush_hair_test_split1.txt", text, *videos)
    assert format_of(found) == "hmdb51"
    assert {clip.label for clip in found.clips} == {"brush_hair"}
    assert [clip.split for clip in found.clips] == ["", "train", "test"]
    assert {clip.group for clip in found.clips} == {"April_09"}


def test_kinetics_csv(tmp_path: Path) -> None:
    text = (
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "dancing ballet,-3KkcIqO0SY,10,20,train,0\n"
        "abseiling,0wR5jVB-WPk,417,427,validate,0\n"
    ).replace("validate", "validation")
    trimmed, whole = "dancing ballet/-3KkcIqO0SY_000010_000020.mp4", "0wR5jVB-WPk.mp4"
    found = discover(tmp_path, "k400.csv", text, trimmed, whole)
    assert format_of(found) == "kinetics"
    assert [(c.clip_id, c.label, c.group, c.split) for c in found.clips] == [
        ("0wR5jVB-WPk.mp4#417.0-427.0", "abseiling", "0wR5jVB-WPk", "val"),
        (trimmed, "dancing ballet", "-3KkcIqO0SY", "train"),
    ]
    assert found.notes == ("1 clip found as part of a whole video",)


def test_something_something_json(tmp_path: Path) -> None:
    items = [
        {
            "id": "78687",
            "label": "holding potato next to vicks vaporub bottle",
            "template": "Holding [something] next to [something]",
            "placeholders": ["potato", "vicks vaporub bottle"],
        },
        {"id": "151151"},
    ]
    found = discover(tmp_path, "train.json", json.dumps(items), "78687.webm", "151151.webm")
    assert format_of(found) == "something-something"
    assert rows(found) == [
        ("151151.webm", ""),
        ("78687.webm", "Holding something next to something"),
    ]


def test_activitynet_json(tmp_path: Path) -> None:
    database = {
        "sJFgo9H6zNo": {
            "duration": 124.23,
            "subset": "training",
            "resolution": "1280x720",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0, 124.23], "label": "Fun sliding down"},
                {"segment": [1.5, 3], "label": "Climbing"},
            ],
        },
        "uqiMw7tQ1Cc": {"duration": 55.2, "subset": "testing", "annotations": []},
    }
    text = json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": database})
    found = discover(
        tmp_path, "activity_net.v1-3.min.json", text, "v_sJFgo9H6zNo.mp4", "uqiMw7tQ1Cc.mp4"
    )
    assert format_of(found) == "activitynet"
    assert [(c.clip_id, c.label, c.split) for c in found.clips] == [
        ("uqiMw7tQ1Cc.mp4", "", "test"),
        ("v_sJFgo9H6zNo.mp4#0.0-124.23", "Fun sliding down", "train"),
        ("v_sJFgo9H6zNo.mp4#1.5-3.0", "Climbing", "train"),
    ]
    assert {clip.group for clip in found.clips} == {"", "v_sJFgo9H6zNo.mp4"}


def test_ucf_crime_temporal_list(tmp_path: Path) -> None:
    text = (
        "Abuse028_x264.mp4  Abuse  165  240  -1  -1  \n"
        "Arson011_x264.mp4  Arson  150  420  680  1267  \n"
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
    )
    videos = ("Abuse/Abuse028_x264.mp4", "Arson/Arson011_x264.mp4", "Normal_Videos_003_x264.mp4")
    found = discover(tmp_path, "Temporal_Anomaly_Annotation.txt", text, *videos)
    assert format_of(found) == "ucf-crime"
    assert rows(found) == [
        ("Abuse/Abuse028_x264.mp4#f165-f240", "Abuse"),
        ("Arson/Arson011_x264.mp4#f150-f420", "Arson"),
        ("Arson/Arson011_x264.mp4#f680-f1267", "Arson"),
        ("Normal_Videos_003_x264.mp4", "Normal"),
    ]


AVA = "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,{},{}\n"


def test_ava_rows(tmp_path: Path) -> None:
    actions = 'label {\n  name: "watch (a person)"\n  label_id: 80\n  label_type: PERSON\n}\n'
    (tmp_path / "ava_action_list_v2.2.pbtxt").write_text(actions)
    text = AVA.format(80, 1) + AVA.format(80, 2) + AVA.replace("0902", "0903").format(9, 1)
    found = discover(tmp_path, "ava_train_v2.2.csv", text, "-5KQ66BBWC4.mkv")
    assert format_of(found) == "ava"
    assert rows(found) == [
        ("-5KQ66BBWC4.mkv#900.5-903.5", "watch (a person)"),
        ("-5KQ66BBWC4.mkv#901.5-904.5", "9"),
    ]
    assert found.notes == ("boxes are left out: whole pictures are embedded",)
    found = discover(tmp_path, "ava_val_v2.2.csv", AVA.format(80, 1) + AVA.format(12, 1))
    assert [clip.labels for clip in found.clips] == [("12", "watch (a person)")]


def test_mmaction2_lists(tmp_path: Path) -> None:
    text = "jump/my clip.mp4 0\nwalk/b.mp4 1\n"
    found = discover(tmp_path, "list/train.txt", text, "jump/my clip.mp4", "walk/b.mp4")
    assert format_of(found) == "mmaction2"
    assert rows(found) == [("jump/my clip.mp4", "0"), ("walk/b.mp4", "1")]
    (tmp_path / "list" / "label_map.txt").write_text("jump\nwalk\n")
    found = discover(tmp_path, "list/train.txt", text)
    assert [clip.label for clip in found.clips] == ["jump", "walk"]


def test_mmaction2_rawframes_lists(tmp_path: Path) -> None:
    text = "jump/a 120 0\nwalk/b 33 1\n"
    found = discover(tmp_path, "rawframes.txt", text, "jump/a.mp4", "walk/b/img_00001.jpg")
    assert format_of(found) == "mmaction2-rawframes"
    assert rows(found) == [("jump/a.mp4", "0"), ("walk/b", "1")]
    found = discover(tmp_path, "rawframes.txt", "jump/a 30 120 0\n")
    assert rows(found) == [("jump/a.mp4#f30-f150", "0")]
    found = discover(tmp_path, "rawframes.txt", "jump/a 120 0 3\nwalk/b 33 1\n")
    assert [clip.labels for clip in found.clips] == [("0", "3"), ("1",)]
    found = discover(tmp_path, "videos.txt", "jump/a.mp4, 0\nwalk/b, 1\n")
    assert rows(found) == [("jump/a.mp4", "0"), ("walk/b", "1")]


def test_lists_with_spaces_in_labels_and_lists_with_several_labels(tmp_path: Path) -> None:
    videos = ("x/a b.mp4", "x/c.mp4")
    found = discover(tmp_path, "t.txt", "x/a b.mp4 Playing Guitar\nx/c.mp4 Run\n", *videos)
    assert rows(found) == [("x/a b.mp4", "Playing Guitar"), ("x/c.mp4", "Run")]
    found = discover(tmp_path, "t.txt", "x/a b.mp4 0 3\nx/c.mp4 1\n")
    assert [clip.labels for clip in found.clips] == [("0", "3"), ("1",)]


def test_names_of_classes_that_count_from_another_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 jump\n2 run\n3 walk\n")
    videos = ("run/a.mp4", "walk/b.mp4")
    found = discover(tmp_path, "t.txt", "run/a.mp4 2\nwalk/b.mp4 3\n", *videos)
    assert rows(found) == [("run/a.mp4", "run"), ("walk/b.mp4", "walk")]
    assert "names from 'classInd.txt'" in found.labels_from
    with pytest.raises(ManifestError, match=r"calls 1 'jump', but .* gives it to 'run/a.mp4'"):
        discover(tmp_path, "t.txt", "run/a.mp4 1\nwalk/b.mp4 2\n")


def test_jester_lists(tmp_path: Path) -> None:
    videos = ("34870.webm", "56557.webm")
    text = "34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n"
    found = discover(tmp_path, "jester-v1-train.csv", text, *videos)
    assert format_of(found) == "list"
    assert rows(found) == [
        ("34870.webm", "Drumming Fingers"),
        ("56557.webm", "Sliding Two Fingers Right"),
    ]
    assert rows(discover(tmp_path, "c.csv", f"id;label\n{text}")) == rows(found)


def test_charades_csv(tmp_path: Path) -> None:
    text = "id,subject,actions,length\nYSKX3,8O,c092 11.90 21.20;c147 0.00 12.60,30.5\nAAA,8O,,30\n"
    found = discover(tmp_path, "Charades_v1_train.csv", text, "YSKX3.mp4", "AAA.mp4")
    assert format_of(found) == "charades"
    assert rows(found) == [
        ("AAA.mp4", ""),
        ("YSKX3.mp4#0.0-12.6", "c147"),
        ("YSKX3.mp4#11.9-21.2", "c092"),
    ]
    with pytest.raises(ManifestError, match="has a class, a start and an end. .* has 'c092 11.90'"):
        discover(tmp_path, "c.csv", "id,actions\nAAA,c092 11.90\n")


def test_ava_rows_with_a_header_and_without_an_action(tmp_path: Path) -> None:
    header = "video_id,middle_frame_timestamp,x1,y1,x2,y2,action_id,person_id\n"
    text = header + AVA.format(80, 1) + "-5KQ66BBWC4,0904,,,,,,\n"
    found = discover(tmp_path, "ava.csv", text, "-5KQ66BBWC4.mkv")
    assert rows(found) == [("-5KQ66BBWC4.mkv#900.5-903.5", "80")]
    assert found.notes[1] == "1 row without an action left out"


def test_keras_csv(tmp_path: Path) -> None:
    text = "video_name,tag\nv_CricketShot_g08_c01.avi,CricketShot\n"
    found = discover(tmp_path, "train.csv", text, "train/v_CricketShot_g08_c01.avi")
    assert format_of(found) == "keras"
    assert rows(found) == [("train/v_CricketShot_g08_c01.avi", "CricketShot")]


PLUGIN = """
from features import Annotation, Annotations, register_annotation_format


@register_annotation_format("ours", "what our camera writes")
def read_ours(file):
    if not file.text.startswith("#cam"):
        return None
    rows = [line.split("|") for _, line in file.lines[1:]]
    return Annotations(tuple(Annotation(path, label) for path, label in rows))
"""


def test_a_format_of_a_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    module = tmp_path / "our_annotations.py"
    module.write_text(PLUGIN)
    load_plugins([str(module)])
    try:
        found = discover(tmp_path, "c.cam", "#cam 1\na|jump\n", "a.avi")
        assert (format_of(found), rows(found)) == ("ours", [("a.avi", "jump")])
    finally:
        del ANNOTATION_FORMATS["ours"], sys.modules["our_annotations"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return file.text[99]", r"format 'odd' must read a file.* IndexError: string index"),
        ("    return [1]", "format 'odd' must return Annotations or None. It returned list"),
    ],
)
def test_a_format_of_a_plug_in_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    module = tmp_path / "odd_annotations.py"
    module.write_text(
        "from features import register_annotation_format\n\n\n"
        f'@register_annotation_format("odd", "fails")\ndef read(file):\n{body}\n'
    )
    load_plugins([str(module)])
    try:
        with pytest.raises(PluginUnusable, match=message):
            discover(tmp_path, "c.csv", "path,label\na.avi,jump\n", "a.avi")
    finally:
        del ANNOTATION_FORMATS["odd"], sys.modules["odd_annotations"]


def test_numbers_in_a_table_are_named_by_the_list_of_classes(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    found = discover(tmp_path, "c.csv", "path,label\na.avi,2\nb.avi,1\n", "a.avi", "b.avi")
    assert rows(found) == [("a.avi", "Biking"), ("b.avi", "Archery")]
    assert "names from 'classInd.txt'" in found.labels_from
    found = discover(tmp_path, "c.csv", "path,label\na.avi,2\nb.avi,7\n")
    assert rows(found) == [("a.avi", "2"), ("b.avi", "7")]
    assert "classInd" not in found.labels_from


HMDB = "April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "Foo_clap_u_nm_np1_fr_med_1.avi"


def test_a_list_of_hmdb51_under_another_name(tmp_path: Path) -> None:
    text = f"{HMDB[0]} 1\n{HMDB[1]} 2\n"
    found = discover(tmp_path, "all.txt", text, f"brush_hair/{HMDB[0]}", f"clap/{HMDB[1]}")
    assert format_of(found) == "hmdb51"
    assert [(c.label, c.split) for c in found.clips] == [("brush_hair", "train"), ("clap", "test")]
    with pytest.raises(ManifestError, match=r"the class is in neither.*CLASS_test_split1.txt"):
        discover(tmp_path / "flat", "all.txt", text, *HMDB)


def test_a_list_with_commas_and_without_a_header(tmp_path: Path) -> None:
    found = discover(tmp_path, "c.csv", 'a.avi,"jump, high"\nb.avi,walk\n', "a.avi", "b.avi")
    assert format_of(found) == "list"
    assert rows(found) == [("a.avi", "jump, high"), ("b.avi", "walk")]
    assert "a list without a header line: path and label" in found.labels_from
    with pytest.raises(ManifestError, match="starts with a header line"):
        discover(tmp_path, "c.csv", "film,what\na.avi,jump\nb.avi,walk\n")


def test_several_lists_at_once_are_the_parts_of_a_split(tmp_path: Path) -> None:
    clips = [f"Archery/v_Archery_g0{n}_c01.avi" for n in (1, 2, 3)]
    lists = {"trainlist01.txt": f"{clips[0]} 1\n", "testlist01.txt": f"{clips[1]}\n"}
    lists["vallist01.txt"] = f"{clips[2]} 1\n"
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    folder = make_files(tmp_path / "videos", *clips)
    names = ",".join(str(tmp_path / name) for name in lists)
    found = discover_clips(folder, FolderOptions(labels=names))
    assert [clip.split for clip in found.clips] == ["train", "test", "val"]
    assert "its name says train" in found.labels_from
    paths = [tmp_path / name for name in lists]
    assert discover_clips(folder, FolderOptions(labels=paths)).clips == found.clips
    (tmp_path / "testlist01.txt").write_text(f"{clips[1]}\n{clips[0]}\n")
    with pytest.raises((ManifestError, LayoutUnclear), match="testlist01.txt' line 2"):
        discover_clips(folder, FolderOptions(labels=names))


def test_kinetics_json(tmp_path: Path) -> None:
    videos = {
        "abcdefghijk": {
            "annotations": {"label": "abseiling", "segment": [5.0, 15.0]},
            "duration": 10.0,
            "subset": "train",
            "url": "https://www.youtube.com/watch?v=abcdefghijk",
        },
        "lmnopqrstuv": {
            "annotations": {"label": "yoga", "segment": [1.0, 11.0]},
            "duration": 10.0,
            "subset": "validate",
        },
    }
    names = ("abcdefghijk_000005_000015.mp4", "lmnopqrstuv.mp4")
    found = discover(tmp_path, "train.json", json.dumps(videos), *names)
    assert format_of(found) == "kinetics-json"
    assert [(c.clip_id, c.label, c.split, c.group) for c in found.clips] == [
        ("abcdefghijk_000005_000015.mp4", "abseiling", "train", "abcdefghijk"),
        ("lmnopqrstuv.mp4#1.0-11.0", "yoga", "val", "lmnopqrstuv"),
    ]
    assert "1 clip found as part of a whole video" in found.notes


def test_spans_of_a_hard_link_are_of_the_group_of_its_file(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "videos", "a.avi")
    (folder / "b.avi").hardlink_to(folder / "a.avi")
    text = "path,label,start,end\na.avi,jump,0,1\nb.avi,walk,1,2\nb.avi,jump,0,1\n"
    found = discover(tmp_path, "c.csv", text)
    assert [(clip.clip_id, clip.group) for clip in found.clips] == [
        ("a.avi#0.0-1.0", "a.avi"),
        ("b.avi#1.0-2.0", "a.avi"),
    ]
    assert "the file of each span" in found.groups_from
