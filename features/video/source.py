"""One video stream of one file, opened with PyAV: which stream it is, and its packets."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from features.errors import DecoderBroken, VideoUnreadable
from features.places.pictures import PictureSequence
from features.places.places import find_member, open_binary, read_pictures_of

LACKS_MEMORY = "needs more memory than --clip-memory allows"
MEND = "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4"
TO_MEND = f"convert it in a program that plays it, or try '{MEND}'"
_NO_PICTURE_HINT = f"play the file in another program; if it plays, re-encode it: {MEND}"

USUAL_RATE = Fraction(25)
# A playlist disguised as a video must not make FFmpeg open other places.
_OPTIONS = {"protocol_whitelist": "file,crypto,data"}
_PLAYLISTS = frozenset({"concat", "hls", "dash", "imf"})
_INNER_OPTIONS = {"protocol_whitelist": "crypto,data"}
_STILL_CODECS = frozenset({"png", "bmp", "webp", "tiff", "jpegls", "jpeg2000", "ppm", "svg"})
_MOST_TRIES = 20
# Up to this size, H.264 without a stated reordering depth may keep sixteen pictures waiting.
_MOST_PATIENT_PIXELS = 4096 * 2304
_PICTURE_STARTS = (
    *((b"\xff\xd8\xff", "mjpeg"), (b"\x89PNG", "png"), (b"BM", "bmp")),
    *((b"II*\0", "tiff"), (b"MM\0*", "tiff")),
)


@dataclass(frozen=True, slots=True)
class VideoSource:
    """An opened file and the stream of it that is decoded; or a folder of pictures, seen so."""

    path: Path
    container: Any
    stream: Any
    note: str  # says which stream was taken, where there are several
    read_faults: list[str] = field(default_factory=list)  # met while reading packets
    given_rate: float | None = None  # frames per second of pictures

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, such as "h264"."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def unit(self) -> str:
        """What one packet is called in messages."""
        return "pictures" if self.container.format.name == "pictures" else "packets"

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second as the header or the first packets have it."""
        return self.stream.average_rate or self.stream.guessed_rate or self.stream.base_rate or None

    @property
    def ticks_per_frame(self) -> int:
        """How far apart frames are in the stream's time base, roughly."""
        rate, base = self.frame_rate or USUAL_RATE, self.stream.time_base
        return max(round(1 / (rate * base)), 1) if base else 1

    @property
    def claimed_seconds(self) -> float:
        """How long the stream is by its header, where Matroska says so; 0 if not."""
        parts = self.stream.metadata.get("DURATION", "").split(":") if self.is_matroska else ()
        try:
            hours, minutes, seconds = map(float, parts)
        except ValueError:
            return 0.0
        return 3600 * hours + 60 * minutes + seconds

    @property
    def is_matroska(self) -> bool:
        """Whether the container is Matroska or WebM."""
        return "matroska" in self.container.format.name

    @property
    def start_seconds(self) -> float:
        """Time at which the file begins, sound included, as players count; inf if it has none."""
        start = self.container.start_time
        return math.inf if start is None else float(start) / 1_000_000


@cache
def import_av() -> ModuleType:
    """Import PyAV, quiet; `DecoderBroken` says how to mend it if that fails."""
    try:
        import av
        import av.logging
    except ImportError as problem:
        raise DecoderBroken(
            f"PyAV must be importable. 'import av' failed: {problem}.",
            hint="pip install --force-reinstall av",
        ) from problem
    av.logging.set_level(None)
    module: ModuleType = av
    return module


def decoder_version() -> str:
    """Name PyAV's version and those of the FFmpeg libraries that decide pixels."""
    av = import_av()
    from av import library_versions

    parts = (
        f"{name} {'.'.join(map(str, library_versions[name]))}"
        for name in ("libavformat", "libavcodec", "libswscale")
    )
    return f"PyAV {av.__version__} ({', '.join(parts)})"


