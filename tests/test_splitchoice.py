"""Which split a command uses: files, options that change it, and what is recorded of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stage2_helpers import make_clip, make_clips, write_store

from features.errors import OptionInvalid, SplitImpossible, SplitLeaks
from features.store.store import open_store
from pipeline.splits.choose import choose_split, choose_splits
from pipeline.splits.files import read_split, write_split
from pipeline.splits.leaks import require_no_leaks
from pipeline.splits.split import Split
from pipeline.splits.splitrequest import SplitRequest


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
    made, _ = choose_split(store, SplitRequest(seed=4))
    assert made.method == "whole groups, stratified"
    assert "dive/broken.avi" not in (*made.train, *made.val, *made.test, *made.excluded)
    by_hand = tmp_path / "split.json"
    train = [*(clip.clip_id for clip in clips[2:]), "dive/broken.avi"]
    by_hand.write_text(json.dumps({"train": train, "test": [clips[0].clip_id]}))
    read, _ = choose_split(store, SplitRequest(split=by_hand))
    assert read.test == (clips[0].clip_id,)
    assert read.val
    assert read.excluded == (clips[1].clip_id,)
    leaky = replace(made, train=made.train[1:], test=(*made.test, made.train[0]))
    with pytest.raises(SplitLeaks):
        choose_split(store, SplitRequest(split=leaky))
    foreign = replace(made, train=(*made.train, "nowhere.avi"))
    with pytest.raises(SplitImpossible, match=r"lacks 1 of .*nowhere\.avi"):
        choose_split(store, SplitRequest(split=foreign))


def test_test_fraction_is_refused_where_the_column_decides(tmp_path: Path) -> None:
    clips = [
        replace(clip, split="test" if clip.group.endswith("01") else "train")
        for clip in make_clips()
    ]
    store = open_store(write_store(tmp_path / "s.h5", clips))
    assert choose_split(store, SplitRequest())[0].method == "the split column"
    with pytest.raises(OptionInvalid, match="--test-fraction .* split column"):
        choose_split(store, SplitRequest(test_fraction=0.2))


def test_split_files_tell_what_made_them(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    for request, groups_from, joined in (
        (SplitRequest(seed=2), "the store", None),
        (SplitRequest(group_regex=r"(g\d+)_", seed=2), "--group-regex '(g\\d+)_'", None),
        (SplitRequest(join_near_duplicates=True), "the store, near-duplicates joined", 0.4),
    ):
        made, _ = choose_split(store, request)
        assert made.seed == request.seed
        assert made.groups_from == groups_from
        assert made.joined_above == joined
        assert made.store_fingerprint == store.header.fingerprint
        write_split(tmp_path / "split.json", made)
        again, _ = choose_split(store, SplitRequest(split=tmp_path / "split.json", seed=9))
        assert again == made
    ungrouped = [replace(clip, group="") for clip in make_clips()]
    store = open_store(write_store(tmp_path / "u.h5", ungrouped))
    made, _ = choose_split(store, SplitRequest())
    assert made.groups_from == "the store, unknown for 36 of 36 clips"
    assert made.method == "single clips, stratified"
    assert not made.groups_known


def test_ignoring_groups_splits_by_clip_and_is_marked(tmp_path: Path) -> None:
    clips = make_clips(n_groups=3, per_group=6)
    store = open_store(write_store(tmp_path / "s.h5", clips))
    request = SplitRequest(ignore_groups=True, allow_leaks=True)
    split, groups = choose_split(store, request)
    folds, _ = choose_splits(store, request, 6)  # more folds than groups
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
    split, _ = choose_split(store, SplitRequest(ignore_groups=True, allow_leaks=True))
    assert not split.leaks


def test_ignoring_groups_where_it_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="--ignore-groups needs --allow-leaks"):
        SplitRequest(ignore_groups=True)
    with pytest.raises(OptionInvalid, match="--ignore-groups and --split exclude"):
        SplitRequest(ignore_groups=True, allow_leaks=True, split="s.json")
    with pytest.raises(OptionInvalid, match="--ignore-groups and --test-lists exclude"):
        SplitRequest(ignore_groups=True, allow_leaks=True, test_lists="lists")
    with pytest.raises(OptionInvalid, match="--ignore-groups and --join-near-duplicates exclude"):
        SplitRequest(ignore_groups=True, allow_leaks=True, join_near_duplicates=True)
    clips = [replace(c, split="test" if "_g01_" in c.clip_id else "train") for c in make_clips()]
    store = open_store(write_store(tmp_path / "s.h5", clips))
    with pytest.raises(OptionInvalid, match="--ignore-groups cannot be used.*split column"):
        choose_split(store, SplitRequest(ignore_groups=True, allow_leaks=True))


def test_a_leaky_split_stays_marked_where_groups_are_not_known(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    request = SplitRequest(ignore_groups=True, allow_leaks=True)
    write_split(tmp_path / "leaky.json", choose_split(store, request)[0])
    ungrouped = [replace(clip, group="") for clip in make_clips()]
    other = open_store(write_store(tmp_path / "u.h5", ungrouped))
    with pytest.raises(SplitLeaks, match="marked LEAKY.*groups ignored.*--allow-leaks"):
        choose_split(other, SplitRequest(split=tmp_path / "leaky.json"))
    again = SplitRequest(split=tmp_path / "leaky.json", allow_leaks=True)
    assert choose_split(other, again)[0].leaks


def test_folds_with_a_given_split_are_refused(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.h5", make_clips()))
    with pytest.raises(OptionInvalid, match="--folds and --split exclude"):
        choose_splits(store, SplitRequest(split="s.json"), 3)
    assert len(choose_splits(store, SplitRequest())[0]) == 5


def test_marked_splits_need_permission() -> None:
    split = Split(("a",), ("b",), ("c",), method="by hand", leaks=True)
    groups = {"a": "1", "b": "2", "c": "3"}
    with pytest.raises(SplitLeaks, match="must not be marked LEAKY"):
        require_no_leaks(split, groups, allow_leaks=False)
    assert require_no_leaks(split, groups, allow_leaks=True).leaks
