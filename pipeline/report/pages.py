"""What the pages of runs and of comparisons share: one self-contained HTML file each."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from features.errors import VideosNotFound
from features.records import StoreHeader
from features.store.store import Store
from features.system.files import write_text
from features.system.text import printable
from features.video.pictures import take_pictures
from pipeline.splits.leaks import NearDuplicate, describe_near_duplicates
from pipeline.splits.split import describe_class_gaps

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one head said of one test clip."""

    clip_id: str
    label: str  # the true class
    predicted: str
    confidence: float  # probability of the predicted class

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.label


@dataclass(frozen=True, slots=True)
class ConfusedClip:
    """A clip that was taken for another class."""

    clip_id: str
    label: str
    predicted: str  # the wrong class named most often
    confidence: float  # mean probability of the wrong answers
    n_wrong: int
    n_answers: int


def find_confused(answers: Iterable[Answer], *, most: int = 12) -> list[ConfusedClip]:
    """Find the clips that are wrong most often, and of these the most confident ones."""
    by_clip: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_clip[answer.clip_id].append(answer)
    found = []
    for clip_id, given in by_clip.items():
        wrong = [answer for answer in given if not answer.is_right]
        if wrong:
            named = Counter(answer.predicted for answer in wrong).most_common(1)[0][0]
            mean = sum(answer.confidence for answer in wrong) / len(wrong)
            label = given[0].label
            found.append(ConfusedClip(clip_id, label, named, mean, len(wrong), len(given)))
    found.sort(key=lambda clip: (-clip.n_wrong / clip.n_answers, -clip.confidence, clip.clip_id))
    return found[:most]


class _Named(Protocol):
    @property
    def clip_id(self) -> str: ...  # pragma: no cover


_Clip = TypeVar("_Clip", bound=_Named)


def add_pictures(
    clips: Sequence[_Clip], store: Store, videos: str | Path | None
) -> list[tuple[_Clip, str, str]]:
    """Give each clip its middle frame as a data URI, or the reason why it has none."""
    folder = None if videos is None else Path(videos)
    pictures = take_pictures(store, [clip.clip_id for clip in clips], videos=folder)
    return [
        (clip, _to_uri(pictures[clip.clip_id].jpeg), pictures[clip.clip_id].problem)
        for clip in clips
    ]


def require_videos(videos: str | Path | None) -> None:
    """Check that the video folder that was named is one, before anything is trained."""
    if videos is not None and not Path(videos).is_dir():
        raise VideosNotFound(
            f"--videos must be the folder that the store was made from. '{videos}' is no folder.",
            hint="give the folder named in extract-features, or omit --videos",
        )


def describe_page(
    content: Mapping[str, Any],
    *,
    header: Mapping[str, Any],
    summary: Mapping[str, Any],
    n_tested: int,
    is_multilabel: bool = False,
) -> dict[str, Any]:
    """Gather what both pages show of ``run.json`` or ``comparison.json`` and the store's header."""
    made = StoreHeader.from_json(json.dumps(header))
    backbone = made.backbone
    pairs = [NearDuplicate(**pair) for pair in summary["near_duplicates"]]
    shown = ("leaks", "groups_known", "versions", "created", "platform")
    return {
        **{name: content[name] for name in shown},
        "near_duplicates": describe_near_duplicates(pairs, summary["n_near_duplicates"], n_tested),
        "class_gaps": describe_class_gaps(
            summary.get("classes_without", {}),
            summary.get("n_classes", 0),
            is_multilabel=is_multilabel,
        ),
        "group_doubts": [text.partition(": ") for text in summary.get("group_doubts", ())],
        "backbone": f"{backbone.name} alpha {backbone.alpha:g}, {backbone.size_px} px",
        "sampling": str(made.sampling),
    }


def write_page(folder: Path, template: str, content: Mapping[str, Any]) -> None:
    """Fill a template into ``report.html``; all text is escaped but the plots' own markup."""
    write_text(folder / "report.html", _environment().get_template(template).render(content))


def _to_uri(jpeg: bytes) -> str:
    coded = base64.b64encode(jpeg).decode("ascii")
    return f"data:image/jpeg;base64,{coded}" if jpeg else ""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def show(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        # Class and clip names are file names of strangers: what cannot be shown, or turns the
        # direction of writing, becomes an escape.
        return printable(str(value))

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=show,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
