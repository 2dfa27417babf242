"""The demo from end to end, on small clips; and what it says."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import RunCli, parse_json, write_video

from cli import cli
from features.backbone.weights import builtin_path, imagenet_path
from features.errors import OptionInvalid, OutputExists
from features.system.files import read_json
from features.video.decode import count_frames
from pipeline.commands.demo import demo_to_text, list_commands
from pipeline.demo.demo import (
    DEMO_ACTIONS,
    DEMO_HEADS,
    N_TAKES,
    DemoEvent,
    DemoOptions,
    DemoStep,
    DemoSummary,
    run_demo,
)
from pipeline.demo.drawing.actions import ACTIONS
from pipeline.demo.drawing.sample import SampleSpec, draw_frames, list_clips
from pipeline.demo.orderpairs import ORDER_PAIRS, OrderScores, score_order_pairs

ORDER = OrderScores("logreg-thirds", "lstm", 0.5, 0.9, 0.01, 96, "One sentence.")
SUMMARY = DemoSummary(
    "d", "imagenet", "", 192, 12, {"lstm": 0.9}, {"lstm": 0.9}, ORDER, 32, 30, 4, "o.mp4", 99.0
)


def mtimes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def run_until(out: Path, options: DemoOptions, is_enough: Callable[[DemoEvent], bool]) -> list[str]:
    """Interrupt a demo at an event, and return the texts of the steps before."""
    texts = []

    def interrupt(event: DemoEvent) -> None:
        if is_enough(event):
            raise KeyboardInterrupt
        if isinstance(event, DemoStep):
            texts.append(event.text)

    with pytest.raises(KeyboardInterrupt):
        run_demo(out, options, on_event=interrupt)
    return texts


def is_drawing(event: DemoEvent) -> bool:
    return isinstance(event, DemoStep) and event.number == 2


def is_claimed(folder: Path, event: DemoEvent) -> bool:
    return (folder / "sample.json").exists()


def test_interrupted_it_goes_on_finished_it_does_nothing(tmp_path: Path, run_cli: RunCli) -> None:
    out, options, weights = tmp_path / "demo", DemoOptions(n_actors=3), builtin_path()
    run_until(out, replace(options, weights=weights), is_drawing)
    # Clips that are there are taken as they are: small ones, all with the same frames.
    samples = {
        "videos": SampleSpec(3, N_TAKES, DEMO_ACTIONS, size_px=32),
        "unseen": SampleSpec(1, 1, DEMO_ACTIONS, size_px=32),
    }
    frames = draw_frames(list_clips(samples["unseen"])[0], samples["unseen"])
    for name, spec in samples.items():
        run_until(out, options, partial(is_claimed, out / name))
        for clip in list_clips(spec):
            (out / name / clip.label).mkdir(exist_ok=True)
            write_video(out / name / clip.clip_id, frames[clip.actor :])

    run_until(out, options, lambda e: isinstance(e, DemoStep) and e.text == "training lstm:centred")
    before = mtimes(out)
    assert out / "runs" / "logreg-thirds" / "run.json" in before

    steps: list[DemoStep] = []
    summary = run_demo(
        out, options, on_event=lambda e: steps.append(e) if isinstance(e, DemoStep) else None
    )
    assert summary.is_new
    assert [step.number for step in steps] == list(range(1, 8))
    assert summary.weights == str(weights), "it goes on with the weights it began with"
    kept = mtimes(out)
    # A lock is touched by whoever takes it.
    redone = {p for p in before if kept[p] != before[p] and p.suffix != ".lock"}
    assert redone <= {out / "demo.json", out / "videos/clips.csv", out / "unseen/clips.csv"}

    # What it says is what lies there.
    assert (summary.n_clips, summary.n_actors) == (3 * N_TAKES * len(DEMO_ACTIONS), 3)
    assert (summary.n_unseen, summary.n_unseen_actors) == (len(DEMO_ACTIONS), 1)
    assert summary.order.n_clips == 3 * N_TAKES * 2
    assert list(summary.run_accuracies) == list(DEMO_HEADS)
    assert count_frames(out / summary.overlay) == len(frames) - 1
    for report in ("runs/logreg-thirds", "runs/lstm", "comparison"):
        assert (out / report / "report.html").is_file()

    finished = mtimes(out)
    again = run_demo(out, options)
    assert again == replace(summary, is_new=False)
    shown = run_cli("demo", "--out", out, "--actors", "3", "--json")
    assert shown.exit_code == 0, shown.output
    told = parse_json(shown)
    assert told["order"]["sentence"] == summary.order.sentence
    assert told["n_unseen_right"] == summary.n_unseen_right
    assert told["is_new"] is False
    assert shown.stderr == ""
    assert mtimes(out) == finished

    moved = out.rename(tmp_path / "moved")
    assert run_demo(moved, options) == replace(again, folder=str(moved))
    text = run_cli("demo", "--out", moved, "--actors", "3").stdout
    assert "nothing was done" in text
    assert summary.order.sentence in text
    for name in ("runs/lstm/report.html", "comparison/report.html"):
        assert str(moved / name) in text


def test_other_weights_are_taken_only_where_imagenet_is_out_of_reach_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No proxy listens on port 9: the download fails at once, as without a network.
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    said = run_until(tmp_path / "d", DemoOptions(), is_drawing)
    assert "small weights that come with framehead" in said[-1]
    assert read_json(tmp_path / "d" / "demo.json")["weights"] == "builtin"

    cached = imagenet_path(0.35, 224)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not looked into yet")
    assert len(run_until(tmp_path / "e", DemoOptions(), is_drawing)) == 1
    assert read_json(tmp_path / "e" / "demo.json")["weights"] == "imagenet"
    assert run_until(tmp_path / "d", DemoOptions(), is_drawing) == said, "it keeps its choice"


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"at least 3 actors.*Received: 2"):
        DemoOptions(n_actors=2)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists, match="folder of its own.*holds other files"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "changed", [{"n_actors": 4}, {"seed": 1}, {"weights": "imagenet"}], ids=str
)
def test_a_demo_with_other_settings_is_left_alone(tmp_path: Path, changed: dict[str, Any]) -> None:
    out, options = tmp_path / "demo", DemoOptions("builtin", n_actors=3)
    out.mkdir()
    # As a process that was killed while it wrote its first file would leave it.
    (out / ".demo.json.1.partial.json").write_text("{")
    run_until(out, options, is_drawing)
    assert [path.name for path in out.iterdir()] == ["demo.json"]
    before = mtimes(out)
    with pytest.raises(OutputExists, match="holds one with other settings"):
        run_demo(out, replace(options, **changed))
    assert mtimes(out) == before


def test_both_pairs_that_differ_in_order_only_are_drawn() -> None:
    assert {label for pair in ORDER_PAIRS for label in pair} <= set(DEMO_ACTIONS) <= set(ACTIONS)


@pytest.mark.parametrize(
    ("right", "accuracies", "text"),
    [
        (
            {"lstm:centred": 12, "logreg-thirds": 0},
            (0.0, 1.0),
            "lstm:centred is better, by more than chance",
        ),
        ({"lstm:centred": 1, "logreg-thirds": 0}, (0.0, 1 / 12), "that may be chance"),
        ({"lstm:centred": 3, "logreg-thirds": 6}, (0.5, 0.25), "here lstm:centred is not better"),
    ],
)
def test_the_sentence_follows_the_numbers(
    tmp_path: Path, right: dict[str, int], accuracies: tuple[float, float], text: str
) -> None:
    columns = ["head", "seed", "fold", "clip_id", "group", "label", "predicted"]
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for head in DEMO_HEADS:
            for actor in range(12):
                predicted = "drill" if actor < right[head] else "drill-back"
                for seed in (0, 1):
                    row = [head, seed, 1, f"{actor}.avi", f"p{actor}", "drill", predicted]
                    writer.writerow(row)
                    writer.writerow([head, seed, 1, f"w{actor}.avi", f"p{actor}", "walk", "walk"])
    scores = score_order_pairs(tmp_path, DEMO_HEADS)
    assert (scores.accuracy_without, scores.accuracy_with) == pytest.approx(accuracies)
    assert scores.n_clips == 12
    assert scores.sentence.startswith("Of the 12 clips that only the order of poses")
    assert text in scores.sentence


def read_command(line: str) -> dict[str, Any]:
    """Return the options of a command line."""
    program, name, *words = shlex.split(line)
    assert program == "framehead"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command.make_context(name, words).params


@pytest.mark.parametrize("weights", ["imagenet", "builtin"])
def test_the_commands_to_go_on_with_are_commands(weights: str) -> None:
    commands = list_commands(replace(SUMMARY, weights=weights))
    assert len(commands) == 4
    for command in commands:
        read_command(command)
    assert ("--weights builtin" in commands[0]) == (weights == "builtin")


def test_the_text_says_which_weights_and_how_it_went() -> None:
    text = demo_to_text(replace(SUMMARY, weights="builtin", weights_note="Other weights."))
    assert text.startswith("Other weights.\n")
    assert "Weights: builtin" in text
    assert "lstm:centred names 30 of 32 clips of 4 actors right (93.8%)" in text
    assert "One sentence." in text


def test_the_readme_shows_what_the_demo_says() -> None:
    """Numbers differ from machine to machine; the words must not."""
    page = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"^```text\n\$ (framehead demo[^\n]*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    command, shown = found.groups()
    options = read_command(command)
    summary = replace(
        SUMMARY,
        folder=str(options["out"]),
        weights=options["weights"] or "imagenet",
        comparison_accuracies={"lstm:centred": 0.5, "logreg-thirds": 0.5},
        overlay="overlays/sit-down/person01_sit-down_01.mp4",
    )

    def mask(text: str) -> list[str]:
        lines = re.sub(r"[\d.]+", "#", text).splitlines()
        return [line for line in lines if not line.startswith(("Of the", "One sentence"))]

    assert mask(shown) == mask(demo_to_text(summary))
    assert "Of the " in shown


@pytest.mark.soak
@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("weights", ["builtin", "imagenet"])
def test_unseen_actors_and_the_order_of_frames_are_told(tmp_path: Path, weights: str) -> None:
    """The whole demo, with what the README and the page of the built-in backbone say of it."""
    summary = run_demo(tmp_path / "demo", DemoOptions(weights))
    assert summary.n_unseen == 32
    assert summary.n_unseen_right >= 0.85 * summary.n_unseen
    assert summary.comparison_accuracies["lstm:centred"] >= 0.85
    assert summary.order.accuracy_with > summary.order.accuracy_without
    assert summary.order.p_value is not None
    assert summary.order.p_value < 0.05
