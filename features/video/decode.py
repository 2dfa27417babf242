"""Decoding: the chosen frames of one video file, or of parts of it, as square RGB pictures.

Frames are numbered in the order in which they are shown, from 0, over the whole file. Where its
packets can be trusted, only what the chosen frames need is decoded, and that gives the same
pixels as decoding everything; where not, everything is decoded and the frames that come out count.
Interlaced frames stay as they are coded, both fields woven. Colours follow the tags of the
stream; untagged ones are taken for BT.601 in limited range, as FFmpeg takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from features.errors import VideoUnreadable
from features.places.places import stat_source
from features.records import (
    FloatArray,
    FrameArray,
    FrameSampling,
    IntArray,
    SourceFile,
    VideoFacts,
)
from features.video.frames import FrameBatch, FrameBuffer, PictureMaker, encode_jpeg, upright_size
from features.video.index import (
    KEPT_BYTES,
    PacketIndex,
    Plan,
    plan_decoding,
    read_index,
)
from features.video.packets import INTRA_CODECS
from features.video.sampling import choose_positions, find_grid, make_frame_filter
from features.video.source import (
    LACKS_MEMORY,
    TO_MEND,
    USUAL_RATE,
    VideoSource,
    import_av,
    name_codec,
    open_video,
    read_packets,
    reopen,
)

__all__ = [
    "LACKS_MEMORY",
    "WHOLE",
    "Span",
    "count_frames",
    "read_frames",
    "read_picture",
    "read_pictures",
    "read_spans",
]

# Containers round times; half a millisecond belongs to the next span already.
_SPAN_TOLERANCE = 0.0005
_ENDLESS = float("inf")
_MOST_HELD_BYTES = 64 * 2**20
# The last frame may be shown for longer than others.
_MOST_SILENT_SECONDS = 0.5
# Reading on past fewer packets than this is quicker than seeking.
_LEAST_SEEK = 100


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file: the frame at its end does not belong to it."""

    start: float = -_ENDLESS
    end: float = _ENDLESS
    unit: Literal["seconds", "frames"] = "seconds"

    def __str__(self) -> str:
        """Name the part, for a message."""
        end = "the end" if self.end == _ENDLESS else f"{self.end:g}"
        return f"{self.start:g} and {end}" + (" s" if self.unit == "seconds" else "")

    def places(self, times: FloatArray) -> tuple[int, int]:
        """Return the positions of the first frame and of the one behind the last."""
        bounds = np.array([self.start, self.end])
        if self.unit == "frames":
            first, last = np.clip(bounds, 0, len(times)).astype(np.int64).tolist()
        else:
            first, last = np.searchsorted(times, bounds - _SPAN_TOLERANCE).tolist()
        return first, max(first, last)

    def holds(self, position: int, seconds: float) -> bool:
        """Tell whether a frame belongs to it."""
        place = position if self.unit == "frames" else seconds + _SPAN_TOLERANCE
        return self.start <= place < self.end


WHOLE = Span()


def read_frames(
    path: Path,
    sampling: FrameSampling,
    *,
    size_px: int,
    most_frames: int = 32,
    on_progress: Callable[[], None] = lambda: None,
    span: Span = WHOLE,
    decodes_all: bool = False,
    kept_bytes: int = KEPT_BYTES,
    frame_rate: float | None = None,
) -> Iterator[FrameBatch | VideoFacts]:
    """Decode the chosen frames of a video file, or of a part of it.

    Parameters
    ----------
    path : Path
    sampling : FrameSampling
    size_px : int
        Side of the square pictures, pixels.
    most_frames : int, default 32
        Frames per batch, at most.
    on_progress : callable, optional
        Called once per packet, to show that decoding is alive.
    span : Span, optional
        The part to choose frames from.
    decodes_all : bool, default False
        Decode everything, which gives the same frames: the check of all that is left out.
    kept_bytes : int, default 64 MiB
        Packets of a video up to this size are kept in memory, so that the file is read once.
    frame_rate : float, optional
        Frames per second of a folder of pictures.

    Yields
    ------
    FrameBatch or VideoFacts
        Batches in the order of time, and last what the whole file showed.

    Raises
    ------
    VideoUnreadable
        If no frame decodes; then nothing was yielded.
    DecoderBroken, OpenCVBroken
        If PyAV or OpenCV cannot be imported.
    """
    for item in read_spans(
        path,
        [span],
        sampling,
        size_px=size_px,
        most_frames=most_frames,
        on_progress=on_progress,
        decodes_all=decodes_all,
        kept_bytes=kept_bytes,
        frame_rate=frame_rate,
    ):
        yield item if isinstance(item, VideoFacts) else item[1]


