"""Overlays: copies of video files with the prediction drawn below, made by decode workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from features.embed import EmbedOptions
from features.errors import OptionInvalid, OutputExists
from features.records import Clip, ClipOutcome, FrameSampling
from features.system.files import private_folder, report_unwritable
from features.system.text import printable
from features.video.overlay import OVERLAY_SUFFIXES, Caption
from features.workers.pool import decode_clips
from features.workers.process import ClipEnd, WorkerSettings

# In a folder of overlays: what every browser and player plays.
_FOLDER_SUFFIX = ".mp4"
_N_CLASSES = 3
# Of those that a clip has; more would hide half of a small video.
_MOST_CLASSES = 8


def plan_overlays(
    clips: Sequence[tuple[Clip, str]], out: str | Path, *, overwrite: bool = False
) -> dict[str, Path]:
    """Decide where each clip's overlay goes, by clip id, before anything is computed.

    `clips` come with their names below a folder of overlays. For one clip `out` is a file whose
    suffix says how it is written: ``.mp4`` (H.264), ``.webm`` (VP8) or ``.avi`` (Motion JPEG).
    Without a suffix, or for several clips, it is a folder of MP4 files. Raises OptionInvalid, or
    OutputExists if something must not be replaced.
    """
    root = Path(out)
    is_folder = root.is_dir() or not root.suffix or len(clips) > 1
    has_codec = root.suffix.lower() in OVERLAY_SUFFIXES
    if len(clips) > 1 and has_codec and not root.is_dir():
        raise OptionInvalid(
            "--overlay is a folder where several videos are given. "
            f"Received: '{root}' for {len(clips)} videos.",
            hint="give a folder: a name without a suffix",
        )
    if not is_folder and not has_codec:
        raise OptionInvalid(
            f"An overlay is a file that ends in {', '.join(OVERLAY_SUFFIXES)}, or a folder. "
            f"Received: '{root}'.",
            hint="OUT.mp4 plays in every browser and player",
        )
    targets: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for clip, name in clips:
        target = (root / name).with_suffix(_FOLDER_SUFFIX) if is_folder else root
        if target in taken:
            raise OptionInvalid(
                "Every overlay needs a name of its own. "
                f"'{taken[target]}' and '{clip.clip_id}' would both become '{target}'.",
                hint="give the folder that holds both, or one video after the other",
            )
        taken[target] = clip.clip_id
        targets[clip.clip_id] = target
    _require_free(clips, targets, overwrite=overwrite)
    return targets


def _require_free(
    clips: Iterable[tuple[Clip, str]], targets: Mapping[str, Path], *, overwrite: bool
) -> None:
    sources = {os.path.realpath(clip.path) for clip, _ in clips}
    for target in targets.values():
        if os.path.realpath(target) in sources:
            raise OutputExists(
                f"An overlay never replaces a video that it is made of. '{target}' is one.",
                hint="give another --overlay",
            )
        if os.path.lexists(target) and not (overwrite and target.is_file()):
            raise OutputExists(
                f"An overlay is only written once. '{target}' exists.",
                hint="give another --overlay, or --overwrite to replace it",
            )


def caption_prediction(
    path: str,
    head: str,
    classes: Sequence[str],
    probabilities: Sequence[float],
    *,
    leaks: bool,
    thresholds: Sequence[float] | None = None,
) -> Caption:
    """Put a prediction into words: the file and head, and the three most probable classes.

    Where clips may have several classes, all that reach their threshold, or that none does. The
    fonts are still to be chosen, by `draw_overlays`.
    """
    pairs = sorted(zip(probabilities, classes, strict=True), key=lambda pair: -pair[0])
    mark, none = "LEAKY " if leaks else "", ""
    shown = pairs[:_N_CLASSES]
    if thresholds is not None:
        needed = dict(zip(classes, thresholds, strict=True))
        named = [pair for pair in pairs if pair[0] >= needed[pair[1]]]
        shown, none = (named[:_MOST_CLASSES], "") if named else (shown[:1], "no class; next is ")
    return Caption(
        header=f"{mark}{head}: {printable(Path(path).name)}",
        rows=tuple((f"{none}{printable(label)}", value) for value, label in shown),
        font="",
        bold_font="",
    )


def draw_overlays(
    clips: Sequence[Clip],
    captions: Mapping[str, Caption],
    targets: Mapping[str, Path],
    *,
    options: EmbedOptions,
    on_drawn: Callable[[int, ClipOutcome], None] = lambda n_drawn, outcome: None,
) -> tuple[ClipOutcome, ...]:
    """Write overlays, each whole or not at all; `targets` are `plan_overlays`'s.

    Calls `on_drawn` after each clip with how many were tried, and what became of this one.
    Returns the clips whose overlay could not be made.
    """
    wanted = [clip for clip in clips if clip.clip_id in captions]
    if not wanted:
        return ()
    place = Path(os.path.commonpath([targets[c.clip_id].parent.absolute() for c in wanted]))
    with ExitStack() as stack:
        with report_unwritable(place):
            place.mkdir(parents=True, exist_ok=True)
            room = stack.enter_context(private_folder(place / "overlays"))
        jobs = {
            clip.clip_id: (
                room / f"{number}{targets[clip.clip_id].suffix}",
                choose_fonts(captions[clip.clip_id]),
            )
            for number, clip in enumerate(wanted)
        }
        settings = WorkerSettings(
            sampling=FrameSampling("stride", 1.0),
            size_px=0,  # of no embedding
            model_path=None,
            dtype="float32",
            stall_seconds=options.stall_seconds,
            memory_bytes=options.memory_bytes,
            overlay_of=jobs,
        )
        outcomes: list[ClipOutcome] = []
        events = decode_clips(wanted, settings, n_workers=options.count_workers())
        with closing(events):
            for event in events:
                if not isinstance(event, ClipEnd):
                    continue
                clip_id = event.clip.clip_id
                if event.failure:
                    outcome = ClipOutcome(clip_id, "failed", f"no overlay: {event.failure}")
                else:
                    _move(jobs[clip_id][0], targets[clip_id])
                    outcome = ClipOutcome(clip_id, "done")
                outcomes.append(outcome)
                on_drawn(len(outcomes), outcome)
    return tuple(outcome for outcome in outcomes if outcome.status == "failed")


def _move(partial: Path, target: Path) -> None:
    with report_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)


def choose_fonts(caption: Caption) -> Caption:
    r"""Choose fonts that have every character of a caption.

    DejaVu Sans, which comes with Matplotlib, has most alphabets. For others the system's
    fonts are searched; what none of them has becomes an escape such as ``\u4eba``.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain, bold = folder / "DejaVuSans.ttf", folder / "DejaVuSans-Bold.ttf"
    text = {ord(char) for part in (caption.header, *(r[0] for r in caption.rows)) for char in part}
    missing = text - _characters(plain) | text - _characters(bold)
    if missing:
        found = _search_fonts(text)
        if found is not None:
            return replace(caption, font=str(found), bold_font=str(found))
    codes = {code: chr(code).encode("unicode_escape").decode() for code in missing}
    return Caption(
        caption.header.translate(codes),
        tuple((label.translate(codes), value) for label, value in caption.rows),
        str(plain),
        str(bold),
    )


def _search_fonts(text: set[int]) -> Path | None:
    from matplotlib.font_manager import fontManager

    # The font of last resort claims to have everything, and draws boxes.
    fonts = [font for font in fontManager.ttflist if "Last Resort" not in font.name]
    for font in sorted(fonts, key=lambda font: (font.style != "normal", str(font.fname))):
        if text <= _characters(Path(font.fname)):
            return Path(font.fname)
    return None


def _characters(font: Path) -> set[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(str(font)).get_charmap())
    except (OSError, RuntimeError):
        return set()  # a font that cannot be read has none
