"""Folders of numbered pictures as clips: which are, in which order, and what comes out of them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import RunCli, noisy_frames, parse_json, tiny_backbone, write_video
from made_clips import draw_number, read_numbers
from PIL import Image

from features import (
    EmbedOptions,
    ExtractSummary,
    FolderOptions,
    choose_sampling,
    extract_features,
    open_store,
    read_clip,
)
from features.clips.discover import discover_clips
from features.errors import LayoutUnclear, NoClips, OptionInvalid, SamplingError, VideoUnreadable
from features.places.pictures import find_sequence
from features.places.places import hash_source, stat_source
from features.records import Discovery, FrameArray, FrameSampling, VideoFacts
from features.video.decode import Span, read_frames, read_picture, read_pictures
from features.video.frames import FrameBatch
from features.video.pictures import take_pictures
from pipeline import FitOptions, predict_videos, train_head

EVERY = FrameSampling("stride", 1.0)


def write_pictures(
    folder: Path, pictures: Sequence[FrameArray], name: str = "img_{:05d}.png", first: int = 1
) -> Path:
    """Write RGB pictures, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, start=first):
        assert cv2.imwrite(str(folder / name.format(number)), picture[:, :, ::-1])
    return folder


def numbered(folder: Path, n: int = 12, name: str = "img_{:05d}.png", first: int = 1) -> Path:
    """Write pictures that show their place."""
    return write_pictures(folder, [draw_number(place) for place in range(n)], name, first)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def read(
    path: Path, sampling: FrameSampling = EVERY, **options: Any
) -> tuple[FrameBatch, VideoFacts]:
    *batches, facts = read_frames(path, sampling, size_px=32, **options)
    parts = [item for item in batches if isinstance(item, FrameBatch)]
    assert isinstance(facts, VideoFacts)
    joined = FrameBatch(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.timestamps_seconds for part in parts]),
        np.concatenate([part.frame_indices for part in parts]),
    )
    return joined, facts


def ignored(found: Discovery) -> dict[str, str]:
    return {item.path: item.reason for item in found.ignored}


@pytest.mark.parametrize(
    "name",
    ["img_{:05d}.jpg", "frame{}.png", "{:04d}.jpg", "{}.webp", "clip7 f{:03d}x.bmp", "a{}.TIF"],
)
def test_numbered_pictures_are_a_clip_in_the_order_of_their_numbers(
    tmp_path: Path, name: str
) -> None:
    folder = numbered(tmp_path / "v.1", 12, name, first=0)
    batch, facts = read(folder, frame_rate=10.0)
    assert read_numbers(batch.frames) == list(range(12)) == batch.frame_indices.tolist()
    np.testing.assert_allclose(batch.timestamps_seconds, np.arange(12) / 10)
    assert facts == VideoFacts(12, 12, 10.0, 160, 96)


def test_clips_of_pictures_are_found_in_class_folders_beside_videos(tmp_path: Path) -> None:
    for clip in ("jump/a", "jump/b", "walk/deep/c"):
        touch(tmp_path / clip, *(f"{number}.jpg" for number in range(1, 5)))
    touch(tmp_path, "walk/d.avi", "walk/deep/c/.hidden.jpg", "jump/a/Thumbs.db", "jump/.DS_Store")
    found = discover_clips(tmp_path, FolderOptions(frame_rate=12))
    assert [(c.clip_id, c.label, c.is_pictures, c.frame_rate) for c in found.clips] == [
        ("jump/a", "jump", True, 12),
        ("jump/b", "jump", True, 12),
        ("walk/d.avi", "walk", False, None),
        ("walk/deep/c", "walk", True, 12),
    ]
    assert found.notes == ("3 clips of numbered pictures, such as 'jump/a'; frames per second: 12",)
    assert "counted at 25" in discover_clips(tmp_path).notes[0]


