from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import linux_only
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import DIM, ENTRY, HEADER, make_clip, make_failure, write_store

from features.errors import (
    OutputUnwritable,
    StoreBusy,
    StoreDamaged,
    StoreMismatch,
    StoreNotFound,
    StoreUnfinished,
)
from features.records import FrameSampling, StoreHeader
from features.store.commit import commit_clips, lock_store, merge_parts
from features.store.inspect import inspect_store
from features.store.repair import repair_store
from features.store.store import (
    done_clips,
    find_damage,
    open_store,
    parts_folder,
    read_clip,
    read_embeddings,
    remove_store,
    require_same_settings,
)

ids = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12
)


@settings(max_examples=25, deadline=None)
@given(
    clips=st.dictionaries(ids, st.integers(0, 30), max_size=12),
    n_commits=st.integers(1, 4),
)
def test_what_goes_in_comes_out(clips: dict[str, int], n_commits: int) -> None:
    made = [make_clip(clip_id, n, seed=len(clip_id)) for clip_id, n in clips.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        write_store(path, *(made[start::n_commits] for start in range(n_commits)))
        store = open_store(path)
        assert [clip.clip_id for clip in store.clips] == sorted(clips)
        assert store.header == HEADER
        whole = read_embeddings(store)
        wanted = {clip.record.clip_id: clip.embedding for clip in made}
        for index, clip in enumerate(done_clips(store)):
            embedding = wanted[clip.clip_id]
            assert embedding is not None
            rows = whole.vectors[whole.starts[index] : whole.starts[index + 1]]
            np.testing.assert_array_equal(rows, embedding.vectors)
            one = read_clip(store, clip.clip_id)
            np.testing.assert_array_equal(one.vectors, embedding.vectors)
            np.testing.assert_array_equal(one.timestamps_seconds, embedding.timestamps_seconds)
            np.testing.assert_array_equal(one.frame_indices, embedding.frame_indices)
        assert find_damage(store) == ()


def test_content_does_not_depend_on_the_commits(tmp_path: Path) -> None:
    clips = [make_clip(f"{index:02d}.avi", 3 + index, seed=index) for index in range(9)]
    one = write_store(tmp_path / "one.h5", clips)
    many = write_store(tmp_path / "many.h5", clips[5:], [make_failure("zz")], clips[:5])
    again = write_store(tmp_path / "one.h5", [make_failure("zz")])
    assert open_store(many).clips == open_store(again).clips
    assert one.read_bytes()[:8] == many.read_bytes()[:8]
    np.testing.assert_array_equal(
        read_embeddings(open_store(one)).vectors, read_embeddings(open_store(many)).vectors
    )


def test_embeddings_of_chosen_clips_in_the_order_asked(tmp_path: Path) -> None:
    clips = [make_clip(name, 4, seed=ord(name)) for name in "abc"]
    store = open_store(write_store(tmp_path / "s.h5", clips))
    chosen = read_embeddings(store, [store.clips[2], store.clips[0]], dtype="float32")
    assert chosen.vectors.dtype == np.float32
    assert clips[2].embedding is not None
    np.testing.assert_array_equal(chosen.vectors[:4], clips[2].embedding.vectors)
    assert chosen.starts.tolist() == [0, 4, 8]


def test_a_newer_commit_replaces_a_clip(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3), make_clip("b", 2)])
    write_store(path, [make_clip("a", 5, seed=1)])
    assert [(clip.clip_id, clip.n_frames) for clip in open_store(path).clips] == [
        ("a", 5),
        ("b", 2),
    ]


def test_five_lines_of_plain_h5py_read_it(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3), make_clip("b", 2, label="walk")])
    with h5py.File(path) as file:
        labels = file["clips/label"].asstr()[:]
        first, length = file["clips/offset"][1], file["clips/n_frames"][1]
        vectors = file["embeddings"][first : first + length]
    assert labels.tolist() == ["jump", "walk"]
    assert vectors.shape == (2, DIM)


