"""Splits as files: made once, reused by every head, written by hand if need be."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from features.errors import SplitImpossible
from features.system.files import report_unwritable, write_json
from pipeline.splits.split import PARTS, Split

SPLIT_SCHEMA = 1


def split_to_json(split: Split) -> dict[str, Any]:
    """Return a split as JSON-ready values."""
    fields = asdict(split)
    return {
        "schema": SPLIT_SCHEMA,
        **{
            key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()
        },
    }


def split_from_json(fields: Any, *, where: str) -> Split:
    """Rebuild a split from `split_to_json`'s values; `where` is for messages.

    Only "train" and "test" are required, so that a split can be written by hand; without "val"
    the trainer cuts a validation part from "train". Raises SplitImpossible.
    """
    if not isinstance(fields, dict) or not {"train", "test"} <= fields.keys():
        raise SplitImpossible(
            f"A split must be a JSON object with lists 'train', 'val' and 'test'. {where} is not.",
            hint="write it with framehead, or see docs for the format",
        )
    parts: dict[str, tuple[str, ...]] = {}
    for name in (*PARTS, "excluded", "missing"):
        ids = fields.get(name, [])
        if not isinstance(ids, list) or not all(isinstance(clip_id, str) for clip_id in ids):
            raise SplitImpossible(f"'{name}' of a split must be a list of clip ids. {where}.")
        parts[name] = tuple(ids)
    everything = [i for name, ids in parts.items() if name != "missing" for i in ids]
    if len(set(everything)) < len(everything):
        twice = next(clip_id for clip_id in everything if everything.count(clip_id) > 1)
        raise SplitImpossible(
            f"A clip must stand in one part of a split, once. '{twice}' stands twice in {where}."
        )
    for name in ("train", "test"):
        if not parts[name]:
            raise SplitImpossible(f"'{name}' of a split must name a clip. It is empty in {where}.")
    joined_above = fields.get("joined_above")
    try:
        return Split(
            **parts,
            method=str(fields.get("method", f"the file {where}")),
            seed=int(fields.get("seed", 0)),
            groups_known=bool(fields.get("groups_known", True)),
            leaks=bool(fields.get("leaks", False)),
            groups_from=str(fields.get("groups_from", "")),
            store_fingerprint=str(fields.get("store_fingerprint", "")),
            joined_above=None if joined_above is None else float(joined_above),
        )
    except (TypeError, ValueError) as problem:
        raise SplitImpossible(
            f"'seed' and 'joined_above' of a split must be numbers. {where}: {problem}."
        ) from problem


def write_split(path: str | Path, split: Split) -> None:
    """Write a split to a JSON file, complete or not at all.

    Parameters
    ----------
    path : str or Path
    split : Split

    Raises
    ------
    OutputUnwritable
        If the file cannot be written.
    """
    with report_unwritable(Path(path)):
        write_json(Path(path), split_to_json(split))


def read_split(path: str | Path) -> Split:
    """Read a split from a JSON file.

    Parameters
    ----------
    path : str or Path
        Such as ``split.json`` of a run.

    Returns
    -------
    Split

    Raises
    ------
    SplitImpossible
        If the file cannot be read or is no split.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise SplitImpossible(
            f"--split must be a JSON file of a split. Reading '{path}' failed: {problem}.",
            hint="use split.json of a run or comparison",
        ) from problem
    return split_from_json(fields, where=f"'{path}'")
