"""What the facts of video files alone give away of their classes, without a look at a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.records import ClipRecord, FloatArray
from features.store.store import Store, read_embeddings
from pipeline.splits.split import Split

# As a line beside heads.
FILE_FACTS = "file facts"
FACT_NAMES = (
    "frame rate",
    "width",
    "height",
    "frames",
    "duration",
    "bytes",
    "bytes per frame",
    "repeated frames",
)
_TREES = 200
# Two embeddings in a row that are nearer than this share of their length show the same picture.
_SAME_PICTURE = 0.01


def guess_by_facts(store: Store, splits: Sequence[Split]) -> list[list[str]]:
    """Name the class of every test clip of every split by the facts of its file.

    Extremely randomised trees (Geurts, Ernst and Wehenkel, Machine Learning 63, 2006) learn them
    from the training and validation clips. They are told nothing that was filmed: a head that
    is not better may have learned how its classes were recorded, not what happens in them.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    used = {i for split in splits for i in (*split.train, *split.val, *split.test)}
    clips = [clip for clip in store.clips if clip.clip_id in used]
    facts = dict(zip((clip.clip_id for clip in clips), read_facts(store, clips), strict=True))
    labels = {clip.clip_id: clip.label for clip in clips}
    guesses = []
    for split in splits:
        learned = [*split.train, *split.val]
        trees = ExtraTreesClassifier(_TREES, min_samples_leaf=2, random_state=0)
        trees.fit(np.array([facts[i] for i in learned]), [labels[i] for i in learned])
        found: npt.NDArray[np.str_] = trees.predict(np.array([facts[i] for i in split.test]))
        guesses.append([str(label) for label in found])
    return guesses


def read_facts(store: Store, clips: Sequence[ClipRecord]) -> FloatArray:
    """Gather `FACT_NAMES` of clips: (n_clips, n_facts)."""
    embeddings = read_embeddings(store, clips)
    rows = []
    for number, clip in enumerate(clips):
        facts = clip.facts
        n_frames = max(1, facts.n_frames_decoded)
        vectors = embeddings.vectors[embeddings.starts[number] : embeddings.starts[number + 1]]
        rows.append(
            [
                facts.fps_header,
                facts.width_px,
                facts.height_px,
                facts.n_frames_decoded,
                n_frames / facts.fps_header if facts.fps_header > 0 else 0.0,
                clip.source.size_bytes,
                clip.source.size_bytes / n_frames,
                _share_of_repeats(vectors.astype(np.float32)),
            ]
        )
    return np.array(rows, dtype=np.float64)


def _share_of_repeats(vectors: npt.NDArray[np.float32]) -> float:
    if len(vectors) < 2:
        return 0.0
    steps = np.linalg.norm(np.diff(vectors, axis=0), axis=1)
    return float((steps < _SAME_PICTURE * np.linalg.norm(vectors[1:], axis=1)).mean())
