"""Archives that are read as folders: what is found in them, what is refused, and what comes out."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import grey_frames, noisy_frames, tiny_backbone, write_video
from made_clips import draw_number, read_numbers
from test_pictures import read, write_pictures

from features import EmbedOptions, FolderOptions, choose_sampling, extract_features, open_store
from features.clips.discover import discover_clips
from features.errors import ArchiveUnreadable, FrameHeadError, NoClips, VideosNotFound
from features.places.archives import read_archive
from features.places.places import hash_source, is_there, open_binary
from features.records import Discovery, FrameSampling
from features.store.store import read_clip
from features.video.pictures import take_pictures

Packer = Callable[[Path, Path], Path]


def pack_zip(folder: Path, target: Path, *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def pack_deflated(folder: Path, target: Path) -> Path:
    return pack_zip(folder, target, method=zipfile.ZIP_DEFLATED)


def pack_tar(folder: Path, target: Path) -> Path:
    target = target.with_suffix(".tar")
    with tarfile.open(target, "w") as archive:
        archive.add(folder, ".")
    return target


PACKERS = pytest.mark.parametrize("pack", [pack_zip, pack_deflated, pack_tar])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of videos, one clip of pictures in each, and an annotation file."""
    root = tmp_path_factory.mktemp("folder")
    for number, label in enumerate(("jump", "walk")):
        for place in range(3):
            frames = noisy_frames(10, seed=10 * number + place)
            write_video(root / label / f"p{place}.avi", frames)
        write_pictures(root / label / "pictures", [draw_number(n) for n in range(10)])
    (root / "clips.csv").write_text("path,label\njump/p0.avi,a\nwalk/pictures,b\n")
    return root


def ignored(found: Discovery) -> dict[str, str]:
    return {item.path: item.reason for item in found.ignored}


@PACKERS
def test_an_archive_is_read_as_the_folder_would_be(
    folder: Path, tmp_path: Path, pack: Packer
) -> None:
    archive = pack(folder, tmp_path / "c.zip")
    name = archive.name
    plain, packed = discover_clips(folder), discover_clips(archive)
    assert [c.clip_id for c in packed.clips] == [f"{name}/{c.clip_id}" for c in plain.clips]
    assert [(c.label, c.is_pictures) for c in packed.clips] == [
        (c.label, c.is_pictures) for c in plain.clips
    ]
    assert packed.folder == tmp_path
    assert ignored(packed) == {f"{name}/clips.csv": "not a video file type"}
    for one, two in zip(plain.clips, packed.clips, strict=True):
        assert two.path == tmp_path / two.clip_id
        assert hash_source(one.path) == hash_source(two.path)
        for kept_bytes in (0, 2**20):  # read once, and with seeking
            chosen = FrameSampling("uniform", 4.0)
            expected, facts = read(one.path, chosen, kept_bytes=kept_bytes)
            found, same = read(two.path, chosen, kept_bytes=kept_bytes)
            np.testing.assert_array_equal(expected.frames, found.frames)
            assert facts == same
    inside = discover_clips(archive, FolderOptions(labels=archive / "clips.csv"))
    beside = discover_clips(archive, FolderOptions(labels=folder / "clips.csv"))
    assert [(c.clip_id, c.label) for c in inside.clips] == [
        (f"{name}/jump/p0.avi", "a"),
        (f"{name}/walk/pictures", "b"),
    ]
    assert [c.clip_id for c in beside.clips] == [c.clip_id for c in inside.clips]
    assert read_numbers(read(tmp_path / name / "jump/pictures")[0].frames) == list(range(10))


def test_spans_and_missing_files_of_an_archive(folder: Path, tmp_path: Path) -> None:
    archive = pack_zip(folder, tmp_path / "c.zip")
    (tmp_path / "s.csv").write_text("path,label,start,end\njump/p0,a,0,0.2\njump/gone.avi,b,,\n")
    found = discover_clips(archive, FolderOptions(labels=tmp_path / "s.csv"))
    assert [(c.clip_id, c.group) for c in found.clips] == [
        ("c.zip/jump/gone.avi", ""),
        ("c.zip/jump/p0.avi#0.0-0.2", "c.zip/jump/p0.avi"),
    ]
    assert any("1 listed file missing" in note for note in found.notes)
    assert not is_there(found.clips[0].path)
    with pytest.raises(FileNotFoundError):
        open_binary(found.clips[0].path)