def test_parts_that_were_merged_never_come_back(tmp_path: Path) -> None:
    """A kill between the merge and the deletion of its parts, with a clip that moved."""
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    commit_clips(path, HEADER, [make_clip("b", 3)], ENTRY)
    saved = tmp_path / "saved"
    shutil.copytree(parts_folder(path), saved)
    merge_parts(path, update=lambda row: replace(row, clip_id=row.clip_id + "-moved"))
    shutil.copytree(saved, parts_folder(path))
    assert [clip.clip_id for clip in open_store(path).clips] == ["a-moved", "b-moved"]
    commit_clips(path, HEADER, [make_clip("c", 3)], ENTRY)
    assert [clip.clip_id for clip in merge_parts(path).clips] == ["a-moved", "b-moved", "c"]


def test_an_unfinished_store_opens_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    commit_clips(path, HEADER, [], ENTRY)
    commit_clips(path, HEADER, [make_clip("a", 3)], ENTRY)
    assert not path.exists(), "a file that exists is a file that is finished"
    with pytest.raises(StoreUnfinished, match="has 2 commits of an extraction .* Hint: run the"):
        open_store(path)
    store = open_store(path, allow_unfinished=True)
    assert [clip.clip_id for clip in store.clips] == ["a"]
    assert inspect_store(path).n_parts == 2


def test_missing_store_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match=r"s.h5' does not exist. Hint: make it: framehead"):
        open_store(tmp_path / "s.h5")
    with pytest.raises(StoreNotFound, match="is a folder"):
        open_store(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(StoreDamaged, match=r"text.h5' \(5 bytes\) failed"):
        open_store(text)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(StoreDamaged, match="HDF5 but of another kind"):
        open_store(other)


def test_other_settings_are_named(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    other = StoreHeader(HEADER.backbone, FrameSampling("fps", 5.0))
    commit_clips(path, other, [make_clip("b", 3)], ENTRY)
    expected = r"fingerprint \w{12}, .* \(sampling: store --frames 20, asked --fps 5\)"
    with pytest.raises(StoreMismatch, match=expected):
        open_store(path, allow_unfinished=True)


def test_where_weights_lay_does_not_change_the_fingerprint() -> None:
    fields = json.loads(HEADER.to_json())
    fields["backbone"]["weights"] = "/elsewhere/w.h5"
    moved = StoreHeader.from_json(json.dumps(fields))
    assert moved.fingerprint == HEADER.fingerprint
    fields["backbone"]["weights_sha256"] = "cd" * 32
    assert StoreHeader.from_json(json.dumps(fields)).fingerprint != HEADER.fingerprint


def test_stores_of_the_decoder_before_keep_their_fingerprint(tmp_path: Path) -> None:
    fields = json.loads(HEADER.to_json())
    assert fields.pop("decoder") == "pyav"
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    before = StoreHeader.from_json(text)
    assert before.decoder == "opencv"
    assert before.to_json() == text
    assert before.fingerprint == "19ac46ef41850c2d52b8dfdd39bd5d3ba53e9c22a265474948e10012cf4392ea"
    assert before.fingerprint != HEADER.fingerprint
    path = tmp_path / "s.h5"
    commit_clips(path, before, [make_clip("a", 3)], ENTRY)
    merge_parts(path)
    assert open_store(path).header == before
    with pytest.raises(
        StoreMismatch, match=r"decoder: store OpenCV \(before PyAV\), asked PyAV"
    ) as caught:
        require_same_settings(before, HEADER, where=str(path))
    assert f"extract-features VIDEOS --out '{path}' --overwrite" in caught.value.hint


def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(StoreDamaged, match="reads store format 1. .* has format 99"):
        open_store(path)


def test_a_changed_table_is_seen(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    with h5py.File(path, "r+") as file:
        file["clips/label"][0] = "walk"
    with pytest.raises(StoreDamaged, match="must match its checksum"):
        open_store(path)


def test_every_byte_flip_in_the_frames_is_seen(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3), make_clip("b", 4)])
    with h5py.File(path) as file:
        places = [file[name].id.get_offset() for name in ("embeddings", "timestamps_seconds")]
        sizes = [file[name].nbytes for name in ("embeddings", "timestamps_seconds")]
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(30):
        which = int(generator.integers(2))
        spot = places[which] + int(generator.integers(sizes[which]))
        broken = bytearray(whole)
        broken[spot] ^= 1 << int(generator.integers(8))
        path.write_bytes(broken)
        assert len(find_damage(open_store(path))) == 1
    summary = inspect_store(path, verify=True)
    assert summary.damaged is not None
    assert len(summary.damaged) == 1


def test_every_truncation_is_an_error_and_never_a_wrong_value(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip(f"{n}", 20, seed=n) for n in range(20)])
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int).tolist():
        path.write_bytes(whole[:size])
        with pytest.raises(StoreDamaged, match="truncated|damaged|checksum|no HDF5"):
            open_store(path)


