"""What the packets of a video tell before any is decoded, and the least that must be decoded.

Frames are numbered in the order in which they are shown. An index is trusted only where every
packet has a time of its own and looks whole; elsewhere every frame is decoded, in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, pairwise
from operator import lt, or_
from typing import Any

import numpy as np

from features.errors import VideoUnreadable
from features.records import FloatArray
from features.video.packets import INTRA_CODECS, KINDS_CODECS, make_inspector
from features.video.source import USUAL_RATE, VideoSource, name_codec, read_packets

KEPT_BYTES = 64 * 2**20
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_EXACT_CONTAINERS = frozenset({_MOV, "matroska,webm", "flv"})
# So many wrong time stamps in a row do not make a new beginning.
_MOST_WRONG = 8


@dataclass(frozen=True, slots=True, repr=False)
class PacketIndex:
    """The packets of one stream, in the order of decoding, and the times of its frames."""

    packets: list[Any] | None  # themselves; None where they take too much memory
    pts: list[int | None]
    dts: list[int | None]
    places: list[int | None]  # bytes from the beginning of the file
    is_needed: list[bool]
    is_shown: list[bool]
    entries: list[int]  # packets with which decoding may begin
    n_damaged: int  # packets that the file marks as corrupt, or that make no sense
    n_lead_in: int  # packets before the first key frame, from which no decoder makes a picture
    n_claimed: int  # packets that the file's header claims; 0 if it claims none
    is_trusted: bool
    is_retimed: bool  # packets must be given these pts before they are decoded
    order: list[int]  # trusted only: the packet of each frame, in the order of showing
    times: FloatArray  # seconds; of each frame if trusted, else a guess as long as it can be made
    start_seconds: float  # time of the stamp 0, negated
    has_times: bool  # if not, the frame rate has to do
    is_counted: bool  # whether the n-th frame has the n-th time, as no frame tells its own

    @property
    def n_frames(self) -> int:
        """How many frames there are, by the packets."""
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Segment:
    """Packets that are decoded in one go: begin is a key frame, end is behind the last."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The least that must be decoded for some frames."""

    segments: tuple[Segment, ...]
    position_of: dict[int, int]  # wanted frames: position by presentation time stamp
    packets: frozenset[int]  # what is sent to the decoder
    expected: frozenset[int]  # presentation time stamps of the frames that must come out


def read_index(
    source: VideoSource, on_progress: Callable[[], None], *, kept_bytes: int = KEPT_BYTES
) -> PacketIndex:
    """Read all packets of a video's stream, decoding none; up to so many bytes are kept."""
    codec = source.codec
    is_listed = source.container.format.name in ("avi", _MOV)
    n_listed = len(source.stream.index_entries) if is_listed else 0
    inspect = make_inspector(source.stream.codec_context)
    is_exact = source.container.format.name in _EXACT_CONTAINERS
    # AVI keeps only the order of decoding; that of showing follows from the kinds of pictures.
    is_avi = source.container.format.name == "avi" and codec == "mpeg4"
    # Looking costs as much as all else; only these have any that matters.
    has_side_data = is_exact or source.container.format.name == "mpegts"
    is_trusted = inspect is not None and (is_exact or is_avi or codec in INTRA_CODECS)
    kept: list[Any] | None = []
    n_bytes = n_damaged = 0
    pts: list[int | None] = []
    dts: list[int | None] = []
    places: list[int | None] = []
    is_needed: list[bool] = []
    is_shown: list[bool] = []
    entries: list[int] = []
    keys: list[int] = []
    for number, packet in enumerate(read_packets(source, on_progress)):
        if has_side_data:
            for item in packet.iter_sidedata():
                if item.data_type == "encryption_info":
                    raise VideoUnreadable(
                        f"its video, {name_codec(source)}, is encrypted; make a copy without "
                        "encryption in a program that has the key"
                    )
                is_trusted = is_trusted and item.data_type != "new_extradata"
        pts.append(packet.pts)
        dts.append(packet.dts)
        places.append(packet.pos)
        size = packet.size
        n_bytes += size
        if kept is not None:
            kept.append(packet)
            if n_bytes > kept_bytes:
                kept = None
        if packet.is_keyframe and size:
            keys.append(number)
        is_needed.append(True)
        is_shown.append(size > 0 and not packet.is_discard)
        if packet.is_corrupt:
            n_damaged += 1
            is_trusted = False
        elif is_trusted and inspect is not None and size:
            traits = inspect(packet)
            is_trusted = traits.is_whole
            is_needed[-1] = traits.is_needed
            is_shown[-1] &= traits.is_shown
            # A key frame of VP8 may lean on what came before, unseen, where it is damaged.
            may_seek = codec != "vp8" or not entries
            if traits.is_entry and keys and keys[-1] == number and may_seek:
                entries.append(number)
    n_damaged += len(source.read_faults)
    is_trusted = is_trusted and not source.read_faults
    if is_avi:
        is_trusted = is_trusted and all(is_shown) and _set_pts(pts, dts, is_needed)
    # A decoder of H.264 knows itself what it cannot show yet; others show grey.
    n_lead_in = keys[0] if keys and codec != "h264" else 0
    is_shown[:n_lead_in] = [False] * n_lead_in
    known = [stamp for stamp in pts if stamp is not None]
    has_pts = bool(known) and len(known) == len(pts)
    is_counted = not known
    if source.container.format.name == "avi" and not is_trusted and pts != dts:
        has_pts, is_counted = False, True  # what differs is FFmpeg's guess
    is_retimed = is_avi and is_trusted
    if has_pts and not is_retimed:
        is_trusted = is_trusted and _follow_decoding(source, known, is_needed)
        if not is_trusted and keys[:1] == [0] and _is_increasing(known):
            # Some writers give pictures the times of the order in which they are decoded.
            is_counted = source.stream.codec_context.has_b_frames
        if source.container.format.name != _MOV:  # whose edit lists have seen to it
            pts[:] = _join_parts(known, dts, source.ticks_per_frame)
            is_retimed = pts != known
            is_trusted = is_trusted and not is_retimed
    is_trusted = is_trusted and has_pts and len(set(known)) == len(pts) and entries[:1] == [0]
    order = sorted(compress(range(len(pts)), is_shown), key=lambda n: pts[n] or 0)
    is_trusted = is_trusted and bool(order) and (pts[order[0]] or 0) >= known[0]
    stamps = [stamp for stamp in compress(pts if has_pts else dts, is_shown) if stamp is not None]
    has_times = len(set(stamps)) > sum(is_shown) // 2
    start_seconds = 0.0
    if has_times:
        base = source.stream.time_base
        seconds = np.sort(np.array(stamps, np.float64)) * base.numerator / base.denominator
        # Some headers claim a start behind the first frame, or none.
        start_seconds = min(source.start_seconds, float(seconds[0]))
        times = seconds - start_seconds
    else:
        times = np.arange(sum(is_shown)) / float(source.frame_rate or USUAL_RATE)
    n_claimed = _count_claimed(source, n_listed, dts) - (len(is_shown) - sum(is_shown))
    return PacketIndex(
        kept, pts, dts, places, is_needed, is_shown, entries, n_damaged, n_lead_in,
        max(n_claimed, 0), is_trusted, is_retimed, order, times, start_seconds, has_times,
        is_counted or not has_times,
    )  # fmt: skip


