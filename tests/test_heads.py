"""Heads: padding never matters, models come back from disk, learning works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage2_helpers import DIM

from features.errors import HeadUnknown, OptionInvalid, TrainingFailed
from features.system.keras import import_keras
from pipeline.data.sequences import (
    Sequences,
    model_inputs,
    sequence_from_vectors,
    take_clips,
)
from pipeline.heads.linear import STRENGTHS, ClipVectors, fit_logistic
from pipeline.heads.model import (
    build_head,
    fit_front,
    join_halves,
    predict_probabilities,
    prepare,
)
from pipeline.heads.registry import HEADS, HeadOptions, parse_head
from pipeline.runs.run import save_model
from pipeline.training.fit import FittedHead, Workbench, fit_head
from pipeline.training.options import EpochReport, FitOptions
from pipeline.training.temperature import apply_temperature
from pipeline.training.threads import limit_threads
from pipeline.training.trainers import BatchTrainer, GraphTrainer, cut_batches

# Every head as it is, and what else it may see.
EVERY_HEAD = [
    *sorted(HEADS),
    *("lstm:both", "lstm:centred", "mean-linear:motion", "transformer:both"),
    *("lstm:tempo", "mean-linear:mixed", "logreg-thirds:motion"),
]


def make_sequences(seed: int = 0, *, n_clips: int = 24, signal: float = 1.5) -> Sequences:
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(3, DIM))
    labels = np.arange(n_clips) % 3
    clips = [
        (rng.normal(size=(rng.integers(1, 7), DIM)) + signal * directions[label]).astype("float32")
        for label in labels
    ]
    padded = sequence_from_vectors(clips)
    return Sequences(padded.vectors, padded.mask, labels.astype(np.int64), padded.clip_ids)


def make_model(name: str, **options: Any) -> Any:
    rng = np.random.default_rng(1)
    import_keras().utils.set_random_seed(0)
    head = build_head(name, embedding_dim=DIM, n_classes=3, options=HeadOptions(units=8, **options))
    fit_front(head, make_sequences(5))
    # Some heads start at zero; weights as after training make every fault show.
    head.core.set_weights([rng.normal(size=w.shape) * 0.5 for w in head.core.get_weights()])
    return join_halves(head)


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_padding_and_company_change_nothing(name: str, tmp_path: Path) -> None:
    model = make_model(name)
    sequences = make_sequences()
    together = predict_probabilities(model, sequences)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(together, axis=0).min() > 1e-3  # the head does look at the clips

    garbage = sequences.vectors.copy()
    garbage[~sequences.mask] = np.nan
    spoilt = Sequences(garbage, sequences.mask, sequences.class_indices, sequences.clip_ids)
    np.testing.assert_array_equal(predict_probabilities(model, spoilt), together)

    longer = np.pad(sequences.vectors, ((0, 0), (0, 3), (0, 0)), constant_values=5.0)
    mask = np.pad(sequences.mask, ((0, 0), (0, 3)))
    wide = Sequences(longer, mask, sequences.class_indices, sequences.clip_ids)
    np.testing.assert_allclose(predict_probabilities(model, wide), together, atol=1e-5)

    for row in (0, 1, 2):
        alone = sequence_from_vectors([sequences.vectors[row][sequences.mask[row]]])
        np.testing.assert_allclose(predict_probabilities(model, alone)[0], together[row], atol=1e-5)

    save_model(model, tmp_path / "model.keras")
    keras = import_keras()
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(predict_probabilities(loaded, sequences), together, atol=1e-6)
    assert b"Lambda" not in (tmp_path / "model.keras").read_bytes()


def test_centred_adds_what_a_place_that_stays_cannot_change() -> None:
    from pipeline.heads.layers import Centred

    clips = make_sequences()
    place = np.random.default_rng(3).normal(size=DIM).astype(np.float32)
    seen, moved = (
        np.asarray(Centred()([clips.vectors + shift, clips.mask])) for shift in (0, place)
    )
    np.testing.assert_allclose(seen[..., :DIM], clips.vectors)
    np.testing.assert_allclose(moved[..., DIM:], seen[..., DIM:], atol=1e-5)
    assert not seen[..., DIM:][~clips.mask].any()
    frames = clips.vectors[0][clips.mask[0]]
    np.testing.assert_allclose(
        seen[0, : len(frames), DIM:], frames - frames.mean(axis=0), atol=1e-5
    )


def test_lstm_backwards_is_one_forwards_on_reversed_clips() -> None:
    from pipeline.heads.layers import FrameLSTM

    rng = np.random.default_rng(0)
    shape = [(None, None, DIM), (None, None)]
    layers = [
        FrameLSTM(6, backwards=way, return_sequences=every)
        for way, every in ((False, True), (True, True), (True, False))
    ]
    layers[0].build(shape)
    weights = [rng.normal(size=w.shape).astype("float32") for w in layers[0].get_weights()]
    for layer in layers:
        layer.build(shape)
        layer.set_weights(weights)
    lengths = [4, 1, 7]
    frames = rng.normal(size=(3, 7, DIM)).astype("float32")
    mask = np.arange(7) < np.array(lengths)[:, np.newaxis]
    states, ends = (np.asarray(layer([frames, mask])) for layer in layers[1:])
    for row, n in enumerate(lengths):
        alone = frames[row : row + 1, :n][:, ::-1]
        wanted = np.asarray(layers[0]([alone, np.ones((1, n), bool)]))[0][::-1]
        np.testing.assert_allclose(states[row, :n], wanted, atol=1e-6)
        np.testing.assert_allclose(ends[row], wanted[0], atol=1e-6)


def test_tempo_is_the_same_at_any_size_and_place_and_overall_counts_as_all() -> None:
    from pipeline.heads.layers import Tempo

    clips = make_sequences()
    seen, scaled = (
        np.asarray(Tempo()([shift + size * clips.vectors, clips.mask]))
        for size, shift in ((1.0, 0.0), (8.0, 3.0))
    )
    np.testing.assert_allclose(scaled, seen, rtol=1e-3, atol=1e-4)
    frames = next(v[m] for v, m in zip(clips.vectors, clips.mask, strict=True) if m.sum() > 3)
    row = int(np.argmax(clips.mask.sum(axis=1) > 3))
    change, spread = np.abs(np.diff(frames, axis=0)), np.sqrt(frames.var(axis=0).mean())
    wanted = change / (frames.std(axis=0) + 0.1 * spread)
    np.testing.assert_allclose(seen[row, 1 : len(frames), :DIM], wanted, rtol=1e-3)
    overall = np.sqrt(np.square(change).mean(axis=1)) / spread
    np.testing.assert_allclose(seen[row, 1 : len(frames), DIM], overall, rtol=1e-3)
    still = np.ones((1, 4, DIM), np.float32)
    assert not np.asarray(Tempo()([still, np.ones((1, 4), bool)])).any()


@pytest.mark.parametrize("n_frames", [1, 2, 3, 7])
def test_thirds_share_the_frames_between_them(n_frames: int) -> None:
    from pipeline.heads.layers import Pool

    frames = np.random.default_rng(0).normal(size=(1, n_frames, DIM)).astype(np.float32)
    padded = np.pad(frames, ((0, 0), (0, 2), (0, 0)), constant_values=9.0)
    mask = np.arange(n_frames + 2)[None] < n_frames
    thirds = np.asarray(Pool("thirds")([padded * mask[..., None], mask])).reshape(3, DIM)
    np.testing.assert_allclose(thirds.mean(axis=0), frames[0].mean(axis=0), atol=1e-5)
    # Three times as fine, each third is a plain mean of as many frames.
    fine = frames[0].repeat(3, axis=0).reshape(3, n_frames, DIM).mean(axis=1)
    np.testing.assert_allclose(thirds, fine, atol=1e-5)


def undo_temperature(fitted: FittedHead, probabilities: Any) -> Any:
    return apply_temperature([probabilities], 1 / fitted.temperature)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["logreg", "logreg-std", "logreg-thirds:both", "lda:tempo"])
def test_linear_heads_say_what_scikit_learn_says(name: str, n_classes: int) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    train, test = make_sequences(0, n_clips=40), make_sequences(3)
    for part in (train, test):
        np.minimum(part.class_indices, n_classes - 1, out=part.class_indices)
    groups = {clip_id: str(int(clip_id) // 4) for clip_id in train.clip_ids}
    options = FitOptions(refit="never")
    fitted = fit_head(
        train, test, head=name, n_classes=n_classes, groups=groups, fit_options=options
    )
    model = fitted.model
    inner = import_keras().Model(model.inputs, model.get_layer("logits").input)
    vectors, other = (predict_probabilities(inner, part).astype(float) for part in (train, test))
    found = undo_temperature(fitted, predict_probabilities(model, test))
    if name.startswith("lda"):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        wanted = [theirs.fit(vectors, train.class_indices).predict_proba(other)]
    else:
        # Of the two parts that ":mixed" and ":both" have the head uses one.
        used = np.abs(model.get_layer("logits").get_weights()[0]).sum(axis=1) > 1e-12
        vectors, other = vectors[:, used], other[:, used]
        scale = np.sqrt(np.square(vectors - vectors.mean(axis=0)).mean())
        wanted = [
            LogisticRegression(C=c, max_iter=3000, tol=1e-6)
            .fit((vectors - vectors.mean(axis=0)) / scale, train.class_indices)
            .predict_proba((other - vectors.mean(axis=0)) / scale)
            for c in STRENGTHS
        ]
    assert min(np.abs(found - theirs).max() for theirs in wanted) < 2e-3
    assert len(fitted.history) == fitted.best_epoch == 1


def test_strength_is_chosen_with_whole_groups_held_out() -> None:
    # What clips of one group share gives the class away on clips of that group only.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 6)
    labels = (groups % 2).astype(np.int64)
    vectors = (rng.normal(size=(16, 30))[groups] + 0.1 * rng.normal(size=(96, 30))).astype(
        "float32"
    )
    sure = []
    for told in (groups, np.arange(96)):
        clips = ClipVectors(
            vectors, labels, None, told, np.ones(96, np.float32), 2, np.zeros(30, int), 0
        )
        kernel, bias = (np.asarray(found) for found in fit_logistic(clips))
        logits = vectors @ kernel + bias
        sure.append(np.abs(logits[:, 1] - logits[:, 0]).mean())
    assert 4 * sure[0] < sure[1]


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1, 1]])
def test_a_linear_head_learns_from_very_few_clips(labels: list[int]) -> None:
    n = len(labels)
    vectors = np.array(labels, np.float32)[:, None] + np.array([[0, 1, 2]], np.float32)
    weights, parts = np.ones(n, np.float32), np.zeros(3, int)
    clips = ClipVectors(vectors, np.array(labels), None, np.arange(n), weights, 2, parts, 0)
    kernel, bias = (np.asarray(found) for found in fit_logistic(clips))
    assert (vectors @ kernel + bias).argmax(axis=1).tolist() == labels


@pytest.mark.parametrize("name", ["mean-linear", "mlp"])
def test_heads_of_unbounded_vectors_start_undecided(name: str) -> None:
    model = build_head(name, embedding_dim=DIM, n_classes=3).whole
    np.testing.assert_allclose(predict_probabilities(model, make_sequences()), 1 / 3, atol=1e-6)


def test_batch_size_of_prediction_changes_nothing() -> None:
    model = make_model("mean-linear")
    sequences = make_sequences(n_clips=10)
    whole = predict_probabilities(model, sequences)
    for size in (1, 3, 4, 10, 64):
        np.testing.assert_allclose(predict_probabilities(model, sequences, size), whole, atol=1e-6)


@pytest.mark.parametrize("name", ["mean-linear", "lstm", "lstm-attention"])
def test_heads_learn_and_the_same_seed_gives_the_same_head(name: str) -> None:
    train, val, test = make_sequences(0, n_clips=48), make_sequences(1), make_sequences(2)
    options = FitOptions(epochs=10, learning_rate=0.02)
    fits = [
        fit_head(train, val, head=name, n_classes=3, seed=seed, fit_options=options)
        for seed in (3, 3, 4)
    ]
    first, again, other = (predict_probabilities(fit.model, test) for fit in fits)
    assert (first.argmax(axis=1) == test.class_indices).mean() >= 0.9
    np.testing.assert_array_equal(first, again)
    assert fits[0].history == fits[1].history
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.parametrize("n_clips", [17, 24, 31])
def test_start_is_reported_as_undecided_however_full_the_last_batch(n_clips: int) -> None:
    train = make_sequences(n_clips=n_clips)
    options = FitOptions(epochs=1, learning_rate=1e-12)
    fitted = fit_head(train, train, head="mean-linear", n_classes=3, fit_options=options)
    report = fitted.history[0]
    assert report.loss == pytest.approx(np.log(3), abs=1e-5)
    # All classes being equally likely, the first one is predicted.
    assert report.accuracy == pytest.approx((train.class_indices == 0).mean(), abs=1e-6)


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_reported_means_are_those_of_all_clips(kind: Any) -> None:
    train = make_sequences(n_clips=21)
    train.class_indices[:5] = 0
    options = FitOptions(
        epochs=1, batch_size=8, learning_rate=1e-12, class_weights=kind, refit="never"
    )
    fitted = fit_head(
        train,
        train,
        head="lstm",
        n_classes=3,
        head_options=HeadOptions(units=8, dropout=0.0),
        fit_options=options,
    )
    probabilities = undo_temperature(fitted, predict_probabilities(fitted.model, train))
    truth = train.class_indices
    counts = np.bincount(truth)
    weights = np.ones(21) if kind == "none" else (21 / (3 * counts))[truth]
    losses = -np.log(probabilities[np.arange(21), truth])
    report = fitted.history[0]
    assert report.loss == pytest.approx(np.average(losses, weights=weights), abs=1e-5)
    hits = probabilities.argmax(axis=1) == truth
    assert report.accuracy == pytest.approx(np.average(hits, weights=weights), abs=1e-5)


@pytest.mark.parametrize("trainer", [BatchTrainer, GraphTrainer])
def test_step_of_a_partly_filled_batch_is_the_mean_of_its_clips(trainer: Any) -> None:
    keras = import_keras()
    train = make_sequences(n_clips=5)
    models = [make_model("mean-linear", dropout=0.0) for _ in range(2)]
    for model in models:
        model.compile(
            optimizer=keras.optimizers.SGD(0.1),
            loss="sparse_categorical_crossentropy",
            weighted_metrics=["accuracy"],
        )
    trainer(models[0], 4).start(train, np.ones(5, dtype=np.float32))(np.arange(5))
    for rows in (slice(0, 4), slice(4, 5)):
        models[1].train_on_batch(model_inputs(train, rows), train.class_indices[rows])
    for filled, plain in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(filled, plain, atol=1e-6)


@given(st.integers(1, 50), st.integers(1, 20))
def test_batches_hold_every_clip_once(n_clips: int, size: int) -> None:
    order = np.random.default_rng(0).permutation(n_clips)
    rows, shares = cut_batches(order, size)
    np.testing.assert_array_equal(rows[shares > 0], order)
    # Every step is a mean over its real clips.
    np.testing.assert_allclose(shares.mean(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_both_trainers_take_the_same_steps(name: str) -> None:
    train = make_sequences(n_clips=21)
    weights = np.linspace(0.5, 2, 21, dtype=np.float32)
    found = []
    for trainer in (BatchTrainer, GraphTrainer):
        model = make_model(name, dropout=0.0)
        model.compile(
            optimizer=import_keras().optimizers.AdamW(1e-2, weight_decay=0.01, clipnorm=1.0),
            loss="sparse_categorical_crossentropy",
            weighted_metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)
        train_once = trainer(model, 8).start(train, weights)
        found.append([train_once(np.arange(21)) for _ in range(3)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


@pytest.mark.parametrize("name", ["lstm:both", "tcn", "gru"])
def test_workbench_changes_nothing(name: str) -> None:
    workbench = Workbench()
    options = FitOptions(epochs=3)
    test = make_sequences(2)
    for seed in (0, 1, 0):
        train, val = make_sequences(seed, n_clips=30), make_sequences(seed + 5)
        fits = [
            fit_head(
                train, val, head=name, n_classes=3, seed=seed, fit_options=options, workbench=bench
            )
            for bench in (None, workbench)
        ]
        assert fits[0].history == fits[1].history
        alone, kept_up = (predict_probabilities(fit.model, test) for fit in fits)
        np.testing.assert_array_equal(alone, kept_up)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
def test_workbench_holds_no_data() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    rng = np.random.default_rng(0)
    vectors = rng.random((600, 20, 1280), dtype=np.float32).astype(np.float16)
    mask = np.ones(vectors.shape[:2], dtype=np.bool_)
    names = tuple(map(str, range(len(vectors))))
    large = Sequences(vectors, mask, np.arange(len(vectors)) % 3, names)
    small = take_clips(large, names[:30])
    heads = ("mean-linear", "mean-linear:centred", "mean-linear:both")
    options = FitOptions(epochs=1, batch_size=16)
    workbench = Workbench()
    for head in heads:  # what is compiled is kept
        fit_head(small, small, head=head, n_classes=3, fit_options=options, workbench=workbench)
    before = resident_bytes()
    for head in heads:
        fit_head(large, small, head=head, n_classes=3, fit_options=options, workbench=workbench)
    # Prepared frames of the three heads are one, two and three times as large.
    assert resident_bytes() - before < 4 * vectors.nbytes


@pytest.mark.parametrize("name", ["mean-linear:both", "lstm:motion", "tcn:centred"])
def test_halves_do_what_the_whole_does(name: str) -> None:
    options = HeadOptions(units=8, reduce="pca:4")
    head = build_head(name, embedding_dim=DIM, n_classes=3, options=options)
    clips = make_sequences()
    fit_front(head, clips)
    prepared = prepare(head, clips)
    assert (
        prepared.vectors.shape[2] == {"both": 13, "motion": 9, "centred": 8}[name.partition(":")[2]]
    )
    rng = np.random.default_rng(0)
    head.core.set_weights([rng.normal(size=w.shape) for w in head.core.get_weights()])
    whole = predict_probabilities(join_halves(head), clips)
    np.testing.assert_allclose(predict_probabilities(head.core, prepared), whole, atol=1e-5)


def test_best_epoch_is_kept() -> None:
    # Labels without a pattern: learning them by heart makes validation worse and worse.
    train, val = make_sequences(0, signal=0.0), make_sequences(1, signal=0.0)
    seen: list[EpochReport] = []
    options = FitOptions(epochs=60, learning_rate=0.02, patience=4, refit="never")
    fitted = fit_head(
        train, val, head="mlp", n_classes=3, fit_options=options, on_epoch=seen.append
    )
    assert tuple(seen) == fitted.history
    losses = [report.val_loss for report in seen]
    assert losses.index(min(losses)) + 1 == fitted.best_epoch
    assert len(seen) < 60
    probabilities = undo_temperature(fitted, predict_probabilities(fitted.model, val))
    loss = -np.log(probabilities[np.arange(24), val.class_indices]).mean()
    assert loss == pytest.approx(min(losses), abs=1e-5)


def test_balanced_weights_lift_the_rare_class() -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(2, DIM)).astype("float32") for _ in range(60)]
    padded = sequence_from_vectors(vectors)
    labels = np.array([1] * 6 + [0] * 54, dtype=np.int64)
    sequences = Sequences(padded.vectors, padded.mask, labels, padded.clip_ids)
    shares = []
    for kind in ("none", "balanced"):
        options = FitOptions(epochs=10, learning_rate=0.02, class_weights=kind)
        fitted = fit_head(
            sequences, sequences, head="mean-linear", n_classes=2, fit_options=options
        )
        shares.append(predict_probabilities(fitted.model, sequences)[6:, 1].mean())
    assert shares[1] > shares[0] + 0.1


def test_loss_that_is_not_finite_ends_training() -> None:
    train = make_sequences()
    broken = train.vectors.copy()
    broken[0, 0, 0] = np.nan
    bad = Sequences(broken, train.mask, train.class_indices, train.clip_ids)
    with pytest.raises(TrainingFailed, match="'mean-linear' reached loss=nan"):
        fit_head(bad, train, head="mean-linear", n_classes=3)


def test_unknown_head_names_choices_and_the_closest() -> None:
    with pytest.raises(HeadUnknown, match=r"mean-linear, mlp, lstm.*'ltsm'.*did you mean 'lstm'"):
        parse_head("ltsm")
    with pytest.raises(HeadUnknown, match="one of") as caught:
        parse_head("nope")
    assert not caught.value.hint, "nothing is like it"
    with pytest.raises(HeadUnknown, match="did you mean 'lstm'"):
        parse_head("LSTM")
    with pytest.raises(
        HeadUnknown, match=r"appearance, motion, both, centred.*'lstm:sound'.*lstm:both"
    ):
        parse_head("lstm:sound")
    assert parse_head("lstm:both") == (HEADS["lstm"], "both")
    assert all(kind.summary.endswith(".") for kind in HEADS.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"class_weights": "some"}, "none or balanced"),
    ],
)
def test_fit_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionInvalid, match=message):
        FitOptions(**options)


def test_head_options_and_threads_are_checked() -> None:
    with pytest.raises(OptionInvalid, match="--units"):
        HeadOptions(units=0)
    with pytest.raises(OptionInvalid, match="--dropout"):
        HeadOptions(dropout=1.0)
    with pytest.raises(OptionInvalid, match=r"pca:N.*'pca:0'"):
        HeadOptions(reduce="pca:0")
    with pytest.raises(OptionInvalid, match=r"--window must be at least 1"):
        HeadOptions(window=0)
    with pytest.raises(OptionInvalid, match=r"mean, max, vote. Received: 'sum'"):
        HeadOptions(window=3, aggregate="sum")  # type: ignore[arg-type]
    with pytest.raises(OptionInvalid, match=r"max without --window"):
        HeadOptions(aggregate="max")
    with pytest.raises(OptionInvalid, match=rf"pca:99 for embeddings of {DIM}"):
        build_head("lstm", embedding_dim=DIM, n_classes=2, options=HeadOptions(reduce="pca:99"))
    with pytest.raises(OptionInvalid, match="at least 1"):
        limit_threads(0)
    import_keras()
    with pytest.raises(OptionInvalid, match="before Keras is imported"):
        limit_threads(3)
    limit_threads(None)