@contextmanager
def open_video(path: Path, frame_rate: float | None = None) -> Iterator[VideoSource]:
    """Open a clip at its best video stream; FFmpeg's faults become `VideoUnreadable`.

    `frame_rate` is that of a folder of pictures, which cannot tell its own.
    """
    pictures = read_pictures_of(path)
    with ExitStack() as stack:
        try:
            if pictures is None:
                yield _open_container(path, stack)
            else:
                yield _open_pictures(path, pictures, frame_rate)
        except MemoryError as problem:
            raise VideoUnreadable(f"decoding {LACKS_MEMORY}") from problem


def reopen(source: VideoSource) -> AbstractContextManager[VideoSource]:
    """Open once more what a source was opened from."""
    return open_video(source.path, source.given_rate)


def read_packets(source: VideoSource, on_progress: Callable[[], None]) -> Iterator[Any]:
    """Yield the packets of the stream from where the file stands, and go on after bad bytes."""
    error = import_av().error.FFmpegError
    is_avi = source.container.format.name == "avi"
    last, n_tries, fault = -1, 0, ""
    while n_tries < _MOST_TRIES:
        try:
            for packet in source.container.demux(source.stream):
                on_progress()
                if packet.size == 0 and packet.dts is None:
                    continue  # the end of the file, as PyAV marks it
                if fault:
                    source.read_faults.append(fault)
                n_tries, fault = 0, ""
                last = last if packet.dts is None else packet.dts
                yield packet
            if not is_avi or last + 2 >= source.stream.frames:
                return
            fault = "frames are missing in the middle"
        except MemoryError:
            raise
        except IndexError:  # at the end, PyAV trips over streams that turned up on the way
            return
        except (error, ValueError) as problem:
            fault = str(problem)
        n_tries += 1
        if is_avi:
            # What lost its way among the chunks finds it again by the index.
            try:
                source.container.seek(
                    last + n_tries, stream=source.stream, any_frame=True, backward=False
                )
            except (error, ValueError):
                return


def name_codec(source: VideoSource) -> str:
    """Name codec, profile and picture format, for a message."""
    context = source.stream.codec_context
    # Older PyAV crashes where it is asked for the name of a picture format that is unknown.
    picture = context.format.name if context.format else None
    details = [str(text) for text in (context.profile, picture) if text]
    return source.codec + (f" ({', '.join(details)})" if details else "")


