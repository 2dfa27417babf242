"""The official lists of UCF101 and HMDB51, on folders as people have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stage2_helpers import make_clip, make_clips
from test_splits import require_sound

from features.clips.groups import infer_groups
from features.errors import SplitImpossible
from features.records import Clip, ClipRecord
from pipeline.splits.holdout import split_by_lists


def write_ucf_lists(folder: Path) -> None:
    clips = make_clips()
    train = [c.clip_id for c in clips if "_g01_" not in c.clip_id]
    folder.mkdir()
    (folder / "trainlist01.txt").write_text("".join(f"{name} 1\r\n" for name in train[:-1]))
    (folder / "testlist01.txt").write_text(
        "".join(f"{c.clip_id}\r\n" for c in clips if c.clip_id not in train) + "\r\n"
    )


@pytest.mark.parametrize("prefix", ["", "videos/UCF-101/"])
@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_ucf_lists_match_below_any_folder(tmp_path: Path, prefix: str, suffix: str) -> None:
    write_ucf_lists(tmp_path / "lists")
    clips = [
        replace(clip, clip_id=prefix + clip.clip_id.replace(".avi", suffix))
        for clip in make_clips()
    ]
    split = split_by_lists(clips, tmp_path / "lists", 1)
    assert len(split.test) == 6
    assert all("_g01_" in clip_id for clip_id in split.test)
    assert split.excluded == (prefix + f"walk/v_walk_g06_c02{suffix}",)
    require_sound(split, clips)


def test_ucf_lists_match_clips_in_one_flat_folder(tmp_path: Path) -> None:
    write_ucf_lists(tmp_path / "lists")
    clips = [replace(c, clip_id=c.clip_id.partition("/")[2]) for c in make_clips()]
    assert len(split_by_lists(clips, tmp_path / "lists", 1).test) == 6


def test_hmdb_lists_are_read(tmp_path: Path) -> None:
    clips = [replace(c, clip_id=c.clip_id.replace("v_", "a b ")) for c in make_clips()]
    for label in ("dive", "jump", "walk"):
        lines = []
        for clip in clips:
            if clip.label == label:
                name = clip.clip_id.partition("/")[2]
                code = 2 if "_g01_" in name else 0 if "_g02_" in name else 1
                lines.append(f"{name} {code} ")
        (tmp_path / f"{label}_test_split2.txt").write_text("\n".join(lines))
    split = split_by_lists(clips, tmp_path, 2)
    assert len(split.test) == 6
    assert len(split.excluded) == 6
    assert all("_g02_" in clip_id for clip_id in split.excluded)


def test_lists_that_are_missing_or_foreign_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitImpossible, match="does not exist"):
        split_by_lists(make_clips(), tmp_path / "none", 1)
    with pytest.raises(SplitImpossible, match="holds neither"):
        split_by_lists(make_clips(), tmp_path, 1)
    write_ucf_lists(tmp_path / "lists")
    with pytest.raises(SplitImpossible, match="none is in the train list"):
        split_by_lists(make_clips(classes=["run", "sit"]), tmp_path / "lists", 1)
    (tmp_path / "run_test_split1.txt").write_text("a.avi 7\n")
    with pytest.raises(SplitImpossible, match="0, 1 or 2.*a.avi 7.*line 1"):
        split_by_lists(make_clips(), tmp_path, 1)


# Names as HMDB51 has them: odd characters, doubled underscores, the class inside the name.
HMDB_CLIPS = {
    "brush_hair": [
        "#20_Rhythm_clap_brush_hair_u_nm_np1_fr_goo_0.avi",
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "April_09_brush_hair_u_nm_np1_ba_goo_1.avi",
        "Blonde_being_brushed_brush_hair_f_nm_np2_ri_med_0.avi",
        "Prelinger_(1950)_[HQ];_Tips_&_Tricks_brush_hair_f_cm_np1_ba_goo_2.avi",
    ],
    "climb": [
        "(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman_climb_f_cm_np1_ba_med_1.avi",
        "(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman_climb_f_cm_np1_ba_med_10.avi",
        "Kletter-Training_f\u00fcr_Anf\u00e4nger_climb_f_cm_np1_ba_bad_0.avi",
        "Chicago Fire 5.0_climb_u_cm_np1_le_med_0.avi",
        "The_Climb__climb_l_cm_np1_ba_med_3.avi",
    ],
}


def test_hmdb_names_are_matched_and_grouped(tmp_path: Path) -> None:
    codes = (2, 1, 1, 1, 0)
    clips = []
    for label, names in HMDB_CLIPS.items():
        rows = [f"{name} {code} \n" for name, code in zip(names, codes, strict=True)]
        text = "".join(rows)
        (tmp_path / f"{label}_test_split1.txt").write_text(text, encoding="utf-8")
        for name in names:
            clip_id = f"{label}/{name}"
            found = infer_groups([Clip(clip_id, Path(clip_id), label)]).groups
            clips.append(make_clip(clip_id, label, found.get(clip_id, "")))
    split = split_by_lists(
        [*clips, *_more_clips_to_validate_on(tmp_path)], tmp_path, 1, val_fraction=0.3
    )
    assert {clip_id.partition("/")[2] for clip_id in split.test} == {
        names[codes.index(2)] for names in HMDB_CLIPS.values()
    }
    assert {clip_id.partition("/")[2] for clip_id in split.excluded} == {
        names[codes.index(0)] for names in HMDB_CLIPS.values()
    }
    assert [clip.group for clip in clips[:5]] == [
        "#20_Rhythm_clap",
        "April_09",
        "April_09",
        "Blonde_being_brushed",
        "Prelinger_(1950)_[HQ];_Tips_&_Tricks",
    ]
    assert clips[5].group == clips[6].group != clips[7].group


def _more_clips_to_validate_on(folder: Path) -> list[ClipRecord]:
    label = "brush_hair"
    names = [f"Source_{n}_{label}_u_nm_np1_ba_goo_0.avi" for n in range(4)]
    with (folder / f"{label}_test_split1.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{name} 1\n" for name in names)
    return [make_clip(f"{label}/{name}", label, f"Source_{n}") for n, name in enumerate(names)]
