"""The file formats of an export: each is one class, which takes rows in blocks."""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from features.errors import ExtraMissing, OptionInvalid
from features.records import ClipRecord, FloatArray, IntArray, StoreHeader, VectorArray
from features.system.files import open_csv
from features.system.plugins import require_own_name

CLIP_COLUMNS = ("clip_id", "label", "group", "split")


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """Some rows of an export.

    Attributes
    ----------
    clips : tuple of ClipRecord, length n_rows
        The clip of every row.
    vectors : ndarray of float16 or float32, shape (n_rows, dim)
    frame_indices : ndarray of int64, shape (n_rows,), or None
        None if a row is a whole clip.
    timestamps_seconds : ndarray of float64, shape (n_rows,), or None
        None if a row is a whole clip.
    classes : tuple of str or None
        All classes of the store where clips may have several, for `mark_classes`; None where
        every clip has one.
    """

    clips: tuple[ClipRecord, ...]
    vectors: VectorArray
    frame_indices: IntArray | None
    timestamps_seconds: FloatArray | None
    classes: tuple[str, ...] | None = None

    def mark_classes(self) -> npt.NDArray[np.int8]:
        """Mark the classes of every row, where clips may have several.

        Returns
        -------
        ndarray of int8, shape (n_rows, n_classes)
            1 for the classes of the row's clip, 0 for the others; -1 where they are unknown.
        """
        names = self.classes or ()
        # Rows of one clip follow each other.
        rows: list[list[int]] = []
        for number, clip in enumerate(self.clips):
            if number and clip is self.clips[number - 1]:
                rows.append(rows[-1])
            elif clip.labels is None:
                rows.append([-1] * len(names))
            else:
                rows.append([int(name in clip.labels) for name in names])
        return np.array(rows, dtype=np.int8).reshape(len(self.clips), len(names))


class ExportFormat(ABC):
    """How rows are written; the first line of a subclass's docstring is its help.

    Attributes
    ----------
    name : str
        As ``--format`` takes it.
    suffix : str
        Of the files that have this format without being asked; empty for a folder.
    marker : str
        For a folder the file by which it is known, so that it may be replaced.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    marker: ClassVar[str] = ""

    @abstractmethod
    def write(self, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
        """Write all blocks to a new file, or into an empty folder.

        Parameters
        ----------
        path : Path
            A file's partial name, with the suffix that was asked for, or a folder that exists.
        blocks : iterator of Block
            At least one; all of the same kind of row.
        header : StoreHeader
            How the embeddings were made.
        """


FORMATS: dict[str, type[ExportFormat]] = {}

_Format = TypeVar("_Format", bound=type[ExportFormat])


def register_format(format: _Format) -> _Format:
    """Add an export format to those that ``export-embeddings`` offers.

    Parameters
    ----------
    format : class
        A subclass of `ExportFormat` that takes no arguments.

    Returns
    -------
    class
        The same, so that this can be a decorator.

    Raises
    ------
    OptionInvalid
        If it is no such class, if it lacks a name or a suffix, or if another module has
        registered the name.
    """
    if not (isinstance(format, type) and issubclass(format, ExportFormat)):
        raise OptionInvalid(f"A format must be a subclass of ExportFormat. Received: {format!r}.")
    name, suffix = getattr(format, "name", ""), getattr(format, "suffix", None)
    taken_by = FORMATS[name].__module__ if name in FORMATS else None
    require_own_name("a format", name, module=format.__module__, taken_by=taken_by)
    if not isinstance(suffix, str) or re.fullmatch(r"(\.[a-z0-9_-]+)?", suffix) is None:
        raise OptionInvalid(
            "The suffix of a format must be lower-case letters and digits after a dot, or empty. "
            f"Received for '{name}': {suffix!r}.",
            hint='suffix = ".jsonl"',
        )
    FORMATS[name] = format
    return format


@register_format
class NpzFormat(ExportFormat):
    """One NumPy archive that loads without pickle; all rows are held in memory at once."""

    name = "npz"
    suffix = ".npz"

    def write(self, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
        """See `ExportFormat`; the header is JSON text in the array ``header``."""
        everything = list(blocks)
        arrays: dict[str, Any] = {
            "vectors": np.concatenate([block.vectors for block in everything])
        }
        for column in CLIP_COLUMNS:
            values = [getattr(clip, column) for block in everything for clip in block.clips]
            arrays[column] = np.array(values, dtype=np.str_)
        if everything[0].classes is not None:
            arrays["classes"] = np.array(everything[0].classes, dtype=np.str_)
            arrays["labels"] = np.concatenate([block.mark_classes() for block in everything])
        frames = [(b.frame_indices, b.timestamps_seconds) for b in everything]
        if frames[0][0] is not None:
            arrays["frame_index"] = np.concatenate(
                [indices for indices, _ in frames if indices is not None]
            )
            arrays["timestamp_seconds"] = np.concatenate([t for _, t in frames if t is not None])
        arrays["header"] = np.array(header.to_json())
        arrays["fingerprint"] = np.array(header.fingerprint)
        # An open file, because to a name without .npz NumPy appends it.
        with path.open("wb") as file:
            np.savez(file, **arrays)


@register_format
class CsvFormat(ExportFormat):
    """One row per vector, with columns v0, v1, ...; the header has no place there."""

    name = "csv"
    suffix = ".csv"

    def write(self, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
        """See `ExportFormat`."""
        with open_csv(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            for number, block in enumerate(blocks):
                if number == 0:
                    names = [f"v{index}" for index in range(block.vectors.shape[1])]
                    writer.writerow([*_metadata_columns(block), *names])
                text = _format_vectors(block.vectors)
                for about, values in zip(_metadata_rows(block), text, strict=True):
                    writer.writerow([*about, *values])


@register_format
class ParquetFormat(ExportFormat):
    """One Parquet file with the column ``vector`` of fixed-size float32 lists.

    Names that are not UTF-8 cannot be kept there; their odd bytes become U+FFFD.
    """

    name = "parquet"
    suffix = ".parquet"

    def write(self, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
        """See `ExportFormat`; one row group per block, the header as metadata of the schema."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as problem:
            raise ExtraMissing(
                f"Parquet needs pyarrow, which cannot be imported: {problem}.",
                hint='pip install "framehead[parquet]"',
            ) from problem
        first = next(blocks)
        dim = first.vectors.shape[1]
        columns = [(name, pa.string()) for name in CLIP_COLUMNS]
        if first.frame_indices is not None:
            columns += [("frame_index", pa.int64()), ("timestamp_seconds", pa.float64())]
        if first.classes is not None:
            columns.append(("labels", pa.list_(pa.string())))
        metadata = {
            "framehead.header": header.to_json(),
            "framehead.fingerprint": header.fingerprint,
        }
        vector = pa.list_(pa.float32(), dim)
        schema = pa.schema([*columns, ("vector", vector)], metadata=metadata)

        def write(writer: Any, block: Block) -> None:
            arrays = [
                pa.array([_valid_text(getattr(clip, name)) for clip in block.clips], pa.string())
                for name in CLIP_COLUMNS
            ]
            if block.frame_indices is not None:
                arrays += [pa.array(block.frame_indices), pa.array(block.timestamps_seconds)]
            if block.classes is not None:
                named = [clip.labels and list(clip.labels) for clip in block.clips]
                arrays.append(pa.array(named, pa.list_(pa.string())))
            values = pa.array(np.ravel(block.vectors).astype(np.float32))
            arrays.append(pa.FixedSizeListArray.from_arrays(values, dim))
            writer.write_table(pa.table(arrays, schema=schema))

        with pq.ParquetWriter(path, schema) as writer:
            write(writer, first)
            for block in blocks:
                write(writer, block)