def read_spans(
    path: Path,
    spans: Sequence[Span],
    sampling: FrameSampling,
    *,
    size_px: int,
    most_frames: int = 32,
    on_progress: Callable[[], None] = lambda: None,
    decodes_all: bool = False,
    kept_bytes: int = KEPT_BYTES,
    frame_rate: float | None = None,
) -> Iterator[tuple[int, FrameBatch] | VideoFacts]:
    """Decode the chosen frames of several parts of one file in one pass; see `read_frames`.

    Yields (number of the span, batch), each span's in the order of time, and last the facts. A
    single span without a frame is a `VideoUnreadable`; of several, it yields nothing.
    """
    with open_video(path, frame_rate) as source:
        index = _read_index(source, on_progress, kept_bytes, keeps=WHOLE not in spans)
        job = _Job(source, index, spans, sampling, size_px, most_frames, on_progress)
        yield from job.run(decodes_all=decodes_all)
        yield job.facts()


# Spans of one file are often read one after the other.
_last_index: dict[tuple[Path, SourceFile, float | None, int], PacketIndex] = {}


def _read_index(
    source: VideoSource, on_progress: Callable[[], None], kept_bytes: int, *, keeps: bool
) -> PacketIndex:
    key = (source.path, stat_source(source.path), source.given_rate, kept_bytes)
    index = _last_index.get(key)
    if index is None or not keeps:
        _last_index.clear()
        index = read_index(source, on_progress, kept_bytes=kept_bytes)
        if keeps:
            _last_index[key] = index
    return index


class _Surprise(Exception):
    """What came out of the decoder is not what the packets let expect."""


class _Lost(_Surprise):
    """Decoding only what is needed does not work: everything must be decoded."""


class _Decoder:
    """Sends packets to a source's decoder and counts those from which it makes nothing."""

    def __init__(self, source: VideoSource) -> None:
        self._context = source.stream.codec_context
        self._error = import_av().error.FFmpegError
        self.n_bad = 0

    def send(self, packet: Any) -> Sequence[Any]:
        try:
            return self._context.decode(packet)  # type: ignore[no-any-return]
        except MemoryError:
            raise
        except self._error:
            # Some decoders call it bad data when it is memory that they lack.
            bytearray(2 * self._context.width * self._context.height)
            self.n_bad += packet is not None
            return ()

    def drain(self) -> Sequence[Any]:
        """Take the frames that wait for later ones, and be ready for another place."""
        frames = self.send(None)
        self._context.flush_buffers()
        return frames


class _Clock:
    """Times of decoded frames: strictly increasing, whatever the file says."""

    def __init__(self, source: VideoSource, index: PacketIndex) -> None:
        base = source.stream.time_base
        self._base = (base.numerator, base.denominator) if base else (1, 1)
        self._index = index
        self._step = 1.0 / float(source.frame_rate or USUAL_RATE)
        self._shift = -index.start_seconds
        self._last: float | None = None

    def tell(self, frame: Any, position: int) -> float:
        seconds = None
        if self._index.is_counted:
            times = self._index.times
            seconds = float(times[position]) if position < len(times) else None
        elif frame.pts is not None:
            seconds = float(frame.pts) * self._base[0] / self._base[1] + self._shift
        if self._last is None:
            self._last = 0.0 if seconds is None else seconds
            return self._last
        if seconds is None:
            seconds = self._last + self._step
        elif seconds <= self._last:
            seconds = self._last + self._step / 2
        self._last = seconds
        return seconds


