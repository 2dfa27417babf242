"""Every kind of video: which frames come out, in which order, when, and in which colours."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from made_clips import (
    Recipe,
    add_stream,
    damage,
    draw_number,
    encode,
    read_numbers,
    remux,
    write_clip,
)

from features.errors import VideoUnreadable
from features.records import FrameSampling, VideoFacts
from features.video.decode import WHOLE, Span, read_frames, read_picture, read_pictures, read_spans
from features.video.frames import FrameBatch
from features.video.sampling import choose_sampling

X264 = {"preset": "ultrafast", "crf": "12"}
FAST = {"preset": "veryfast", "crf": "12"}


def x264(**more: str) -> dict[str, str]:
    """Options of x264, with some of its own parameters."""
    text = ":".join(f"{name.replace('_', '-')}={value}" for name, value in more.items())
    return {**FAST, "x264-params": text}


GOPS = x264(keyint="12", min_keyint="12", scenecut="0", bframes="3", b_pyramid="normal")
OPEN_GOP = {**GOPS, "x264-params": GOPS["x264-params"] + ":open-gop=1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3"}

RECIPES = {
    "h264": Recipe(".mp4", "libx264", GOPS),
    "h264-one-gop": Recipe(".mp4", "libx264", FAST),
    "h264-no-b": Recipe(".mp4", "libx264", X264),
    "h264-open-gop": Recipe(".mp4", "libx264", OPEN_GOP),
    "h264-open-gop-mkv": Recipe(".mkv", "libx264", OPEN_GOP),
    "h264-intra-refresh": Recipe(".mkv", "libx264", x264(keyint="12", intra_refresh="1")),
    "h264-mov": Recipe(".mov", "libx264", GOPS),
    "h264-mkv": Recipe(".mkv", "libx264", GOPS, mux={"cluster_time_limit": "400"}),
    "h264-ts": Recipe(".ts", "libx264", GOPS),
    "h264-flv": Recipe(".flv", "libx264", GOPS),
    "h264-avi": Recipe(".avi", "libx264", GOPS),
    "h264-fragments": Recipe(
        ".mp4", "libx264", GOPS, mux={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "h264-interlaced": Recipe(".mp4", "libx264", x264(tff="1"), is_interlaced=True),
    "h264-interlaced-gops": Recipe(
        ".mkv", "libx264", x264(tff="1", keyint="12"), is_interlaced=True
    ),
    "h264-fake-interlaced": Recipe(".ts", "libx264", x264(fake_interlaced="1")),
    "h264-10-bit": Recipe(".mp4", "libx264", GOPS, "yuv420p10le"),
    "h264-422": Recipe(".mp4", "libx264", GOPS, "yuv422p"),
    "h264-444": Recipe(".mp4", "libx264", GOPS, "yuv444p"),
    "h264-full-range": Recipe(".mp4", "libx264", GOPS, "yuvj420p"),
    "h264-grey": Recipe(".mp4", "libx264", GOPS, "gray"),
    "h264-raw": Recipe(".h264", "libx264", GOPS, format="h264"),
    "h264-ntsc": Recipe(".mp4", "libx264", GOPS, rate=Fraction(30000, 1001)),
    "hevc": Recipe(".mp4", "libx265", X265),
    "hevc-closed": Recipe(
        ".mkv", "libx265", {**X265, "x265-params": X265["x265-params"] + ":open-gop=0"}
    ),
    "hevc-layers": Recipe(
        ".mp4", "libx265", {**X265, "x265-params": X265["x265-params"] + ":temporal-layers=3"}
    ),
    "hevc-10-bit": Recipe(".mp4", "libx265", X265, "yuv420p10le"),
    "hevc-ts": Recipe(".ts", "libx265", X265),
    "av1": Recipe(".mp4", "libsvtav1", {"preset": "12", "g": "12"}, size=(160, 96)),
    "av1-mkv": Recipe(".mkv", "libsvtav1", {"preset": "12"}),
    "vp8": Recipe(".webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"}),
    "vp8-alpha": Recipe(".webm", "libvpx", {"auto-alt-ref": "0"}, "yuva420p"),
    "vp9": Recipe(
        ".webm", "libvpx-vp9",
        {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20", "cpu-used": "8"},
        mux={"cluster_time_limit": "400"},
    ),
    "vp9-mp4": Recipe(".mp4", "libvpx-vp9", {"cpu-used": "8", "g": "20"}),
    "mpeg4-avi": Recipe(".avi", "mpeg4", {"bf": "2", "g": "12", "qscale": "2"}),
    "mpeg4-mp4": Recipe(".mp4", "mpeg4", {"bf": "2", "g": "12", "qscale": "2"}),
    "mpeg4-interlaced": Recipe(".avi", "mpeg4", {"qscale": "2"}, is_interlaced=True),
    "mpeg2-ts": Recipe(".ts", "mpeg2video", {"bf": "2", "g": "12", "qscale": "2"}),
    "mpeg2-mkv": Recipe(".mkv", "mpeg2video", {"bf": "2", "g": "12", "qscale": "2"}),
    "mpeg2-program": Recipe(".mpg", "mpeg2video", {"bf": "2", "qscale": "2"}, format="vob"),
    "mpeg2-interlaced": Recipe(".ts", "mpeg2video", {"bf": "2", "qscale": "2"}, is_interlaced=True),
    "mpeg2-raw": Recipe(".m2v", "mpeg2video", {"bf": "2", "qscale": "2"}, format="mpeg2video"),
    "mpeg1": Recipe(".mpg", "mpeg1video", {"bf": "2", "qscale": "2"}),
    "dv": Recipe(".dv", "dvvideo", size=(720, 576), format="dv"),
    "dv-avi": Recipe(".avi", "dvvideo", size=(720, 576)),
    "prores": Recipe(".mov", "prores_ks", {}, "yuv422p10le"),
    "prores-alpha": Recipe(".mov", "prores_ks", {"profile": "4444"}, "yuva444p10le"),
    "prores-interlaced": Recipe(".mov", "prores_ks", {}, "yuv422p10le", is_interlaced=True),
    "ffv1": Recipe(".mkv", "ffv1", {"g": "12"}),
    "ffv1-16-bit": Recipe(".mkv", "ffv1", {}, "gray16le"),
    "ffv1-rgb": Recipe(".mkv", "ffv1", {}, "bgr0"),
    "mjpeg-avi": Recipe(".avi", "mjpeg", {"qscale": "2"}, "yuvj420p"),
    "mjpeg-mov": Recipe(".mov", "mjpeg", {"qscale": "2"}, "yuvj422p"),
    "huffyuv": Recipe(".avi", "huffyuv", {}, "yuv422p"),
    "raw-avi": Recipe(".avi", "rawvideo", {}, "bgr24"),
    "h263": Recipe(".3gp", "h263", {"qscale": "2"}, size=(176, 144)),
    "flv1": Recipe(".flv", "flv", {"qscale": "2"}),
    "wmv": Recipe(".wmv", "wmv2", {"qscale": "2"}),
    "gif": Recipe(".gif", "gif", {}, "rgb8"),
    "apng": Recipe(".apng", "apng", {}, "rgb24"),
    "qtrle": Recipe(".mov", "qtrle", {}, "rgb24"),
}  # fmt: skip
SAMPLINGS = [
    choose_sampling(n_frames=7),
    choose_sampling(stride=9),
    choose_sampling(fps=3),
    choose_sampling(all_frames=True),
]


def read(
    path: Path, sampling: FrameSampling, *, span: Span = WHOLE, **options: Any
) -> tuple[FrameBatch, VideoFacts]:
    *batches, facts = read_frames(path, sampling, size_px=160, most_frames=8, span=span, **options)
    assert isinstance(facts, VideoFacts)
    parts = [batch for batch in batches if isinstance(batch, FrameBatch)]
    return FrameBatch(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.timestamps_seconds for part in parts]),
        np.concatenate([part.frame_indices for part in parts]),
    ), facts


def require_same(path: Path, sampling: FrameSampling, *, span: Span = WHOLE) -> FrameBatch:
    """Check that decoding what is needed gives what decoding everything gives."""
    some, facts = read(path, sampling, span=span)
    options: dict[str, Any]
    for options in ({"decodes_all": True}, {"kept_bytes": 0}):  # no packets kept: it seeks
        other, other_facts = read(path, sampling, span=span, **options)
        assert facts.n_frames_decoded == other_facts.n_frames_decoded
        np.testing.assert_array_equal(some.frame_indices, other.frame_indices)
        np.testing.assert_array_equal(some.timestamps_seconds, other.timestamps_seconds)
        np.testing.assert_array_equal(some.frames, other.frames)
    return some


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips that are written once, when a test first asks for them."""
    folder = tmp_path_factory.mktemp("clips")

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            recipe = RECIPES[name]
            self[name] = write_clip(folder / f"{name}{recipe.suffix}", recipe)
            return self[name]

    return Made()


