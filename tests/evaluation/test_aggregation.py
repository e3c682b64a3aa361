from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from perceiver_rl.cli import app
from perceiver_rl.evaluation.aggregation import aggregate, bootstrap, interquartile_mean, read_evaluation


def records(scores: dict[str, float], policy: str = "run") -> list[dict[str, Any]]:
    """An evaluation: the run greedy and sampled (0.1 worse), beside a random policy."""
    kept = {"control": "centralized", "return_mean": 1.0, "seed": 0, "episodes": 64, "env_config": {}}
    rows = [{"env": env, "policy": policy, "mode": "greedy", "win_rate": score} | kept for env, score in scores.items()]
    rows += [each | {"mode": "sampled", "win_rate": each["win_rate"] - 0.1} for each in rows]
    return rows + [{"env": env, "policy": "random", "mode": "greedy", "win_rate": 0.0} | kept for env in scores]


def test_interquartile_mean__leaves_out_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])) == pytest.approx(3.5)


def test_aggregate__is_over_runs_and_environments_of_the_runs_own_policy() -> None:
    runs = [records({"a": 0.0, "b": 0.5}, "s0"), records({"b": 0.7, "a": 1.0}, "s1")]
    summed = aggregate("mine", runs, "greedy")
    assert (summed.runs, summed.envs) == (2, ("a", "b"))
    assert summed.mean.value == pytest.approx(0.55)
    assert summed.iqm.value == pytest.approx(0.6)  # of 0, 0.5, 0.7 and 1 the middle two
    assert aggregate("mine", runs, "sampled").mean.value == pytest.approx(0.45)


