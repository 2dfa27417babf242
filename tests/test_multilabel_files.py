"""Clips of several classes: how annotation files say so, and how stores keep it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from conftest import TINY_OPTIONS, RunCli, grey_frames, parse_json, write_video
from stage2_helpers import make_clip, write_store

from features.clips.discover import FolderOptions, discover_clips
from features.clips.summary import summarise_folder
from features.errors import ManifestError, OptionInvalid
from features.records import Discovery
from features.store.repair import repair_store
from features.store.store import open_store


def discover(tmp_path: Path, text: str, **options: object) -> Discovery:
    """Read an annotation file about the videos a, b, c and d."""
    folder = tmp_path / "videos"
    folder.mkdir(exist_ok=True)
    for name in "abcd":
        (folder / f"{name}.avi").write_text(name)
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return discover_clips(folder, FolderOptions(**{"labels": path, **options}))  # type: ignore[arg-type]


def labels(found: Discovery) -> list[tuple[str, ...] | None]:
    return [clip.labels for clip in found.clips]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.avi,run;jump\nb.avi, walk \nc.avi,\n",
        "path;label\na.avi;'run|jump'\nb.avi;walk\nc.avi;\n".replace("'", ""),
        "path\tlabel\na.avi\tjump; run;\nb.avi\twalk\nc.avi\t\n",
        "path,label\na.avi,run\na.avi,jump\nb.avi,walk\nc.avi,\n",
        "path,label\na.avi,\"['run', 'jump']\"\nb.avi,['walk']\nc.avi,\n",
        "path,run,jump,walk\na.avi,1,1,0\nb.avi,0,0,1\nc.avi,,,\n",
        "a.avi;run|jump\nb.avi;walk\n",
        "path,label\na.avi,7 8\nb.avi,9\nc.avi,\n",
        "path,label\na.avi,8;7\nb.avi,9\nc.avi,\n",
    ],
)
def test_several_labels_of_a_clip(tmp_path: Path, text: str) -> None:
    (tmp_path / "label_map.txt").write_text("7 run\n8 jump\n9 walk\n")
    found = discover(tmp_path, text)
    assert labels(found)[:2] == [("jump", "run"), ("walk",)]
    assert [clip.label for clip in found.clips][:2] == ["jump;run", "walk"]
    assert labels(found)[2:] in ([], [None]), "an empty cell says nothing"


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ('"run,jump"\nb.avi,jump\nc.avi,run', True),
        ('"put a, b and c"\nb.avi,"put a, b and c"\nc.avi,run', False),
    ],
)
def test_commas_separate_what_occurs_elsewhere(tmp_path: Path, text: str, several: bool) -> None:
    found = discover(tmp_path, f"path,label\na.avi,{text}\n")
    assert (found.clips[0].labels is not None) == several
    assert several or "taken for one class; --label-separator ," in found.notes[0]


def test_what_separates_labels_can_be_said(tmp_path: Path) -> None:
    doubtful = 'path,label\na.avi,"run, jump"\nb.avi,jump\n'
    with pytest.raises(ManifestError, match=r"'run, jump'; 'run' occurs in one .* other parts"):
        discover(tmp_path, doubtful)
    found = discover(tmp_path, doubtful, label_separator=",")
    assert labels(found) == [("jump", "run"), ("jump",)]
    assert "labels separated by ','" in found.labels_from
    for text in (doubtful, doubtful.replace(",", ";").replace('"run; jump"', '"run|jump"')):
        found = discover(tmp_path, text, label_separator="none")
        assert labels(found) == [None, None]
    assert [clip.label for clip in found.clips] == ["run|jump", "jump"]
    with pytest.raises(ManifestError, match=r"have one separator. .* has ';' and '\|'"):
        discover(tmp_path, "path,label\na.avi,run;jump\nb.avi,x|y\n")
    with pytest.raises(ManifestError, match="each file once. .* as 'x' and as 'y'"):
        discover(tmp_path, "path,label\na.avi,x\na.avi,y\n", label_separator="none")
    with pytest.raises(OptionInvalid, match="--label-separator is a text"):
        FolderOptions(labels="x.csv", label_separator=" ")
    with pytest.raises(OptionInvalid, match="--label-separator is about an annotation file"):
        FolderOptions(label_separator=";")


def test_files_that_would_be_read_differently_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('path,label\nc.avi,"run,jump"\n')
    (tmp_path / "train.csv").write_text("path,label\na.avi,run\nb.avi,jump\n")
    files = f"{tmp_path / 'train.csv'},{tmp_path / 'test.csv'}"
    with pytest.raises(ManifestError, match=r"'run,jump' was taken for one class, and its parts"):
        discover(tmp_path, "", labels=files)
    found = discover(tmp_path, "", labels=files, label_separator=",")
    assert labels(found) == [("run",), ("jump",), ("jump", "run")]


def test_rows_of_one_clip_agree_on_all_but_the_label(tmp_path: Path) -> None:
    text = "path,label,group\na.avi,run,x\na.avi,jump,{}\n"
    found = discover(tmp_path, text.format("x"))
    assert (labels(found), found.clips[0].group) == ([("jump", "run")], "x")
    assert "1 clip in several rows" in found.notes[0]
    assert "'a.avi': jump, run" in found.notes[0]
    with pytest.raises(ManifestError, match="same group and split. .* line 3 has group 'y'"):
        discover(tmp_path, text.format("y"))


def test_one_column_for_each_class(tmp_path: Path) -> None:
    text = "path,stand,end_of_run,seconds\na.avi,1,TRUE,3.5\nb.avi,0,0,2\nc.avi,0,1,1\n"
    found = discover(tmp_path, text)
    assert labels(found) == [("end_of_run", "stand"), (), ("end_of_run",)]
    assert "a column for each class: stand, end_of_run" in found.labels_from
    assert "seconds" in found.notes[0]
    counted = summarise_folder(found)
    assert (counted.several, counted.nothing, counted.unlabelled) == (1, 1, 0)
    assert [(item.label, item.clips) for item in counted.classes] == [
        ("end_of_run", 2),
        ("stand", 1),
    ]
    with pytest.raises(ManifestError, match="0 or 1, or all .* line 3 has '' for 'end_of_run'"):
        discover(tmp_path, text.replace("b.avi,0,0", "b.avi,0,"))
    with pytest.raises(
        ManifestError, match="has 'remark', which may be it, and 0 and 1 in 'stand'"
    ):
        discover(tmp_path, text.replace("seconds", "remark").replace("3.5", "good"))
    named = discover(tmp_path, text.replace("2\n", "x\n"), columns="label=end_of_run|stand")
    assert labels(named) == labels(found)


def test_one_class_each_is_no_task_of_several_labels(tmp_path: Path) -> None:
    found = discover(tmp_path, "path,run,jump\na.avi,1,0\nb.avi,0,1\n")
    assert [(clip.label, clip.labels) for clip in found.clips] == [("run", None), ("jump", None)]
    assert summarise_folder(found).several is None


def test_collections_with_several_labels(tmp_path: Path) -> None:
    def segment(label: str) -> dict[str, object]:
        return {"label": label, "segment": [1, 2]}

    database = {"a": {"subset": "training", "annotations": [segment("run"), segment("jump")]}}
    found = discover(tmp_path, json.dumps({"database": database}))
    assert [(c.clip_id, c.labels) for c in found.clips] == [("a.avi#1.0-2.0", ("jump", "run"))]
    found = discover(tmp_path, "id,actions\na,c2;c1\nb,c1\n")
    assert [(c.clip_id, c.labels) for c in found.clips] == [
        ("a.avi", ("c1", "c2")),
        ("b.avi", ("c1",)),
    ]
    found = discover(tmp_path, "id,actions\na,c1 0.5 3;c2 0.5 3\nb,\n")
    assert labels(found) == [("c1", "c2"), None]


def test_a_store_keeps_several_labels(tmp_path: Path) -> None:
    several = [("run", 'a "b"; c'), (), None, ("é",)]
    clips = [
        replace(make_clip(f"{n}.avi", ";".join(names or ())), labels=names)
        for n, names in enumerate(several)
    ]
    path = write_store(tmp_path / "s.h5", clips)
    assert [clip.labels for clip in open_store(path).clips] == several
    with h5py.File(path) as file:
        texts = file["clips/labels"].asstr()[:]
    assert [json.loads(text) if text else None for text in texts] == [
        None if names is None else list(names) for names in several
    ]
    plain = write_store(tmp_path / "t.h5", [make_clip("a.avi", "run")])
    with h5py.File(plain) as file:
        assert "labels" not in file["clips"]


def test_a_repair_keeps_several_labels(tmp_path: Path) -> None:
    clips = [replace(make_clip(f"{n}.avi", "x;y"), labels=("x", "y")) for n in range(20)]
    path = write_store(tmp_path / "s.h5", clips)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 60])
    summary = repair_store(path)
    assert 0 < summary.n_kept < 20
    assert {clip.labels for clip in open_store(path).clips} == {("x", "y")}


def test_extract_and_inspect_tell_of_several_labels(
    tmp_path: Path, run_cli: RunCli, tiny_weights: Path
) -> None:
    folder, store = tmp_path / "videos", tmp_path / "s.h5"
    for name in "abc":
        write_video(folder / f"{name}.avi", grey_frames(6))
    table = tmp_path / "labels.csv"
    table.write_text("path,run,jump\na.avi,1,1\nb.avi,0,1\nc.avi,0,0\n")
    options = (folder, "--out", store, "--weights", tiny_weights, *TINY_OPTIONS)
    result = run_cli("extract-features", *options, "--labels", table)
    assert result.exit_code == 0, result.stderr
    assert "1 clip with more than one, 1 clip with none of them" in result.stderr
    told = parse_json(run_cli("inspect", store, "--verify", "--json"))
    assert (told["labels"], told["is_multilabel"]) == ({"jump": 2, "run": 1}, True)
    assert (told["clips_of_several"], told["clips_of_nothing"], told["damaged"]) == (1, 1, [])
    assert (
        "1 clip with more than one, 1 with none of the classes" in run_cli("inspect", store).stdout
    )
    table.write_text("path,label\na.avi,run\nb.avi,jump\nc.avi,jump\n")
    again = parse_json(run_cli("extract-features", *options, "--labels", table, "--json"))
    assert (again["clips_already"], again["is_multilabel"]) == (3, False)
    assert parse_json(run_cli("inspect", store, "--json"))["labels"] == {"jump": 2, "run": 1}