def damage(path: Path, name: str, row: int) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name]
        values[row] = b"walk" if name == "clips/label" else values[row] + 1


@pytest.mark.parametrize("n_flips", [100, pytest.param(800, marks=pytest.mark.soak)])
def test_random_byte_flips(tmp_path: Path, n_flips: int) -> None:
    """Whatever changes a value that reading returns is seen by --verify; repair keeps the rest."""
    clips = [make_clip(f"{n:02d}.avi", 9, seed=n) for n in range(12)]
    path = write_store(tmp_path / "s.h5", [*clips, make_failure("zz.avi")])
    whole = path.read_bytes()
    reference, rows = everything_in(path), rows_in(path)
    generator = np.random.default_rng(3)
    n_seen = 0
    for _ in range(n_flips):
        broken = bytearray(whole)
        broken[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        path.write_bytes(broken)
        try:
            is_seen = bool(inspect_store(path, verify=True).damaged)
        except StoreDamaged:
            is_seen = True
        n_seen += is_seen
        if not is_seen:
            assert everything_in(path) == reference
            continue
        with suppress(StoreDamaged):
            repair_store(path)
            assert rows_in(path) <= rows
    assert n_seen > n_flips / 5, "flips that change nothing must not be the rule"


def names_in(folder: Path) -> set[str]:
    """Everything in a folder but the locks, which stay for whoever writes next."""
    found = {item.relative_to(folder).as_posix() for item in folder.rglob("*")}
    return {name for name in found if not name.endswith(".lock")}


def everything_in(path: Path) -> tuple[object, ...]:
    store = open_store(path)
    whole = read_embeddings(store)
    return (store.header, store.clips, store.history, rows_in(path), whole.vectors.tobytes())


def rows_in(path: Path) -> set[tuple[object, ...]]:
    store = open_store(path)
    clips = [(record, read_clip(store, record.clip_id)) for record in store.clips]
    return {
        (r, c.vectors.tobytes(), c.timestamps_seconds.tobytes(), c.frame_indices.tobytes())
        for r, c in clips
    }


def test_repair_saves_what_is_whole(tmp_path: Path) -> None:
    clips = [make_clip(name, 30, seed=ord(name)) for name in "abcde"]
    path = write_store(tmp_path / "s.h5", [*clips, make_failure("z")])
    assert repair_store(path).set_aside == ()
    damage(path, "embeddings", 40)
    damage(path, "clips/label", 3)
    with pytest.raises(StoreDamaged, match="--repair"):
        open_store(path)
    summary = repair_store(path)
    assert (summary.n_kept, summary.n_lost) == (4, 2)
    store = open_store(path)
    assert [clip.clip_id for clip in store.clips] == ["a", "c", "e", "z"]
    assert find_damage(store) == ()
    assert clips[4].embedding is not None
    np.testing.assert_array_equal(read_clip(store, "e").vectors, clips[4].embedding.vectors)
    assert [item.name for item in summary.set_aside] == ["s.h5.damaged1"]
    assert summary.set_aside[0].exists()


def test_repair_of_a_truncated_store(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip(f"{n:02d}", 400, seed=n) for n in range(30)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.8)])
    with pytest.raises(StoreDamaged, match="it is truncated: restore .* --repair"):
        open_store(path)
    summary = repair_store(path)
    assert summary.n_kept + summary.n_lost == 30
    assert 8 <= summary.n_kept < 30
    assert [clip.clip_id for clip in open_store(path).clips] == [
        f"{n:02d}" for n in range(summary.n_kept)
    ]
    assert find_damage(open_store(path)) == ()
    path.write_bytes(whole[:1000])
    with pytest.raises(StoreDamaged):
        repair_store(path)
    assert path.read_bytes() == whole[:1000], "what cannot be saved is left alone"
    assert names_in(tmp_path) == {"s.h5", "s.h5.damaged1"}


