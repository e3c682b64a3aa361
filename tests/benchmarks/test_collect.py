"""Finished runs become small results, from which curves and tables are made as from the runs themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from benchmarks import breakdown, collect, curves

TOTAL = 3_000


def call(main: Any, *arguments: str) -> Result:
    app = Typer()
    app.command()(main)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def make_run(folder: Path, iterations: int = 3) -> Path:
    """What `train` and `evaluate` leave behind, in part."""
    folder.mkdir()
    settings = {"format": 1, "config": "configs/some.py", "seed": 5, "total_env_steps": TOTAL, "commit": "0123456789ab"}
    (folder / "run.json").write_text(json.dumps(settings))
    evaluation = [
        {"policy": folder.name, "mode": "greedy", "win_rate": 1.0},
        {"policy": folder.name, "mode": "sampled", "win_rate": 0.98828125},
        {"policy": "random", "mode": "sampled", "win_rate": 0.0},
    ]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    lines = []
    for index in range(1, iterations + 1):
        record = {"env_steps": 1_000.0 * index, "value/loss": 0.123456}
        record |= {key: 0.031201 * (position + 1) for position, key in enumerate(collect.KEPT)}
        record |= {"seconds": 1.001601 * index, "time/learning_s": 0.8, "outcome/win_rate": 0.5}
        if index == 1:  # no episode has ended yet
            del record["outcome/win_rate"], record["outcome/return"]
        lines.append(json.dumps(record) + "\n")
    (folder / "progress.jsonl").write_text("".join(lines))
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "demo")


def collected(run: Path, into: Path) -> Path:
    result = call(collect.main, f"perceiver-s5={run}", "--into", str(into))
    assert result.exit_code == 0, result.output
    return into / "perceiver-s5"


def test_collect__keeps_settings_evaluation_and_a_part_of_the_progress(run: Path, tmp_path: Path) -> None:
    result = collected(run, tmp_path / "results")
    assert sorted(path.name for path in result.iterdir()) == ["evaluation.json", "progress.jsonl", "run.json"]
    assert json.loads((result / "run.json").read_text()) == json.loads((run / "run.json").read_text())
    first, *_, last = [json.loads(line) for line in (result / "progress.jsonl").read_text().splitlines()]
    assert (last["env_steps"], last["seconds"], last["outcome/return"]) == (3_000, 3.0048, 0.0936)
    assert last.keys() == {"env_steps", *collect.KEPT}
    assert "outcome/win_rate" not in first


def test_collect__names_the_runs_own_policy_like_the_result(run: Path, tmp_path: Path) -> None:
    records = json.loads((collected(run, tmp_path / "results") / "evaluation.json").read_text())
    assert [record["policy"] for record in records] == ["perceiver-s5", "perceiver-s5", "random"]
    assert records[1]["win_rate"] == 0.98828125


def test_collect__without_a_name_takes_the_folders(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other")
    assert call(collect.main, str(run), str(other), "--into", str(tmp_path / "results")).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["demo", "other"]


def test_results__are_run_folders_to_breakdown_and_curves(run: Path, tmp_path: Path) -> None:
    result = collected(run, tmp_path / "results")
    tables = [call(breakdown.main, str(folder)) for folder in (run, result)]
    assert tables[0].exit_code == 0, tables[0].output
    assert tables[1].output == tables[0].output
    rows = [call(curves.main, str(tmp_path / "curves.png"), f"p={folder}") for folder in (run, result)]
    assert rows[0].exit_code == 0, rows[0].output
    assert rows[1].output.replace("perceiver-s5", "demo") == rows[0].output


def test_collected_again__a_result_stays_the_same(run: Path, tmp_path: Path) -> None:
    once = collected(run, tmp_path / "once")
    again = collected(once, tmp_path / "again")
    for file in once.iterdir():
        assert (again / file.name).read_text() == file.read_text()


def test_result__of_a_run_that_was_played_with_has_the_curve_of_that(run: Path, tmp_path: Path) -> None:
    played = [
        {"env_steps": 1_000 * number, "seconds": number, "outcome/win_rate": rate} for number, rate in ((1, 0.5), (2, 0.9))
    ]
    (run / "played.jsonl").write_text("".join(json.dumps(record) + "\n" for record in played))
    result = collected(run, tmp_path / "results")
    assert (result / "played.jsonl").read_text() == (run / "played.jsonl").read_text()
    table = call(curves.main, str(tmp_path / "curves.png"), f"p={result}").output
    assert "| p perceiver-s5 | 2,000 | 2 | 1,000 | 90.0 % |" in table


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").unlink(), "got no run.json, expected the folder of a run of `perceiver-rl train`"),
        (lambda run: (run / "evaluation.json").unlink(), "got no evaluation.json, expected the run's evaluation: `"),
        (lambda run: (run / "evaluation.json").write_text("[]"), "evaluation.json: got no list of records"),
        (lambda run: (run / "evaluation.json").write_text("["), "evaluation.json: got what is no JSON"),
        (lambda run: (run / "progress.jsonl").unlink(), "got no progress.jsonl, expected the folder of a run"),
        (lambda run: (run / "progress.jsonl").write_text('{"env_steps": 1}\n{"env'), "progress.jsonl, line 2: got what"),
        (lambda run: (run / "progress.jsonl").write_text(""), "progress.jsonl: got no records"),
        (
            lambda run: (run / "progress.jsonl").write_text('{"env_steps": 1000.0, "seconds": 1.0}\n'),
            "got 1,000 of 3,000 environment steps, expected a finished run: `perceiver-rl train configs/some.py --out",
        ),
    ],
    ids=["no run", "no evaluation", "empty evaluation", "torn evaluation", "no log", "torn log", "empty log", "unfinished"],
)
def test_collect__says_what_is_missing_and_writes_nothing(spoil: Any, message: str, run: Path, tmp_path: Path) -> None:
    good = make_run(tmp_path / "good")
    spoil(run)
    result = call(collect.main, str(good), str(run), "--into", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert message in result.output
    assert str(run) in result.output
    assert not (tmp_path / "results").exists()


def test_collect__refuses_two_results_of_one_name(run: Path, tmp_path: Path) -> None:
    result = call(collect.main, f"a={run}", f"a={run}", "--into", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert "got the names a, a, expected each once" in result.output


def test_committed_results__can_be_read() -> None:
    results = [folder.parent for folder in Path(__file__).parents[2].glob("benchmarks/results/*/*/run.json")]
    assert results
    for folder in results:
        collect.read_result(folder.name, folder)
    others = [each for each in results if each.parts[-2] == "kaz" or each.name.startswith(("bc", "marwil"))]
    squads = [each for each in results if each not in others]
    assert [call(breakdown.main, str(folder)).exit_code for folder in squads] == [0] * len(squads)
    told = [call(breakdown.main, str(folder)) for folder in others]
    assert [each.exit_code for each in told] == [2] * len(others)
    assert all("got no time/sampling_s in its log" in each.output for each in told)
