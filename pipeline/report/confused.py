"""The clips that heads get wrong most surely, each with its middle frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from features.store.store import Store
from features.video.pictures import Picture, take_pictures

MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What one head said of one test clip.

    Attributes
    ----------
    clip_id : str
    label : str
        The true class.
    predicted : str
    confidence : float
        Probability of the predicted class.
    """

    clip_id: str
    label: str
    predicted: str
    confidence: float

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.label


@dataclass(frozen=True, slots=True)
class ConfusedClip:
    """A clip that was taken for another class.

    Attributes
    ----------
    clip_id, label : str
    predicted : str
        The wrong class named most often.
    confidence : float
        Mean probability of the wrong answers.
    n_wrong, n_answers : int
    """

    clip_id: str
    label: str
    predicted: str
    confidence: float
    n_wrong: int
    n_answers: int


def find_confused(answers: Iterable[Answer], *, most: int = MOST_SHOWN) -> tuple[ConfusedClip, ...]:
    """Find the clips that are wrong most often, and of these the most confident ones.

    Parameters
    ----------
    answers : iterable of Answer
        One per clip of a run, or one per clip and trial of a comparison.
    most : int, default 12

    Returns
    -------
    tuple of ConfusedClip
        Worst first.
    """
    by_clip: dict[str, list[Answer]] = {}
    for answer in answers:
        by_clip.setdefault(answer.clip_id, []).append(answer)
    found = []
    for clip_id, given in by_clip.items():
        wrong = [answer for answer in given if not answer.is_right]
        if wrong:
            named = Counter(answer.predicted for answer in wrong).most_common(1)[0][0]
            mean = sum(answer.confidence for answer in wrong) / len(wrong)
            label = given[0].label
            found.append(ConfusedClip(clip_id, label, named, mean, len(wrong), len(given)))
    found.sort(key=lambda clip: (-clip.n_wrong / clip.n_answers, -clip.confidence, clip.clip_id))
    return tuple(found[:most])


def picture_confused(
    clips: Iterable[ConfusedClip], store: Store, videos: str | Path | None
) -> Mapping[str, Picture]:
    """Take the middle frames of clips.

    Parameters
    ----------
    clips : iterable of ConfusedClip
    store : Store
    videos : str or Path, optional
        Where the video folder lies now.

    Returns
    -------
    mapping of str to Picture
        By clip id.
    """
    folder = None if videos is None else Path(videos)
    return take_pictures(store, [clip.clip_id for clip in clips], videos=folder)