def test_a_folder_in_an_archive(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for path in sorted(folder.rglob("*.avi")):
            archive.write(path, f"top/{path.relative_to(folder)}")
            archive.write(path, f"topping/{path.relative_to(folder)}")
    found = discover_clips(tmp_path / "c.zip" / "top")
    assert [clip.clip_id for clip in found.clips] == [
        f"c.zip/top/{label}/p{n}.avi" for label in ("jump", "walk") for n in range(3)
    ]
    assert {clip.label for clip in found.clips} == {"jump", "walk"}
    assert found.folder == tmp_path
    with pytest.raises(VideosNotFound, match="does not exist"):
        discover_clips(tmp_path / "c.zip" / "to")


def test_an_archive_beside_clips_is_passed_over(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "jump" / "a.avi", grey_frames(3))
    write_video(tmp_path / "v" / "walk" / "b.avi", grey_frames(3))
    pack_zip(folder, tmp_path / "v" / "c.zip")
    (tmp_path / "v" / "UCF101.rar").write_bytes(b"Rar!")
    found = discover_clips(tmp_path / "v")
    assert [clip.clip_id for clip in found.clips] == ["jump/a.avi", "walk/b.avi"]
    assert ignored(found) == {
        "UCF101.rar": "an archive that cannot be read in place: unpack it",
        "c.zip": "an archive: give it as VIDEOS itself, or unpack it",
    }


def test_names_never_lead_out_of_a_zip(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.avi", grey_frames(3)).read_bytes()
    path = tmp_path / "c.zip"
    link = zipfile.ZipInfo("jump/link.avi")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    mac = zipfile.ZipInfo("jump/caf\N{LATIN SMALL LETTER E WITH ACUTE}.avi")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../up.avi", "/etc/a.avi", "C:\\a.avi", "jump/../../b.avi", "..\\c.avi"):
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr(link, "/etc/passwd")
        archive.writestr(mac, content)
        archive.writestr("./walk//a.avi", content)
        archive.writestr("walk\\sub\\b.avi", content)
        archive.writestr("jump/twice.avi", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("jump/twice.avi", content)
        archive.writestr("__MACOSX/jump/._twice.avi", b"resources")
        archive.writestr("inner.zip", b"PK")
    raw = bytearray(path.read_bytes())  # as programs write that do not say that it is UTF-8
    for at in (raw.index(b"caf\xc3") - 30 + 7 - 5, raw.rindex(b"caf\xc3") - 46 + 9 - 5):
        assert raw[at] == 0x08
        raw[at] = 0
    path.write_bytes(raw)
    found = discover_clips(path)
    assert [clip.clip_id.removeprefix("c.zip/") for clip in found.clips] == [
        "jump/café.avi",
        "jump/twice.avi",
        "walk/a.avi",
        "walk/sub/b.avi",
    ]
    assert {clip.label for clip in found.clips} == {"jump", "walk"}
    reasons = ignored(found)
    out = "its name leads out of the archive"
    assert [name for name, reason in reasons.items() if reason == out] == [
        *("c.zip/../up.avi", "c.zip//etc/a.avi", "c.zip/C:\\a.avi", "c.zip/jump/../../b.avi"),
        "c.zip/..\\c.avi",
    ]
    assert reasons["c.zip/jump/link.avi"] == "a link or device, not a file"
    assert reasons["c.zip/jump/twice.avi"] == "an earlier member of a name that comes again"
    assert reasons["c.zip/__MACOSX/jump/._twice.avi"] == "hidden file"
    assert "an archive" in reasons["c.zip/inner.zip"]
    assert all(read(clip.path)[1].n_frames_decoded == 3 for clip in found.clips)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.avi", "c.zip"]


def test_links_devices_and_bombs_of_a_tar(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.avi", grey_frames(3)).read_bytes()
    path = tmp_path / "c.tar"

    def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        info.size = len(content) if kind == tarfile.REGTYPE else 0
        return info

    with tarfile.open(path, "w") as archive:
        for name in ("jump/a.avi", "/walk/abs.avi", "../b.avi", "walk/ü\udcff.avi", "jump/a.avi"):
            archive.addfile(member(name), io.BytesIO(content))
        archive.addfile(member("walk/s.avi", tarfile.SYMTYPE, "/etc/passwd"))
        archive.addfile(member("walk/h.avi", tarfile.LNKTYPE, "jump/a.avi"))
        archive.addfile(member("walk/d.avi", tarfile.CHRTYPE))
        archive.addfile(member("walk/f.avi", tarfile.FIFOTYPE))
    found = discover_clips(path)
    assert [clip.clip_id for clip in found.clips] == ["c.tar/jump/a.avi", "c.tar/walk/ü\udcff.avi"]
    assert all(read(clip.path)[1].n_frames_decoded == 3 for clip in found.clips)
    reasons = ignored(found)
    assert reasons["c.tar//walk/abs.avi"] == reasons["c.tar/../b.avi"]
    assert {reasons[f"c.tar/walk/{kind}.avi"] for kind in "shdf"} == {
        "a link or device, not a file"
    }


def test_encrypted_members_and_bombs_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "c.zip"
    content = write_video(tmp_path / "a.avi", grey_frames(3)).read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jump/secret.avi", content, zipfile.ZIP_STORED)
        archive.writestr("walk/a.avi", content)
        archive.writestr("walk/bomb.avi", content)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    raw[(at := raw.rindex(b"PK\x01\x02") + 24) : at + 4] = struct.pack("<I", 3 * 10**8)
    path.write_bytes(raw)
    found = discover_clips(path, FolderOptions(labels="none"))
    assert [clip.clip_id for clip in found.clips] == ["c.zip/walk/a.avi"]
    reasons = ignored(found)
    assert reasons["c.zip/jump/secret.avi"] == "it is encrypted"
    assert "times its size" in reasons["c.zip/walk/bomb.avi"]


@PACKERS
def test_a_damaged_archive_keeps_what_reads(folder: Path, tmp_path: Path, pack: Packer) -> None:
    archive = pack(folder, tmp_path / "c.zip")
    clips = discover_clips(archive).clips
    whole = [read(clip.path, FrameSampling("uniform", 4.0))[0].frames for clip in clips]
    raw = bytearray(archive.read_bytes())
    member = read_archive(archive).members["jump/p1.avi"]
    middle = member.offset + member.size_bytes // 2
    if pack is pack_deflated:
        assert member.packed is not None
        middle = member.offset + member.packed.compress_size // 2
    raw[middle : middle + 200] = os.urandom(200)
    if pack is pack_tar:  # the header of a member, too
        at = raw.index(b"./jump/p2.avi")
        raw[at : at + 300] = os.urandom(300)
    archive.write_bytes(raw)
    found = {clip.clip_id: clip for clip in discover_clips(archive).clips}
    assert len(found) == len(clips) - (pack is pack_tar)
    for clip, frames in zip(clips, whole, strict=True):
        if clip.clip_id.endswith(("p1.avi", "p2.avi")) and "jump" in clip.clip_id:
            continue
        batch, _ = read(found[clip.clip_id].path, FrameSampling("uniform", 4.0))
        np.testing.assert_array_equal(batch.frames, frames)
    batch, _ = read(found[f"{archive.name}/jump/p1.avi"].path)
    assert 0 < len(batch.frames) <= 10
    assert len(hash_source(found[f"{archive.name}/jump/p1.avi"].path)) == 64


@PACKERS
@pytest.mark.parametrize("n_times", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_whatever_bytes_are_wrong_only_known_errors_come(
    tmp_path: Path, pack: Packer, n_times: int
) -> None:
    for n in range(2):
        write_video(tmp_path / "v" / f"p{n}.avi", noisy_frames(4, seed=n))
    write_pictures(tmp_path / "v" / "pictures", [draw_number(n) for n in range(4)])
    archive = pack(tmp_path / "v", tmp_path / "c.zip")
    whole = archive.read_bytes()
    generator = random.Random(5)
    for _ in range(n_times):
        raw = bytearray(whole)
        for _ in range(generator.choice([1, 3, 10, 40])):
            tail = min(len(raw), generator.choice([800, len(raw)]))  # a .zip lists members there
            raw[-1 - generator.randrange(tail)] = generator.randrange(256)
        archive.write_bytes(raw)
        with suppress(FrameHeadError):
            for clip in discover_clips(archive, FolderOptions(labels="none")).clips:
                with suppress(FrameHeadError, FileNotFoundError):
                    hash_source(clip.path)
                    read(clip.path, FrameSampling("uniform", 2.0))


def test_archives_that_are_cut_off(folder: Path, tmp_path: Path) -> None:
    tar = pack_tar(folder, tmp_path / "c.tar")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size * 2 // 3])
    found = discover_clips(tar, FolderOptions(labels="none"))
    assert 0 < len(found.clips) < 8
    assert any("damaged: " in item.reason for item in found.ignored)
    zipped = pack_zip(folder, tmp_path / "c.zip")
    zipped.write_bytes(zipped.read_bytes()[: zipped.stat().st_size * 2 // 3])
    with pytest.raises(ArchiveUnreadable, match=r"cut off. Hint: copy it anew, or try 'zip -FF"):
        discover_clips(zipped)


def test_archives_that_cannot_be_read_in_place(folder: Path, tmp_path: Path) -> None:
    for name in ("c.tar.gz", "c.tgz", "c.tar.xz"):
        with tarfile.open(tmp_path / name, "w:xz" if "xz" in name else "w:gz") as archive:
            archive.add(folder / "jump", "jump")
        with pytest.raises(ArchiveUnreadable, match="all before it would have to be unpacked"):
            discover_clips(tmp_path / name)
    (tmp_path / "c.tgz").rename(tmp_path / "named.tar")
    with pytest.raises(ArchiveUnreadable, match="'.*named.tar' is compressed"):
        discover_clips(tmp_path / "named.tar")
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(ArchiveUnreadable, match="without compression"):
        discover_clips(tmp_path / "text.tar")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(NoClips, match="holds none"):
        discover_clips(tmp_path / "empty.zip")
    (tmp_path / "a.avi").write_bytes(b"x")
    with pytest.raises(VideosNotFound, match="is a file"):
        discover_clips(tmp_path / "a.avi")


def test_sizes_that_a_zip_only_claims(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.avi", grey_frames(3)).read_bytes()
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.avi", content)
        archive.writestr("b.avi", content)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 20 : at + 28] = struct.pack("<II", 2**32 - 2, 2**32 - 2)
    path.write_bytes(raw)
    found = discover_clips(path)
    assert [clip.clip_id for clip in found.clips] == ["c.zip/b.avi"]
    assert ignored(found) == {"c.zip/a.avi": "damaged: it would reach out of the archive"}


def test_a_tar_that_leads_round_in_circles_ends(tmp_path: Path) -> None:
    info = tarfile.TarInfo("jump/a.avi")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)  # a negative size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path = tmp_path / "c.tar"
    path.write_bytes(bytes(header) * 3 + bytes(1024))
    with pytest.raises((ArchiveUnreadable, NoClips)):
        discover_clips(path)


def test_a_store_of_an_archive_is_that_of_its_folder(
    folder: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    archive = pack_zip(folder, tmp_path / "c.zip")
    out = tmp_path / "s.h5"

    def extract(videos: Path, **options: Any) -> Any:
        return extract_features(
            videos,
            out,
            sampling=choose_sampling(n_frames=4),
            backbone=tiny_backbone(tiny_weights),
            embedding=EmbedOptions(n_workers=1),
            **options,
        )

    summary = extract(archive)
    assert (summary.count("done"), summary.count("failed")) == (8, 0)
    assert extract(archive).count("already") == 8
    os.utime(archive, ns=(1, 1))  # the same content
    assert extract(archive).frames == 0
    store = open_store(out)
    taken = take_pictures(store, ["c.zip/jump/p0.avi", "c.zip/walk/pictures"])
    assert [picture.problem for picture in taken.values()] == ["", ""]
    vectors = read_clip(store, "c.zip/jump/p0.avi").vectors
    unpacked = extract(folder)
    assert len(unpacked.moved) == 8, "known by their content"
    assert unpacked.frames == 0
    np.testing.assert_array_equal(read_clip(open_store(out), "jump/p0.avi").vectors, vectors)
