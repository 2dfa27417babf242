"""Temperatures and prediction sets against known truth; ensembles and refits as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunCli, parse_json
from stage2_helpers import make_clips, write_store
from test_heads import make_sequences

from features.errors import OptionInvalid, RunDamaged
from pipeline.data.sequences import join_clips, take_clips
from pipeline.heads.model import predict_probabilities
from pipeline.heads.registry import HeadOptions
from pipeline.runs.attention import read_attention
from pipeline.runs.coverage import HeldOut, choose_set, find_threshold, read_held_out
from pipeline.runs.run import load_model, read_run, save_model
from pipeline.training.fit import fit_head
from pipeline.training.options import FitOptions
from pipeline.training.temperature import apply_temperature, find_temperature


def draw_scores(rng: np.random.Generator, n_groups: int, spread: float) -> tuple[Any, Any]:
    """Misses of clips in groups of 1 to 9 that are alike, as much as `spread` says."""
    sizes = rng.integers(1, 10, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    values = spread * rng.normal(size=n_groups)[groups] + rng.normal(size=len(groups))
    return 1 / (1 + np.exp(-values)), groups


def measure_coverage(n_groups: int, spread: float, wanted: float, n_cases: int) -> float:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(n_cases):
        misses, groups = draw_scores(rng, n_groups, spread)
        threshold = find_threshold(HeldOut(tuple(misses), tuple(map(str, groups))), wanted)
        new, _ = draw_scores(rng, 1, spread)
        covered.append((1 - new[0]) >= threshold)
    return float(np.mean(covered))


@pytest.mark.parametrize("n_groups", [9, 20, 60])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_sets_cover_clips_of_new_groups(n_groups: int, spread: float) -> None:
    found = measure_coverage(n_groups, spread, 0.9, 1500)
    # Two standard errors below what is promised; with few groups a set may be larger than needed.
    assert 0.885 <= found <= 0.9 + 1 / (n_groups + 1) + 0.02


def test_large_groups_do_not_speak_for_small_ones() -> None:
    rng = np.random.default_rng(0)

    def draw(n_groups: int) -> tuple[Any, Any]:
        is_small = rng.random(n_groups) < 0.5
        groups = np.repeat(np.arange(n_groups), np.where(is_small, 1, 9))
        return 1 / (1 + np.exp(-2.0 * is_small[groups] - rng.normal(size=len(groups)))), groups

    covered: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(1500):
        (misses, groups), (new, _) = draw(20), draw(1)
        for by_group, found in covered.items():
            names = groups if by_group else np.arange(len(misses))
            held_out = HeldOut(tuple(misses), tuple(map(str, names)))
            found.append(bool(1 - new[0] >= find_threshold(held_out, 0.8)))
    assert np.mean(covered[True]) >= 0.79
    assert np.mean(covered[False]) < 0.7


def test_what_few_groups_cannot_promise_is_refused() -> None:
    held_out = HeldOut((0.1, 0.2, 0.3, 0.4), ("a", "a", "b", "c"))
    assert find_threshold(held_out, 0.75) == pytest.approx(0.6)
    assert find_threshold(held_out, 0.5) == pytest.approx(0.7)
    with pytest.raises(OptionInvalid, match="0.9 needs 9 groups.*calibrated with 3"):
        find_threshold(held_out, 0.9)
    with pytest.raises(OptionInvalid, match="between 0 and 1. Received: 1.0"):
        find_threshold(held_out, 1.0)


def test_a_set_may_be_empty_and_begins_with_the_most_probable() -> None:
    assert choose_set([0.2, 0.5, 0.3], ["a", "b", "c"], 0.25) == ("b", "c")
    assert choose_set([0.4, 0.3, 0.3], ["a", "b", "c"], 0.5) == ()


@pytest.mark.parametrize("true", [0.5, 2.5])
def test_temperature_is_found_again_and_few_groups_leave_it_at_1(true: float) -> None:
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(3000, 4))
    right = np.exp(logits)
    right /= right.sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in right])
    spoilt = np.exp(true * logits)
    spoilt = (spoilt / spoilt.sum(axis=1, keepdims=True)).astype(np.float32)

    def find(n: int, n_groups: int) -> float:
        part = slice(0, n)
        ones = np.ones(n, np.float32)
        return find_temperature(
            [spoilt[part]], np.arange(n), "mean", truth[part], ones, n_groups=n_groups
        )

    assert find(3000, 3000) == pytest.approx(true, rel=0.1)
    assert abs(np.log(find(3000, 2))) < 0.7 * abs(np.log(true))
    cooled = apply_temperature([spoilt], true)
    np.testing.assert_allclose(cooled, right, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["mlp", "logreg:both", pytest.param("lstm-attention", marks=pytest.mark.soak)]
)
def test_an_ensemble_is_the_mean_of_its_members_in_one_file(name: str, tmp_path: Path) -> None:
    train, val, test = make_sequences(0), make_sequences(1), make_sequences(2)
    options = FitOptions(epochs=2, ensemble=3, refit="never")
    fitted = fit_head(
        train, val, head=name, n_classes=3, seed=5, fit_options=options, head_options=SMALL
    )
    together = predict_probabilities(fitted.model, test)
    save_model(fitted.model, tmp_path / "model.keras")
    from features.system.keras import import_keras

    loaded = import_keras().saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(predict_probabilities(loaded, test), together, atol=1e-6)
    front = loaded.get_layer("front")
    seen = front({"vectors": test.vectors, "mask": test.mask})
    members = [np.asarray(loaded.get_layer(f"member_{n}")(seen)) for n in (1, 2, 3)]
    np.testing.assert_allclose(np.mean(members, axis=0), together, atol=1e-5)
    alone = fit_head(
        train,
        val,
        head=name,
        n_classes=3,
        seed=5,
        fit_options=FitOptions(epochs=2, refit="never"),
        head_options=SMALL,
    )
    # The first member is the head of that seed, but for the temperature.
    first = apply_temperature([members[0]], fitted.temperature and 1 / fitted.temperature)
    wanted = predict_probabilities(alone.model, test)
    np.testing.assert_allclose(first, apply_temperature([wanted], 1 / alone.temperature), atol=1e-3)
    assert (np.abs(members[1] - members[2]).max() > 1e-4) == (name != "logreg:both")
    weights = read_attention(loaded, test, HeadOptions())
    assert all((row is not None) == (name == "lstm-attention") for row in weights)


SMALL = HeadOptions(units=8)


def test_a_refit_trains_on_both_parts_for_the_epochs_that_were_best() -> None:
    train, val, test = make_sequences(0), make_sequences(1), make_sequences(2)
    options = FitOptions(epochs=4, learning_rate=0.01, refit="always")
    fitted = fit_head(train, val, head="mlp", n_classes=3, fit_options=options, head_options=SMALL)
    assert fitted.is_refitted
    # The same by hand: both parts as the training part, its end after as many epochs.
    both = join_clips(train, val)
    by_hand = fit_head(
        both,
        take_clips(val, val.clip_ids),
        head="mlp",
        n_classes=3,
        fit_options=FitOptions(
            epochs=fitted.best_epoch, learning_rate=0.01, refit="never", batch_size=16
        ),
        head_options=SMALL,
    )
    assert by_hand.best_epoch == fitted.best_epoch
    found, wanted = (
        apply_temperature([predict_probabilities(fit.model, test)], 1 / fit.temperature)
        for fit in (fitted, by_hand)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_head_that_learned_nothing_is_not_refitted_by_itself() -> None:
    for signal, expected in ((0.0, False), (2.0, True)):
        train, val = (make_sequences(seed, n_clips=60, signal=signal) for seed in (0, 1))
        fitted = fit_head(train, val, head="mlp", n_classes=3, fit_options=FitOptions(epochs=10))
        assert fitted.is_refitted is expected
    assert not fit_head(
        train, val, head="mlp", n_classes=3, fit_options=FitOptions(epochs=3, refit="never")
    ).is_refitted


def test_cross_calibration_holds_every_group_out_once() -> None:
    train, val = make_sequences(0, n_clips=30), make_sequences(1, n_clips=12)
    # Other names than those of the training part.
    val = type(val)(val.vectors, val.mask, val.class_indices, tuple(f"v{i}" for i in val.clip_ids))
    groups = {i: f"g{int(i.lstrip('v')) // 3}" for i in (*train.clip_ids, *val.clip_ids)}
    for calibration, n_held_out in (("validation", 12), ("cross", 42)):
        options = FitOptions(epochs=2, calibration=calibration)  # type: ignore[arg-type]
        fitted = fit_head(
            train, val, head="mean-linear", n_classes=3, groups=groups, fit_options=options
        )
        assert len(fitted.held_out.misses) == len(fitted.held_out.groups) == n_held_out
    assert sorted(fitted.held_out.groups) == sorted(groups.values())


def test_runs_tell_their_sets_and_old_runs_say_why_not(tmp_path: Path, run_cli: RunCli) -> None:
    store = write_store(tmp_path / "s.h5", make_clips(n_groups=8))
    done = run_cli(
        *("train-head", store, "--out", tmp_path / "run", "--head", "logreg"),
        *("--ensemble", "2", "--calibration", "cross", "--json"),
    )
    assert done.exit_code == 0, done.output
    told = parse_json(done)
    assert (told["is_refitted"], told["n_members"]) == (True, 2)
    assert told["temperature"] > 0
    run = read_run(tmp_path / "run")
    held_out = read_held_out(run.path)
    assert len(set(held_out.groups)) > 12
    assert 0 < find_threshold(held_out, 0.9) <= 1
    assert [layer.name for layer in load_model(run).layers].count("member_2") == 1
    (run.path / "calibration.json").unlink()
    with pytest.raises(RunDamaged, match="Prediction sets need calibration.json"):
        read_held_out(run.path)