@pytest.mark.parametrize("name", RECIPES)
def test_every_frame_comes_out_in_order_and_in_time(clips: dict[str, Path], name: str) -> None:
    batch, facts = read(clips[name], choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(60))
    assert facts.n_frames_decoded == 60
    assert batch.timestamps_seconds[0] == 0
    steps = np.diff(batch.timestamps_seconds)
    if name != "mpeg2-program":  # FFmpeg writes odd times there
        np.testing.assert_allclose(steps, float(1 / RECIPES[name].rate), atol=0.0011)
    assert (steps > 0).all()
    assert "damaged" not in facts.note
    assert "cut off" not in facts.note


@pytest.mark.parametrize("name", RECIPES)
def test_only_what_is_needed_is_the_same_as_everything(clips: dict[str, Path], name: str) -> None:
    for sampling in SAMPLINGS:
        batch = require_same(clips[name], sampling)
        assert read_numbers(batch.frames) == batch.frame_indices.tolist()
    some = require_same(clips[name], choose_sampling(n_frames=5), span=Span(0.8, 1.6))
    assert 0 < len(some.frames) == 5


def test_the_same_frames_after_a_copy_into_another_container(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("h264", "h264-ntsc"):
        for fps in (1, 3, 5, 7.5, 10, 12.5, 25, 29.97, 30):
            sampling = choose_sampling(fps=fps)
            original, _ = read(clips[name], sampling)
            for suffix in (".mkv", ".flv", ".ts", ".mov"):
                copy = tmp_path / f"{name}{suffix}"
                if not copy.exists():
                    remux(clips[name], copy)
                batch = require_same(copy, sampling)
                assert batch.frame_indices.tolist() == original.frame_indices.tolist()
                np.testing.assert_array_equal(batch.frames, original.frames)
    vp9, _ = read(clips["vp9"], choose_sampling(fps=5))
    copy = remux(clips["vp9"], tmp_path / "vp9.mp4")
    assert read(copy, choose_sampling(fps=5))[0].frame_indices.tolist() == (
        vp9.frame_indices.tolist() == list(range(0, 60, 5)) and vp9.frame_indices.tolist()
    )


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".asf", ".mxf"])
def test_times_in_the_order_of_decoding_still_give_the_order_of_showing(
    clips: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    ticks = [512 * number for number in range(60)]
    for name in ("h264", "mpeg4-mp4") if suffix == ".mkv" else ("h264",):
        path = remux(clips[name], tmp_path / f"{name}{suffix}", times=ticks)
        batch = require_same(path, choose_sampling(all_frames=True))
        assert read_numbers(batch.frames) == list(range(60))
        np.testing.assert_allclose(batch.timestamps_seconds, np.arange(60) / 25, atol=0.001)
        for sampling in SAMPLINGS:
            batch = require_same(path, sampling)
            assert read_numbers(batch.frames) == batch.frame_indices.tolist()


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".ts", "libx264", GOPS),
        (".mpg", "mpeg2video", {"bf": "2", "qscale": "2"}),
        (".webm", "libvpx", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
    ],
)
def test_times_go_on_where_files_were_joined(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    recipe = Recipe(suffix, codec, options)
    parts = [write_clip(tmp_path / f"{n}{suffix}", recipe, range(n, n + 30)) for n in (0, 30)]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    batch = require_same(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(60))
    np.testing.assert_allclose(batch.timestamps_seconds, np.arange(60) / 25, atol=0.05)
    assert "no timestamps" not in read(path, choose_sampling(n_frames=5))[1].note


def test_pictures_that_an_avi_file_repeats_are_not_missing(tmp_path: Path) -> None:
    for bf in ("0", "2"):
        recipe = Recipe(".avi", "mpeg4", {"bf": bf, "g": "12", "qscale": "2"})
        whole = write_clip(tmp_path / f"whole{bf}.avi", recipe)
        ticks = [number + (10 if number >= 30 else 0) for number in range(60)]
        path = remux(whole, tmp_path / f"gap{bf}.avi", times=ticks)
        batch, facts = read(path, choose_sampling(all_frames=True))
        assert read_numbers(batch.frames) == list(range(60))
        assert facts.note == ""
        assert batch.timestamps_seconds[-1] == pytest.approx(69 / 25)


def test_an_avi_index_with_a_hole_misleads_nobody(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", Recipe(".avi", "mpeg4", {"g": "12", "qscale": "2"}))
    content = bytearray(path.read_bytes())
    at = content.index(b"idx1") + 8
    content[at + 16 * 10 : at + 16 * 14] = bytes(64)
    path.write_bytes(content)
    for sampling in (choose_sampling(n_frames=1), *SAMPLINGS):
        batch = require_same(path, sampling)
        assert read_numbers(batch.frames) == batch.frame_indices.tolist()


def test_a_palette_is_kept_where_frames_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "palette.avi"
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 1:] = np.arange(256, dtype=np.uint8)[::-1, None]
    palette[:, 0] = 255
    with av.open(str(path), "w") as target:
        stream = target.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "pal8"
        for number in range(60):
            indices = 255 - draw_number(number)[:, :, 0]
            frame = av.VideoFrame.from_ndarray((indices, palette), format="pal8")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    for sampling in (choose_sampling(n_frames=1), *SAMPLINGS):
        batch = require_same(path, sampling)
        assert read_numbers(batch.frames) == batch.frame_indices.tolist()


def test_a_stream_that_starts_between_key_frames(clips: dict[str, Path], tmp_path: Path) -> None:
    for name, codec_first in (("h264-ts", 12), ("hevc-ts", 12), ("mpeg2-ts", 12)):
        path = remux(clips[name], tmp_path / f"{name}.ts", drop=range(5))
        batch, facts = read(path, choose_sampling(all_frames=True))
        numbers = read_numbers(batch.frames)
        assert numbers == list(range(numbers[0], 60))
        assert numbers[0] <= codec_first
        assert -1 not in numbers
        assert facts.n_frames_decoded == len(numbers)
        require_same(path, choose_sampling(n_frames=5))


def test_times_start_at_zero_wherever_stamps_begin(clips: dict[str, Path], tmp_path: Path) -> None:
    path = remux(clips["h264-mkv"], tmp_path / "late.mkv", shift=5000)
    batch = require_same(path, choose_sampling(n_frames=7))
    assert batch.timestamps_seconds[0] == 0
    assert batch.timestamps_seconds[-1] == pytest.approx(59 / 25, abs=0.002)


def test_variable_frame_rates_keep_their_times(clips: dict[str, Path], tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(3).integers(5, 200, 60)).tolist()
    path = remux(clips["h264-no-b"], tmp_path / "vfr.mkv", times=times)
    batch = require_same(path, choose_sampling(all_frames=True))
    wanted = (np.array(times) - times[0]) / 1000
    base = batch.timestamps_seconds * 1000
    assert np.corrcoef(base, wanted)[0, 1] > 0.99999
    require_same(path, choose_sampling(fps=4))


@pytest.mark.parametrize("name", ["h264", "h264-mkv", "h264-ts", "mpeg4-avi", "vp9", "mjpeg-avi"])
def test_damaged_bytes_cost_a_few_frames_only(
    clips: dict[str, Path], tmp_path: Path, name: str
) -> None:
    for seed in range(6):
        path = damage(clips[name], tmp_path / f"{seed}{clips[name].suffix}", seed=seed)
        for sampling in SAMPLINGS:
            try:
                batch = require_same(path, sampling)
            except VideoUnreadable:
                continue
            assert (np.diff(batch.timestamps_seconds) > 0).all()
        _, facts = read(path, choose_sampling(all_frames=True))
        assert facts.n_frames_decoded >= 40


def harm(content: bytes, generator: random.Random) -> bytes:
    """Flip bits, overwrite, cut, blank or repeat something of a file, its header or the rest."""
    harmed = bytearray(content)
    start = generator.choice([0, min(2000, len(harmed) // 4)])
    at = generator.randrange(start, len(harmed))
    kind = generator.choice(["bits", "noise", "cut", "blank", "repeat"])
    if kind == "bits":
        for _ in range(generator.choice([1, 5, 40])):
            harmed[generator.randrange(start, len(harmed))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del harmed[max(at, 1) :]
    elif kind == "repeat":
        harmed[at:at] = harmed[at : at + generator.choice([7, 188, 900])]
    else:
        n_bytes = min(len(harmed) - at, generator.choice([8, 60, 600]))
        harmed[at : at + n_bytes] = (
            bytes(n_bytes) if kind == "blank" else generator.randbytes(n_bytes)
        )
    return bytes(harmed)


@pytest.mark.parametrize("n_copies", [20, pytest.param(1000, marks=pytest.mark.soak)])
def test_harmed_copies_decode_the_same_in_every_way(
    clips: dict[str, Path], tmp_path: Path, n_copies: int
) -> None:
    generator = random.Random(n_copies)
    names = [name for name in RECIPES if not name.startswith("av1")]  # slow to write
    for _ in range(n_copies):
        source = clips[generator.choice(names)]
        path = tmp_path / f"harmed{source.suffix}"
        path.write_bytes(harm(source.read_bytes(), generator))
        sampling = generator.choice(
            [
                choose_sampling(n_frames=7),
                choose_sampling(stride=9),
                choose_sampling(fps=3),
                choose_sampling(all_frames=True),
            ]
        )
        try:
            batch = require_same(path, sampling)
        except VideoUnreadable:
            for options in ({"decodes_all": True}, {"kept_bytes": 0}):
                with pytest.raises(VideoUnreadable):
                    read(path, sampling, **options)
            continue
        assert (np.diff(batch.timestamps_seconds) > 0).all()


def test_a_cut_file_is_called_cut(clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("h264", "h264-mkv", "h264-ts", "mpeg4-avi", "h264-no-b"):
        _, facts = read(clips[name], choose_sampling(n_frames=5))
        assert facts.note == ""
    content = clips["mpeg4-avi"].read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(content[: len(content) * 3 // 4])
    _, facts = read(path, choose_sampling(n_frames=5))
    assert "cut off" in facts.note
    assert 10 < facts.n_frames_decoded < 50
    for name in ("h264-mkv", "vp8"):
        content = clips[name].read_bytes()
        path = tmp_path / f"cut{clips[name].suffix}"
        path.write_bytes(content[: len(content) * 3 // 5])
        for sampling in (choose_sampling(n_frames=5), choose_sampling(all_frames=True)):
            assert "the header claims 2.4 s, 1." in read(path, sampling)[1].note
        assert "cut off" not in read(clips[name], choose_sampling(n_frames=5))[1].note


def test_a_raw_stream_is_counted_at_its_rate(clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "raw.mp4"
    path.write_bytes(clips["h264-raw"].read_bytes())
    batch, facts = read(path, choose_sampling(fps=5))
    assert batch.frame_indices.tolist() == list(range(0, 60, 5))
    assert "no timestamps" in facts.note
    np.testing.assert_allclose(batch.timestamps_seconds, np.arange(0, 60, 5) / 25)


MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1), "bt2020": (0.2627, 0.0593, 9)}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le", "yuv420p10le"])
@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", [*MATRICES, "untagged"])
def test_colours_follow_the_tags(tmp_path: Path, matrix: str, is_full: bool, pix_fmt: str) -> None:
    """Compare with the formulas of BT.601, BT.709 and BT.2020 in floating point."""
    if matrix == "untagged" and is_full:
        pytest.skip("what has no tags is taken for limited range")
    red, blue, tag = MATRICES.get(matrix, MATRICES["bt601"])
    generator = np.random.default_rng(11)
    # Colours that exist: their planes are computed from RGB.
    rgb = generator.uniform(0.1, 0.9, (6, 8, 3)).repeat(16, 0).repeat(16, 1)
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    bits = 10 if "10" in pix_fmt else 8
    peak, unit = 2**bits - 1, 2 ** (bits - 8)
    spread = (peak, peak) if is_full else (219 * unit, 224 * unit)
    planes = [luma * spread[0] + (0 if is_full else 16 * unit)]
    planes += [part * spread[1] + 128 * unit for part in chroma]
    dtype = np.uint16 if bits == 10 else np.uint8
    frame = av.VideoFrame(128, 96, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        step = (96 // plane.height, 128 // plane.width)
        rows = np.zeros((plane.height, plane.line_size // dtype().itemsize), dtype)
        rows[:, : plane.width] = values[:: step[0], :: step[1]].round()
        plane.update(rows.tobytes())
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        if matrix != "untagged":
            stream.codec_context.colorspace = tag
            stream.codec_context.color_range = 2 if is_full else 1
            frame.colorspace, frame.color_range = tag, 2 if is_full else 1
        frame.pts = 0
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    _, picture, _ = read_pictures(path)
    assert not isinstance(picture, VideoFacts)
    # Where subsampled colours meet, the way of enlarging them shows.
    inside = np.zeros((96, 128), bool)
    inside.reshape(6, 16, 8, 16)[:, 4:12, :, 4:12] = True
    error = np.abs(picture[:, :, ::-1].astype(float) - 255 * rgb)[inside]
    assert error.max() < 4
    assert error.mean() < 1.2


@pytest.mark.parametrize("turn", range(8))
def test_rotations_and_flips_are_applied(tmp_path: Path, turn: int) -> None:
    """Move every pixel as the matrix of the track says: x' = a x + c y, y' = b x + d y."""
    matrix = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turn % 4)
    if turn >= 4:
        matrix = matrix @ np.array([[-1, 0], [0, 1]])
    recipe = Recipe(".mp4", "libx264", X264)
    path = write_clip(tmp_path / "a.mp4", recipe, 3)
    _, flat, *_ = read_pictures(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    numbers = [matrix[0, 0], matrix[0, 1], 0, matrix[1, 0], matrix[1, 1], 0, 0, 0]
    content[at : at + 32] = struct.pack(">8i", *(int(number) << 16 for number in numbers))
    path.write_bytes(content)
    _, turned, *_ = read_pictures(path)
    assert not isinstance(flat, VideoFacts)
    assert not isinstance(turned, VideoFacts)
    height, width = flat.shape[:2]
    y, x = np.mgrid[:height, :width]
    new_x, new_y = matrix[0, 0] * x + matrix[1, 0] * y, matrix[0, 1] * x + matrix[1, 1] * y
    wanted = np.zeros((np.ptp(new_y) + 1, np.ptp(new_x) + 1, 3), np.uint8)
    wanted[new_y - new_y.min(), new_x - new_x.min()] = flat
    np.testing.assert_array_equal(turned, wanted)


def test_edit_lists_hide_what_players_hide(clips: dict[str, Path], tmp_path: Path) -> None:
    ticks = 512 * 10
    path = remux(
        clips["h264"], tmp_path / "edited.mp4", shift=-ticks, mux={"avoid_negative_ts": "disabled"}
    )
    batch = require_same(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(10, 60))
    batch = require_same(path, choose_sampling(n_frames=5))
    assert batch.timestamps_seconds[0] == 0
    assert read(path, choose_sampling(n_frames=5))[1].note == ""


@pytest.mark.parametrize(("first", "n_frames"), [(0, 25), (10, 20)])
def test_what_edit_lists_cut_is_not_called_cut_off(
    clips: dict[str, Path], tmp_path: Path, first: int, n_frames: int
) -> None:
    content = bytearray(clips["h264"].read_bytes())
    at = content.index(b"elst") + 12
    (begin,) = struct.unpack_from(">i", content, at + 4)
    struct.pack_into(">Ii", content, at, n_frames * 40, begin + 512 * first)
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(content)
    batch, facts = read(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(first, first + n_frames))
    assert facts.note == ""
    for sampling in SAMPLINGS:
        require_same(path, sampling)


def test_a_playlist_called_a_video_opens_no_other_file(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other.mp4").write_bytes(clips["h264"].read_bytes())
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(VideoUnreadable, match="a playlist, which names other files"):
        read(path, choose_sampling())


def test_size_and_format_may_change_midway(tmp_path: Path) -> None:
    small = Recipe(".ts", "libx264", GOPS)
    large = Recipe(".ts", "libx264", GOPS, "yuv444p", size=(320, 240))
    one = write_clip(tmp_path / "1.ts", small, range(30))
    two = write_clip(tmp_path / "2.ts", large, range(30, 60))
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    batch = require_same(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(60))
    assert (np.diff(batch.timestamps_seconds) > 0).all()
    assert batch.timestamps_seconds[-1] == pytest.approx(59 / 25, abs=0.1)


def test_a_stream_that_turns_interlaced_midway(tmp_path: Path) -> None:
    still_order = {"keyint": "10", "bframes": "0"}
    one = write_clip(tmp_path / "1.ts", Recipe(".ts", "libx264", x264(**still_order)), range(30))
    interlaced = Recipe(".ts", "libx264", x264(tff="1", **still_order), is_interlaced=True)
    two = write_clip(tmp_path / "2.ts", interlaced, range(30, 60))
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    assert read_numbers(require_same(path, choose_sampling(stride=1)).frames) == list(range(60))
    mkv = remux(path, tmp_path / "both.mkv", times=[3600 * number for number in range(60)])
    for sampling in SAMPLINGS:
        require_same(mkv, sampling)


@pytest.mark.parametrize(
    ("suffix", "first", "n_first"),
    [
        (".mkv", Recipe("", "libx264", X264, size=(64, 48)), 60),
        (".mp4", Recipe("", "mjpeg", {}, "yuvj420p", size=(640, 480)), 1),
    ],
)
def test_the_stream_that_is_meant_is_taken(
    tmp_path: Path, suffix: str, first: Recipe, n_first: int
) -> None:
    path = tmp_path / f"two{suffix}"
    with av.open(str(path), "w") as target:
        streams = [add_stream(target, first), add_stream(target, RECIPES["h264"])]
        streams[1].disposition = 1
        encode(first, list(range(100, 100 + n_first)), target, streams[0])
        encode(RECIPES["h264"], list(range(60)), target, streams[1])
    batch, facts = read(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(60))
    assert "video stream 2 of 2 is taken" in facts.note
    require_same(path, choose_sampling(n_frames=6))


def test_a_gap_in_which_only_sound_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    recipe = RECIPES["h264"]
    with av.open(str(path), "w") as target:
        video, sound = add_stream(target, recipe), target.add_stream("aac", rate=8000)
        for at in range(0, 8000 * 120, 1024):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.rate, noise.pts, noise.time_base = 8000, at, Fraction(1, 8000)
            target.mux(sound.encode(noise))
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
            frame.pts, frame.time_base = number + (2500 if number >= 30 else 0), Fraction(1, 25)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
    batch = require_same(path, choose_sampling(all_frames=True))
    assert read_numbers(batch.frames) == list(range(60))
    assert batch.timestamps_seconds[-1] == pytest.approx(2559 / 25, abs=0.01)
    inside = require_same(path, choose_sampling(n_frames=4), span=Span(101.0, 102.0))
    assert read_numbers(inside.frames)[0] == 30


def test_an_unknown_codec_is_named_with_what_mends_it(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "odd.mp4"
    path.write_bytes(clips["h264"].read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoUnreadable, match=r"codec.*zzzz.*ffmpeg -i IN -c:v libx264"):
        list(read_frames(path, choose_sampling(), size_px=32))


def test_what_is_encrypted_is_called_so(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "ab" * 16}
    recipe = Recipe(".mp4", "libx264", mux={**key, "encryption_kid": "cd" * 16})
    path = write_clip(tmp_path / "secret.mp4", recipe, 5)
    with pytest.raises(VideoUnreadable, match=r"its video, h264.*is encrypted"):
        list(read_frames(path, choose_sampling(), size_px=32))


def test_spans_share_one_pass(clips: dict[str, Path]) -> None:
    spans = [Span(0.0, 0.5), Span(0.4, 1.2), Span(2.0, 9.0), Span(5.0, 6.0)]
    sampling = choose_sampling(n_frames=4)
    for name in ("h264", "h264-ts", "mpeg2-program"):
        *batches, facts = read_spans(clips[name], spans, sampling, size_px=160)
        assert isinstance(facts, VideoFacts)
        found: dict[int, list[int]] = {}
        for item in batches:
            assert not isinstance(item, VideoFacts)
            found.setdefault(item[0], []).extend(item[1].frame_indices.tolist())
            assert read_numbers(item[1].frames) == item[1].frame_indices.tolist()
        for number, span in enumerate(spans[:3]):
            alone, _ = read(clips[name], sampling, span=span)
            assert found[number] == alone.frame_indices.tolist()
        assert 3 not in found
    with pytest.raises(VideoUnreadable, match="no frame between 5 and 6 s"):
        read(clips["h264"], sampling, span=Span(5.0, 6.0))
    for name in ("h264", "h264-ts"):
        for span in (Span(0.4, 0.8), Span(10, 20, "frames")):
            for sampling in (choose_sampling(all_frames=True), choose_sampling(n_frames=10)):
                one = read(clips[name], sampling, span=span)[0]
                assert one.frame_indices.tolist() == list(range(10, 20))
    late = read(clips["h264"], choose_sampling(stride=4), span=Span(50, unit="frames"))[0]
    assert late.frame_indices.tolist() == [50, 54, 58]


def test_pictures_of_a_span_are_those_of_that_part(clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("h264", "h264-ts", "h264-interlaced", "mpeg4-avi", "gif"):
        path = clips[name]
        whole = [item for item in read_pictures(path) if not isinstance(item, VideoFacts)]
        for span in (Span(0.4, 0.8), Span(10, 20, "frames")):
            _, *pictures, _ = read_pictures(path, span=span)
            np.testing.assert_array_equal(pictures, whole[10:20])
    harmed = damage(clips["h264"], tmp_path / "harmed.mp4", seed=2)
    whole = [item for item in read_pictures(harmed) if not isinstance(item, VideoFacts)]
    _, *pictures, _ = read_pictures(harmed, span=Span(5, 50, "frames"))
    np.testing.assert_array_equal(pictures, whole[5:50])


def test_a_span_that_damage_leaves_without_a_frame_is_said_to_have_none(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    content = bytearray(clips["vp9-mp4"].read_bytes())
    with av.open(str(clips["vp9-mp4"])) as source:
        places = [packet.pos for packet in source.demux(video=0) if packet.size]
    for number in (*range(20, 40), 59):  # of a whole group of pictures nothing decodes
        place = places[number]
        assert place is not None
        content[place + 1 : place + 12] = bytes(11)
    path = tmp_path / "harmed.mp4"
    path.write_bytes(content)
    n_frames = read(path, choose_sampling(all_frames=True))[1].n_frames_decoded
    assert n_frames < 50
    for sampling in (choose_sampling(n_frames=7), choose_sampling(all_frames=True)):
        with pytest.raises(VideoUnreadable, match="no frame between 55 and the end"):
            read(path, sampling, span=Span(55, unit="frames"))


def test_one_picture_is_the_frame_of_that_number(clips: dict[str, Path]) -> None:
    for name in ("h264", "h264-open-gop", "h264-interlaced", "vp9", "mpeg2-ts", "mpeg4-avi"):
        for number in (0, 17, 59):
            coded = read_picture(clips[name], number, most_px=160)
            picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
            assert picture is not None
            assert read_numbers([picture.astype(np.uint8)]) == [number]
        with pytest.raises(VideoUnreadable, match="ends before frame 60"):
            read_picture(clips[name], 60, most_px=160)
