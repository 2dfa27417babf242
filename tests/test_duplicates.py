"""Near-duplicates: found whatever the order and blocks, reported everywhere, joined on wish."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import UCF_MINI
from hypothesis import given, settings
from hypothesis import strategies as st
from stage2_helpers import make_clip, make_header

from features import BackboneOptions, Store, extract_features, open_store
from features.errors import SplitLeaks
from features.records import ClipEmbedding, EmbeddedClip
from features.store.commit import commit_clips, merge_parts
from pipeline import Split, SplitOptions
from pipeline.splits.choose import choose_split
from pipeline.splits.duplicates import Pair, find_near_duplicates
from pipeline.splits.groups import assign_groups, join_groups
from pipeline.splits.leaks import (
    NearDuplicate,
    describe_near_duplicates,
    find_leaks,
    find_straddling_duplicates,
)

DIM = 24
Vectors = npt.NDArray[np.float32]


def make_course(seed: int, *, n_frames: int = 12, towards: int = 0) -> Vectors:
    """One recording: a scene, a class, and a course of its own."""
    rng = np.random.default_rng(seed)
    scene = 3 + rng.normal(size=DIM) + 2 * np.eye(DIM)[towards]
    steps = np.cumsum(rng.normal(size=(n_frames, DIM)), axis=0)
    course: Vectors = (scene + 0.5 * steps).astype(np.float32)
    return course


def copy_of(vectors: Vectors, *, seed: int = 0) -> Vectors:
    """The same recording, saved again."""
    noise = 0.05 * np.random.default_rng(seed).normal(size=vectors.shape)
    return (vectors + noise).astype(np.float32)


def write_vectors(path: Path, content: Mapping[str, Vectors], *, groups: bool = True) -> Store:
    pending = []
    for clip_id, vectors in content.items():
        label = clip_id.partition("/")[0]
        n = len(vectors)
        record = make_clip(clip_id, label, f"of {clip_id}" if groups else "", n_frames=n)
        pending.append(
            EmbeddedClip(record, ClipEmbedding(vectors, np.arange(n) / 25, np.arange(n)))
        )
    commit_clips(path, make_header(DIM), pending, {"by": "test"})
    merge_parts(path)
    return open_store(path)


def find_pairs(store: Store, sides: Mapping[str, str]) -> tuple[Pair, ...]:
    return find_near_duplicates(store, sides, assign_groups(store.clips)).pairs


def two_classes(n_each: int = 6) -> dict[str, Vectors]:
    return {
        f"{label}/{number}.avi": make_course(100 * towards + number, towards=towards)
        for towards, label in enumerate(("hop", "sit"))
        for number in range(n_each)
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Twelve recordings; one of each class was saved twice."""
    content = two_classes()
    content["hop/copy.avi"] = copy_of(content["hop/2.avi"])
    content["sit/copy.avi"] = copy_of(content["sit/3.avi"])[1:]
    return write_vectors(tmp_path / "s.h5", content)


def test_copies_are_found_and_nothing_else(store: Store) -> None:
    apart = {clip.clip_id: clip.clip_id for clip in store.clips}
    pairs = find_pairs(store, apart)
    assert {pair[:2] for pair in pairs} == {
        ("hop/2.avi", "hop/copy.avi"),
        ("sit/3.avi", "sit/copy.avi"),
    }
    assert all(0.8 < pair.similarity <= 1 for pair in pairs)
    assert find_pairs(store, {"hop/1.avi": "x"}) == ()
    assert find_pairs(store, {"hop/1.avi": "x", "sit/1.avi": "y"}) == ()


def test_stills_are_only_the_same_where_they_look_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture, other = (np.abs(rng.normal(size=DIM)) + 1 for _ in range(2))
    still = np.repeat(picture[None], 3, axis=0).astype(np.float32)
    content = {
        "a/still.avi": still,
        "a/again.avi": still[:1],
        "a/other.avi": np.repeat(other[None], 3, axis=0).astype(np.float32),
        "a/black.avi": np.zeros((2, DIM), np.float32),
    }
    store = write_vectors(tmp_path / "s.h5", content)
    pairs = find_pairs(store, {clip_id: clip_id for clip_id in content})
    assert [pair[:2] for pair in pairs] == [("a/again.avi", "a/still.avi")]


