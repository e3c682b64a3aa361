"""The capacity model gives back what it was made from, and what can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from benchmarks.capacity import Cost, cost_of, main

COST = Cost(sampling=100e-6, learning=400e-6, between=20e-6)
STEPS = 1_000


def make_run(folder: Path, cost: Cost = COST, runners: int = 1, learners: int = 1) -> Path:
    """What a run with that many of each would log, if a step cost that."""
    lines, seconds = [], 9.0
    for iteration in range(1, 6):
        seconds += STEPS * cost.step_s(runners, learners)
        record = {"env_steps": STEPS * iteration, "seconds": seconds}
        record |= {"time/sampling_s": STEPS * cost.sampling, "time/learning_s": STEPS * cost.learning}
        lines.append(json.dumps(record) + "\n")
    folder.mkdir()
    (folder / "progress.jsonl").write_text("".join(lines))
    return folder


def call(*arguments: Any) -> Result:
    app = Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize(("runners", "learners"), [(1, 1), (3, 1), (5, 2)])
def test_cost__is_found_in_a_run_of_any_size(runners: int, learners: int, tmp_path: Path) -> None:
    cost = cost_of(make_run(tmp_path / "run", runners=runners, learners=learners), runners=runners, learners=learners)
    assert (cost.sampling, cost.learning, cost.between) == pytest.approx((100e-6, 400e-6, 20e-6))


def test_step__is_the_sum_of_its_parts_or_the_longer_one() -> None:
    assert COST.step_s(1) == pytest.approx(520e-6)
    assert COST.step_s(4, 2) == pytest.approx(245e-6)
    assert COST.step_s(4, 2, overlapping=True) == pytest.approx(220e-6)
    assert COST.step_s(1, 8, overlapping=True) == pytest.approx(100e-6)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("learners", [1, 4, 16])
@pytest.mark.parametrize("waiting", [0.05, 0.3])
def test_runners_to_feed__are_enough_and_one_fewer_is_not(overlapping: bool, learners: int, waiting: float) -> None:
    enough = COST.runners_to_feed(learners, waiting=waiting, overlapping=overlapping)
    update = COST.learning / learners + COST.between

    def waits(runners: int) -> float:
        return 1 - update / COST.step_s(runners, learners, overlapping=overlapping)

    assert waits(enough) <= waiting + 1e-9
    assert enough == 1 or waits(enough - 1) > waiting


def test_capacity__prints_the_number_and_the_curve(tmp_path: Path) -> None:
    result = call(make_run(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "100 µs of an env runner, 400 of a learner, 20 between them" in result.output
    assert "3 env runners feed 1 learner (waiting at most 10%)" in result.output
    assert "| 1 | 1,923 | 1.00 | 19% |" in result.output
    assert "| 3 | 2,206 | 1.15 | 7% |" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--waiting", "1"], "--waiting: got 1, expected a share between 0 and 1"),
        (["--run-runners", "1"], "sampling and learning took 30 µs more of a step than the step itself"),
    ],
)
def test_capacity__says_what_it_cannot_use(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = call(make_run(tmp_path / "run", runners=2), *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_capacity__refuses_a_run_without_samples(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"env_steps": 1}\n{"env_steps": 2}\n')
    assert "expected two iterations or more with time/sampling_s" in call(tmp_path).output