def test_optical_flow_is_left_out_and_other_kinds_are_not_mixed() -> None:
    img = [f"img_{n:05d}.jpg" for n in range(1, 9)]
    flow = [f"flow_{axis}_{n:05d}.jpg" for axis in "xy" for n in range(1, 9)]
    sequence = find_sequence("clip", [*flow, *img])
    assert sequence.names == tuple(img)
    assert (sequence.note, sequence.n_flow) == ("", 16)
    depth = [f"depth_{n:05d}.png" for n in range(1, 9)]
    mixed = find_sequence("clip", [*img, *depth])
    assert mixed.names == ()
    assert "2 kinds, 'depth_*.png' (8), 'img_*.jpg' (8)" in mixed.problem
    assert find_sequence("clip", [*img, "cover.jpg"]).note == "1 other picture left out"
    assert "number 1" in find_sequence("clip", ["1.jpg", "01.jpg", "2.jpg"]).problem
    assert find_sequence("clip", flow).problem == "optical flow only"
    minutes = [f"f_1_{n:02d}.jpg" for n in range(50)]
    problem = find_sequence("clip", [*minutes, "f_2_00.jpg"]).problem
    assert problem == "numbers in two places of the names, such as 'f_1_00.jpg' and 'f_2_00.jpg'"


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["7.jpg"], "a single picture"),
        (["IMG_2034.jpg", "IMG_2101.jpg", "IMG_3001.jpg"], "most missing"),
    ],
)
def test_photos_are_no_clip_unless_somebody_says_so(
    tmp_path: Path, names: list[str], doubt: str
) -> None:
    touch(tmp_path / "videos", "jump/a.avi", "walk/b.avi", *(f"walk/c/{name}" for name in names))
    found = discover_clips(tmp_path / "videos")
    assert [clip.clip_id for clip in found.clips] == ["jump/a.avi", "walk/b.avi"]
    ((_, reason),) = ignored(found).items()
    assert doubt in reason
    (tmp_path / "c.csv").write_text("path,label\nwalk/c,walk\n")
    listed = discover_clips(tmp_path / "videos", FolderOptions(labels=tmp_path / "c.csv"))
    assert [(clip.clip_id, clip.is_pictures) for clip in listed.clips] == [("walk/c", True)]
    assert ignored(listed) == dict.fromkeys(
        ("jump/a.avi", "walk/b.avi"), "not in the annotation file"
    )


def test_a_video_beside_its_pictures_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "v", "jump/a.avi", "jump/a/1.jpg", "jump/a/2.jpg", "walk/b.avi", "walk/b.mp4")
    found = discover_clips(tmp_path / "v")
    assert len(found.clips) == 4
    assert "2 clips in several forms of one name, such as 'jump/a', 'jump/a.avi'" in found.notes[0]


def test_class_folders_of_photos_are_refused(tmp_path: Path) -> None:
    photos = [f"{label}/{n:04d}.jpg" for label in ("jump", "walk") for n in range(9)]
    touch(tmp_path / "flat", *photos)
    with pytest.raises(LayoutUnclear, match=r"'jump' \(9 pictures\) lies in no class folder"):
        discover_clips(tmp_path / "flat")
    touch(tmp_path / "split", *(f"{part}/{name}" for part in ("train", "test") for name in photos))
    with pytest.raises(LayoutUnclear, match="photos"):
        discover_clips(tmp_path / "split")
    touch(tmp_path / "deep", *(f"images/{name}" for name in photos))
    with pytest.raises(LayoutUnclear, match="in one class, 'images'"):
        discover_clips(tmp_path / "deep")
    clips = discover_clips(tmp_path / "flat", FolderOptions(labels="none")).clips
    assert [clip.clip_id for clip in clips] == ["jump", "walk"]


def test_pictures_that_belong_to_something_else_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "jump/a.avi", "walk/b.avi", *(f"jump/{n}.jpg" for n in range(5)))
    touch(tmp_path, *(f"walk/thumbs/{n}.jpg" for n in range(5)), "walk/c/cover.png")
    touch(tmp_path, *(f"stray/{n}.jpg" for n in range(5)), *(f"{n}.jpg" for n in range(5)))
    found = discover_clips(tmp_path)
    assert [clip.clip_id for clip in found.clips] == ["jump/a.avi", "walk/b.avi"]
    assert ignored(found) == {
        "*": "5 pictures, no clip: it needs a folder of its own inside of VIDEOS",
        "jump/*": "5 pictures, beside videos",
        "stray/*": "5 pictures, no clip: in no class folder; --labels none takes them",
        "walk/c/cover.png": "a picture, no clip: no numbered pictures",
        "walk/thumbs/*": "5 pictures, no clip: thumbnails, by its name",
    }
    lone = tmp_path / "stray"
    with pytest.raises(NoClips, match="needs a folder of its own"):
        discover_clips(lone)


