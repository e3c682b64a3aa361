"""The command line as a user has it: one run is begun, interrupted, gone on with and evaluated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from perceiver_rl.rllib.run_folder import RunFolder, RunSettings

COMMAND = str(Path(sys.executable).parent / "perceiver-rl")
CONFIG = "tests/courier_config.py"
ROOT = Path(__file__).parent.parent
TOTAL = 6_000


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)


def progress(run: Path) -> list[dict[str, float]]:
    log = run / "progress.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("checkpoint_")) for path in (run / "checkpoints").glob("checkpoint_*"))


@dataclass(frozen=True)
class Story:
    """What happened to one run, told step by step."""

    run: Path
    interrupted: int
    after_interrupt: list[dict[str, float]]
    checkpoints_after_interrupt: list[int]
    children_left: list[str]
    resumed: subprocess.CompletedProcess[str]
    evaluated: subprocess.CompletedProcess[str]
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    run = tmp_path_factory.mktemp("runs") / "couriers"
    begun = [COMMAND, "train", CONFIG, "--out", str(run), "--seed", "3", "--steps", str(TOTAL), "--checkpoint-every", "1000"]
    process = subprocess.Popen(begun, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(progress(run)) < 6:
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    interrupted = process.wait(timeout=60)
    after_interrupt, saved = progress(run), checkpoints(run)
    children_left = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "comm="], capture_output=True, text=True, check=False
    ).stdout.split()
    resumed = command("train", CONFIG, "--out", str(run), "--resume")
    output = run / "evaluation.json"
    evaluated = command("evaluate", str(run), "--episodes", "24", "--against", "random", "--json", str(output))
    records = json.loads(output.read_text()) if output.exists() else []
    return Story(run, interrupted, after_interrupt, saved, children_left, resumed, evaluated, records)


def test_ctrl_c__leaves_a_checkpoint_of_the_last_iteration_and_no_process(story: Story) -> None:
    assert story.interrupted == 130
    last = story.after_interrupt[-1]["env_steps"]
    assert last < TOTAL
    assert story.checkpoints_after_interrupt[-1] == last
    assert story.children_left == []


def test_checkpoints__are_written_by_schedule(story: Story) -> None:
    assert story.checkpoints_after_interrupt[0] in range(1_000, 1_400)


def test_resume__goes_on_with_counters_and_schedule(story: Story) -> None:
    assert story.resumed.returncode == 0, story.resumed.stderr
    records = progress(story.run)
    steps = [record["env_steps"] for record in records]
    assert records[: len(story.after_interrupt)] == story.after_interrupt
    assert steps == sorted(set(steps)), "neither a hole nor a double"
    assert steps[-1] >= TOTAL
    assert max(after - before for before, after in pairwise(steps)) < 400
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    # The rate logged with an iteration is set at its end, for the steps sampled up to the start of its update.
    rates = [record["optimizer/learning_rate"] for record in records]
    for step, rate in zip(steps[1:], rates[1:], strict=True):
        assert rate == pytest.approx(max(0.0, 1e-3 * (1 - step / TOTAL)), abs=1e-4)


def test_resume__keeps_its_settings(story: Story) -> None:
    refused = command("train", CONFIG, "--out", str(story.run), "--resume", "--set", "training.lr=1")
    assert refused.returncode == 2
    assert "a resumed run keeps its settings" in refused.stderr


def test_train__does_not_write_over_a_run(story: Story) -> None:
    refused = command("train", CONFIG, "--out", str(story.run))
    assert refused.returncode == 2
    assert "holds a run already" in refused.stderr


def test_evaluate__writes_one_record_for_each_row(story: Story) -> None:
    assert story.evaluated.returncode == 0, story.evaluated.stderr
    rows = [(record["policy"], record["mode"]) for record in story.records]
    assert rows == [("couriers", "greedy"), ("couriers", "sampled"), ("random", "sampled")]
    for record in story.records:
        assert record["env"] == "tests.environments:make_couriers"
        assert record["episodes"] == 24
        assert record["win_rate"] is None, "couriers know nothing of winning"
        assert 2 <= record["length_mean"] <= 3
    assert "couriers" in story.evaluated.stdout


def test_tensorboard__has_readable_tags_and_the_evaluation(story: Story) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for folder in {path.parent for path in story.run.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder))
        events.Reload()
        tags |= set(events.Tags()["scalars"])
    assert {"outcome/return", "outcome/score", "policy/entropy_per_actor", "value/explained_variance"} <= tags
    assert {"time/env_steps_per_second", "optimizer/learning_rate", "evaluation/greedy/return"} <= tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "configs/nope.py"], "which is no file"),
        (["train", CONFIG, "--env", "smax/nope"], "known are smax/3m"),
        (["train", CONFIG, "--env", "tests.nowhere:make"], "got no module 'tests.nowhere'"),
        (["train", CONFIG, "--set", "training.lrr=1"], "did you mean 'lr'?"),
        (["train", CONFIG, "--resume"], "expected --out RUN"),
        (["evaluate", "runs/nothing"], "does not exist"),
    ],
    ids=["config", "map", "module", "key", "resume", "checkpoint"],
)
def test_bad_input__is_told_in_one_message_before_ray_starts(arguments: list[str], message: str) -> None:
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}  # nobody is there: starting Ray would fail otherwise
    result = subprocess.run(
        [COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_run_that_ended_before_its_first_checkpoint__begins_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(RunSettings(CONFIG, env=None, seed=1, total_env_steps=500, overrides=("env_runners.num_env_runners=0",)))
    resumed = command("train", CONFIG, "--out", str(folder.path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert progress(folder.path)[-1]["env_steps"] >= 500


@pytest.mark.slow
def test_train__says_what_is_wrong_with_an_environment_that_fails_later(tmp_path: Path) -> None:
    result = command("train", CONFIG, "--env", "tests.environments:make_faulty_couriers", "--out", str(tmp_path / "run"))
    assert result.returncode == 1
    assert "entity type 'post', feature 'brightness', entity 0 of batch entry 0: got nan" in result.stdout + result.stderr
    assert "no samples from the env runners" in result.stderr
