"""The command line as a user has it: one run is begun, interrupted, gone on with and evaluated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perceiver_rl import __version__
from perceiver_rl.cli import app
from perceiver_rl.cli.train import default_name
from perceiver_rl.replay import read_page
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings

COMMAND = str(Path(sys.executable).parent / "perceiver-rl")
CONFIG = "tests/courier_config.py"
ROOT = Path(__file__).parent.parent
TOTAL = 6_000


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command says that takes bad input, in this process: without starting Ray, or it would fail otherwise."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    return result.stderr


@contextmanager
def foreground(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a terminal runs it: in a process group of its own, all of which gets a Ctrl-C."""
    begun = [COMMAND, *arguments]

    def heed_ctrl_c() -> None:  # which is ignored where the tests themselves run in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        begun, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ctrl_c(process: subprocess.Popen[str], when: Callable[[], bool]) -> tuple[int, str]:
    """Press it as soon as something is the case; exit code and standard error."""
    deadline = time.monotonic() + 180
    while not when():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def members(group: int) -> list[str]:
    """Commands of the processes that live in a group."""
    listing = subprocess.run(["ps", "-ww", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    fields = [line.split(maxsplit=2) for line in listing.splitlines()]
    return [arguments for pgid, state, arguments in fields if int(pgid) == group and not state.startswith("Z")]


def members_left(group: int, patience: float = 10.0) -> list[str]:
    """Commands of a group's processes that stay after its leader has gone; those that are just ending get a moment."""
    until = time.monotonic() + patience
    while (left := members(group)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


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
    errors_at_interrupt: str
    after_interrupt: list[dict[str, float]]
    checkpoints_after_interrupt: list[int]
    processes_left: list[str]
    resumed: subprocess.CompletedProcess[str]
    evaluated: Result
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    run = tmp_path_factory.mktemp("runs") / "couriers"
    settings = ("--seed", "3", "--steps", str(TOTAL), "--checkpoint-every", "1000")
    with foreground("train", CONFIG, "--out", str(run), *settings) as process:
        interrupted, errors = ctrl_c(process, when=lambda: len(progress(run)) >= 6)
    after_interrupt, saved = progress(run), checkpoints(run)
    processes_left = members_left(process.pid)
    resumed = command("train", CONFIG, "--out", str(run), "--resume")
    output = run / "evaluation.json"
    arguments = ["evaluate", str(run), "--episodes", "24", "--against", "random", "--json", str(output)]
    evaluated = CliRunner().invoke(app, arguments)
    records = json.loads(output.read_text()) if output.exists() else []
    return Story(run, interrupted, errors, after_interrupt, saved, processes_left, resumed, evaluated, records)


def test_ctrl_c__leaves_a_checkpoint_of_the_last_iteration_and_no_process(story: Story) -> None:
    assert story.interrupted == 130
    last = story.after_interrupt[-1]["env_steps"]
    assert last < TOTAL
    assert story.checkpoints_after_interrupt[-1] == last
    assert f"--out {story.run} --resume" in story.errors_at_interrupt
    assert "Traceback" not in story.errors_at_interrupt
    assert story.processes_left == []


@pytest.mark.parametrize("stage", [pytest.param("environment", marks=pytest.mark.slow), "ray"])
def test_ctrl_c_during_start_up__ends_without_a_traceback_and_leaves_no_process(stage: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with foreground("train", CONFIG, "--out", str(run), "--steps", str(TOTAL)) as process:
        reached = {
            "environment": lambda: any("spawn_main" in arguments for arguments in members(process.pid)),  # it is tried out
            "ray": lambda: (run / "run.json").exists(),  # the next thing that starts
        }
        code, errors = ctrl_c(process, when=reached[stage])
    assert code == 130
    assert "Traceback" not in errors
    assert progress(run) == []
    assert members_left(process.pid) == []


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


def test_resume__keeps_its_settings(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", CONFIG, "--out", str(story.run), "--resume", "--set", "training.lr=1"]
    assert "a resumed run keeps its settings" in refused(arguments, monkeypatch)
    after = [step for step in checkpoints(story.run) if step > story.checkpoints_after_interrupt[-1]]
    assert len(after) >= (TOTAL - story.checkpoints_after_interrupt[-1]) // 1_000, "one each --checkpoint-every"


def test_train__does_not_write_over_a_run(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "holds a run already" in refused(["train", CONFIG, "--out", str(story.run)], monkeypatch)


def test_evaluate__writes_one_record_for_each_row(story: Story) -> None:
    assert story.evaluated.exit_code == 0, story.evaluated.output
    rows = [(record["policy"], record["mode"]) for record in story.records]
    assert rows == [("couriers", "greedy"), ("couriers", "sampled"), ("random", "sampled")]
    for record in story.records:
        assert record["env"] == "tests.environments:make_couriers"
        assert record["episodes"] == 24
        assert record["win_rate"] is None, "couriers know nothing of winning"
        assert 2 <= record["length_mean"] <= 3
    assert "couriers" in story.evaluated.stdout


def test_replay__writes_one_page_of_the_newest_checkpoint(story: Story, tmp_path: Path) -> None:
    file = tmp_path / "new" / "couriers.html"
    arguments = ["replay", str(story.run), "--episodes", "3", "--sampled", "--seed", "5", "--out", str(file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    recording = read_page(file.read_text())
    assert (recording.env, recording.mode, recording.seed) == ("tests.environments:make_couriers", "sampled", 5)
    assert [episode.length for episode in recording.episodes] == [3, 2, 3]
    assert f"{checkpoints(story.run)[-1]:,} steps" in recording.policy
    assert f"Replay:     {file} (" in done.stderr


def test_tensorboard__has_readable_tags_and_the_evaluation(story: Story) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for folder in {path.parent for path in story.run.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder))
        events.Reload()
        tags |= set(events.Tags()["scalars"]) | set(events.Tags()["tensors"])
    assert {"outcome/return", "outcome/score", "policy/entropy_per_actor", "value/explained_variance"} <= tags
    assert {"time/env_steps_per_second", "optimizer/learning_rate", "evaluation/greedy/return"} <= tags
    assert {"actions/wait", "actions/deliver", "run/schema/text_summary"} <= tags


def test_tensorboard__shows_pictures_of_checkpoints(story: Story) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(story.run / "pictures"))
    events.Reload()
    for tag in ("actions/by_verb", "attention/units_to_units", "attention/latents_to_units"):
        steps = [image.step for image in events.Images(tag)]
        assert steps == sorted(set(steps))
        assert set(steps) <= set(checkpoints(story.run))
        assert steps[-1] == checkpoints(story.run)[-1]
    assert "Pictures:   no field and no video, since courier has no position" in story.resumed.stderr
    assert "Starting:   1 env runner of 16 environments each;" in story.resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "configs/nope.py"], "which is no file"),
        (["train", CONFIG, "--env", "smax/nope"], "known are 3m, "),
        (["train", CONFIG, "--env", "tests.nowhere:make"], "got no module 'tests.nowhere'"),
        (["train", CONFIG, "--set", "training.lrr=1"], "did you mean 'lr'?"),
        (["train", CONFIG, "--resume"], "expected --out RUN"),
        (["evaluate", "runs/nothing"], "does not exist"),
    ],
    ids=["config", "map", "module", "key", "resume", "checkpoint"],
)
def test_bad_input__is_told_in_one_message_before_ray_starts(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused(arguments, monkeypatch)


MISTAKEN = """
from ray.rllib.algorithms.ppo import PPOConfig

def make_config(total_env_steps: int = 10):
    {line}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "PPOConfig().training(entropy_coef=0.1)",
            "TypeError: AlgorithmConfig.training() got an unexpected keyword argument",
        ),
        ("PPOConfig()", "got None back, expected an AlgorithmConfig; is its `return` there?"),
        ("import shapelyy", "No module named 'shapelyy'"),
        ("return PPOConfig(", "'(' was never closed"),
    ],
)
def test_mistake_in_a_config__is_told_with_its_line(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mistaken_ppo.py"
    file.write_text(MISTAKEN.format(line=line))
    told = refused(["train", str(file), "--out", str(tmp_path / "run")], monkeypatch)
    assert message in told
    assert "return" in message or f"{file}, line 5, in make_config: {line}" in told or f"{file.name}, line 5" in told


def test_bug_of_ours__keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_rl.rllib.config_file.default_steps", {}.__getitem__)  # raised where it is called
    monkeypatch.chdir(ROOT)
    assert isinstance(CliRunner().invoke(app, ["train", CONFIG]).exception, KeyError)


@pytest.mark.parametrize(
    ("config", "name"), [("configs/kaz_ppo.py", "kaz_ppo"), ("configs.tasks_ppo:xor", "tasks_ppo-xor"), ("a:b", "a-b")]
)
def test_run_folder__is_named_after_the_config(config: str, name: str) -> None:
    assert default_name(config) == name


def test_version__is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__


@pytest.mark.slow
def test_run_that_ended_before_its_first_checkpoint__begins_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(RunSettings(CONFIG, env=None, seed=1, total_env_steps=500, overrides=("env_runners.num_env_runners=0",)))
    resumed = command("train", CONFIG, "--out", str(folder.path), "--resume", "--no-pictures")
    assert resumed.returncode == 0, resumed.stderr
    assert progress(folder.path)[-1]["env_steps"] >= 500


@pytest.mark.slow
def test_train__says_what_is_wrong_with_an_environment_that_fails_later(tmp_path: Path) -> None:
    result = command("train", CONFIG, "--env", "tests.environments:make_faulty_couriers", "--out", str(tmp_path / "run"))
    assert result.returncode == 1
    assert "entity type 'post', feature 'brightness', entity 0 of batch entry 0: got nan" in result.stdout + result.stderr
    assert "no samples from the env runners" in result.stderr