@register_format
class ProjectorFormat(ExportFormat):
    """A log folder for TensorBoard's embedding projector."""

    name = "projector"
    suffix = ""
    marker = "projector_config.pbtxt"

    def write(self, path: Path, blocks: Iterator[Block], header: StoreHeader) -> None:
        """See `ExportFormat`."""
        dim = 0
        with open_csv(path / "vectors.tsv") as vectors, open_csv(path / "metadata.tsv") as names:
            for number, block in enumerate(blocks):
                dim = block.vectors.shape[1]
                if number == 0:
                    names.write("\t".join(_metadata_columns(block)) + "\n")
                for about, values in zip(
                    _metadata_rows(block), _format_vectors(block.vectors), strict=True
                ):
                    vectors.write("\t".join(values) + "\n")
                    names.write("\t".join(_on_one_line(str(item)) for item in about) + "\n")
        lines = ["embeddings {", '  tensor_name: "framehead"', '  tensor_path: "vectors.tsv"']
        lines += ['  metadata_path: "metadata.tsv"', f"  # vectors of length {dim}", "}", ""]
        (path / self.marker).write_text("\n".join(lines), encoding="ascii")


def _metadata_columns(block: Block) -> list[str]:
    frames = [] if block.frame_indices is None else ["frame_index", "timestamp_seconds"]
    return [*CLIP_COLUMNS, *frames, *(f"label:{name}" for name in block.classes or ())]


def _metadata_rows(block: Block) -> Iterator[list[Any]]:
    marks = block.mark_classes()
    for row, clip in enumerate(block.clips):
        about: list[Any] = [getattr(clip, column) for column in CLIP_COLUMNS]
        if block.frame_indices is not None and block.timestamps_seconds is not None:
            about += [int(block.frame_indices[row]), f"{block.timestamps_seconds[row]:.6f}"]
        yield [*about, *("" if mark < 0 else int(mark) for mark in marks[row])]


def _format_vectors(vectors: VectorArray) -> Iterator[Sequence[str]]:
    # As many digits as bring back exactly the same number: 5 for float16, 9 for float32.
    digits = "%.5g" if vectors.dtype == np.float16 else "%.9g"
    for row in vectors.astype(np.float64):
        yield [digits % value for value in row]


def _on_one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _valid_text(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
