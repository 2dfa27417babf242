"""Numbered pictures: which files of a folder are the frames of one clip, and in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from features.system.text import format_count

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
# Optical flow lies beside the pictures that it was computed from.
_FLOW = re.compile(r"(?<![a-z])flow|^[xyuv][_-]?$", re.IGNORECASE)
_THUMBNAILS = re.compile(r"thumb(nail)?s?|previews?|posters?|covers?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PictureSequence:
    """The numbered pictures of a folder.

    Attributes
    ----------
    names : tuple of str
        File names in the order of their numbers; empty if there is no clip.
    places : tuple of int
        When each comes, counted from the first in steps of the numbering.
    problem : str
        Why the folder is no clip.
    doubt : str
        Why it may be none, unless somebody says that it is one.
    note : str
        What should be known of the clip.
    step : int
        By how much the numbers go up.
    n_flow : int
        Pictures of optical flow beside them, which are left out.
    """

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    problem: str = ""
    doubt: str = ""
    note: str = ""
    step: int = 1
    n_flow: int = 0


def is_picture(name: str) -> bool:
    """Tell whether a file name is that of a picture."""
    return PurePosixPath(name.lower()).suffix in PICTURE_SUFFIXES


def find_sequence(folder: str, names: Iterable[str]) -> PictureSequence:
    """Tell which pictures of a folder are one clip, by their names and that of the folder.

    They have one prefix, one suffix, and different numbers. Where several kinds are numbered, as
    of colour and depth, nothing is chosen; only optical flow is left out.
    """
    kinds: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    n_flow = n_pictures = 0
    for name in filter(is_picture, names):
        n_pictures += 1
        path = PurePosixPath(name)
        # The last number counts: clip2_frame10.
        match = _NUMBER.fullmatch(path.stem)
        if match is None:
            continue
        if _FLOW.search(match[1]):
            n_flow += 1
            continue
        suffix = {".jpeg": ".jpg", ".tiff": ".tif"}.get(path.suffix.lower(), path.suffix.lower())
        kinds.setdefault((match[1], match[3], suffix), []).append((int(match[2]), name))
    if not kinds:
        what = "optical flow only" if n_flow else "no numbered pictures"
        return PictureSequence(problem=what)
    best = max(kinds.values(), key=len)
    n_others = n_pictures - n_flow - len(best)
    ((prefix, tail, _),) = {kind for kind, found in kinds.items() if found is best}
    like_best = re.compile(r"\d+".join(map(re.escape, re.split(r"\d+", prefix))), re.DOTALL)
    alike = [kind for kind in kinds if kind[1] == tail and like_best.fullmatch(kind[0])]
    if len(alike) > 1:
        shown = " and ".join(f"'{kinds[kind][0][1]}'" for kind in sorted(alike)[:2])
        return PictureSequence(problem=f"numbers in two places of the names, such as {shown}")
    if n_others > max(1, len(best) // 10):
        shown = ", ".join(f"'{_show(kind)}' ({len(kinds[kind])})" for kind in sorted(kinds)[:3])
        more = f" and {len(kinds) - 3} more" if len(kinds) > 3 else ""
        if len(kinds) > 1:
            what = f"numbered pictures of {len(kinds)} kinds, {shown}{more}; a clip has one kind"
        else:
            what = f"{format_count(n_others, 'picture')} beside those numbered like {shown}"
        return PictureSequence(problem=what)
    best.sort(key=lambda item: (item[0], item[1]))
    twice = next((two for one, two in pairwise(best) if one[0] == two[0]), None)
    if twice:
        return PictureSequence(problem=f"two pictures with the number {twice[0]}")
    numbers = [number for number, _ in best]
    step = math.gcd(*(two - one for one, two in pairwise(numbers))) or 1
    places = tuple((number - numbers[0]) // step for number in numbers)
    n_missing = places[-1] + 1 - len(places)
    is_sparse = n_missing > len(best)
    if is_sparse:  # numbers that are times, or photos of one camera: only their order counts
        places, n_missing, step = tuple(range(len(best))), 0, 1
    notes = [
        f"{n_missing} of {places[-1] + 1} pictures are missing" if n_missing else "",
        f"{format_count(n_others, 'other picture')} left out" if n_others else "",
    ]
    doubt = ""
    if len(best) < 2:
        doubt = "a single picture"
    elif is_sparse:
        doubt = (
            f"{len(best)} pictures with numbers from {numbers[0]} to {numbers[-1]}, most missing"
        )
    elif _THUMBNAILS.fullmatch(folder):
        doubt = "thumbnails, by its name"
    elif _FLOW.search(folder):
        doubt = "optical flow, by its name"
    return PictureSequence(
        names=tuple(name for _, name in best),
        places=places,
        doubt=doubt,
        note="; ".join(filter(None, notes)),
        step=step if len(best) > 2 else 1,
        n_flow=n_flow,
    )


def _show(kind: tuple[str, str, str]) -> str:
    return f"{kind[0]}*{kind[1]}{kind[2]}"