def test_repair_trusts_no_damaged_header(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    whole = path.read_bytes()
    for name in (b'"alpha"', b'"sampling"', b"0.35", b'"dtype"', b'{"backbone"'):
        start = whole.index(name)
        path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
        with pytest.raises(StoreDamaged):
            repair_store(path)
        path.write_bytes(whole[: start + 1] + bytes([whole[start + 1] ^ 2]) + whole[start + 2 :])
        with pytest.raises(StoreDamaged):
            repair_store(path)
    assert names_in(tmp_path) == {"s.h5"}


def test_repair_of_an_unfinished_store(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    commit_clips(path, HEADER, [make_clip("b", 3)], ENTRY)
    commit_clips(path, HEADER, [make_clip("c", 3)], ENTRY)
    first, _ = sorted(parts_folder(path).glob("part-*.h5"))
    first.write_bytes(first.read_bytes()[:100])
    summary = repair_store(path)
    assert [item.name for item in summary.set_aside] == [f"s.h5.{first.stem}.damaged1"]
    assert [clip.clip_id for clip in merge_parts(path).clips] == ["a", "c"]
    assert summary.set_aside[0].exists()
    with pytest.raises(StoreNotFound):
        repair_store(tmp_path / "none.h5")


def start_process(code: str, path: Path) -> subprocess.Popen[bytes]:
    """Start Python with `path` and the helpers' names; returns once it says that it runs."""
    start = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from store_helpers import *\n"
        "path = Path(sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start + code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    return process


def test_only_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with start_process(
        "with lock_store(path): print('running', flush=True); sys.stdin.read()", path
    ) as other:
        with pytest.raises(StoreBusy, match="in use by another"), lock_store(path):
            pass
        other.kill()
    with lock_store(path):  # a killed writer leaves no lock behind
        pass


def test_a_folder_in_place_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="is a folder"), lock_store(tmp_path):
        pass


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The size limit of a process stands for a full disk: the write fails half way."""
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    code = (
        "import resource, signal, sys\n"
        "sys.path[:0] = ['tests', '.']\n"
        "from pathlib import Path\n"
        "from store_helpers import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "path = Path(sys.argv[1])\n"
        "commit_clips(path, HEADER, [make_clip('small', 3)], ENTRY)\n"
        "try:\n"
        "    commit_clips(path, HEADER, [make_clip('big', 40_000)], ENTRY)\n"
        "except OutputUnwritable as problem:\n"
        "    print(problem)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert finished.returncode == 0, finished.stderr
    assert "The store must be writable" in finished.stdout
    assert "Hint: free disk space" in finished.stdout
    assert [clip.clip_id for clip in merge_parts(path).clips] == ["a", "small"]
    assert names_in(tmp_path) == {"s.h5"}


@linux_only
@pytest.mark.parametrize("size_kib", [12, 40, 100, 200])
def test_a_disk_that_is_really_full_does_not_crash_the_process(
    tmp_path: Path, size_kib: int
) -> None:
    code = (
        "import sys\n"
        "sys.path[:0] = ['tests', '.']\n"
        "from pathlib import Path\n"
        "from store_helpers import *\n"
        "for number in range(50):\n"
        "    commit_clips(Path(sys.argv[1]), HEADER, [make_clip(f'{number}', 500)], ENTRY)\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={size_kib}k tmpfs '{disk}'"
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("no disk of its own can be made here")
    finished = subprocess.run(
        [*inside, f"{mount} && exec '{sys.executable}' -c \"$0\" '{disk / 's.h5'}'", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert finished.returncode == 1, finished.stderr  # not that of a signal
    assert "OutputUnwritable: The store must be writable" in finished.stderr
    assert "Exception ignored" not in finished.stderr


def test_remove_store_takes_the_parts_along(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)])
    commit_clips(path, HEADER, [make_clip("b", 3)], ENTRY)
    remove_store(path)
    assert not path.exists()
    assert not parts_folder(path).exists()


def test_history_names_each_extraction_once(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip("a", 3)], [make_clip("b", 3)])
    assert open_store(path).history == (ENTRY,)


# Without an extraction around it, most of the time goes into commits and merges.
WRITE_FOR_EVER = """
with lock_store(path):
    print("running", flush=True)
    for number in range(100_000):
        commit_clips(path, HEADER, [make_clip(f"{number % 50:02d}", 3000, seed=number)], ENTRY)
        if number % 4 == 3:
            merge_parts(path)
"""
REPAIR = "print('running', flush=True); repair_store(path)"


def moments(patterns: tuple[str, ...], n_random: int, seed: int) -> list[str | float]:
    """List moments to kill: when there is a file of a pattern, or else after random seconds."""
    chance = random.Random(seed)
    return [chance.uniform(0, 0.3) for _ in range(n_random)] if n_random else list(patterns)


def kill_at(moment: str | float, process: subprocess.Popen[bytes], folder: Path) -> None:
    started = time.monotonic()
    with process:
        while process.poll() is None:
            seconds = time.monotonic() - started
            if any(folder.glob(moment)) if isinstance(moment, str) else seconds > moment:
                break
            time.sleep(0.0005)
        process.kill()


random_too = pytest.mark.parametrize("n_random", [0, pytest.param(60, marks=pytest.mark.soak)])


@random_too
def test_a_killed_writer_leaves_a_store_and_nothing_else(tmp_path: Path, n_random: int) -> None:
    path = tmp_path / "s.h5"
    committed: set[str] = set()
    in_commit, in_merge, merged = "*.parts/.*.partial.h5", ".s.h5.*.partial.h5", "s.h5"
    for moment in moments((in_commit, merged, in_merge, in_commit), n_random, seed=5):
        kill_at(moment, start_process(WRITE_FOR_EVER, path), tmp_path)
        with suppress(StoreNotFound):
            store = open_store(path, allow_unfinished=True)
            ids = {clip.clip_id for clip in store.clips}
            assert committed <= ids, "a committed clip was lost"
            assert find_damage(store) == ()
            committed = ids
    with lock_store(path):
        assert not list(tmp_path.rglob("*.partial*"))
        commit_clips(path, HEADER, [], ENTRY)
        merge_parts(path)
    assert {clip.clip_id for clip in open_store(path).clips} == committed
    assert committed
    assert names_in(tmp_path) == {"s.h5"}


@random_too
def test_a_killed_repair_leaves_a_store_and_nothing_else(tmp_path: Path, n_random: int) -> None:
    path = write_store(tmp_path / "s.h5", [make_clip(f"{n:02d}", 3000, seed=n) for n in range(40)])
    whole = path.read_bytes()
    stages = ("*.parts/*.partial", "s.h5.damaged1", ".s.h5.*.partial.h5")
    for moment in moments(stages, n_random, seed=6):
        path.write_bytes(whole[: int(len(whole) * 0.9)])
        kill_at(moment, start_process(REPAIR, path), tmp_path)
        assert repair_store(path).n_kept > 20
        assert find_damage(open_store(path)) == ()
        assert names_in(tmp_path) == {"s.h5", "s.h5.damaged1"}
        (tmp_path / "s.h5.damaged1").unlink()
