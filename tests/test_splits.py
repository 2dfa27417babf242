"""Splits: whole groups, every class trained, nothing lost, nothing leaking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage2_helpers import make_clip, make_clips

from features.errors import OptionInvalid, SplitImpossible, SplitLeaks
from features.records import ClipRecord
from pipeline.splits.folds import split_into_folds
from pipeline.splits.groups import (
    assign_groups,
    cut_part,
    find_group_doubts,
    groups_are_known,
)
from pipeline.splits.holdout import split_by_column, split_by_groups
from pipeline.splits.leaks import find_leaks, require_no_leaks
from pipeline.splits.split import Split


@st.composite
def many_clips(draw: st.DrawFn) -> list[ClipRecord]:
    """Clips in which groups may hold one clip or many, of one class or several."""
    n_classes = draw(st.integers(2, 4))
    n_groups = draw(st.integers(2, 14))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_groups - 1)),
            min_size=2,
            max_size=60,
        )
    )
    return [make_clip(f"{i:03d}.avi", f"class{c}", f"g{g}") for i, (c, g) in enumerate(rows)]


def require_sound(split: Split, clips: list[ClipRecord]) -> None:
    parts = [*split.train, *split.val, *split.test, *split.excluded]
    assert sorted(parts) == sorted(clip.clip_id for clip in clips)
    assert split.train
    assert split.val
    assert split.test
    assert find_leaks(split, assign_groups(clips)) == ()
    label = {clip.clip_id: clip.label for clip in clips}
    assert {label[i] for i in (*split.val, *split.test)} <= {label[i] for i in split.train}


@given(many_clips(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_split_by_groups_keeps_every_promise(clips: list[ClipRecord], seed: int) -> None:
    try:
        split = split_by_groups(clips, seed=seed)
    except SplitImpossible:
        return
    require_sound(split, clips)
    assert split == split_by_groups(clips, seed=seed)


@given(many_clips(), st.integers(2, 4), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_folds_keep_every_promise(clips: list[ClipRecord], n_folds: int, seed: int) -> None:
    try:
        folds = split_into_folds(clips, n_folds, seed=seed)
    except SplitImpossible:
        return
    for split in folds:
        require_sound(split, clips)
    tested = [clip_id for split in folds for clip_id in split.test]
    assert sorted(tested) == sorted(clip.clip_id for clip in clips)
    assert folds == split_into_folds(clips, n_folds, seed=seed)


def test_every_part_has_every_class_where_groups_permit() -> None:
    clips = make_clips(n_groups=3)
    label = {clip.clip_id: clip.label for clip in clips}
    for seed in range(20):
        split = split_by_groups(clips, seed=seed)
        for ids in (split.train, split.val, split.test):
            assert {label[i] for i in ids} == {"dive", "jump", "walk"}


def test_part_comes_close_to_the_fraction() -> None:
    clips = make_clips(n_groups=20)
    split = split_by_groups(clips, test_fraction=0.25, val_fraction=0.2, seed=3)
    assert len(split.test) == 30
    assert len(split.val) == 18


def test_seed_changes_the_split() -> None:
    clips = make_clips(n_groups=10)
    assert len({split_by_groups(clips, seed=seed).test for seed in range(5)}) > 1


def test_class_of_one_group_trains_and_is_not_tested() -> None:
    clips = [*make_clips(n_groups=4), make_clip("swim/a.avi", "swim", "lake")]
    split = split_by_groups(clips)
    assert "swim/a.avi" in split.train


def test_folds_test_every_class_every_time() -> None:
    clips = make_clips(n_groups=5, per_group=1)
    label = {clip.clip_id: clip.label for clip in clips}
    for split in split_into_folds(clips, 5):
        assert {label[i] for i in split.test} == {"dive", "jump", "walk"}


def test_fewer_groups_than_folds_is_refused_with_the_numbers() -> None:
    clips = [*make_clips(n_groups=6), *make_clips(classes=["swim"], n_groups=2)]
    with pytest.raises(SplitImpossible, match="5 folds need at least 5 groups.*'swim' has 2"):
        split_into_folds(clips, 5)
    with pytest.raises(SplitImpossible, match="--folds 2"):
        split_into_folds(clips, 5)
    with pytest.raises(OptionInvalid, match="at least 2"):
        split_into_folds(clips, 1)


def test_one_class_or_no_labels_is_refused() -> None:
    with pytest.raises(SplitImpossible, match="at least two classes.*1: dive"):
        split_by_groups(make_clips(classes=["dive"]))
    clips = [replace(clip, label="") for clip in make_clips()]
    with pytest.raises(SplitImpossible, match="36 of 36 have none.*--labels"):
        split_by_groups(clips)


def test_no_group_to_spare_is_refused() -> None:
    with pytest.raises(SplitImpossible, match="groups that can be spared.*is in 1"):
        split_by_groups(make_clips(n_groups=1))
    with pytest.raises(SplitImpossible, match="Validation needs a group"):
        split_by_groups(make_clips(n_groups=2, per_group=3))
    with pytest.raises(OptionInvalid, match="between 0 and 1"):
        split_by_groups(make_clips(), test_fraction=1.5)


def test_column_is_used_as_it_is() -> None:
    clips = [
        replace(clip, split="test" if "_g01_" in clip.clip_id else "train") for clip in make_clips()
    ]
    clips[-1] = replace(clips[-1], split="")
    split = split_by_column(clips)
    assert all("_g01_" in clip_id for clip_id in split.test)
    assert len(split.test) == 6
    assert split.excluded == (clips[-1].clip_id,)
    assert split.val


def test_column_with_validation_is_not_cut() -> None:
    parts = {"_g01_": "test", "_g02_": "val"}
    clips = [
        replace(c, split=next((p for key, p in parts.items() if key in c.clip_id), "train"))
        for c in make_clips()
    ]
    assert all("_g02_" in clip_id for clip_id in split_by_column(clips).val)


def test_column_without_test_part_is_refused() -> None:
    clips = [replace(clip, split="train") for clip in make_clips()]
    with pytest.raises(SplitImpossible, match="No clip of 36 is marked 'test'; parts found: train"):
        split_by_column(clips)


def test_class_that_is_only_tested_is_refused() -> None:
    clips = [
        replace(clip, split="test" if clip.label == "walk" else "train") for clip in make_clips()
    ]
    with pytest.raises(SplitImpossible, match="'walk' has no clip in the training part"):
        split_by_column(clips)


def test_groups_come_from_the_regex_the_record_or_the_clip() -> None:
    clips = [make_clip("a/p1_x_d2.avi", "a", "given"), make_clip("b/p2_y_d3.avi", "b")]
    assert list(assign_groups(clips).values()) == ["given", "b/p2_y_d3.avi"]
    assert not groups_are_known(assign_groups(clips))
    assert list(assign_groups(clips, r"p(\d)").values()) == ["1", "2"]
    assert list(assign_groups(clips, r"p(\d).*d(\d)").values()) == ["1/2", "2/3"]
    assert list(assign_groups(clips, r"p\d").values()) == ["p1", "p2"]
    with pytest.raises(OptionInvalid, match=r"does not match 1 of 2 clips.*a/p1_x"):
        assign_groups(clips, "p2")
    with pytest.raises(OptionInvalid, match="regular expression"):
        assign_groups(clips, "(")


def test_leaks_are_refused_or_marked() -> None:
    clips = make_clips()
    groups = assign_groups(clips)
    ids = [clip.clip_id for clip in clips]
    split = Split(tuple(ids[2:-1]), (ids[-1],), tuple(ids[:2]), method="by hand")
    leaky = replace(split, test=(*split.test, ids[2]), train=tuple(ids[3:-1]))
    assert find_leaks(leaky, groups) == ("dive_g02", "walk_g06")
    with pytest.raises(SplitLeaks, match="'dive_g02' is in train and test.*1 of 3 test clips"):
        require_no_leaks(leaky, groups, allow_leaks=False)
    with pytest.raises(SplitLeaks, match="--allow-leaks"):
        require_no_leaks(leaky, groups, allow_leaks=False)
    assert require_no_leaks(leaky, groups, allow_leaks=True).leaks


def test_cut_part_is_quick_for_many_groups() -> None:
    clips = make_clips(classes=[f"c{i:03d}" for i in range(40)], n_groups=25, per_group=1)
    chosen = cut_part(clips, assign_groups(clips), 0.2, seed=0)
    counts = np.unique([name.partition("_")[0] for name in chosen], return_counts=True)[1]
    assert counts.tolist() == [5] * 40


def test_doubts_about_groups_are_said() -> None:
    known = make_clips(n_groups=2)
    groups = assign_groups(known)
    assert find_group_doubts(known, groups) == ()
    mixed = [replace(known[0], group=""), *known[1:]]
    (doubt,) = find_group_doubts(mixed, assign_groups(mixed))
    assert doubt.startswith(f"Groups unknown for 1 of {len(known)} clips: each of them counts")
    alone = [replace(clip, group="") for clip in known]
    (doubt,) = find_group_doubts(alone, assign_groups(alone))
    assert doubt.startswith("Groups unknown: every clip counts as its own group")
    regex = r"(v_\w+)\.avi"
    (doubt,) = find_group_doubts(known, assign_groups(known, regex), regex)
    assert doubt.startswith("Groups of one: every clip is a group of its own by --group-regex")


def test_two_persons_in_one_name_are_noticed() -> None:
    clips = [
        make_clip(f"fight/{name}.avi", "fight", name.partition("_")[0])
        for name in ("person01_d1", "person01_person02", "person02_d1", "person03_d1")
    ]
    (doubt,) = find_group_doubts(clips, assign_groups(clips))
    assert doubt.startswith("Two groups in one name: 1 clip names another group")
    assert "'fight/person01_person02.avi', of 'person01', which names 'person02'" in doubt