def test_aggregate__has_an_interval_of_five_runs_and_not_of_fewer() -> None:
    runs = [records({"a": score}) for score in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert aggregate("mine", runs[:4], "greedy").mean.interval is None
    interval = aggregate("mine", runs, "greedy").mean.interval
    assert interval is not None
    assert 0.1 < interval.low < 0.25 < 0.35 < interval.high < 0.5
    with pytest.raises(ValueError, match="got 1 run, expected at least two"):
        bootstrap(np.array([[0.2, 0.3]]), interquartile_mean)


@pytest.mark.parametrize("shared", [True, False])
def test_bootstrap__covers_the_mean_as_often_as_it_says(shared: bool) -> None:
    """Also where a run that goes wrong goes wrong in every environment."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        scores = random.normal(0.5, 0.1, (10, 1 if shared else 8)) + np.zeros((10, 8))
        interval = bootstrap(scores, lambda scores: scores.mean(axis=-1), repeats=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.8 <= covered / 200 <= 0.99  # a percentile interval of ten runs is a little too narrow


def test_aggregate__says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="got one run in a and another in b, expected the same environments"):
        aggregate("mine", [records({"a": 0.2}), records({"b": 0.2})], "greedy")
    with pytest.raises(ValueError, match="got no sampled record of 'run', expected one"):
        aggregate("mine", [records({"a": 0.2})[:1]], "sampled")
    with pytest.raises(ValueError, match="got no win_rate in a, which tells none; try --metric return_mean"):
        aggregate("mine", [[each | {"win_rate": None} for each in records({"a": 0.2})[:1]]], "greedy")
    with pytest.raises(ValueError, match="got the same evaluation twice"):
        aggregate("mine", [records({"a": 0.2}), records({"a": 0.2})], "greedy")
    apart = [each | {"control": "decentralized"} for each in records({"a": 0.3})]
    with pytest.raises(ValueError, match=r"differ in control \(centralized and decentralized\), expected the same"):
        aggregate("mine", [records({"a": 0.2}), apart], "greedy")
    with pytest.raises(ValueError, match="metric: got 'wins', expected one of win_rate, return_mean"):
        aggregate("mine", [records({"a": 0.2})], "greedy", "wins")
    with pytest.raises(ValueError, match="got no evaluations"):
        aggregate("mine", [], "greedy")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", 7, r"seed \(0 and 7\)"),
        ("episodes", 512, r"episodes \(64 and 512\)"),
        ("env_config", {"size": 9}, r"env_config \(\{\} and \{'size': 9\}\)"),
    ],
)
def test_aggregate__refuses_runs_that_were_not_evaluated_alike(field: str, value: object, message: str) -> None:
    def other(env: str) -> list[dict[str, Any]]:
        return [each | ({field: value} if each["env"] == env else {}) for each in records({"a": 0.3, "b": 0.4}, "s1")]

    runs = [records({"a": 0.2, "b": 0.3}, "s0"), other("b")]
    with pytest.raises(ValueError, match=f"aggregate of mine in b: got evaluations that differ in {message}, expected"):
        aggregate("mine", runs, "greedy")
    alike = [[each | {field: value} for each in run] for run in runs]
    assert aggregate("mine", alike, "greedy").mean.value == pytest.approx(0.3)


def test_aggregate__names_all_that_differs_and_what_is_not_told() -> None:
    runs = [records({"a": score}) for score in (0.1, 0.2)]
    for each in runs[1]:
        each["seed"] = 3
        del each["env_config"]
    with pytest.raises(ValueError, match=r"differ in seed \(0 and 3\), env_config \(\{\} and untold\), expected"):
        aggregate("mine", runs, "greedy")
    for each in runs[0]:
        each["seed"] = 3
        del each["env_config"]
    assert aggregate("mine", runs, "greedy").runs == 2  # all of them older than that field


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        *(("win_rate", value, "a number from 0 to 1, or null") for value in (np.nan, "0.5", True, -0.01, 1.01, [0.5])),
        *(("return_mean", value, "a finite number") for value in (np.nan, np.inf, "1", False, None, 10**400)),
        *(("episodes", value, "an integer of at least 1") for value in (0, 64.0, True, "64")),
        *(("seed", value, "an integer of at least 0") for value in (-1, False, None)),
        ("mode", "best", "one of greedy, sampled"),
        ("env", 3, "a name"),
        ("env_config", "{}", "a mapping"),
    ],
)
def test_read_evaluation__names_file_and_field_of_what_is_no_figure(
    field: str, value: object, expected: str, tmp_path: Path
) -> None:
    rows = records({"a": 0.4})
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(rows))
    assert read_evaluation(file) == rows
    rows[1][field] = value
    file.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=rf"evaluation\.json, record 2, {field}: got .*, expected {expected}"):
        read_evaluation(file)


def test_read_evaluation__takes_untold_wins_and_records_older_than_options(tmp_path: Path) -> None:
    rows = [each | {"win_rate": None} for each in records({"a": 0.4})]
    del rows[0]["env_config"]
    (tmp_path / "evaluation.json").write_text(json.dumps(rows))
    assert read_evaluation(tmp_path) == rows


def test_read_evaluation__refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "not.json").write_text("[")
    (tmp_path / "dict.json").write_text("{}")
    (tmp_path / "other.json").write_text('[{"env": "a"}]')
    (tmp_path / "list.json").write_text("[[1]]")
    (tmp_path / "long.json").write_text("[" + "1" * 5000 + "]")
    for name, message in (
        ("none.json", "no such file"),
        ("not.json", "no JSON"),
        ("dict.json", "no list of records"),
        ("other.json", "record 1: got no policy, expected a file of `perceiver-rl evaluate --json`"),
        ("list.json", r"record 1: got \[1\], expected a file"),
        ("long.json", "no JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            read_evaluation(tmp_path / name)


def test_command__sums_up_files_and_run_folders_by_name(tmp_path: Path) -> None:
    for seed, score in enumerate((0.4, 0.6)):
        (tmp_path / f"s{seed}").mkdir()
        (tmp_path / f"s{seed}" / "evaluation.json").write_text(json.dumps(records({"a": score})))
    (tmp_path / "s1").rename(tmp_path / "lr=s1")
    files = [f"mine={tmp_path / 's0'}", f"mine={tmp_path / 'lr=s1' / 'evaluation.json'}", f"other={tmp_path / 'lr=s1'}"]
    result = CliRunner().invoke(app, ["aggregate", *files])
    assert result.exit_code == 0, result.output
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "mine greedy 2 1 0.500 0.500" in rows
    assert "other greedy 1 1 0.600 0.600" in rows
    failed = CliRunner().invoke(app, ["aggregate", str(tmp_path / "nothing")])
    assert failed.exit_code == 2