def _open_container(path: Path, stack: ExitStack) -> VideoSource:
    av = import_av()
    try:
        place: Any = str(path.absolute())
        options = _OPTIONS
        if find_member(path) is not None:
            place, options = stack.enter_context(open_binary(path)), _INNER_OPTIONS
        container = av.open(place, options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (OSError, av.error.FFmpegError, ValueError) as problem:
        raise VideoUnreadable(_why_not_opened(path), hint=_NO_PICTURE_HINT) from problem
    stack.callback(container.close)
    if container.format.name in _PLAYLISTS:
        raise VideoUnreadable("a playlist, which names other files, and no video")
    stream, note = _choose_stream(container)
    context = stream.codec_context
    context.thread_count = 1
    context.thread_type = "NONE"
    is_small = context.width * context.height <= _MOST_PATIENT_PIXELS
    if context.codec.canonical_name == "h264" and is_small:
        # Without it a stream that hides how deep it reorders loses frames on the way.
        context.options = {"strict": "strict"}
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    return VideoSource(path, container, stream, note)


def _open_pictures(
    folder: Path, pictures: PictureSequence, frame_rate: float | None
) -> VideoSource:
    rate = None if frame_rate is None else Fraction(frame_rate).limit_denominator(100_000)
    reader = _PictureReader(folder, pictures, 1 / (rate or USUAL_RATE))
    av = import_av()
    codec = next(filter(None, map(_name_picture_codec, reader.read_starts())), None)
    if codec is None:
        raise VideoUnreadable(
            f"no picture that can be read among {len(pictures.names)}, such as "
            f"'{pictures.names[0]}'",
            hint="pictures are JPEG, PNG, WebP, BMP or TIFF files",
        )
    context = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    context.thread_type = "NONE"
    stream = SimpleNamespace(
        codec_context=context,
        frames=len(pictures.names),
        time_base=reader.time_base,
        average_rate=rate,
        guessed_rate=None,
        base_rate=None,
    )
    untimed = "" if rate else f"no frame rate: times are counted at {USUAL_RATE} fps"
    note = "; ".join(filter(None, (pictures.note, untimed)))
    return VideoSource(folder, reader, stream, note, reader.faults, frame_rate)


def _name_picture_codec(start: bytes) -> str | None:
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return next((codec for magic, codec in _PICTURE_STARTS if start.startswith(magic)), None)


class _PictureReader:
    """Stands for FFmpeg's container where a clip is a folder: each picture is a packet."""

    format = SimpleNamespace(name="pictures")
    start_time = None

    def __init__(self, folder: Path, pictures: PictureSequence, time_base: Fraction) -> None:
        self._folder = folder
        self._pictures = pictures
        self._next = 0
        self.time_base = time_base
        self.faults: list[str] = []

    def read_starts(self) -> Iterator[bytes]:
        for number in range(len(self._pictures.names)):
            yield self._read(number, 16)

    def seek(self, stamp: int, *, stream: Any) -> None:
        self._next = bisect_left(self._pictures.places, stamp)

    def demux(self, stream: Any) -> Iterator[Any]:
        av = import_av()
        while self._next < len(self._pictures.names):
            number, self._next = self._next, self._next + 1
            content = self._read(number)
            is_jpeg = content.startswith(b"\xff\xd8")
            # Of a JPEG that is cut off FFmpeg makes a picture, and does not say so.
            if not content or (is_jpeg and content.find(b"\xff\xd9", len(content) // 2) < 0):
                self.faults.append(f"'{self._pictures.names[number]}' is empty or cut off")
            if content:
                packet = av.Packet(content)
                packet.pts = packet.dts = self._pictures.places[number]
                packet.time_base = self.time_base
                packet.is_keyframe = True
                yield packet

    def _read(self, number: int, n_bytes: int = -1) -> bytes:
        try:
            with open_binary(self._folder / self._pictures.names[number]) as file:
                return file.read(n_bytes)
        except OSError:
            return b""


def _choose_stream(container: Any) -> tuple[Any, str]:
    attached = [item for item in container.streams.video if _is_attached(item)]
    streams = [item for item in container.streams.video if not _is_attached(item)]
    usable = [item for item in streams if item.codec_context is not None]
    if not usable:
        if streams:
            raise VideoUnreadable(f"no decoder for its codec: {_summarise(container)}; {TO_MEND}")
        only = "; all it has is a cover picture" if attached else ""
        reason = f"no video stream in the file, or its header is missing or damaged{only}"
        raise VideoUnreadable(reason, hint=_NO_PICTURE_HINT)
    has_moving = any(item.codec_context.codec.canonical_name != "mjpeg" for item in usable)

    def rank(stream: Any) -> tuple[bool, bool, int, int]:
        context = stream.codec_context
        codec = context.codec.canonical_name
        is_still = stream.frames == 1 or codec in _STILL_CODECS or (codec == "mjpeg" and has_moving)
        is_default = bool(stream.disposition.value & 1)
        return is_still, not is_default, -context.width * context.height, stream.index

    best = min(usable, key=rank)
    if len(streams) == 1:
        return best, ""
    context = best.codec_context
    number = streams.index(best) + 1
    return best, (
        f"video stream {number} of {len(streams)} is taken ({context.width}x{context.height})"
    )


def _summarise(container: Any) -> str:
    """Quote what FFmpeg says of the video: it alone tells the letters of an unknown codec."""
    logging = import_av().logging
    logging.set_level(logging.INFO)
    try:
        lines = container.dumps_format().partition("Video: ")[2].splitlines()
    finally:
        logging.set_level(None)
    facts = lines[0].split(", ") if lines else ["unknown"]
    named = [fact.removeprefix("none ").strip("()") for fact in facts[:3] if fact != "none"]
    return ", ".join(named)


def _is_attached(stream: Any) -> bool:
    return bool(stream.disposition.value & 0x400)


def _why_not_opened(path: Path) -> str:
    try:
        with open_binary(path) as file:
            start = file.read(1)
    except OSError as problem:
        return f"the file cannot be opened: {problem.strerror or problem}"
    if not start:
        return "the file is empty (0 bytes)"
    return "no video stream in the file, or its header is missing or damaged"
