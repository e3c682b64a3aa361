"""A run whose driver is killed without warning goes on where its last whole iteration ended, as if nothing had been."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_rl.rllib.checkpoint import checkpoints_in, load_info, require_whole
from perceiver_rl.rllib.recovery import RECOVERY_POINT, find_resume_point
from perceiver_rl.rllib.run_folder import RunFolder
from tests.drivers import KEEP, STOP, TOTAL, drive
from tests.rllib.test_faults import APPO_CONFIG
from tests.test_cli import CONFIG, command, foreground, members_left

PER_ITERATION = 400
"""More environment steps than an iteration on couriers has."""
UPDATES = 2
"""Of the optimizer in each iteration."""


def records_of(run: Path) -> list[dict[str, float]]:
    """Whole lines alone: the last one may break off."""
    log = run / "progress.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [json.loads(line) for line in lines]


def wait_for_progress(run: Path, driver: BaseProcess) -> None:
    """Until there is a record that was not there."""
    before, deadline = len(records_of(run)), time.monotonic() + 180
    while len(records_of(run)) <= before:
        assert driver.is_alive(), "the run ended too early"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.01)


def require_only_the_running_iteration_lost(run: Path) -> None:
    """Right after a kill: the run goes on from its last record, or from the one before if that was not saved yet."""
    told = [record["env_steps"] for record in records_of(run)]
    point = find_resume_point(RunFolder(run))
    if point is None:
        assert len(told) <= 1
    else:
        assert point.env_steps in told[-2:]
    for checkpoint in checkpoints_in(run / "checkpoints"):
        require_whole(checkpoint)


def require_neither_hole_nor_double(run: Path) -> None:
    """At the end: steps, seconds and curves are those of a run that nothing happened to."""
    records = records_of(run)
    steps = [record["env_steps"] for record in records]
    assert steps == sorted(set(steps))
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    events = EventAccumulator(str(run))
    events.Reload()
    for tag in ("optimizer/learning_rate", "policy/entropy_per_actor", "time/env_steps_per_second"):
        curve = [(event.step, event.value) for event in events.Scalars(tag)]
        told = [(record["env_steps"], record[tag]) for record in records if tag in record]
        assert [step for step, _ in curve] == [step for step, _ in told]
        assert [value for _, value in curve] == pytest.approx([value for _, value in told], rel=1e-5)


def require_no_trace_of_kills(run: Path, total: int) -> None:
    """Also schedule and optimizer, of a run whose iterations are all alike."""
    require_neither_hole_nor_double(run)
    records = records_of(run)
    steps = [record["env_steps"] for record in records]
    assert max(after - before for before, after in pairwise([0, *steps])) < PER_ITERATION
    # The rate logged with an iteration is that for the steps sampled before its update.
    for before, record in pairwise(records):
        expected = 1e-3 * max(0.0, 1 - before["env_steps"] / total)
        assert record["optimizer/learning_rate"] == pytest.approx(expected, abs=1e-3 * PER_ITERATION / total)
    for tag in ("policy/entropy_per_actor", "time/env_steps_per_second"):
        assert all(tag in record for record in records)
    state = pickle.loads((run / RECOVERY_POINT).read_bytes())["state"]
    assert state["training_iteration"] == len(records)
    (optimizer,) = state["learner_group"]["learner"]["optimizer"].values()
    assert {int(each["step"]) for each in optimizer["state"]["state"].values()} == {UPDATES * len(records)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options", "total"), [(CONFIG, ("--env-runners", "0"), 2_500), (APPO_CONFIG, (), 20_000)], ids=["ppo", "appo"]
)
def test_killed_run__goes_on_where_it_was(config: str, options: tuple[str, ...], total: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", config, "--out", str(run), *options, "--steps", str(total), "--no-pictures"]
    with foreground(*arguments) as process:
        deadline = time.monotonic() + 180
        while len(records_of(run)) < 4:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run did not get going"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    require_only_the_running_iteration_lost(run)
    assert members_left(process.pid, patience=120.0) == [], "Ray's processes end with their driver"
    resumed = command("train", config, "--out", str(run), "--resume", "--no-pictures")
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on from recovery.pkl" in resumed.stderr
    assert records_of(run)[-1]["env_steps"] >= total
    if config == CONFIG:
        require_no_trace_of_kills(run, total)
    else:
        require_neither_hole_nor_double(run)


@pytest.mark.slow
def test_run_killed_at_twenty_random_moments__shows_no_trace_of_it(ray_local: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    address = ray.get_runtime_context().gcs_address
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.drivers"])
    moments = random.Random(0)
    for number in range(20):
        driver = processes.Process(target=drive, args=(str(run), address))
        driver.start()
        if number % 4:  # in the midst of training, but for every fourth time, when it may not have begun yet
            wait_for_progress(run, driver)
        driver.join(moments.uniform(0.0, 2.0))
        assert driver.is_alive(), "the run ended before it could be killed"
        driver.kill()
        driver.join()
        require_only_the_running_iteration_lost(run)
    driver = processes.Process(target=drive, args=(str(run), address))
    driver.start()
    wait_for_progress(run, driver)
    (run / STOP).touch()
    driver.join(180)
    assert driver.exitcode == 0
    require_no_trace_of_kills(run, TOTAL)
    assert len(checkpoints_in(run / "checkpoints")) in (KEEP, KEEP + 1), "the last ones, and the best"
    best = load_info(run / "best").score
    assert best is not None
    for checkpoint in checkpoints_in(run / "checkpoints"):
        score = load_info(checkpoint).score
        assert score is not None
        assert score.value <= best.value