def _decode_forward(
    source: VideoSource, index: PacketIndex, decoder: _Decoder, on_progress: Callable[[], None]
) -> Iterator[Any]:
    """Yield every frame of a source of which nothing was decoded yet."""
    with ExitStack() as stack:
        packets: Iterable[Any] | None = index.packets
        if packets is None:
            # From another container: where reading has to seek, this one's decoder would forget.
            reader = stack.enter_context(reopen(source))
            packets = read_packets(reader, on_progress)
        for number, packet in enumerate(packets):
            on_progress()
            if index.is_retimed:
                packet.pts = index.pts[number]
            if number >= index.n_lead_in and packet.size:
                yield from decoder.send(packet)
        yield from decoder.drain()


def _decode_plan(
    source: VideoSource,
    index: PacketIndex,
    plan: Plan,
    decoder: _Decoder,
    on_progress: Callable[[], None],
) -> Iterator[Any]:
    """Yield the frames of a plan and what else had to be decoded for them."""
    reader = _PacketReader(source, index, on_progress)
    for segment in plan.segments:
        reader.go_to(segment.begin)
        for number in range(segment.begin, segment.end):
            packet = reader.take(number)
            if number in plan.packets:
                packet.pts = index.pts[number]
                yield from decoder.send(packet)
        yield from decoder.drain()


class _PacketReader:
    """Hands out packets by number: kept ones, or from the file, where it seeks."""

    def __init__(
        self, source: VideoSource, index: PacketIndex, on_progress: Callable[[], None]
    ) -> None:
        self._source = source
        self._index = index
        self._on_progress = on_progress
        self._next = len(index.pts)  # the file has just been read to its end
        self._packets: Iterator[Any] = iter(())
        self._first: Any = None
        stamps = index.dts if index.is_retimed else index.pts
        # A damaged index may lead elsewhere than its stamps say.
        self._marks = list(zip(stamps, index.places, strict=True))
        self._number_of: dict[tuple[int | None, int | None], int] = {}

    def _mark(self, packet: Any) -> tuple[int | None, int | None]:
        return packet.dts if self._index.is_retimed else packet.pts, packet.pos

    def go_to(self, number: int) -> None:
        if self._index.packets is not None or 0 <= number - self._next < _LEAST_SEEK:
            return
        stamp = self._index.dts[number]
        if stamp is None or self._source.is_matroska:
            stamp = self._index.pts[number]
        try:
            self._source.container.seek(stamp, stream=self._source.stream)
        except (OSError, ValueError) as problem:
            raise _Lost from problem
        self._packets = read_packets(self._source, self._on_progress)
        # It stops at a key frame at or before the one that is asked for.
        self._number_of = self._number_of or {mark: at for at, mark in enumerate(self._marks)}
        for packet in self._packets:
            at = self._number_of.get(self._mark(packet), len(self._marks))
            if at > number:
                break
            self._next = at + 1
            if at == number:
                self._first = packet
                return
        raise _Lost

    def take(self, number: int) -> Any:
        self._on_progress()
        if self._index.packets is not None:
            return self._index.packets[number]
        if number == self._next - 1:
            return self._first
        packet = None
        while self._next <= number:
            packet = next(self._packets, None)
            if packet is None or self._mark(packet) != self._marks[self._next]:
                raise _Lost
            self._next += 1
        return packet


