"""Near-duplicates and ignored groups in runs and comparisons: files, text and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from conftest import RunCli, parse_json
from test_duplicates import store, two_classes, write_vectors

from features.store.store import Store
from pipeline.runs.run import read_run

__all__ = ["store"]  # the fixture

QUICK = ("--epochs", "3", "--units", "4", "--head", "mean-linear")


def test_runs_report_near_duplicates(run_cli: RunCli, store: Store, tmp_path: Path) -> None:
    names = [clip.clip_id for clip in store.clips]
    tested = ["hop/copy.avi", "sit/copy.avi", "hop/0.avi"]
    train = [i for i in names if i not in tested]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": train, "test": tested}))
    arguments = ("train-head", store.path, "--split", path, *QUICK, "--out", tmp_path / "run")
    report = parse_json(run_cli(*arguments, "--json"))
    assert report["n_near_duplicates"] == 2
    assert {item["clip_id"] for item in report["near_duplicates"]} == set(tested[:2])
    assert not report["leaks"]
    text = run_cli(*arguments).stdout
    assert "2 of 3 test clips have a near-duplicate" in text
    found = read_run(tmp_path / "run").summary
    assert [asdict(item) for item in found.near_duplicates] == report["near_duplicates"]
    assert found.n_near_duplicates == 2
    saved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["summary"]["near_duplicates"] == report["near_duplicates"]


def test_comparisons_report_them_and_leave_their_folds(
    run_cli: RunCli, store: Store, tmp_path: Path
) -> None:
    options = ("--heads", "mean-linear", "--seeds", "1", "--folds", "3", "--jobs", "1")
    out = tmp_path / "c"
    arguments = ("compare-heads", store.path, "--out", out, *options, *QUICK[:4])
    text = run_cli(*arguments).stdout
    report = parse_json(run_cli(*arguments, "--json"))
    splits = json.loads((out / "comparison.json").read_text())["splits"]
    fold_of = {clip_id: n for n, split in enumerate(splits) for clip_id in split["test"]}
    straddling = [
        name
        for name, original in (("hop/copy.avi", "hop/2.avi"), ("sit/copy.avi", "sit/3.avi"))
        if fold_of[name] != fold_of[original]
    ]
    assert straddling, "choose another seed: the test needs a pair in different folds"
    assert report["n_near_duplicates"] == 2 * len(straddling)
    assert f"{2 * len(straddling)} of 14 test clips have a near-duplicate" in text
    assert "--join-near-duplicates" in text
    apart = ("compare-heads", store.path, "--out", tmp_path / "joined", *options, *QUICK[:4])
    joined = parse_json(run_cli(*apart, "--join-near-duplicates", "--json"))
    assert joined["n_near_duplicates"] == 0
    assert joined["n_groups"] == report["n_groups"] - 2

    for number, split in enumerate(splits, start=1):
        path = out / "splits" / f"fold-{number}.json"
        assert json.loads(path.read_text()) == split
    run_cli("train-head", store.path, "--split", path, *QUICK, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "split.json").read_bytes() == path.read_bytes()


def test_ignoring_groups_is_said_in_every_result(run_cli: RunCli, tmp_path: Path) -> None:
    content = two_classes(8)
    store = write_vectors(tmp_path / "s.h5", content, groups=False)
    common = (store.path, "--ignore-groups", "--group-regex", r"(hop|sit)", *QUICK[:4])
    out = tmp_path / "run"
    refused = run_cli("train-head", *common, "--out", out)
    assert refused.exit_code == 2
    assert "--ignore-groups needs --allow-leaks" in refused.stderr
    result = run_cli("train-head", *common, "--allow-leaks", "--out", out)
    assert "LEAKY accuracy" in result.stdout, result.output
    options = ("--heads", "mean-linear", "--seeds", "1", "--folds", "2", "--jobs", "1")
    result = run_cli("compare-heads", *common, "--allow-leaks", *options, "--out", tmp_path / "c")
    assert result.stdout.startswith("LEAKY")
    saved = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert saved["leaks"] is True
    assert all("groups ignored" in split["method"] for split in saved["splits"])
