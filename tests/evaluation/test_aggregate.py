from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from perceiver_rl.cli import app
from perceiver_rl.evaluation.aggregate import aggregate, bootstrap, interquartile_mean, read_evaluation


def records(scores: dict[str, float], policy: str = "run") -> list[dict[str, Any]]:
    """An evaluation: the run greedy and sampled (0.1 worse), beside a random policy."""
    rows = [{"env": env, "policy": policy, "mode": "greedy", "win_rate": score} for env, score in scores.items()]
    rows += [{"env": env, "policy": policy, "mode": "sampled", "win_rate": score - 0.1} for env, score in scores.items()]
    return rows + [{"env": env, "policy": "random", "mode": "greedy", "win_rate": 0.0} for env in scores]


def test_interquartile_mean__leaves_out_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])) == pytest.approx(3.5)


def test_aggregate__is_over_runs_and_environments_of_the_runs_own_policy() -> None:
    runs = [records({"a": 0.0, "b": 0.5}, "s0"), records({"b": 0.7, "a": 1.0}, "s1")]
    summed = aggregate("mine", runs, "greedy")
    assert (summed.runs, summed.envs) == (2, ("a", "b"))
    assert summed.mean.value == pytest.approx(0.55)
    assert summed.iqm.value == pytest.approx(0.6)  # of 0, 0.5, 0.7 and 1 the middle two
    assert aggregate("mine", runs, "sampled").mean.value == pytest.approx(0.45)


def test_aggregate__has_no_interval_of_one_run() -> None:
    assert aggregate("mine", [records({"a": 0.2})], "greedy").mean.interval is None
    with pytest.raises(ValueError, match="got 1 run, expected at least two"):
        bootstrap(np.array([[0.2, 0.3]]), interquartile_mean)


def test_bootstrap__draws_runs_and_keeps_environments() -> None:
    # The environments differ, the runs do not: with stratified draws nothing varies.
    alike = np.array([[0.0, 1.0, 0.5]] * 4)
    assert bootstrap(alike, lambda scores: scores.mean(axis=-1)).low == pytest.approx(0.5)
    assert bootstrap(alike, lambda scores: scores.mean(axis=-1)).high == pytest.approx(0.5)


def test_bootstrap__covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        interval = bootstrap(random.normal(0.5, 0.1, (10, 4)), lambda scores: scores.mean(axis=-1), repeats=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99  # a percentile interval of ten draws is a little too narrow


def test_aggregate__says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="got one run in a and another in b, expected the same environments"):
        aggregate("mine", [records({"a": 0.2}), records({"b": 0.2})], "greedy")
    with pytest.raises(ValueError, match="got no win_rate of mode sampled"):
        aggregate("mine", [records({"a": 0.2})[:1]], "sampled")
    with pytest.raises(ValueError, match="metric: got 'wins', expected one of win_rate, return_mean"):
        aggregate("mine", [records({"a": 0.2})], "greedy", "wins")
    with pytest.raises(ValueError, match="got no evaluations"):
        aggregate("mine", [], "greedy")


def test_read_evaluation__refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "not.json").write_text("[")
    (tmp_path / "dict.json").write_text("{}")
    for name, message in (("none.json", "no such file"), ("not.json", "no JSON"), ("dict.json", "no list of records")):
        with pytest.raises(ValueError, match=message):
            read_evaluation(tmp_path / name)


def test_command__sums_up_files_and_run_folders_by_name(tmp_path: Path) -> None:
    for seed, score in enumerate((0.4, 0.6)):
        (tmp_path / f"s{seed}").mkdir()
        (tmp_path / f"s{seed}" / "evaluation.json").write_text(json.dumps(records({"a": score})))
    files = [f"mine={tmp_path / 's0'}", f"mine={tmp_path / 's1' / 'evaluation.json'}", f"other={tmp_path / 's1'}"]
    result = CliRunner().invoke(app, ["aggregate", *files])
    assert result.exit_code == 0, result.output
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "mine greedy 2 1 0.500 (0.400 to 0.600) 0.500 (0.400 to 0.600)" in rows
    assert "other greedy 1 1 0.600 0.600" in rows
    failed = CliRunner().invoke(app, ["aggregate", str(tmp_path / "nothing")])
    assert failed.exit_code == 2
