"""What can be told of a coded picture without decoding it: who needs it, and is it whole.

Only the first bytes of a packet are read. H.264: ITU-T H.264 section 7.3; HEVC: H.265 section 7.3;
MPEG-1, 2 and 4: ISO/IEC 13818-2 and 14496-2; VP8: RFC 6386 section 9.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INTRA_CODECS = frozenset(
    {"mjpeg", "prores", "dnxhd", "dvvideo", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "cfhd"}
    | {"v210", "magicyuv", "hap", "jpeg2000", "r210", "v410", "lagarith"}
    | {"png", "webp", "bmp", "tiff"}
)
# Where the kind of a picture says when it is shown: B-pictures at once, others after these.
KINDS_CODECS = frozenset({"mpeg4", "mpeg1video", "mpeg2video"})


@dataclass(frozen=True, slots=True)
class PacketTraits:
    """What one packet is to the others."""

    is_whole: bool = True  # its structure makes sense
    is_needed: bool = True  # others may refer to it
    is_entry: bool = True  # if it is marked as a key frame, decoding may begin with it
    is_shown: bool = True  # a frame comes out of it


_USUAL = PacketTraits()
_BROKEN = PacketTraits(is_whole=False)
_UNNEEDED = PacketTraits(is_needed=False)
_NO_ENTRY = PacketTraits(is_entry=False)
_HIDDEN = PacketTraits(is_shown=False)


def make_inspector(context: Any) -> Callable[[Any], PacketTraits] | None:
    """Build what inspects a codec's packets; None for codecs of which too little is known."""
    codec = context.codec.canonical_name
    if codec == "rawvideo" and context.pix_fmt == "pal8":
        return None  # its palette comes with some packet before
    if codec in INTRA_CODECS or codec == "av1":
        return lambda packet: _USUAL
    if codec == "vp9":
        return lambda packet: _inspect_vp9(memoryview(packet))
    if codec == "vp8":
        # Pictures that are only referred to, never shown, are packets of their own.
        return lambda packet: _USUAL if memoryview(packet)[0] & 0x10 else _HIDDEN
    if codec in ("h264", "hevc"):
        prefix = _length_size(codec, context.extradata or b"")
        inspect = _inspect_h264 if codec == "h264" else _inspect_hevc
        return None if prefix is None else lambda packet: inspect(memoryview(packet), prefix)
    if codec in KINDS_CODECS:
        code, shift = (0xB6, 6) if codec == "mpeg4" else (0x00, 3)
        return lambda packet: _inspect_mpeg(memoryview(packet), code, shift)
    return None


def _length_size(codec: str, extradata: bytes) -> int | None:
    """Return how many bytes tell the length of a NAL unit; None where start codes part them."""
    if codec == "h264":
        is_boxed = len(extradata) > 6 and extradata[0] == 1
        return (extradata[4] & 3) + 1 if is_boxed else None
    is_boxed = len(extradata) > 22 and extradata[:3] not in (b"\0\0\0", b"\0\0\1")
    return (extradata[21] & 3) + 1 if is_boxed else None


def _inspect_h264(view: memoryview, prefix: int) -> PacketTraits:
    at, size = 0, len(view)
    is_needed = is_idr = has_slice = recovers = False
    while at + prefix < size:
        length = int.from_bytes(view[at : at + prefix], "big")
        at += prefix
        if length == 0 or at + length > size or view[at] & 0x80:
            return _BROKEN
        kind = view[at] & 31
        if kind in (1, 2, 5):
            # The first slice must begin with the picture's first macroblock.
            if not has_slice and (length < 2 or not view[at + 1] & 0x80):
                return _BROKEN
            has_slice = True
            is_needed |= bool(view[at] & 0x60)
            is_idr |= kind == 5
        elif kind == 6 and not has_slice:
            recovers |= _recovers_at_once(bytes(view[at + 1 : at + length]))
        at += length
    if at != size or not has_slice:
        return _BROKEN
    if not is_needed:
        return _UNNEEDED
    return _USUAL if is_idr or recovers else _NO_ENTRY


def _recovers_at_once(message: bytes) -> bool:
    """Tell whether SEI messages hold a recovery point at which all is exact at once."""
    message = message.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(message):
        kind = size = 0
        for value in ("kind", "size"):
            number = 0
            while at < len(message) and message[at] == 255:
                number, at = number + 255, at + 1
            number, at = number + (message[at] if at < len(message) else 0), at + 1
            kind, size = (number, size) if value == "kind" else (kind, number)
        if kind == 6 and at < len(message):
            # recovery_frame_cnt is 0, exact_match_flag is 1, broken_link_flag is 0
            return message[at] >> 5 == 0b110
        at += size
    return False


def _inspect_hevc(view: memoryview, prefix: int) -> PacketTraits:
    at, size = 0, len(view)
    first = -1
    layer = 1
    while at + prefix < size:
        length = int.from_bytes(view[at : at + prefix], "big")
        at += prefix
        if length < 2 or at + length > size or view[at] & 0x80:
            return _BROKEN
        kind = view[at] >> 1 & 63
        if kind < 32 and first < 0:
            if length < 3 or not view[at + 2] & 0x80:  # first_slice_segment_in_pic_flag
                return _BROKEN
            first, layer = kind, view[at + 1] & 7
        at += length
    if at != size or first < 0:
        return _BROKEN
    # With temporal layers, pictures of a higher layer may refer to any of a lower one.
    if first < 16 and first % 2 == 0 and layer == 1:
        return _UNNEEDED
    return _USUAL if 16 <= first <= 21 else _NO_ENTRY


def _inspect_vp9(view: memoryview) -> PacketTraits:
    head = view[0]
    if head >> 6 != 0b10:
        return _BROKEN
    if view[-1] & 0xE0 == 0xC0:
        return _USUAL  # hidden pictures travel in one packet with a shown one
    if head >> 4 & 3 == 3:
        head = head << 1 & 0xFF  # profile 3 has a reserved bit
    is_shown_again, is_shown = head & 0x08, head & 0x02
    return _USUAL if is_shown_again or is_shown else _HIDDEN


def _inspect_mpeg(view: memoryview, code: int, shift: int) -> PacketTraits:
    head = bytes(view[:4096])
    at = head.find(bytes((0, 0, 1, code)))
    if at < 0 or at + 6 > len(head):
        return _BROKEN
    kind = head[at + 4] >> shift if code == 0xB6 else head[at + 5] >> shift & 7
    if code == 0xB6:
        # Two pictures in one packet, as DivX packed them, and the empty ones that make up for
        # it, hide where each belongs.
        if len(view) < 10 or bytes(view).count(b"\0\0\1\xb6") > 1:
            return _BROKEN
        return _UNNEEDED if kind == 2 else _USUAL
    return _UNNEEDED if kind == 3 else _USUAL