def test_lists_of_rawframes_and_of_videos_find_folders(tmp_path: Path) -> None:
    root = tmp_path / "rawframes"
    for clip, n_pictures in (("Archery/v_Archery_g01_c01", 5), ("Biking/v_Biking_g02_c01", 4)):
        touch(root / clip, *(f"img_{n:05d}.jpg" for n in range(1, n_pictures + 1)))
    (tmp_path / "classInd.txt").write_text("0 Archery\n1 Biking\n")
    raw = tmp_path / "raw.txt"
    raw.write_text("Archery/v_Archery_g01_c01 5 0\nBiking/v_Biking_g02_c01 6 1\n")
    found = discover_clips(root, FolderOptions(labels=raw))
    assert [(clip.label, clip.is_pictures) for clip in found.clips] == [
        ("Archery", True),
        ("Biking", True),
    ]
    assert any("such as: 'Biking/v_Biking_g02_c01' has 4 of 6" in note for note in found.notes)
    official = tmp_path / "trainlist01.txt"
    official.write_text("Archery/v_Archery_g01_c01.avi 1\nBiking/v_Biking_g02_c01.avi 2\n")
    found = discover_clips(root, FolderOptions(labels=official))
    assert [clip.clip_id for clip in found.clips] == [
        "Archery/v_Archery_g01_c01",
        "Biking/v_Biking_g02_c01",
    ]


