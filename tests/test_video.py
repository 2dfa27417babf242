from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import grey_frames, noisy_frames, write_video
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import VideoUnreadable
from features.records import FrameArray, FrameSampling, VideoFacts
from features.video.decode import read_frames
from features.video.frames import FrameBatch, resize_frame
from features.video.sampling import sample_indices


def read_all(
    path: Path, sampling: FrameSampling, *, size_px: int = 32, most_frames: int = 7
) -> tuple[FrameBatch, VideoFacts]:
    """Join the batches of one file."""
    *batches, facts = read_frames(path, sampling, size_px=size_px, most_frames=most_frames)
    assert isinstance(facts, VideoFacts)
    parts = [batch for batch in batches if isinstance(batch, FrameBatch)]
    assert len(parts) == len(batches)
    assert all(len(part.frames) <= most_frames for part in parts)
    joined = FrameBatch(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.timestamps_seconds for part in parts]),
        np.concatenate([part.frame_indices for part in parts]),
    )
    return joined, facts


def indices_in_pixels(frames: FrameArray, *, step: int = 4) -> list[int]:
    return [round(float(frame.mean()) / step) for frame in frames]


@pytest.mark.parametrize("n_wanted", [1, 5, 20, 60, 100])
def test_the_frames_are_the_ones_asked_for_in_order(tmp_path: Path, n_wanted: int) -> None:
    path = write_video(tmp_path / "a.avi", grey_frames(60))
    batch, facts = read_all(path, FrameSampling("uniform", n_wanted))
    wanted = sample_indices(60, n_wanted=n_wanted).tolist()
    assert batch.frame_indices.tolist() == wanted
    assert indices_in_pixels(batch.frames) == wanted
    np.testing.assert_allclose(batch.timestamps_seconds, np.array(wanted) / 25, atol=1e-3)
    assert facts == VideoFacts(60, 60, 25.0, 64, 48)


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (FrameSampling("stride", 7), list(range(0, 60, 7))),
        (FrameSampling("stride", 1), list(range(60))),
        (FrameSampling("fps", 5.0), list(range(0, 60, 5))),
        (FrameSampling("fps", 1000.0), list(range(60))),
    ],
)
def test_streamed_samplings(tmp_path: Path, sampling: FrameSampling, wanted: list[int]) -> None:
    path = write_video(tmp_path / "a.avi", grey_frames(60))
    batch, _ = read_all(path, sampling)
    assert indices_in_pixels(batch.frames) == wanted == batch.frame_indices.tolist()


def test_colours_are_rgb(tmp_path: Path) -> None:
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    frames = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    batch, _ = read_all(write_video(tmp_path / "a.avi", frames), FrameSampling("stride", 1))
    means = batch.frames.mean(axis=(1, 2))
    assert means.argmax(axis=1).tolist() == [0, 1, 2]


@settings(max_examples=20, deadline=None)
@given(cut=st.floats(0.2, 0.9))
def test_the_header_of_a_cut_file_is_not_believed(
    cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = write_video(folder / "whole.avi", noisy_frames(50, seed=1)).read_bytes()
    path = folder / "cut.avi"
    path.write_bytes(whole[: int(len(whole) * cut)])
    batch, facts = read_all(path, FrameSampling("uniform", 10))
    assert facts.n_frames_decoded < facts.n_frames_header == 50
    wanted = sample_indices(facts.n_frames_decoded, n_wanted=10)
    np.testing.assert_array_equal(batch.frame_indices, wanted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not a video at all", "no video stream"),
        (b"RIFF\x00\x10\x00\x00AVI LIST", "no video stream"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    with pytest.raises(VideoUnreadable, match=reason):
        list(read_frames(path, FrameSampling("uniform", 5), size_px=32))


def test_a_playlist_in_disguise_opens_nothing_else(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.avi", grey_frames(10))
    disguised = tmp_path / "list.mp4"
    disguised.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoUnreadable):
        list(read_frames(disguised, FrameSampling("uniform", 5), size_px=32))


@pytest.mark.parametrize("name", ["a%02d.avi", "a b'c\"d.avi", "ключ.avi", "a\nb.avi", "-x.avi"])
def test_odd_names_decode(tmp_path: Path, name: str) -> None:
    plain = write_video(tmp_path / "plain.avi", grey_frames(12))
    path = plain.rename(tmp_path / name)
    batch, _ = read_all(path, FrameSampling("stride", 1))
    assert indices_in_pixels(batch.frames) == list(range(12))


def test_a_name_that_is_not_utf8_decodes(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.avi", grey_frames(12))
    path = plain.rename(tmp_path / "caf\udce9.avi")
    batch, _ = read_all(path, FrameSampling("stride", 1))
    assert indices_in_pixels(batch.frames) == list(range(12))


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 500), (64, 64), (720, 1280), (7, 2000)])
def test_resize_gives_a_square_and_keeps_the_whole_picture(size: tuple[int, int]) -> None:
    height, width = size
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    picture = np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2)
    small = resize_frame(picture, 32)
    assert small.shape == (32, 32, 3)
    assert small.dtype == np.uint8
    assert abs(float(small.mean()) - float(picture.mean())) < 4
    if width >= 32:
        assert small[0, 0, 0] < 20
        assert small[0, -1, 0] > 235


def test_resize_is_close_to_the_exact_average() -> None:
    """Halving, then bilinear, must not alias: compare with area averaging."""
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    exact = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    ours = resize_frame(picture, 64).astype(float)
    plain = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_LINEAR).astype(float)
    assert np.abs(ours - exact).mean() < 0.5 * np.abs(plain - exact).mean()
