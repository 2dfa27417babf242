"""Heads on clips of several classes: splits, training, scores, thresholds and predictions."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from conftest import TINY_OPTIONS, RunCli, noisy_frames, parse_json, write_video
from sklearn.metrics import average_precision_score
from stage2_helpers import make_clip, write_multilabel_store, write_store

from features.records import ClipRecord
from features.store.store import open_store
from features.system.files import read_csv
from features.system.keras import import_keras
from pipeline import export_embeddings, predict_videos, read_run, train_head
from pipeline.commands.predict import to_json, to_text
from pipeline.compare.compare import find_targets
from pipeline.data.sequences import model_inputs, sequence_from_vectors
from pipeline.data.windows import join_windows
from pipeline.heads.model import build_head, is_multilabel_head
from pipeline.heads.registry import HEADS, HeadOptions
from pipeline.runs.overlay import caption_prediction
from pipeline.scores.intervals import Score, accuracy_interval
from pipeline.scores.labels import (
    average_precisions,
    choose_thresholds,
    clip_credits,
    mean_average_precision,
    micro_f1,
    random_precision,
)
from pipeline.splits.choose import SplitOptions, choose_split, choose_splits
from pipeline.splits.leaks import find_leaks
from pipeline.splits.split import find_class_gaps, list_classes
from pipeline.training.options import FitOptions
from pipeline.training.trainers import BatchTrainer, GraphTrainer, clip_losses

QUICK = ("--head", "mean-linear", "--epochs", 60, "--learning-rate", 0.01)


def draw_answers(seed: int, n_clips: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n_clips, 3))
    truth[:, 2] *= rng.integers(0, 2)
    # Rounded, so that some are equal.
    return truth, np.round(rng.random((n_clips, 3)), 1 + seed % 3)


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_and_what_each_clip_contributes(seed: int) -> None:
    truth, probabilities = draw_answers(seed)
    tested = truth.any(axis=0)
    expected = [
        average_precision_score(truth[:, c], probabilities[:, c]) for c in np.where(tested)[0]
    ]
    assert average_precisions(truth, probabilities)[tested] == pytest.approx(expected)
    assert np.isnan(average_precisions(truth, probabilities)[~tested]).all()
    groups = [f"g{clip // 4}" for clip in range(30)]
    credits = clip_credits(truth, probabilities, groups)
    assert credits.mean() == pytest.approx(np.mean(expected))
    kept = np.arange(30) >= 4
    change = np.mean(expected) - mean_average_precision(truth[kept], probabilities[kept])
    others = [
        np.mean(expected) - mean_average_precision(truth[rest], probabilities[rest])
        for number in range(8)
        for rest in [np.arange(30) // 4 != number]
    ]
    sizes = np.array([4] * 7 + [2])
    shift = ((30 - sizes) * others).sum() / 30
    assert credits[:4].sum() - 4 * credits.mean() == pytest.approx(26 * change - 4 * shift)
    credits = clip_credits(truth, probabilities, groups, most_left_out=0)
    assert credits.mean() == pytest.approx(mean_average_precision(truth, probabilities))
    assert credits.mean() == pytest.approx(np.mean(expected))
    for clip in range(0, 30, 7):
        weights = np.ones(30)
        weights[clip] += 1e-6
        heavier = [
            average_precision_score(truth[:, c], probabilities[:, c], sample_weight=weights)
            for c in np.where(tested)[0]
        ]
        slope = (np.mean(heavier) - np.mean(expected)) / 1e-6
        assert (credits[clip] - credits.mean()) / 30 == pytest.approx(slope, abs=1e-4)


def test_thresholds_have_the_best_f1() -> None:
    truth, probabilities = draw_answers(3)
    truth[:, 2] = 0
    thresholds = choose_thresholds(truth, probabilities)
    assert thresholds[2] == 0.5, "nothing to choose by"
    for column in (0, 1):
        found = micro_f1(truth[:, column], probabilities[:, column] >= thresholds[column])
        others = [
            micro_f1(truth[:, column], probabilities[:, column] >= value)
            for value in probabilities[:, column]
        ]
        assert found == pytest.approx(max(others))
        assert thresholds[column] not in probabilities[:, column]


def test_windows_of_several_classes() -> None:
    shares = np.array([[0.9, 0.8], [0.7, 0.1], [0.2, 0.6]], dtype=np.float32)
    owners = np.array([0, 0, 1])
    largest = join_windows(shares, owners, "max", is_multilabel=True)
    assert largest.tolist() == shares[[0, 2]].tolist(), "they need not sum to 1"
    votes = join_windows(shares, owners, "vote", is_multilabel=True)
    assert votes[0] == pytest.approx([1.0, 0.5], abs=1e-3)
    assert votes[1] == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("mean-linear", "lstm") else pytest.mark.soak)
        for name in HEADS
        if HEADS[name].is_ours
    ],
)
def test_every_head_gives_each_class_a_probability_of_its_own(name: str) -> None:
    head = build_head(name, embedding_dim=6, n_classes=3, is_multilabel=True)
    batch = {"vectors": np.ones((2, 4, 6), np.float32), "mask": np.ones((2, 4), bool)}
    for model in (head.core, head.whole):
        assert is_multilabel_head(model)
    found = np.asarray(head.whole.predict_on_batch(batch))
    assert ((found > 0) & (found < 1)).all()
    assert abs(found.sum(axis=1) - 1).min() > 1e-3
    plain = build_head(name, embedding_dim=6, n_classes=3)
    assert not is_multilabel_head(plain.whole)


def count_classes(clips: list[ClipRecord], ids: tuple[str, ...]) -> Counter[str]:
    return Counter(
        label for clip in clips if clip.clip_id in ids for label in clip.classes or ("",)
    )


def test_splits_keep_groups_whole_and_spread_every_class(tmp_path: Path) -> None:
    store = open_store(write_multilabel_store(tmp_path / "s.h5", n_groups=60))
    clips = list(store.clips)
    everything = count_classes(clips, tuple(clip.clip_id for clip in clips))
    assert "" in everything, "clips that have none of the classes take part"
    split, groups = choose_split(store, SplitOptions())
    folds, _ = choose_splits(store, SplitOptions(), 5)
    assert sorted(i for fold in folds for i in fold.test) == sorted(groups)
    for part in (split, *folds):
        assert not find_leaks(part, groups)
        tested = count_classes(clips, part.test)
        for label, n in everything.items():
            assert 0.1 * n <= tested[label] <= 0.3 * n, label


def test_a_class_without_training_clips_is_left_out_and_said(tmp_path: Path) -> None:
    store = open_store(write_multilabel_store(tmp_path / "s.h5"))
    split, _ = choose_split(store, SplitOptions())
    rare = [
        replace(clip, labels=(*clip.classes, "rare")) if clip.clip_id in split.test else clip
        for clip in store.clips
    ]
    changed = replace(store, clips=tuple(rare))
    again, _ = choose_split(changed, SplitOptions(split=split))
    assert again.test == split.test
    assert find_class_gaps(changed.clips, [again]) == {"val": ["rare"], "train": ["rare"]}


def test_training_finds_several_classes(tmp_path: Path, run_cli: RunCli) -> None:
    run = tmp_path / "run"
    store = write_multilabel_store(tmp_path / "s.h5", n_groups=40)
    result = run_cli("train-head", store, "--out", run, *QUICK, "--tensorboard")
    assert result.exit_code == 0, result.stderr
    assert "mean-linear: mean average precision " in result.stdout
    assert "at thresholds chosen on the validation clips: micro-F1 0." in result.stdout
    again = parse_json(run_cli("train-head", store, "--out", run, *QUICK, "--json"))
    scores = again["labels"]
    assert not again["is_new"]
    assert scores["mean_average_precision"]["mean"] >= 0.9
    assert scores["mean_average_precision"]["low"] > scores["chance"]
    assert 0.6 < scores["micro_f1"] <= 1
    assert again["accuracy"] == scores["exact_match"]
    found = read_run(run)
    thresholds, classes = found.thresholds, found.classes
    assert thresholds is not None
    assert found.summary.labels is not None
    rows = read_csv(run / "predictions.csv")
    truth = np.array([[float(row[f"true:{name}"]) for name in classes] for row in rows])
    shares = np.array([[float(row[f"probability:{name}"]) for name in classes] for row in rows])
    assert mean_average_precision(truth, shares) == pytest.approx(
        scores["mean_average_precision"]["mean"], abs=1e-4
    )
    for row, above in zip(rows, shares >= np.array(thresholds), strict=True):
        assert row["predicted"] == ";".join(
            n for n, is_in in zip(classes, above, strict=True) if is_in
        )
        assert [row[f"named:{name}"] for name in classes] == [str(int(is_in)) for is_in in above]
    page = (run / "report.html").read_text()
    assert "Mean average precision on the test part" in page
    assert "Confusion" not in page
    assert {path.name for path in run.glob("*.png")} == {
        *("curves.png", "precisions.png", "cooccurrences-true.png", "cooccurrences-named.png")
    }
    report = json.loads((run / "report.json").read_text())
    counts = np.array(report["cooccurrences"]["true"])
    assert np.diag(counts).tolist() == [row["support"] for row in report["classes"]]


def test_random_labels_are_no_better_than_chance(tmp_path: Path) -> None:
    store = write_multilabel_store(tmp_path / "s.h5", seed=1, is_random=True)
    found = train_head(store, tmp_path / "run", head="mean-linear", fit=FitOptions(epochs=20))
    assert found.labels is not None
    score = found.labels.mean_average_precision
    assert score.low <= found.labels.chance <= score.high


def test_classes_no_test_clip_has_are_named_and_left_out(tmp_path: Path, run_cli: RunCli) -> None:
    path = write_multilabel_store(tmp_path / "s.h5")
    split, _ = choose_split(open_store(path), SplitOptions())
    clips = [
        replace(
            clip,
            labels=tuple(n for n in clip.classes if n != "dive" or clip.clip_id in split.train),
        )
        for clip in open_store(path).clips
    ]
    clips = [replace(clip, label=";".join(clip.classes)) for clip in clips]
    store = write_store(tmp_path / "t.h5", clips, signal=1.0)
    parts = tmp_path / "split.json"
    parts.write_text(json.dumps({part: getattr(split, part) for part in ("train", "val", "test")}))
    options = ("--out", tmp_path / "run", "--split", parts, *QUICK)
    text = run_cli("train-head", store, *options).stdout
    assert "No test clip of class 'dive': the mean average precision is that of the other 3" in text
    assert "No validation clip of class 'dive': early stopping does not watch it, and the" in text
    found = read_run(tmp_path / "run")
    assert found.summary.labels is not None
    assert found.summary.labels.untested == ("dive",)
    assert found.thresholds is not None
    assert found.thresholds[0] == 0.5


def test_what_makes_no_sense_for_several_classes_is_refused(
    tmp_path: Path, run_cli: RunCli
) -> None:
    store = write_multilabel_store(tmp_path / "s.h5")
    result = run_cli("train-head", store, "--out", tmp_path / "r", "--class-weights", "balanced")
    assert result.exit_code == 2
    assert "clips of" in result.stderr
    assert "may have several" in result.stderr
    assert not (tmp_path / "r").exists()


def test_a_changed_label_is_another_run(tmp_path: Path) -> None:
    one = write_store(tmp_path / "a.h5", [make_clip("a.avi", "x;y", "g")])
    named = replace(make_clip("a.avi", "x;y", "g"), labels=("x", "y"))
    two = write_store(tmp_path / "b.h5", [named])
    from pipeline.runs.provenance import digest_clips

    digests = {digest_clips(open_store(path).clips, {"a.avi": "g"}) for path in (one, two)}
    assert len(digests) == 2, "one class called 'x;y' is not the classes x and y"


def cover_the_mean(n_groups: int, prevalence: float, signal: float, *, n_draws: int) -> float:
    """Share of test parts whose interval holds the mean over all of them."""
    rng = np.random.default_rng([n_groups, int(10 * signal)])

    def draw() -> Score:
        # Clips of a group have nearly the same classes, and are as easy as each other.
        shared, own = (rng.normal(size=(n_groups, n, 2, 4)) for n in (1, 4))
        kind, noise = np.moveaxis(0.75 * shared + 0.66 * own, 2, 0)
        truth = (kind > NormalDist().inv_cdf(1 - prevalence)).reshape(-1, 4).astype(int)
        shares = (signal * truth + noise.reshape(-1, 4)).astype(np.float32)
        groups = [str(n) for n in np.repeat(np.arange(n_groups), 4)]
        return accuracy_interval(clip_credits(truth, shares, groups), groups)

    scores = [draw() for _ in range(n_draws)]
    mean = np.mean([score.mean for score in scores])
    return float(np.mean([score.low <= mean <= score.high for score in scores]))


def test_intervals_hold_the_mean_average_precision() -> None:
    assert cover_the_mean(12, 0.3, 1.5, n_draws=40) >= 0.85


@pytest.mark.soak
@pytest.mark.parametrize("prevalence", [0.35, 0.15])
@pytest.mark.parametrize("n_groups", [12, 30, 100])
@pytest.mark.parametrize("signal", [0.0, 1.0, 2.5])
def test_intervals_of_mean_average_precision(
    n_groups: int, prevalence: float, signal: float
) -> None:
    assert 0.9 <= cover_the_mean(n_groups, prevalence, signal, n_draws=400) <= 0.995


def test_what_a_random_order_gets() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 2))
    truth[:3, 0] = truth[:7, 1] = 1
    drawn = [average_precisions(truth, rng.random((12, 2))) for _ in range(4000)]
    expected = [random_precision(12, n) for n in (3, 7)]
    assert np.mean(drawn, axis=0) == pytest.approx(expected, abs=0.01)


def test_a_comparison_ranks_by_mean_average_precision(tmp_path: Path, run_cli: RunCli) -> None:
    store, out = write_multilabel_store(tmp_path / "s.h5", n_groups=12), tmp_path / "c"
    options = (store, "--out", out, "--seeds", 1, "--folds", 2, "--epochs", 30, "--jobs", 1)
    first = run_cli("compare-heads", *options, "--heads", "mlp")
    assert first.exit_code == 0, first.stderr
    assert "2 trials (0 from before)" in first.stdout
    assert "Random probabilities would get " in first.stdout
    found = parse_json(run_cli("compare-heads", *options, "--heads", "mlp,mean-linear", "--json"))
    assert found["n_reused"] == 2
    assert found["is_multilabel"]
    scores = [head["labels"]["mean_average_precision"] for head in found["heads"]]
    assert scores[0]["mean"] >= scores[1]["mean"]
    assert found["pairs"][0]["difference"] == pytest.approx(scores[0]["mean"] - scores[1]["mean"])
    assert all(score["low"] <= score["mean"] <= score["high"] for score in scores)
    head = found["heads"][0]
    rows = [row for row in read_csv(out / "predictions.csv") if row["head"] == head["name"]]
    by_fold = []
    for fold in ("1", "2"):
        part = [row for row in rows if row["fold"] == fold]
        truth, shares = (
            np.array([[float(row[f"{what}:{name}"]) for name in ("dive", "jump")] for row in part])
            for what in ("true", "probability")
        )
        by_fold.append(len(part) * average_precisions(truth, shares))
    expected = np.sum(by_fold, axis=0) / len(rows)
    told = [head["labels"]["average_precisions"][name] for name in ("dive", "jump")]
    assert told == pytest.approx(expected, abs=1e-4)
    page = (out / "report.html").read_text()
    assert "mean average precision" in page
    assert "Confusion" not in page
    assert not any("does not count" in verdict for verdict in found["verdicts"])
    renamed = [
        replace(clip, labels=tuple(name.replace("dive", "fall") for name in clip.classes))
        for clip in open_store(store).clips
    ]
    write_store(tmp_path / "t.h5", [replace(c, label=";".join(c.classes)) for c in renamed])
    other = run_cli("compare-heads", tmp_path / "t.h5", *options[1:], "--heads", "mlp")
    assert other.exit_code == 1
    assert "holds one with other settings" in other.stderr


def test_a_class_counts_where_it_can_be_learned(tmp_path: Path) -> None:
    store = open_store(write_multilabel_store(tmp_path / "s.h5"))
    splits, _ = choose_splits(store, SplitOptions(), 2)
    clips = {clip.clip_id: clip for clip in store.clips}
    rare = splits[0].test[0]
    clips[rare] = replace(clips[rare], labels=(*clips[rare].classes, "rare"))
    classes = list_classes(clips.values())
    targets, said = find_targets(clips, splits, classes)
    assert said == ["'rare' does not count in a test part whose training part has no clip of it."]
    assert targets[rare][classes.index("rare")] == 0
    assert targets[rare].sum() == len(clips[rare].classes) - 1


def test_overlays_name_all_classes_above_their_threshold() -> None:
    def rows(*probabilities: float) -> list[str]:
        caption = caption_prediction(
            "a.avi", "lstm", "abcd", probabilities, leaks=False, thresholds=(0.1, 0.5, 0.5, 0.5)
        )
        return [label for label, _ in caption.rows]

    assert rows(0.2, 0.9, 0.6, 0.7) == ["b", "d", "c", "a"]
    assert rows(0.05, 0.4, 0.3, 0.2) == ["no class; next is b"]


def test_from_videos_to_predictions(tmp_path: Path, run_cli: RunCli, tiny_weights: Path) -> None:
    folder, store, run = tmp_path / "videos", tmp_path / "s.h5", tmp_path / "run"
    lines = ["path,label,group"]
    for number in range(16):
        labels = [name for bit, name in enumerate(("dark", "wild")) if number >> bit & 1]
        write_video(folder / f"{number:02d}.avi", noisy_frames(8, seed=number % 4))
        lines.append(f"{number:02d}.avi,{';'.join(labels)},g{number // 4}")
    (tmp_path / "c.csv").write_text("\n".join(lines))
    options = ("--weights", tiny_weights, *TINY_OPTIONS, "--frames", 4)
    made = run_cli(
        "extract-features", folder, "--out", store, "--labels", tmp_path / "c.csv", *options
    )
    assert made.exit_code == 0, made.stderr
    trained = run_cli(
        "train-head", store, "--out", run, *QUICK, "--window", 2, "--aggregate", "max"
    )
    assert trained.exit_code == 0, trained.stderr
    assert "4 clips of the store without a label, left out" in trained.stdout
    videos = [folder / "03.avi", folder / "01.avi"]
    summary = predict_videos(run, videos, overlay=tmp_path / "overlays")
    told = to_json(summary)
    assert told["thresholds"].keys() == {"dark", "wild"}
    for item in told["predictions"]:
        above = [n for n, p in item["probabilities"].items() if p >= told["thresholds"][n]]
        assert sorted(item["labels"]) == sorted(above)
        assert item["label"] == ";".join(item["labels"])
        assert Path(item["overlay"]).is_file()
    assert "below their threshold" in to_text(summary)


@pytest.mark.parametrize("level", ["frame", "clip"])
def test_exports_carry_every_class(tmp_path: Path, level: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    several = {"a.avi": ("jump", "run;wild"), "b.avi": (), "c.avi": None, "d.avi": ("jump",)}
    clips = [
        replace(make_clip(name, ";".join(labels or ())), labels=labels)
        for name, labels in several.items()
    ]
    store = write_store(tmp_path / "s.h5", clips)
    classes = ["jump", "run;wild"]
    for suffix in ("npz", "csv", "parquet"):
        export_embeddings(store, tmp_path / f"e.{suffix}", level=level)  # type: ignore[arg-type]
    export_embeddings(store, tmp_path / "p", level=level)  # type: ignore[arg-type]
    with np.load(tmp_path / "e.npz") as arrays:
        ids, marks = arrays["clip_id"].tolist(), arrays["labels"].tolist()
        assert arrays["classes"].tolist() == classes
    for clip_id, mark in zip(ids, marks, strict=True):
        labels = several[clip_id]
        assert mark == ([-1, -1] if labels is None else [int(name in labels) for name in classes])
    texts = [["" if value < 0 else str(value) for value in mark] for mark in marks]
    rows = read_csv(tmp_path / "e.csv")
    assert [[row[f"label:{name}"] for name in classes] for row in rows] == texts
    header, *lines = (tmp_path / "p" / "metadata.tsv").read_text().splitlines()
    assert header.split("\t")[-2:] == ["label:jump", "label:run;wild"]
    assert [line.split("\t")[-2:] for line in lines] == texts
    table = parquet.read_table(tmp_path / "e.parquet")
    for clip_id, labels in zip(ids, table["labels"].to_pylist(), strict=True):
        assert labels == (None if several[clip_id] is None else list(several[clip_id] or ()))


def test_both_trainers_learn_several_classes_alike() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (21, 3)).astype(np.float32)
    train = replace(
        sequence_from_vectors(list(rng.normal(size=(21, 4, 6)).astype(np.float32))),
        targets=targets,
    )
    weights = np.ones(21, dtype=np.float32)
    found = []
    for trainer in (BatchTrainer, GraphTrainer):
        core = build_head(
            "mean-linear",
            embedding_dim=6,
            n_classes=3,
            options=HeadOptions(dropout=0.0),
            is_multilabel=True,
        ).core
        before = np.asarray(core.predict_on_batch(model_inputs(train, slice(None))))
        core.compile(
            optimizer=import_keras().optimizers.AdamW(1e-2),
            loss=clip_losses,
            weighted_metrics=[import_keras().metrics.BinaryAccuracy("accuracy")],
        )
        core.optimizer.build(core.trainable_variables)
        found.append((trainer(core, 32).start(train, weights)(np.arange(21)), core.get_weights()))
    (means, one), (others, other) = found
    assert means == pytest.approx(others, abs=1e-6)
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, yours, atol=1e-6)
    of_truth = np.where(targets == 1, before, 1 - before)
    assert means[0] == pytest.approx(-np.log(of_truth).sum(axis=1).mean(), abs=1e-5)
    assert means[1] == pytest.approx(((before > 0.5) == (targets == 1)).mean(), abs=1e-6)