def _set_pts(pts: list[int | None], dts: Sequence[int | None], is_needed: Sequence[bool]) -> bool:
    """Fill in when pictures are shown: B-pictures at once, others once the next of them comes."""
    stamps = [stamp for stamp in dts if stamp is not None]
    if len(stamps) != len(dts) or any(one >= two for one, two in pairwise(stamps)):
        return False
    for number, stamp in zip(_order_by_kind(is_needed), stamps, strict=True):
        pts[number] = stamp
    return True


def _order_by_kind(is_needed: Iterable[bool]) -> list[int]:
    shown: list[int] = []
    waiting: list[int] = []
    for number, is_reference in enumerate(is_needed):
        if is_reference:
            shown += waiting
            waiting = [number]
        else:
            shown.append(number)
    return shown + waiting


def _is_increasing(stamps: Sequence[int]) -> bool:
    return all(one < two for one, two in pairwise(stamps))


def _follow_decoding(source: VideoSource, pts: Sequence[int], is_needed: Sequence[bool]) -> bool:
    """Tell whether time stamps are in the order in which the decoder shows the pictures."""
    if source.codec in KINDS_CODECS:
        return _is_increasing([pts[number] for number in _order_by_kind(is_needed)])
    if not source.stream.codec_context.has_b_frames:
        return _is_increasing(pts)
    # What nobody refers to is shown before something that was decoded earlier.
    peaks = accumulate(pts, max)
    return all(map(or_, is_needed, map(lt, pts, peaks)))


def _join_parts(pts: Sequence[int], dts: Sequence[int | None], ticks_per_frame: int) -> list[int]:
    """Let times go on where they begin anew, as in files that were joined."""
    decoded = [stamp for stamp in dts if stamp is not None]
    joined: list[int] = []
    if len(decoded) < len(pts):
        return list(pts)
    shift = 0
    for number, stamp in enumerate(pts):
        if number and decoded[number] < decoded[number - 1]:
            before = decoded[max(number - _MOST_WRONG, 0) : number]
            if max(decoded[number : number + 2]) < min(before):
                shift = max(joined) + ticks_per_frame - stamp
        joined.append(stamp + shift)
    return joined


def _count_claimed(source: VideoSource, n_listed: int, dts: Sequence[int | None]) -> int:
    """Count the packets that there must be, by the header and what it lists one by one."""
    n_claimed = int(source.stream.frames)
    if n_listed == 0:
        return n_claimed
    if source.container.format.name == "avi":
        # Chunks without content repeat a picture: they are counted, but are no packets.
        n_empty = (dts[-1] or 0) + 1 - len(dts) if n_listed == len(dts) else 0
        return n_claimed - max(n_empty, 0)
    return min(n_claimed, n_listed)  # an edit list leaves the others out


def plan_decoding(index: PacketIndex, positions: Iterable[int]) -> Plan | None:
    """Choose what to decode for the frames at some positions; None if all must be decoded."""
    if not index.is_trusted:
        return None
    pts, entries = index.pts, index.entries
    wanted = sorted((index.order[position], position) for position in set(positions))
    segments: list[Segment] = []
    for number, _ in wanted:
        # Pictures that come behind a key frame but are shown before it need the one before.
        at = bisect_right(entries, number) - 1
        while at >= 0 and (pts[entries[at]] or 0) > (pts[number] or 0):
            at -= 1
        if at < 0:
            return None
        begin = entries[at]
        while segments and begin <= segments[-1].end:
            begin = min(begin, segments.pop().begin)
        segments.append(Segment(begin, number + 1))
    chosen = {number for number, _ in wanted}
    sent: list[int] = []
    expected: set[int] = set()
    for segment in segments:
        first = pts[segment.begin] or 0
        for number in range(segment.begin, segment.end):
            if index.is_needed[number] or number in chosen:
                sent.append(number)
                if index.is_shown[number] and (pts[number] or 0) >= first:
                    expected.add(pts[number] or 0)
    return Plan(
        tuple(segments),
        {pts[number] or 0: position for number, position in wanted},
        frozenset(sent),
        frozenset(expected),
    )
