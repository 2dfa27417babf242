"""Exports: the same numbers in every format, labelled, and written whole."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from stage2_helpers import DIM, make_clip, make_clips, make_header, write_store

from features import Store, done_clips, open_store, read_clip
from features.errors import (
    ExtraMissing,
    NoClips,
    OptionInvalid,
    OutputExists,
    OutputUnwritable,
    StoreMismatch,
    StoreNotFound,
)
from pipeline import FitOptions, HeadOptions, export_embeddings, read_run, train_head


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [*make_clips(), make_clip("walk/a\tb\udcff.avi", "walk", "g,\n1")]
    failed = [make_clip("dive/broken.avi", "dive")]
    # More frames than are read at once.
    path = tmp_path_factory.mktemp("store") / "s.h5"
    return write_store(path, clips, failed=failed, n_frames=(200, 300))


def expected_frames(store: Store) -> tuple[list[str], Any, Any, Any]:
    clips = [(clip.clip_id, read_clip(store, clip.clip_id)) for clip in done_clips(store)]
    ids = [clip_id for clip_id, piece in clips for _ in piece.vectors]
    return (
        ids,
        np.concatenate([piece.vectors for _, piece in clips]),
        np.concatenate([piece.frame_indices for _, piece in clips]),
        np.concatenate([piece.timestamps_seconds for _, piece in clips]),
    )


def test_npz_of_frames(store_path: Path, tmp_path: Path) -> None:
    summary = export_embeddings(store_path, tmp_path / "e.npz")
    ids, vectors, indices, times = expected_frames(open_store(store_path))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["clip_id"].tolist() == ids
        np.testing.assert_array_equal(arrays["vectors"], vectors)
        np.testing.assert_array_equal(arrays["frame_index"], indices)
        np.testing.assert_array_equal(arrays["timestamp_seconds"], times)
        assert set(arrays["label"]) == {"dive", "jump", "walk"}
        assert str(arrays["fingerprint"]) == make_header().fingerprint
    assert (summary.format, summary.level, summary.dim) == ("npz", "frame", DIM)
    assert (summary.n_clips, summary.n_rows, summary.n_failed) == (37, len(ids), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]


def test_csv_of_frames(store_path: Path, tmp_path: Path) -> None:
    export_embeddings(store_path, tmp_path / "e.csv")
    ids, vectors, indices, times = expected_frames(open_store(store_path))
    with (tmp_path / "e.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == ids
    assert "g,\n1" in {row["group"] for row in rows}
    kept = np.array([[float(row[f"v{i}"]) for i in range(DIM)] for row in rows])
    np.testing.assert_array_equal(kept.astype(np.float32), vectors)
    assert [int(row["frame_index"]) for row in rows] == indices.tolist()
    assert [float(row["timestamp_seconds"]) for row in rows] == pytest.approx(times)


def test_parquet_of_frames(store_path: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export_embeddings(store_path, tmp_path / "e.parquet")
    ids, vectors, indices, _ = expected_frames(open_store(store_path))
    table = parquet.read_table(tmp_path / "e.parquet")
    names = ["clip_id", "label", "group", "split", "frame_index", "timestamp_seconds", "vector"]
    assert table.column_names == names
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table["frame_index"].to_pylist() == indices.tolist()
    assert len(set(table["clip_id"].to_pylist())) == len(set(ids))
    assert table.schema.metadata[b"framehead.fingerprint"].decode() == make_header().fingerprint


@pytest.mark.parametrize("name", ["e.npz", "e.csv"])
def test_clips_are_means_of_their_frames(store_path: Path, tmp_path: Path, name: str) -> None:
    summary = export_embeddings(store_path, tmp_path / name, level="clip")
    store = open_store(store_path)
    means = [read_clip(store, c.clip_id).vectors.mean(axis=0) for c in done_clips(store)]
    assert summary.n_rows == len(means)
    if name == "e.npz":
        with np.load(tmp_path / name) as arrays:
            kept = arrays["vectors"]
            assert "frame_index" not in arrays
    else:
        with (tmp_path / name).open(errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        kept = np.array([[float(row[f"v{i}"]) for i in range(DIM)] for row in rows])
    np.testing.assert_allclose(kept, means, rtol=1e-6)


@pytest.mark.parametrize("with_head", [False, True])
def test_clips_that_are_no_longer_current_are_not_exported(tmp_path: Path, with_head: bool) -> None:
    clips = make_clips()
    # As extract-features marks clips that have left the folder or the CSV.
    gone = {clips[3].clip_id, clips[8].clip_id}
    marked = [replace(clip, is_current=clip.clip_id not in gone) for clip in clips]
    store = write_store(tmp_path / "s.h5", marked)
    run = None
    if with_head:
        run = tmp_path / "run"
        train_head(store, run, head="mean-linear", fit=FitOptions(epochs=1))
    levels: tuple[Literal["frame", "clip"], ...] = ("clip",) if with_head else ("frame", "clip")
    for level in levels:
        summary = export_embeddings(store, tmp_path / f"{level}.npz", level=level, run=run)
        assert (summary.n_clips, summary.n_failed) == (len(clips) - 2, 0)
        with np.load(tmp_path / f"{level}.npz") as arrays:
            assert set(arrays["clip_id"]) == {clip.clip_id for clip in clips} - gone
            assert len(arrays["vectors"]) == summary.n_rows


def test_projector_has_one_line_per_row(store_path: Path, tmp_path: Path) -> None:
    summary = export_embeddings(store_path, tmp_path / "log", level="clip")
    vectors = (tmp_path / "log" / "vectors.tsv").read_text().splitlines()
    names = (tmp_path / "log" / "metadata.tsv").read_text(errors="surrogateescape").splitlines()
    assert len(vectors) == len(names) - 1 == summary.n_rows
    assert {line.count("\t") for line in vectors} == {DIM - 1}
    assert {line.count("\t") for line in names} == {3}
    assert any("a\\tb" in line and "g,\\n1" in line for line in names)
    config = (tmp_path / "log" / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "vectors.tsv"' in config
    with pytest.raises(OutputExists):
        export_embeddings(store_path, tmp_path / "log")
    export_embeddings(store_path, tmp_path / "log", overwrite=True)


def test_head_gives_one_vector_per_clip(store_path: Path, tmp_path: Path) -> None:
    run_path = tmp_path / "run"
    units, fit = HeadOptions(units=7), FitOptions(epochs=1)
    train_head(store_path, run_path, head="mlp", head_options=units, fit=fit)
    summary = export_embeddings(store_path, tmp_path / "e.npz", run=run_path)
    assert (summary.level, summary.dim, summary.n_rows) == ("clip", 7, 37)
    with np.load(tmp_path / "e.npz") as arrays:
        assert (arrays["vectors"] >= 0).all()  # behind a rectifier
        assert arrays["vectors"].any()
    with pytest.raises(OptionInvalid, match="one vector per clip"):
        export_embeddings(store_path, tmp_path / "f.npz", run=run_path, level="frame")
    other = write_store(
        tmp_path / "o.h5", make_clips(), header=make_header(weights_sha256="1" * 64)
    )
    with pytest.raises(StoreMismatch, match="weights_sha256"):
        export_embeddings(other, tmp_path / "f.npz", run=run_path)
    assert read_run(run_path).head == "mlp"
    assert not (tmp_path / "f.npz").exists()


def test_what_exists_is_kept(store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    out.write_text("mine")
    with pytest.raises(OutputExists, match="--overwrite"):
        export_embeddings(store_path, out)
    assert out.read_text() == "mine"
    export_embeddings(store_path, out, overwrite=True)
    assert out.read_bytes().startswith(b"PK")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("mine")
    for format in ("npz", "projector"):
        with pytest.raises(OutputExists, match="not an export"):
            export_embeddings(store_path, tmp_path / "folder", format=format, overwrite=True)


def test_npz_may_have_any_name(store_path: Path, tmp_path: Path) -> None:
    export_embeddings(store_path, tmp_path / "e.dat", format="npz", level="clip")
    with np.load(tmp_path / "e.dat", allow_pickle=False) as arrays:
        assert len(arrays["vectors"]) == 37
    assert [path.name for path in tmp_path.iterdir()] == ["e.dat"]


def test_store_and_runs_are_never_replaced(store_path: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.h5"
    store.write_bytes(store_path.read_bytes())
    (tmp_path / "link.csv").symlink_to(store)
    for name in ("s.h5", "link.csv"):
        with pytest.raises(OutputExists, match="made of.*left alone even"):
            export_embeddings(store, tmp_path / name, format="csv", overwrite=True)
    assert store.read_bytes() == store_path.read_bytes()
    export_embeddings(store, tmp_path / "log", level="clip")
    store.rename(tmp_path / "log" / "s.h5")
    with pytest.raises(OutputExists, match="made of.*left alone even"):
        export_embeddings(tmp_path / "log" / "s.h5", tmp_path / "log", overwrite=True)
    (tmp_path / "log" / "s.h5").rename(store)
    (tmp_path / "run").mkdir()
    for name in ("run.json", "predictions.csv"):
        (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(OutputExists, match="part of a run.*another --out"):
        export_embeddings(store, tmp_path / "run" / "predictions.csv", overwrite=True)
    export_embeddings(store, tmp_path / "run" / "embeddings.csv")


def test_options_and_places_are_checked(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"npz, csv, parquet, projector.*'\.txt'"):
        export_embeddings(store_path, tmp_path / "e.txt")
    with pytest.raises(OptionInvalid, match="'xml'"):
        export_embeddings(store_path, tmp_path / "e", format="xml")
    with pytest.raises(OptionInvalid, match="frame or clip"):
        export_embeddings(store_path, tmp_path / "e.npz", level="video")  # type: ignore[arg-type]
    with pytest.raises(StoreNotFound):
        export_embeddings(tmp_path / "none.h5", tmp_path / "e.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        export_embeddings(store_path, tmp_path / "file" / "e.npz")
    empty = write_store(tmp_path / "empty.h5", [], failed=[make_clip("a.avi", "a")])
    with pytest.raises(NoClips, match="has none"):
        export_embeddings(empty, tmp_path / "e.npz")


def test_missing_pyarrow_names_the_extra(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r'pip install "framehead\[parquet\]"'):
        export_embeddings(store_path, tmp_path / "e.parquet")
    assert list(tmp_path.iterdir()) == []
