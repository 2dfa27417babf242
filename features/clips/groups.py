"""What names the group of a clip: a well-known naming scheme, or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from features.errors import OptionInvalid

# File stems of well-known collections; the first capture group names what clips share.
_GROUP_PATTERNS = (
    re.compile(r"^(.*_g\d+)_c\d+$"),  # UCF101, UCF50, UCF11: source video
    re.compile(r"^(person\d+)_"),  # KTH: person
    re.compile(r"S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}"),  # NTU RGB+D: person
    re.compile(r"^([\w-]{11})_\d{6}_\d{6}$"),  # Kinetics: YouTube id
    re.compile(r"^(.*)_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$"),  # HMDB51
)


def infer_group(clip_id: str, label: str = "") -> str:
    """Read the group off the file name of a well-known collection; empty if it is of none.

    HMDB51 writes the class behind the source's name, from which `label` is cut off.
    """
    stem = PurePosixPath(clip_id).stem
    for pattern in _GROUP_PATTERNS:
        match = pattern.search(stem)
        if match:
            return match.group(1).removesuffix(f"_{label}")
    return ""


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


def _name_group(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return "/".join(part or "" for part in match.groups()) if match.groups() else match.group(0)