class _Job:
    """One file, its spans, and what has come of them so far."""

    def __init__(
        self,
        source: VideoSource,
        index: PacketIndex,
        spans: Sequence[Span],
        sampling: FrameSampling,
        size_px: int,
        most_frames: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._source = source
        self._index = index
        self._spans = spans
        self._sampling = sampling
        self._on_progress = on_progress
        self._maker = PictureMaker("rgb24")
        most_chosen = sampling.value if sampling.strategy == "uniform" else most_frames
        self._shape = (size_px, min(most_frames, int(most_chosen)))
        self._decoder = _Decoder(source)
        self._is_fresh = True  # nothing was sent to the decoder yet
        self._grid = find_grid(index.times, source.frame_rate)
        self._n_decoded = 0
        self.restart()

    def restart(self) -> None:
        self._size = (0, 0)
        self._buffers = [FrameBuffer(*self._shape) for _ in self._spans]

    def _choose(self, times: Any) -> list[IntArray]:
        """Choose the positions of each span's frames, given the time of every frame."""
        chosen = []
        for span in self._spans:
            first, last = span.places(times)
            inside = choose_positions(times[first:last], self._sampling, self._grid)
            chosen.append(inside + first)
        return chosen

    def run(self, *, decodes_all: bool = False) -> Iterator[tuple[int, FrameBatch]]:
        """Decode what is needed, or everything where that does not work."""
        plan = self.plan()
        while plan is not None:
            try:
                yield from self.follow(plan, decodes_all=decodes_all)
                return
            except _Lost:
                self.restart()
                decodes_all = True
            except _Surprise:
                self.restart()
                plan = None
        yield from self.decode_all()

    def plan(self) -> Plan | None:
        """Plan the least decoding, where that can be less than everything."""
        self._chosen = self._choose(self._index.times)
        wanted = {int(position) for part in self._chosen for position in part}
        if not wanted or len(wanted) == self._index.n_frames:
            return None
        return plan_decoding(self._index, wanted)

    def _takers(self) -> dict[int, list[int]]:
        """Tell which spans take the frame at each wanted position."""
        takers: dict[int, list[int]] = {}
        for span, part in enumerate(self._chosen):
            for position in part.tolist():
                takers.setdefault(position, []).append(span)
        return takers

    def follow(self, plan: Plan, *, decodes_all: bool) -> Iterator[tuple[int, FrameBatch]]:
        """Decode by a plan; `_Surprise` if it fails before anything was yielded."""
        takers, times = self._takers(), self._index.times
        held: list[tuple[int, FrameBatch]] = []
        n_held = done = 0
        is_held = True
        frames = self._frames_of(plan, decodes_all=decodes_all)
        missing = set(plan.expected)
        is_intra = self._source.codec in INTRA_CODECS
        while True:
            try:
                frame = next(frames, None)
                if self._decoder.n_bad and not decodes_all and is_held:
                    raise _Lost
                if frame is None:
                    break
                is_odd = frame.is_corrupt or (frame.interlaced_frame and not is_intra)
                if frame.pts in missing:
                    if is_odd:
                        raise _Surprise
                    missing.discard(frame.pts)
            except _Surprise:
                if is_held:
                    raise
                # Too late to number anew: what is still wanted and decodes is taken.
                self._decoder = _Decoder(self._source)
                frames, missing = self._again(), set()
                continue
            position = plan.position_of.get(frame.pts, -1)
            if position < done:
                continue
            done = position + 1
            for span, batch in self._keep(frame, takers[position], times[position], position):
                held.append((span, batch))
                n_held += batch.frames.nbytes
            if not is_held or (n_held > _MOST_HELD_BYTES and self._sampling.strategy != "uniform"):
                is_held = False
                yield from held
                held.clear()
        if missing and is_held:
            raise _Surprise if decodes_all else _Lost
        self._n_decoded = self._index.n_frames
        yield from held
        yield from self._rest()

    def _frames_of(self, plan: Plan, *, decodes_all: bool) -> Iterator[Any]:
        if decodes_all:
            return self._again()
        if self._is_fresh:
            # What is wrong must show, not be papered over: then everything is decoded.
            context = self._source.stream.codec_context
            context.options = {**context.options, "err_detect": "explode"}
        self._is_fresh = False
        return _decode_plan(self._source, self._index, plan, self._decoder, self._on_progress)

    def _again(self) -> Iterator[Any]:
        """Yield every frame, from the beginning, out of a decoder that has seen nothing."""
        if self._index.packets is not None and self._is_fresh:
            self._is_fresh = False
            yield from _decode_forward(self._source, self._index, self._decoder, self._on_progress)
            return
        with reopen(self._source) as source:
            self._decoder = _Decoder(source)
            yield from _decode_forward(source, self._index, self._decoder, self._on_progress)

    def decode_all(self) -> Iterator[tuple[int, FrameBatch]]:
        """Decode everything and number what comes out."""
        if self._sampling.strategy == "uniform":
            yield from self._decode_uniform()
            return
        filters = [make_frame_filter(self._sampling, self._grid) for _ in self._spans]
        counts = [0] * len(self._spans)
        clock = _Clock(self._source, self._index)
        self._n_decoded = 0
        for position, frame in enumerate(self._again()):
            seconds = clock.tell(frame, position)
            self._n_decoded += 1
            takers: list[int] = []
            for number, span in enumerate(self._spans):
                if not span.holds(position, seconds):
                    continue
                if filters[number](counts[number], seconds):
                    takers.append(number)
                counts[number] += 1
            yield from self._keep(frame, takers, seconds, position)
        yield from self._rest()

    def _decode_uniform(self) -> Iterator[tuple[int, FrameBatch]]:
        # The packets' count decides which frames the first pass keeps. Only if the true
        # count asks for other frames is the clip decoded once more.
        for _ in range(3):
            takers = self._takers()
            self.restart()
            batches: list[tuple[int, FrameBatch]] = []
            clock = _Clock(self._source, self._index)
            times: list[float] = []
            for position, frame in enumerate(self._again()):
                times.append(clock.tell(frame, position))
                batches += self._keep(frame, takers.get(position, ()), times[-1], position)
            self._n_decoded = len(times)
            guess = self._chosen
            self._chosen = self._choose(np.array(times))
            if not times or all(
                np.array_equal(true, old[old < len(times)])
                for true, old in zip(self._chosen, guess, strict=True)
            ):
                yield from batches
                yield from self._rest()
                return
        raise VideoUnreadable(
            "A clip must decode to the same number of frames each time. "
            f"'{self._source.path}' does not."
        )

    def _keep(
        self, frame: Any, spans: Sequence[int], seconds: float, position: int
    ) -> list[tuple[int, FrameBatch]]:
        """Put a frame where spans collect theirs; returns the batches that are full now."""
        buffers = self._buffers
        squares = [buffers[span].add(float(seconds), position) for span in spans]
        if squares:
            if self._size == (0, 0):
                self._size = upright_size(frame)
            self._maker.make_square(frame, squares[0])
            for other in squares[1:]:
                other[:] = squares[0]
        return [(span, buffers[span].take()) for span in spans if buffers[span].is_full]

    def _rest(self) -> Iterator[tuple[int, FrameBatch]]:
        for span, buffer in enumerate(self._buffers):
            if not buffer.is_empty:
                yield span, buffer.take()

    def facts(self) -> VideoFacts:
        """Say what the file showed; `VideoUnreadable` if that is nothing."""
        facts = _make_facts(
            self._source, self._index, self._n_decoded, self._decoder.n_bad, self._size
        )
        if len(self._spans) == 1 and self._size == (0, 0):
            raise VideoUnreadable(f"no frame between {self._spans[0]}")
        return facts


class _PictureJob(_Job):
    """One file and a span of it, every frame of which becomes a picture: whole, and in BGR."""

    def __init__(
        self, source: VideoSource, index: PacketIndex, span: Span, on_progress: Callable[[], None]
    ) -> None:
        super().__init__(source, index, [span], FrameSampling("stride", 1.0), 0, 1, on_progress)
        self._maker = PictureMaker("bgr24")

    def _keep(
        self, frame: Any, spans: Sequence[int], seconds: float, position: int
    ) -> list[tuple[int, FrameBatch]]:
        if not spans:
            return []
        picture = self._maker.make(frame)
        if self._size == (0, 0):
            self._size = (picture.shape[1], picture.shape[0])
        return [(0, FrameBatch(picture[None], np.array([seconds]), np.array([position])))]


def _make_facts(
    source: VideoSource, index: PacketIndex, n_decoded: int, n_bad: int, size: tuple[int, int]
) -> VideoFacts:
    if not index.pts:
        raise VideoUnreadable(
            f"only a header is in the file, {name_codec(source)}, and no picture: join "
            "it with the parts that belong to it"
        )
    if n_decoded == 0 and source.unit == "pictures":
        raise VideoUnreadable(
            f"none of {len(index.pts)} pictures ({source.codec}) decodes: damaged, or too large"
        )
    if n_decoded == 0:
        raise VideoUnreadable(
            f"no frame decodes of {len(index.pts)} packets: damaged, or a kind of "
            f"{name_codec(source)} that FFmpeg does not decode; {TO_MEND}"
        )
    rate = source.frame_rate
    return VideoFacts(
        n_frames_header=index.n_claimed,
        n_frames_decoded=n_decoded,
        fps_header=float(rate) if rate else 0.0,
        width_px=size[0],
        height_px=size[1],
        note="; ".join(_notes(source, index, n_bad)),
    )


def _notes(source: VideoSource, index: PacketIndex, n_bad: int) -> Iterator[str]:
    n_packets, n_shown = len(index.pts), sum(index.is_shown)
    # One frame less than the header claims is common and harmless.
    if n_shown < index.n_claimed - 1:
        yield f"the header claims {index.n_claimed} frames, {n_shown} are there: cut off"
    claimed, there = source.claimed_seconds, float(index.times.max(initial=0.0))
    if index.has_times and there + _MOST_SILENT_SECONDS < claimed:
        yield f"the header claims {claimed:.1f} s, {there:.1f} are there: cut off"
    n_damaged = max(n_bad, index.n_damaged)
    if n_damaged:
        yield f"damaged: {n_damaged} of {n_packets} {source.unit} are bad"
    if not index.has_times:
        yield f"no timestamps: times are counted at {float(source.frame_rate or USUAL_RATE):g} fps"
    if source.note:
        yield source.note


def read_picture(
    path: Path, frame_index: int, *, most_px: int, on_progress: Callable[[], None] = lambda: None
) -> FrameArray:
    """Make a small JPEG, as an array of bytes, of one frame; longest side `most_px` pixels.

    `VideoUnreadable` if the frame does not decode.
    """
    with open_video(path) as source:
        index = read_index(source, on_progress)
        maker = PictureMaker("bgr24")
        plan = plan_decoding(index, [frame_index]) if frame_index < index.n_frames else None
        if plan is not None:
            missing, picture = set(plan.expected), None
            try:
                for frame in _decode_plan(source, index, plan, _Decoder(source), on_progress):
                    missing.discard(None if frame.interlaced_frame else frame.pts)
                    if frame.pts in plan.position_of:
                        picture = maker.make(frame)
            except _Surprise:
                picture = None
            if picture is not None and not missing:
                return encode_jpeg(picture, most_px)
        with reopen(source) as again:
            frames = _decode_forward(again, index, _Decoder(again), on_progress)
            for position, frame in enumerate(frames):
                if position == frame_index:
                    return encode_jpeg(maker.make(frame), most_px)
    raise VideoUnreadable(f"decoding ends before frame {frame_index}")


def read_pictures(
    path: Path,
    *,
    span: Span = WHOLE,
    on_progress: Callable[[], None] = lambda: None,
    frame_rate: float | None = None,
) -> Iterator[FrameArray | VideoFacts]:
    """Decode every frame of a video file, or of a part of it, whole: facts, pictures, facts.

    The first facts are what the header claims, the last what the whole file showed; pictures are
    BGR, uint8 of shape (height, width, 3), rotation applied. `VideoUnreadable` if no frame decodes.
    """
    with open_video(path, frame_rate) as source:
        rate = source.frame_rate
        context = source.stream.codec_context
        yield VideoFacts(
            source.stream.frames, 0, float(rate) if rate else 0.0, context.width, context.height
        )
        job = _PictureJob(source, read_index(source, on_progress), span, on_progress)
        for _, batch in job.run():
            yield batch.frames[0]
        yield job.facts()


def count_frames(path: Path, *, on_progress: Callable[[], None] = lambda: None) -> int:
    """Count the frames that decode; 0 if the file cannot be opened."""
    try:
        with open_video(path) as source:
            index = read_index(source, on_progress)
            with reopen(source) as again:
                return sum(1 for _ in _decode_forward(again, index, _Decoder(again), on_progress))
    except VideoUnreadable:
        return 0
