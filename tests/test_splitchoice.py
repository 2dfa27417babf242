"""Which split a command uses: files, options that change it, and what is recorded of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stage2_helpers import make_clip, make_clips, write_store

from features import open_store
from features.errors import OptionInvalid, SplitImpossible, SplitLeaks
from pipeline import Split, SplitOptions, read_split, write_split
from pipeline.splits.choose import choose_split, choose_splits
from pipeline.splits.leaks import require_no_leaks


def test_split_files_come_back_whole(tmp_path: Path) -> None:
    known = (3, False, True, ("d.avi",), "--group-regex 'ä'", "f" * 64, 0.4)
    split = Split(("a\udcff.avi",), ("b.avi",), ("é/c.avi",), "m", *known)
    write_split(tmp_path / "s.json", split)
    assert read_split(tmp_path / "s.json") == split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Reading"),
        ("[]", "JSON object"),
        ('{"train": ["a"], "test": "b"}', "list of clip ids"),
        ('{"train": ["a"], "test": ["a"]}', "'a' stands twice"),
        ('{"train": ["a"], "test": []}', "'test' of a split must name a clip"),
        ('{"train": ["a"], "test": ["b"], "joined_above": "x"}', "must be numbers"),
    ],
)
def test_broken_split_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SplitImpossible, match=message):
        read_split(tmp_path / "s.json")


def test_choice_of_split(tmp_path: Path) -> None:
    clips = make_clips()
    failed = [make_clip("dive/broken.avi", "dive", "dive_g09")]
    store = open_store(write_store(tmp_path / "s.h5", clips, failed=failed))
    made, _ = choose_split(store, SplitOptions(), seed=4)
    assert made.method == "whole groups, stratified"
    assert "dive/broken.avi" not in (*made.train, *made.val, *made.test, *made.excluded)
    by_hand = tmp_path / "split.json"
    train = [clip.clip_id for clip in clips[2:]]
    by_hand.write_text(json.dumps({"train": train, "test": [clips[0].clip_id]}))
    read, _ = choose_split(store, SplitOptions(split=by_hand))
    assert read.test == (clips[0].clip_id,)
    assert read.val
    assert read.excluded == (clips[1].clip_id,)
    leaky = replace(made, train=made.train[1:], test=(*made.test, made.train[0]))
    with pytest.raises(SplitLeaks):
        choose_split(store, SplitOptions(split=leaky))


def test_clips_of_a_split_file_that_are_gone_need_permission(tmp_path: Path) -> None:
    clips = make_clips()
    made, _ = choose_split(open_store(write_store(tmp_path / "all.h5", clips)), SplitOptions())
    gone = {*made.train[:3], *made.val[:2], made.test[0]}
    failed = [clip for clip in clips if clip.clip_id in gone]
    kept = [clip for clip in clips if clip.clip_id not in gone]
    store = open_store(write_store(tmp_path / "s.h5", kept, failed=failed))
    lacks = (
        rf"lacks 3 of its {len(made.train)} train clips and 2 of its {len(made.val)} val clips "
        rf"and 1 of its {len(made.test)} test clips; '{min(gone)}' failed.*--allow-missing"
    )
    with pytest.raises(SplitImpossible, match=lacks):
        choose_split(store, SplitOptions(split=made))
    foreign = replace(made, train=(*made.train, "nowhere.avi"))
    with pytest.raises(SplitImpossible, match=r"lacks 4 of .*'nowhere\.avi' is not in it"):
        choose_split(store, SplitOptions(split=foreign))
    went_on, _ = choose_split(store, SplitOptions(split=made, allow_missing=True))
    assert went_on.missing == tuple(sorted(gone))
    assert went_on.method == made.method
    for part in ("train", "val", "test"):
        assert getattr(went_on, part) == tuple(i for i in getattr(made, part) if i not in gone)
    # What is missing stays known, though the new file no longer names it in a part.
    write_split(tmp_path / "split.json", went_on)
    again, _ = choose_split(store, SplitOptions(split=tmp_path / "split.json"))
    assert again == went_on


def test_validation_clips_that_are_all_gone_are_replaced_and_this_is_said(tmp_path: Path) -> None:
    clips = make_clips()
    made, _ = choose_split(open_store(write_store(tmp_path / "all.h5", clips)), SplitOptions())
    kept = [clip for clip in clips if clip.clip_id not in made.val]
    store = open_store(write_store(tmp_path / "s.h5", kept))
    with pytest.raises(SplitImpossible, match=r"lacks \d+ of its \d+ val clips;"):
        choose_split(store, SplitOptions(split=made))
    anew, _ = choose_split(store, SplitOptions(split=made, allow_missing=True))
    assert anew.val
    assert set(anew.val) < set(made.train)
    assert anew.test == made.test
    assert anew.method == f"{made.method}; validation cut anew"
    tested = [clip for clip in clips if clip.clip_id not in made.test]
    store = open_store(write_store(tmp_path / "t.h5", tested))
    with pytest.raises(SplitImpossible, match="needs a test clip.*has embeddings of none"):
        choose_split(store, SplitOptions(split=made, allow_missing=True))


def test_test_fraction_is_refused_where_the_column_decides(tmp_path: Path) -> None:
    clips = [
        replace(clip, split="test" if clip.group.endswith("01") else "train")
        for clip in make_clips()
    ]
    store = open_store(write_store(tmp_path / "s.h5", clips))
    assert choose_split(store, SplitOptions())[0].method == "the split column"
    with pytest.raises(OptionInvalid, match="--test-fraction .* split column"):
        choose_split(store, SplitOptions(test_fraction=0.2))


def test_a_column_that_says_nothing_of_the_test_part(tmp_path: Path) -> None:
    clips = [replace(clip, split="train") for clip in make_clips()]
    unlabelled = replace(make_clip("test/a.avi", "", ""), split="test")
    store = open_store(write_store(tmp_path / "s.h5", [*clips, unlabelled]))
    split = choose_split(store, SplitOptions())[0]
    assert split.test
    assert "test/a.avi" not in (*split.train, *split.val, *split.test)
    assert split.method.endswith("; the split column marks no clip with a label for testing")
    some = [replace(clip, split="val") for clip in clips[:2]] + clips[2:]
    store = open_store(write_store(tmp_path / "v.h5", some))
    with pytest.raises(SplitImpossible, match="--test-fraction"):
        choose_split(store, SplitOptions())
    assert choose_split(store, SplitOptions(test_fraction=0.3))[0].test


def test_split_files_tell_what_made_them(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    by_regex = SplitOptions(group_regex=r"(g\d+)_")
    for seed, options, groups_from, joined in (
        (2, SplitOptions(), "the store", False),
        (2, by_regex, "--group-regex '(g\\d+)_'", False),
        (0, SplitOptions(join_near_duplicates=True), "the store, near-duplicates joined", True),
    ):
        made, _ = choose_split(store, options, seed=seed)
        assert made.seed == seed
        assert made.groups_from == groups_from
        assert (made.joined_above is not None) == joined
        assert made.store_fingerprint == store.header.fingerprint
        write_split(tmp_path / "split.json", made)
        again, _ = choose_split(store, SplitOptions(split=tmp_path / "split.json"), seed=9)
        assert again == made
    ungrouped = [replace(clip, group="") for clip in make_clips()]
    store = open_store(write_store(tmp_path / "u.h5", ungrouped))
    made, _ = choose_split(store, SplitOptions())
    assert made.groups_from == "the store, unknown for 36 of 36 clips"
    assert made.method == "single clips, stratified"
    assert not made.groups_known


def test_ignoring_groups_splits_by_clip_and_is_marked(tmp_path: Path) -> None:
    clips = make_clips(n_groups=3, per_group=6)
    store = open_store(write_store(tmp_path / "s.h5", clips))
    options = SplitOptions(ignore_groups=True, allow_leaks=True)
    split, groups = choose_split(store, options)
    folds, _ = choose_splits(store, options, 6)  # more folds than groups
    assert sorted(i for fold in folds for i in fold.test) == sorted(c.clip_id for c in clips)
    for item in (split, *folds):
        parts = (*item.train, *item.val, *item.test)
        assert sorted(parts) == sorted(clip.clip_id for clip in clips)
        assert item.leaks
        assert item.groups_known
        assert item.method.endswith("single clips, stratified, groups ignored")
    # The groups themselves stay known: intervals and leak checks use them.
    assert len(set(groups.values())) == 9


def test_ignoring_groups_does_not_leak_where_every_clip_is_a_group(tmp_path: Path) -> None:
    clips = make_clips(n_groups=12, per_group=1)
    store = open_store(write_store(tmp_path / "s.h5", clips))
    split, _ = choose_split(store, SplitOptions(ignore_groups=True, allow_leaks=True))
    assert not split.leaks


def test_ignoring_groups_where_it_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="--ignore-groups needs --allow-leaks"):
        SplitOptions(ignore_groups=True)
    with pytest.raises(OptionInvalid, match="--ignore-groups and --split exclude"):
        SplitOptions(ignore_groups=True, allow_leaks=True, split="s.json")
    with pytest.raises(OptionInvalid, match="--ignore-groups and --test-lists exclude"):
        SplitOptions(ignore_groups=True, allow_leaks=True, test_lists="lists")
    with pytest.raises(OptionInvalid, match="--ignore-groups and --join-near-duplicates exclude"):
        SplitOptions(ignore_groups=True, allow_leaks=True, join_near_duplicates=True)
    clips = [replace(c, split="test" if "_g01_" in c.clip_id else "train") for c in make_clips()]
    store = open_store(write_store(tmp_path / "s.h5", clips))
    with pytest.raises(OptionInvalid, match="--ignore-groups cannot be used.*split column"):
        choose_split(store, SplitOptions(ignore_groups=True, allow_leaks=True))


def test_a_leaky_split_stays_marked_where_groups_are_not_known(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    options = SplitOptions(ignore_groups=True, allow_leaks=True)
    write_split(tmp_path / "leaky.json", choose_split(store, options)[0])
    ungrouped = [replace(clip, group="") for clip in make_clips()]
    other = open_store(write_store(tmp_path / "u.h5", ungrouped))
    with pytest.raises(SplitLeaks, match="marked LEAKY.*groups ignored.*--allow-leaks"):
        choose_split(other, SplitOptions(split=tmp_path / "leaky.json"))
    again = SplitOptions(split=tmp_path / "leaky.json", allow_leaks=True)
    assert choose_split(other, again)[0].leaks


def test_folds_with_a_given_split_are_refused(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    with pytest.raises(OptionInvalid, match="--folds and --split exclude"):
        choose_splits(store, SplitOptions(split="s.json"), 3)
    assert len(choose_splits(store, SplitOptions())[0]) == 5


def test_marked_splits_need_permission() -> None:
    split = Split(("a",), ("b",), ("c",), method="by hand", leaks=True)
    groups = {"a": "1", "b": "2", "c": "3"}
    with pytest.raises(SplitLeaks, match="must not be marked LEAKY"):
        require_no_leaks(split, groups, allow_leaks=False)
    assert require_no_leaks(split, groups, allow_leaks=True).leaks