@given(
    # Where most clips have several copies, the store does not show how alike others are.
    originals=st.lists(st.integers(0, 5), min_size=2, max_size=14).filter(
        lambda found: max(map(found.count, found)) <= 3
    ),
    sides=st.lists(st.sampled_from("xyz"), min_size=14, max_size=14),
    block=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_what_is_found_does_not_depend_on_how(
    originals: list[int], sides: list[str], block: int, seed: int
) -> None:
    content = {
        f"c/{row}.avi": copy_of(make_course(original + seed), seed=row)
        for row, original in enumerate(originals)
    }
    content |= {f"c/other{number}.avi": make_course(1000 + number) for number in range(6)}
    side_of = dict(zip(content, [*sides[: len(originals)], *"xyzxyz"], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        store = write_vectors(Path(folder) / "s.h5", content)
        groups = assign_groups(store.clips)
        pairs = find_pairs(store, side_of)
        assert pairs == find_near_duplicates(store, side_of, groups, block_clips=block).pairs
        renamed = {clip_id: {"x": "z", "z": "x"}.get(s, s) for clip_id, s in side_of.items()}
        assert pairs == find_pairs(store, renamed)
    for pair in pairs:
        assert pair.clip_id < pair.other_id
        assert side_of[pair.clip_id] != side_of[pair.other_id]
        assert 0 < pair.similarity <= 1
    assert len({pair[:2] for pair in pairs}) == len(pairs)
    copies = list(zip(content, originals, strict=False))
    assert {pair[:2] for pair in pairs} == {
        (one, other)
        for one, original in copies
        for other, other_original in copies
        if one < other and original == other_original and side_of[one] != side_of[other]
    }


def test_clips_that_do_the_same_are_not_copies(tmp_path: Path) -> None:
    # Drawn stores look like this: few movements, done by everybody, before plain grounds.
    rng = np.random.default_rng(3)
    movements = [np.cumsum(rng.normal(size=(12, DIM)), axis=0) for _ in range(4)]
    content = {}
    for number in range(120):
        ground, way = 3 + rng.normal(size=DIM), np.cumsum(rng.normal(size=(12, DIM)), axis=0)
        vectors = ground + movements[number % 4] + 0.35 * way
        content[f"c{number % 4}/{number:03d}.avi"] = vectors.astype(np.float32)
    plain = write_vectors(tmp_path / "plain.h5", content)
    apart = {clip_id: clip_id for clip_id in content}
    found = find_near_duplicates(plain, apart, apart)
    assert found.pairs == ()
    assert found.above > 0.3
    # And if half of the clips are there twice, these are found.
    copied = list(content)[::2]
    twice = {**content, **{f"{name[:-4]}b.avi": copy_of(content[name]) for name in copied}}
    pairs = find_pairs(write_vectors(tmp_path / "twice.h5", twice), {i: i for i in twice})
    assert {pair[:2] for pair in pairs} == {(name, f"{name[:-4]}b.avi") for name in copied}


def test_pairs_are_told_by_their_parts(store: Store) -> None:
    groups = assign_groups(store.clips)
    rest = ("hop/1.avi", "sit/1.avi")
    split = Split(("hop/2.avi", *rest), ("sit/3.avi",), ("hop/copy.avi", "sit/copy.avi"), "m")
    pairs, n_tested = find_straddling_duplicates(store, [split], groups)
    assert n_tested == 2
    assert {(p.clip_id, p.part, p.other_id, p.other_part) for p in pairs} == {
        ("hop/copy.avi", "test", "hop/2.avi", "train"),
        ("sit/copy.avi", "test", "sit/3.avi", "val"),
    }
    text = describe_near_duplicates(pairs, n_tested, 2)
    assert text.startswith("2 of 2 test clips have a near-duplicate")
    assert "hop/copy.avi ~ hop/2.avi (" in text
    within_val = Split(("hop/2.avi",), ("hop/copy.avi",), ("sit/1.avi",), "m")
    pairs, n_tested = find_straddling_duplicates(store, [within_val], groups)
    assert (n_tested, [p.part for p in pairs]) == (0, ["val"])
    assert "1 validation clip with" in describe_near_duplicates(pairs, n_tested, 1)
    together = Split(rest, ("sit/2.avi",), ("hop/2.avi", "hop/copy.avi"), "m")
    assert find_straddling_duplicates(store, [together], groups) == ((), 0)
    assert describe_near_duplicates((), 0, 2) == ""


def test_many_pairs_are_named_in_part() -> None:
    pairs = [NearDuplicate(f"t{i}", "test", f"o{i}", "train", 0.5) for i in range(9)]
    assert "and 6 pairs more" in describe_near_duplicates(pairs, 9, 20)


def test_groups_that_near_duplicates_connect_are_one() -> None:
    groups = {"a": "1", "b": "2", "c": "3", "d": "3", "e": "5"}
    joined = join_groups(groups, [("a", "c"), ("d", "b")])
    assert joined == {"a": "1", "b": "1", "c": "1", "d": "1", "e": "5"}
    assert join_groups(groups, []) == groups


def test_joined_near_duplicates_stand_on_one_side(store: Store) -> None:
    for seed in range(6):
        split, groups = choose_split(store, SplitOptions(join_near_duplicates=True), seed=seed)
        assert groups["hop/2.avi"] == groups["hop/copy.avi"]
        assert find_straddling_duplicates(store, [split], groups) == ((), 0)
        assert find_leaks(split, groups) == ()
    names = sorted(assign_groups(store.clips))
    leaky = Split(
        tuple(i for i in names if "copy" not in i and "1" not in i),
        ("hop/1.avi",),
        ("hop/copy.avi", "sit/1.avi"),
        "by hand",
    )
    assert not choose_split(store, SplitOptions(split=leaky))[0].leaks
    with pytest.raises(SplitLeaks, match="Group 'of hop/2.avi' is in train and test"):
        choose_split(store, SplitOptions(split=leaky, join_near_duplicates=True))


@pytest.mark.usefixtures("material")
def test_real_near_duplicates_of_different_groups_are_found(tmp_path: Path) -> None:
    # In UCF101, groups 1 and 10 of this class are cuts of one broadcast.
    stem = "BasketballDunk/v_BasketballDunk"
    groups = (1, 10, 2, 3, 8, 9, 11, 12)
    names = [f"{stem}_g{g:02d}_c{c:02d}.avi" for g in groups for c in (1, 2)]
    for name in names:
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).symlink_to(UCF_MINI / name)
    extract_features(tmp_path / "v", tmp_path / "s.h5", backbone=BackboneOptions(alpha=0.35))
    store = open_store(tmp_path / "s.h5")
    pairs = find_pairs(store, {clip.clip_id: clip.group for clip in store.clips})
    # The weaker pair is missed where all clips are of one class.
    assert (names[1], names[3]) in {pair[:2] for pair in pairs}
    assert {pair[:2] for pair in pairs} <= {(names[0], names[2]), (names[1], names[3])}