def test_the_frame_rate_comes_from_a_column_or_an_option(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for clip in "ab":
        touch(root / clip, *(f"{n}.jpg" for n in range(9)))
    table = tmp_path / "c.csv"
    table.write_text("path,label,fps\na,jump,12\nb,walk,\n")
    found = discover_clips(root, FolderOptions(labels=table, frame_rate=30))
    assert [clip.frame_rate for clip in found.clips] == [12, 30]
    assert not any("say nothing" in note for note in found.notes)
    with pytest.raises(OptionInvalid, match="--frame-rate must be above 0"):
        FolderOptions(frame_rate=0)


def test_missing_numbers_are_gaps_in_time(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "v", 10)
    for number in (4, 5):
        (folder / f"img_{number:05d}.png").unlink()
    batch, facts = read(folder, frame_rate=10.0)
    assert read_numbers(batch.frames) == [0, 1, 2, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(batch.timestamps_seconds, np.array([0, 1, 2, 5, 6, 7, 8, 9]) / 10)
    assert facts.note == "2 of 10 pictures are missing"
    every_fifth = tmp_path / "w"
    for number in range(0, 50, 5):
        write_pictures(every_fifth, [draw_number(number)], "{}.png", first=number)
    batch, facts = read(every_fifth, frame_rate=10.0)
    np.testing.assert_allclose(batch.timestamps_seconds, np.arange(10) / 10)
    assert facts.note == ""
    notes = discover_clips(tmp_path, FolderOptions(labels="none", frame_rate=10)).notes
    assert notes[1].startswith("1 clip of which the numbers go up in steps, such as 'w' by 5")


def make_bomb(side: int) -> bytes:
    """Make a PNG that claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("suffix", "spoil", "n_frames"),
    [
        ("png", lambda content: b"", 11),
        ("png", cut, 11),
        ("png", lambda content: b"no picture", 11),
        ("png", lambda content: make_bomb(60_000), 11),
        ("jpg", lambda content: content[:-300], 12),
        ("jpg", lambda content: b"\xff\xd8" + content[400:], 11),
    ],
)
def test_a_damaged_picture_costs_one_frame(
    tmp_path: Path, suffix: str, spoil: Callable[[bytes], bytes], n_frames: int
) -> None:
    folder = numbered(tmp_path / "v", 12, "{:03d}." + suffix, first=0)
    path = folder / f"005.{suffix}"
    path.write_bytes(spoil(path.read_bytes()))
    for sampling in (EVERY, FrameSampling("uniform", 12.0)):
        batch, facts = read(folder, sampling, frame_rate=25.0)
        assert facts.n_frames_decoded == n_frames == len(batch.frames)
        assert "damaged: 1 of 1" in facts.note
        shown = read_numbers(batch.frames)
        assert set(range(12)) - set(shown) <= {5}
        places = [n for n in range(12) if n_frames == 12 or n != 5]
        np.testing.assert_allclose(batch.timestamps_seconds, np.array(places) / 25)


def test_a_folder_in_which_nothing_is_a_picture_says_so(tmp_path: Path) -> None:
    touch(tmp_path / "v", *(f"{n}.jpg" for n in range(5)))
    with pytest.raises(VideoUnreadable, match=r"no picture that can be read among 5, such as '0"):
        read(tmp_path / "v")
    for path in (tmp_path / "v").iterdir():
        path.write_bytes(make_bomb(60_000))
    with pytest.raises(VideoUnreadable, match=r"none of 5 pictures \(png\) decodes"):
        read(tmp_path / "v")


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def coded_pictures() -> dict[str, bytes]:
    """One picture, red above and blue below, in every coding that people have."""
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24], rgb[24:] = (230, 20, 20), (20, 20, 230)
    image = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[0x112] = 6  # shown turned to the right by a quarter
    lying = image.transpose(Image.Transpose.ROTATE_90)
    flipped = Image.Exif()
    flipped[0x112] = 4
    clear = image.convert("RGBA")
    clear.putalpha(255)
    _, deep = cv2.imencode(".png", rgb[:, :, ::-1].astype(np.uint16) * 257)
    return {
        "a.jpg": encode(image, "JPEG"),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "exif.jpg": encode(lying, "JPEG", exif=turned),
        "flipped.jpg": encode(
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "JPEG", exif=flipped
        ),
        "exif.png": encode(lying, "PNG", exif=turned),
        "alpha.png": encode(clear, "PNG"),
        "palette.png": encode(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "deep.png": deep.tobytes(),
        "a.webp": encode(image, "WEBP"),
        "lossless.webp": encode(clear, "WEBP", lossless=True),
        "a.bmp": encode(image, "BMP"),
        "a.tif": encode(image, "TIFF"),
        "lzw.tif": encode(image, "TIFF", compression="tiff_lzw"),
    }


@pytest.mark.parametrize("name", coded_pictures())
def test_pictures_in_every_coding(tmp_path: Path, name: str) -> None:
    stem, _, suffix = name.partition(".")
    folder = tmp_path / stem
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.{suffix}").write_bytes(coded_pictures()[name])
    batch, facts = read(folder)
    assert (facts.n_frames_decoded, facts.width_px, facts.height_px) == (3, 64, 48)
    above, below = batch.frames[0, 4:12].mean((0, 1)), batch.frames[0, 20:28].mean((0, 1))
    np.testing.assert_allclose(above, (230, 20, 20), atol=12)
    np.testing.assert_allclose(below, (20, 20, 230), atol=12)


@pytest.mark.parametrize("name", ["{}.png", "{}.jpg"])
def test_grey_pictures_and_differing_sizes(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    sizes = [(96, 160), (48, 80), (33, 41), (96, 160)]
    for number, (height, width) in enumerate(sizes):
        grey = np.full((height, width), 40 * (number + 1), np.uint8)
        cv2.imwrite(str(folder / name.format(number)), grey)
    batch, facts = read(folder)
    means = batch.frames.mean((1, 2, 3))
    np.testing.assert_allclose(means, (40, 80, 120, 160), atol=2)
    assert (facts.n_frames_decoded, facts.width_px) == (4, 160)


def test_spans_and_single_pictures_of_a_folder(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "v", 20)
    batch, _ = read(folder, span=Span(5, 9, "frames"))
    assert read_numbers(batch.frames) == [5, 6, 7, 8]
    batch, _ = read(folder, span=Span(1.0, 1.5), frame_rate=10.0)
    assert read_numbers(batch.frames) == [10, 11, 12, 13, 14]
    batch, _ = read(folder, FrameSampling("fps", 2.0), frame_rate=10.0, kept_bytes=0)
    assert read_numbers(batch.frames) == [0, 5, 10, 15]
    jpeg = cv2.imdecode(read_picture(folder, 7, most_px=160), cv2.IMREAD_COLOR)
    assert jpeg is not None
    assert read_numbers([jpeg]) == [7]
    pictures = [item for item in read_pictures(folder) if isinstance(item, np.ndarray)]
    assert read_numbers(pictures) == list(range(20))


def test_what_a_folder_is_made_of_is_seen_without_reading_it(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "v", 4)
    first, digest = stat_source(folder), hash_source(folder)
    touch(folder, "notes.txt")
    assert stat_source(folder) == first
    os.utime(folder / "img_00002.png", ns=(1, 1))  # older than the others
    assert stat_source(folder) != first
    assert hash_source(folder) == digest
    (folder / "img_00002.png").rename(folder / "img_00009.png")
    assert hash_source(folder) != digest


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same clips of two classes as lossless videos and as pictures."""
    root = tmp_path_factory.mktemp("both")
    for number, label in enumerate(("jump", "walk")):
        for place in range(4):
            frames = noisy_frames(12, seed=10 * number + place)
            write_video(root / "videos" / label / f"p{place}.avi", frames, codec="FFV1")
            write_pictures(root / "pictures" / label / f"p{place}", frames)
    return root / "videos", root / "pictures"


def extract(videos: Path, out: Path, weights: Path, **options: Any) -> ExtractSummary:
    sampling = options.pop("sampling", choose_sampling(n_frames=5))
    return extract_features(
        videos,
        out,
        sampling=sampling,
        backbone=tiny_backbone(weights),
        embedding=EmbedOptions(n_workers=2),
        **options,
    )


def test_pictures_give_the_vectors_of_their_video_and_everything_follows(
    both_kinds: tuple[Path, Path], tmp_path: Path, tiny_weights: Path
) -> None:
    videos, pictures = both_kinds
    extract(videos, tmp_path / "v.h5", tiny_weights)
    folder = FolderOptions(frame_rate=25, group_regex="(p[0-9])")
    summary = extract(pictures, tmp_path / "p.h5", tiny_weights, folder=folder)
    assert (summary.count("done"), summary.frames, summary.notes) == (8, 40, ())
    one, two = open_store(tmp_path / "v.h5"), open_store(tmp_path / "p.h5")
    for row in two.clips:
        a, b = read_clip(one, f"{row.clip_id}.avi"), read_clip(two, row.clip_id)
        x, y = a.vectors.astype(float), b.vectors.astype(float)
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert cosine.min() > 0.999
        np.testing.assert_allclose(a.timestamps_seconds, b.timestamps_seconds, atol=1e-6)
        assert (row.facts.n_frames_decoded, row.facts.fps_header) == (12, 25.0)
    taken = take_pictures(two, ["jump/p0"], videos=pictures)["jump/p0"]
    assert taken.problem == ""
    assert taken.jpeg
    fit = FitOptions(epochs=1)
    train_head(tmp_path / "p.h5", tmp_path / "run", head="mean-linear", fit=fit)
    done = predict_videos(
        tmp_path / "run",
        [pictures / "jump" / "p0", pictures / "jump" / "p1", pictures / "jump" / "p2"],
        weights=tiny_weights,
        overlay=tmp_path / "overlays",
        embedding=EmbedOptions(n_workers=1),
    )
    assert [Path(item.path).name for item in done.predictions] == ["p0", "p1", "p2"]
    assert done.failures == ()
    drawn = [item.overlay for item in done.predictions]
    assert drawn == [tmp_path / "overlays" / f"{name}.mp4" for name in ("p0", "p1", "p2")]
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for path in sorted((pictures / "jump" / "p0").iterdir()):
            archive.write(path, f"jump/p0/{path.name}")
    for place in (tmp_path / "c.zip", tmp_path / "c.zip" / "jump" / "p0"):
        limits = EmbedOptions(n_workers=1)
        packed = predict_videos(tmp_path / "run", [place], weights=tiny_weights, embedding=limits)
        (prediction,) = packed.predictions
        assert prediction.path == str(tmp_path / "c.zip" / "jump" / "p0")
        assert prediction.probabilities == pytest.approx(done.predictions[0].probabilities)
    write_video(tmp_path / "mixed" / "a.avi", noisy_frames(5, seed=1))
    touch(tmp_path / "mixed", "cover.jpg", "1.jpg", "2.jpg")
    mixed = predict_videos(
        tmp_path / "run", [tmp_path / "mixed"], weights=tiny_weights, embedding=limits
    )
    assert [item.path for item in mixed.predictions] == [str(tmp_path / "mixed" / "a.avi")]
    with pytest.raises(VideoUnreadable):
        next(iter(read_pictures(tmp_path / "run")))


def test_running_again_is_free_and_a_changed_picture_is_noticed(
    both_kinds: tuple[Path, Path], tmp_path: Path, tiny_weights: Path
) -> None:
    pictures = tmp_path / "pictures"
    for clip in sorted(both_kinds[1].glob("*/*")):
        target = pictures / clip.relative_to(both_kinds[1])
        target.mkdir(parents=True)
        for picture in clip.iterdir():
            (target / picture.name).write_bytes(picture.read_bytes())
    out = tmp_path / "s.h5"
    assert extract(pictures, out, tiny_weights).count("done") == 8
    again = extract(pictures, out, tiny_weights)
    assert (again.count("already"), again.count("done"), again.changed) == (8, 0, ())
    changed = pictures / "jump" / "p2" / "img_00003.png"
    times = changed.stat().st_mtime_ns
    cv2.imwrite(str(changed), noisy_frames(1, seed=99)[0])
    os.utime(changed, ns=(times - 10**9, times - 10**9))
    (pictures / "walk" / "p0" / "img_00012.png").touch()  # the same content
    (pictures / "walk" / "p3").rename(pictures / "walk" / "moved")
    again = extract(pictures, out, tiny_weights)
    assert again.changed == ("jump/p2",)
    assert again.moved == (("walk/p3", "walk/moved"),)
    assert again.count("done") == 1
    timed = extract(pictures, out, tiny_weights, folder=FolderOptions(frame_rate=5))
    assert len(timed.changed) == 8, "other times"
    store = open_store(out)
    assert read_clip(store, "jump/p2").timestamps_seconds.max() == pytest.approx(11 / 5)
    assert extract(pictures, out, tiny_weights, folder=FolderOptions(frame_rate=5)).frames == 0


def test_times_are_not_made_up(
    both_kinds: tuple[Path, Path], tmp_path: Path, tiny_weights: Path, run_cli: RunCli
) -> None:
    pictures = both_kinds[1]
    with pytest.raises(SamplingError, match=r"no times without a frame rate.*--fps 5.*'jump/p0'"):
        extract(pictures, tmp_path / "s.h5", tiny_weights, sampling=choose_sampling(fps=5))
    table = tmp_path / "c.csv"
    table.write_text("path,label,start,end\njump/p0,jump,0.1,0.3\n")
    folder = FolderOptions(labels=table)
    with pytest.raises(SamplingError, match="a span in seconds"):
        extract(pictures, tmp_path / "s.h5", tiny_weights, folder=folder)
    assert not (tmp_path / "s.h5").exists()
    result = run_cli(
        *(
            "extract-features",
            str(pictures),
            "--out",
            str(tmp_path / "s.h5"),
            "--dry-run",
            "--json",
        ),
        *("--weights", str(tiny_weights), "--alpha", "0.35", "--image-size", "32", "--fps", "5"),
        *("--frame-rate", "10"),
    )
    assert parse_json(result)["remarks"] == [
        "8 clips of numbered pictures, such as 'jump/p0'; frames per second: 10"
    ]
