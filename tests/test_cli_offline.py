"""The command line without play: episodes are collected, a policy is trained on them, and evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perceiver_rl.cli import app

COMMAND = str(Path(sys.executable).parent / "perceiver-rl")
CONFIG = "tests/courier_bc_config.py"
ROOT = Path(__file__).parent.parent
ENV = "tests.environments:make_couriers"


def collected(folder: Path) -> Path:
    arguments = ["collect", "tests.couriers_expert:Expert", str(folder), "--env", ENV, "--episodes", "256"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Episodes:   256 of 640 steps, mean return 2.50" in result.stderr
    assert f"Dataset:    {folder}" in result.stderr
    return folder


def train(run: Path, *arguments: str) -> str:
    done = subprocess.run(
        [COMMAND, "train", CONFIG, "--out", str(run), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def progress(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]


def test_run__learns_from_what_was_collected_and_is_evaluated(tmp_path: Path) -> None:
    dataset, run = collected(tmp_path / "couriers"), tmp_path / "run"
    train(run, "--no-pictures", "--set", f"offline_data.input_={dataset}", "--checkpoint-every", "8000")
    lines = progress(run)
    assert [each["env_steps"] for each in lines] == list(range(1_024, 20_481, 1_024))
    assert lines[0]["policy/agreement"] < 0.6
    assert lines[-1]["policy/agreement"] > 0.95
    assert lines[-1]["optimizer/learning_rate"] < lines[0]["optimizer/learning_rate"] / 10
    assert (run / "checkpoints" / "checkpoint_0000008192").is_dir()
    assert "Nothing to do: this run is complete" in train(run, "--resume", "--no-pictures")

    file = run / "evaluation.json"
    evaluated = CliRunner().invoke(app, ["evaluate", str(run), "--episodes", "64", "--json", str(file)])
    assert evaluated.exit_code == 0, evaluated.output
    greedy = json.loads(file.read_text())[0]
    assert (greedy["mode"], greedy["env"]) == ("greedy", ENV)
    assert greedy["return_mean"] > 0.9 * greedy["length_mean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", CONFIG],
            "dataset datasets/couriers: does not exist; expected a folder that was made by `perceiver-rl collect",
        ),
        (["train", "tests/courier_config.py", "--set", "offline_data.inputs=x"], "unknown key 'inputs'"),
        (["collect", "heuristic", "OUT"], "policy 'heuristic': expected --env"),
        (["collect", "runs/none", "OUT"], "policy runs/none: does not exist"),
    ],
)
def test_commands__say_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    monkeypatch.chdir(ROOT)
    there = [str(tmp_path / "out") if each == "OUT" else each for each in arguments]
    result = CliRunner().invoke(app, [*there, "--out", str(tmp_path / "run")] if arguments[0] == "train" else there)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_train__refuses_a_dataset_of_another_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    monkeypatch.chdir(ROOT)
    dataset = collected(tmp_path / "couriers")
    result = CliRunner().invoke(
        app,
        ["train", CONFIG, "--env", "task/xor", "--set", f"offline_data.input_={dataset}", "--out", str(tmp_path / "run")],
    )
    assert result.exit_code == 2, result.output
    assert f"dataset {dataset}: the environment 'task/xor' has another schema: entity types: got" in result.stderr
    assert not (tmp_path / "run").exists()
