"""What names the group of a clip: a well-known naming scheme, or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from features.errors import OptionInvalid
from features.records import Clip, split_clip_id

# File stems of well-known collections; the first capture group names what clips share.
_GROUP_PATTERNS = {
    "UCF101 (source video)": re.compile(r"^(.*_g\d+)_c\d+$"),  # UCF50 and UCF11 as well
    "UCF11 (source video)": re.compile(r"^(v_[a-z_]+_\d\d)_\d\d$"),
    "KTH (person)": re.compile(r"^(person\d+)_"),
    "NTU RGB+D (person)": re.compile(r"S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}"),
    "Kinetics (YouTube id)": re.compile(r"^([\w-]{11})_\d{6}_\d{6}$"),
    "HMDB51 (film)": re.compile(
        r"^(.*)_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$"
    ),
}


@dataclass(frozen=True, slots=True)
class InferredGroups:
    """Groups read off file names.

    Attributes
    ----------
    groups : dict of str to str
        Clip id to group; empty if no scheme fits all clips.
    groups_from : str
        Which scheme fits, with two examples; or which one nearly does.
    """

    groups: dict[str, str]
    groups_from: str


def infer_groups(clips: Sequence[Clip]) -> InferredGroups:
    """Read groups off file names if one scheme fits every clip that has a label.

    A few names that only look like a scheme are no reason to believe in it.
    """
    judged = [clip for clip in clips if clip.is_labelled] or list(clips)
    nearly = ""
    for scheme, pattern in _GROUP_PATTERNS.items():
        found = {
            clip.clip_id: _match_scheme(pattern, _path(clip.clip_id), clip.label) for clip in clips
        }
        odd = [clip.clip_id for clip in judged if not found[clip.clip_id]]
        groups = {clip_id: group for clip_id, group in found.items() if group}
        if groups and not odd:
            return InferredGroups(groups, f"file names like those of {scheme}: {_show_two(groups)}")
        if groups and not nearly:
            nearly = (
                f"unknown: {len(groups)} of {len(found)} file names look like those of {scheme}, "
                f"'{odd[0]}' does not"
            )
    return InferredGroups({}, nearly or "unknown")


def match_groups(clip_ids: Sequence[str], group_regex: str) -> dict[str, str]:
    """Read the group of every clip off its id: what the parentheses of the expression match.

    Several are joined by "/"; without any, the whole match counts. OptionInvalid if it does not
    match every clip.
    """
    try:
        pattern = re.compile(group_regex)
    except re.error as problem:
        raise OptionInvalid(
            f"--group-regex must be a regular expression. Received: '{group_regex}' ({problem})."
        ) from problem
    groups = {clip_id: _name_group(pattern.search(clip_id)) for clip_id in clip_ids}
    unmatched = [clip_id for clip_id, group in groups.items() if not group.strip("/")]
    if unmatched:
        raise OptionInvalid(
            f"--group-regex must match every clip id. '{group_regex}' does not match "
            f"{len(unmatched)} of {len(clip_ids)} clips, the first being '{unmatched[0]}'.",
            hint="widen the expression, or leave it out",
        )
    return groups


def show_regex(groups: dict[str, str], group_regex: str) -> str:
    """Say what an expression made of two clips."""
    return f"--group-regex '{group_regex}': {_show_two(groups)}"


def _path(clip_id: str) -> PurePosixPath:
    return PurePosixPath(split_clip_id(clip_id)[0])


def _match_scheme(pattern: re.Pattern[str], path: PurePosixPath, label: str) -> str:
    """Return what clips share; HMDB51 writes the class behind it, which is that of the folder."""
    match = pattern.search(path.stem)
    if match is None:
        return ""
    for name in (label, path.parent.name):
        if match.group(1).endswith(f"_{name}"):
            return match.group(1).removesuffix(f"_{name}")
    return match.group(1)


def _show_two(groups: dict[str, str]) -> str:
    """Give two examples, of different groups where there are any."""
    first: dict[str, str] = {}
    for clip_id, group in groups.items():
        first.setdefault(group, clip_id)
    examples = [(clip_id, group) for group, clip_id in first.items()][:2]
    examples = examples if len(examples) == 2 else list(groups.items())[:2]
    return ", ".join(f"'{clip_id}' is of '{group}'" for clip_id, group in examples)


def _name_group(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return "/".join(part or "" for part in match.groups()) if match.groups() else match.group(0)
