"""How many clips are called near-duplicates by mistake, and which copies are found.

    python benchmarks/duplicates.py FOLDER --videos ../shared/clips/ucf101_mini --alpha 0.35
    python benchmarks/duplicates.py FOLDER --look flat --weights builtin

Clips are those of a folder whose groups are known, or drawn (tests/drawn_looks.py). Copies are
made of some of them; each kind of copy is looked for by itself, beside all clips. Two pairs of
UCF101 count as true: g01 and g10 of BasketballDunk are cuts of one broadcast. FOLDER keeps what
was made.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import click

from features import BackboneOptions, Store, extract_features, open_store
from pipeline.splits.duplicates import NearDuplicates, find_near_duplicates

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from drawn_looks import ALTERATIONS, HELD_OUT, LOOKS, copy_clip, draw_look

_LOOKS = {**LOOKS, **HELD_OUT}
_COPY = "__"
_TRUE = "BasketballDunk/v_BasketballDunk_g{}_c{}"
_TRUE_PAIRS = {frozenset(_TRUE.format(g, c) for g in ("01", "10")) for c in ("01", "02")}


def stem(clip_id: str) -> str:
    return clip_id.rpartition(".")[0].partition(_COPY)[0]


def kind(clip_id: str) -> str:
    return clip_id.rpartition(".")[0].partition(_COPY)[2]


def make_clips(folder: Path, videos: Path | None, look: str, n_copies: int) -> None:
    """Draw or link the clips, and write copies of every few of them beside these."""
    if videos is None:
        draw_look(_LOOKS[look], folder, n_groups=10, n_takes=3)
    else:
        for path in sorted(videos.rglob("*.*")):
            if path.suffix in (".avi", ".mp4"):
                target = folder / path.relative_to(videos)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path.resolve())
    clips = sorted(path for path in folder.rglob("*.*") if path.is_file())
    step = max(1, len(clips) // max(1, n_copies))
    for path in clips[step // 2 :: step][:n_copies]:
        for item in ALTERATIONS:
            name = f"{path.stem}{_COPY}{item.name}{item.suffix}"
            copy_clip(path, item, path.with_name(name))


def read_groups(store: Store, videos: Path | None, group_regex: str) -> dict[str, str]:
    """Return the groups of all clips that are no copies: from clips.csv or their names."""
    names = {}
    if videos is not None and (videos / "clips.csv").is_file():
        with (videos / "clips.csv").open(newline="") as file:
            names = {row["path"]: row["group"] for row in csv.DictReader(file)}
    groups = {}
    for clip in store.clips:
        if clip.n_frames and not kind(clip.clip_id):
            match = re.search(group_regex, clip.clip_id)
            groups[clip.clip_id] = names.get(clip.clip_id) or (match[0] if match else clip.clip_id)
    return groups


def count_false(found: NearDuplicates) -> int:
    """Count the clips of pairs that are not known to be true."""
    pairs = [pair for pair in found.pairs if frozenset(map(stem, pair[:2])) not in _TRUE_PAIRS]
    return len({clip_id for pair in pairs for clip_id in pair[:2]})


def count_found(store: Store, groups: dict[str, str], name: str) -> tuple[int, int, float]:
    """Put one kind of copies beside the clips: how many are found, of how many, and from where."""
    originals = {stem(clip_id): clip_id for clip_id in groups}
    copies = [clip.clip_id for clip in store.clips if kind(clip.clip_id) == name]
    sides = {**groups, **{clip_id: clip_id for clip_id in copies}}
    found = find_near_duplicates(store, sides, sides)
    pairs = {frozenset(pair[:2]) for pair in found.pairs}
    n_found = sum(frozenset((clip_id, originals[stem(clip_id)])) in pairs for clip_id in copies)
    return n_found, len(copies), found.above


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--videos", type=click.Path(exists=True, path_type=Path))
@click.option("--look", type=click.Choice(sorted(_LOOKS)), default="flat")
@click.option("--weights", default="imagenet")
@click.option("--alpha", type=float, default=0.35)
@click.option("--group-regex", default=r"[^/]*(g|person)\d+", help="Unless there is a clips.csv.")
@click.option("--copies", default=24, help="Clips that are copied.")
def main(
    folder: Path,
    videos: Path | None,
    look: str,
    weights: str,
    alpha: float,
    group_regex: str,
    copies: int,
) -> None:
    """Print false alarms, and the share of copies that are found, kind by kind."""
    name = look if videos is None else videos.resolve().name
    clips = folder / name
    if not clips.exists():
        make_clips(clips, videos, look, copies)
    backbone = BackboneOptions(alpha=alpha, weights=weights)
    store_path = folder / f"{name}-{Path(weights).stem}-{alpha:g}.h5"
    extract_features(clips, store_path, backbone=backbone)
    store = open_store(store_path)
    groups = read_groups(store, videos, group_regex)
    found = find_near_duplicates(store, groups, groups)
    print(
        f"{name}, {Path(weights).stem} {alpha:g}: {count_false(found)} of {len(groups)} clips "
        f"called near-duplicates by mistake (similarity from {found.above:.2f} on)"
    )
    total = n_all = 0
    for item in ALTERATIONS:
        n_found, n_copies, above = count_found(store, groups, item.name)
        print(f"  {item.name:15s} {n_found:3d} of {n_copies} found (from {above:.2f} on)")
        total, n_all = total + n_found, n_all + n_copies
    print(f"  all             {total:3d} of {n_all}")


if __name__ == "__main__":
    main()
