"""The frozen dataclasses that carry data through stage 1, from folder to store."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
VectorArray = npt.NDArray[np.floating[Any]]
FrameArray = npt.NDArray[np.uint8]

SamplingStrategy = Literal["uniform", "fps", "stride"]
ClipStatus = Literal["done", "failed"]
OutcomeStatus = Literal["done", "already", "failed"]
TimeUnit = Literal["seconds", "frames"]
VectorDtype = Literal["float16", "float32"]
Decoder = Literal["pyav", "opencv"]
Precision = Literal["float32", "int8"]

# Between the names of several classes where they are one text.
LABEL_JOINT = ";"

# Pixels differ between them where OpenCV is wrong: interlaced, damaged and odd files.
DECODER_NAMES: dict[Decoder, str] = {"pyav": "PyAV", "opencv": "OpenCV (before PyAV)"}


class _Labelled:
    """What may have one class, several, or none that is known."""

    __slots__ = ()
    label: str
    labels: tuple[str, ...] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the clip, however many."""
        if self.labels is not None:
            return self.labels
        return (self.label,) if self.label else ()

    @property
    def is_labelled(self) -> bool:
        """Whether somebody said which classes the clip has, and be it none of them."""
        return self.labels is not None or self.label != ""


@dataclass(frozen=True, slots=True)
class Clip(_Labelled):
    """One video file of a folder, or one folder of numbered pictures, or a span of these.

    Attributes
    ----------
    clip_id : str
        Path relative to the video folder, POSIX separators, suffix included; in an archive the
        name of the archive comes first. Of a span with its bounds behind it,
        ``path#12.0-15.5`` or ``path#f360-f465``. Bytes that are not UTF-8 are kept as surrogate
        escapes.
    path : Path
        The video file, or the folder of pictures; it may lead into an archive.
    label : str
        Class name; empty if unknown. The names of several are joined by ";".
    group : str
        Source video, person or camera that several clips share; empty if unknown.
    split : str
        "train", "val", "test", or empty if the folder or annotation file assigns none.
    start_seconds, end_seconds : float or None
        The span, from the first included time to the first excluded one. None for the whole
        file, for a span without an end, and where the span is given in frames.
    start_frame, end_frame : int or None
        The span as frame numbers from 0, the end excluded; None where it is given in seconds.
    labels : tuple of str or None
        Where clips may have several classes: those of this one, sorted; empty if it has none of
        them. None if they are unknown, and where every clip has one class.
    is_pictures : bool
        Whether the clip is a folder of pictures.
    frame_rate : float or None
        Of a folder of pictures, in frames per second; None if it is unknown, and for videos,
        which tell it themselves.
    """

    clip_id: str
    path: Path
    label: str = ""
    group: str = ""
    split: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None
    labels: tuple[str, ...] | None = None
    is_pictures: bool = False
    frame_rate: float | None = None

    @property
    def is_span(self) -> bool:
        """Whether the clip is only a part of its file."""
        return self.start_seconds is not None or self.start_frame is not None


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Which frames of a clip are embedded.

    Attributes
    ----------
    strategy : {"uniform", "fps", "stride"}
        Evenly spaced over the clip, at a rate in time, or every n-th frame.
    value : float
        Frames per clip, frames per second, or the stride (1 is every frame).
    """

    strategy: SamplingStrategy
    value: float

    def __str__(self) -> str:
        """Describe the sampling in the words of the command line."""
        if self.strategy == "uniform":
            return f"--frames {self.value:g}"
        if self.strategy == "fps":
            return f"--fps {self.value:g}"
        return "--all-frames" if self.value == 1 else f"--stride {self.value:g}"


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Everything that decides which vector a frame becomes.

    Attributes
    ----------
    name : str
        Architecture, "MobileNetV2".
    weights : str
        "imagenet", "builtin", or the absolute path that the weights file had.
    weights_sha256 : str
        Of the whole file, hexadecimal.
    alpha : float
        Width multiplier of MobileNetV2.
    size_px : int
        Side of the square that every frame is resized to.
    embedding_dim : int
        Length of one embedding.
    resize, colour_order, scaling, pooling : str
        How a frame enters the network, and how the last feature map becomes a vector; see
        `features.video.frames.resize_frame`.
    precision : {"float32", "int8"}
        In which numbers the network computes.
    model_sha256 : str
        Of the quantised network, hexadecimal; empty for float32.
    """

    name: str
    weights: str
    weights_sha256: str
    alpha: float
    size_px: int
    embedding_dim: int
    resize: str = "halve-then-bilinear"
    colour_order: str = "RGB"
    scaling: str = "[-1, 1]"
    pooling: str = "avg"
    precision: Precision = "float32"
    model_sha256: str = ""


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """How the embeddings of a store were made, and in which type they are kept.

    Attributes
    ----------
    backbone : BackboneSpec
    sampling : FrameSampling
    dtype : {"float16", "float32"}
    decoder : {"pyav", "opencv"}
        What decoded the frames; "opencv" only in stores of versions that had no other.
    """

    backbone: BackboneSpec
    sampling: FrameSampling
    dtype: VectorDtype = "float16"
    decoder: Decoder = "pyav"

    def to_json(self) -> str:
        """Return the canonical JSON text of this header."""
        return json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))

    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.decoder == "opencv":  # its stores do not say so
            del fields["decoder"]
        if self.backbone.precision == "float32":  # nor do stores of the time before int8
            del fields["backbone"]["precision"], fields["backbone"]["model_sha256"]
        return fields

    @classmethod
    def from_json(cls, text: str) -> StoreHeader:
        """Rebuild a header from `to_json`'s text."""
        fields = json.loads(text)
        return cls(
            backbone=BackboneSpec(**fields["backbone"]),
            sampling=FrameSampling(**fields["sampling"]),
            dtype=fields["dtype"],
            decoder=fields.get("decoder", "opencv"),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides values, which the place of the weights file does not."""
        fields = self._fields()
        del fields["backbone"]["weights"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What identifies the content of a clip's file.

    Attributes
    ----------
    mtime_ns : int
        Modification time, nanoseconds since 1970.
    sha256 : str
        Hexadecimal digest of the whole file; empty if it could not be read.
    """

    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What decoding a clip showed, and what its header claimed.

    Attributes
    ----------
    n_frames_header : int
        A claim, often wrong, sometimes negative.
    fps_header : float
        Frames per second, also a claim.
    width_px, height_px : int
        Size of the first decoded frame, rotation applied.
    note : str
        What is odd about the file, such as damage; empty if nothing is.
    """

    n_frames_header: int = 0
    n_frames_decoded: int = 0
    fps_header: float = 0.0
    width_px: int = 0
    height_px: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class ClipRecord(_Labelled):
    """One row of a store's clip table.

    Attributes
    ----------
    clip_id, label, group, split : str
        As in `Clip`.
    status : {"done", "failed"}
    reason : str
        Why the clip failed, or what a reader should know of a clip that is done.
    n_frames : int
        Embedded frames; 0 for a failed clip.
    source : SourceFile
        Size, time and SHA-256 of the file that was embedded.
    facts : VideoFacts
        What decoding found.
    crc32 : int
        Checksum of the clip's embeddings, timestamps and frame indices.
    is_current : bool
        Whether the folder or CSV of the last extraction held the clip. Clips that it did
        not hold keep their embeddings, but are not trained on.
    start_seconds, end_seconds : float or None
        The span of the file that the clip is; None for a whole file, an end that is the file's,
        and a failed clip whose span was given in frames.
    labels : tuple of str or None
        As in `Clip`.
    """

    clip_id: str
    label: str
    group: str
    split: str
    status: ClipStatus
    reason: str
    n_frames: int
    source: SourceFile
    facts: VideoFacts
    crc32: int = 0
    is_current: bool = True
    start_seconds: float | None = None
    end_seconds: float | None = None
    labels: tuple[str, ...] | None = None

    @property
    def file_id(self) -> str:
        """Path of the clip's file relative to the video folder."""
        is_whole = self.start_seconds is None and self.status == "done"
        return self.clip_id if is_whole else split_clip_id(self.clip_id)[0]


@dataclass(frozen=True, slots=True, repr=False)
class ClipEmbedding:
    """The embeddings of one clip.

    Attributes
    ----------
    vectors : ndarray of float, shape (n_frames, embedding_dim)
    timestamps_seconds : ndarray of float64, shape (n_frames,)
        True presentation times, as the container gives them.
    frame_indices : ndarray of int64, shape (n_frames,)
        Positions among the decoded frames of the clip, from 0.
    """

    vectors: VectorArray
    timestamps_seconds: FloatArray
    frame_indices: IntArray

    def __post_init__(self) -> None:
        """Check that the three arrays speak of the same frames."""
        n = len(self.vectors)
        if self.vectors.ndim != 2 or {len(self.timestamps_seconds), len(self.frame_indices)} != {n}:
            raise ValueError(
                "A clip's arrays must hold one row per frame. Received: vectors "
                f"{self.vectors.shape}, timestamps_seconds {self.timestamps_seconds.shape}, "
                f"frame_indices {self.frame_indices.shape}."
            )

    def __repr__(self) -> str:
        """Show shapes instead of numbers."""
        return f"ClipEmbedding(vectors={self.vectors.dtype}{self.vectors.shape})"


@dataclass(frozen=True, slots=True)
class EmbeddedClip:
    """A clip that stage 1 is through with."""

    record: ClipRecord  # its `crc32` is filled in when it is committed
    embedding: ClipEmbedding | None  # None for a failed clip


@dataclass(frozen=True, slots=True)
class ClipOutcome:
    """What became of one clip in one extraction.

    Attributes
    ----------
    clip_id : str
    status : {"done", "already", "failed"}
        "already" is a clip that the store held before, unchanged.
    reason : str
        Why it failed; empty otherwise.
    n_frames : int
        Embedded frames.
    """

    clip_id: str
    status: OutcomeStatus
    reason: str = ""
    n_frames: int = 0


@dataclass(frozen=True, slots=True)
class IgnoredFile:
    """A file of the video folder that is not a clip; its path is relative to that folder."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """The clips of a folder, and how they were found.

    Attributes
    ----------
    folder : Path
    clips : tuple of Clip
        Sorted by `clip_id`.
    ignored : tuple of IgnoredFile
        Files that were passed over, and why.
    labels_from : str
        What gave the labels, for people: class folders, or which annotation file in which format.
    groups_from : str
        What gave the groups, for people, with two examples where they were inferred.
    notes : tuple of str
        What was found besides and may be a mistake, in sentences.
    """

    folder: Path
    clips: tuple[Clip, ...]
    ignored: tuple[IgnoredFile, ...] = ()
    labels_from: str = ""
    groups_from: str = ""
    notes: tuple[str, ...] = ()


_SPAN = re.compile(r"#(\d+(?:\.\d+)?-(?:\d+(?:\.\d+)?|end)|f\d+-(?:f\d+|end))$")


def split_clip_id(clip_id: str) -> tuple[str, str]:
    """Divide the id of a span into its file's path and the span; the latter is empty if none."""
    match = _SPAN.search(clip_id)
    return (clip_id[: match.start()], match[1]) if match else (clip_id, "")
