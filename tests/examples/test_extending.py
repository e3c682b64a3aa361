"""The guide to extending: its code is the examples' files, and they work where there is nothing but the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "extending"
GUIDE = ROOT / "docs" / "extending.md"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))

# An editable install puts the checkout on the path: its other folders are made unimportable.
START = """
import runpy, sys
sys.modules.update(dict.fromkeys(["envs", "agents", "configs", "benchmarks", "tests"]))
del sys.argv[0]
"""
SCRIPT = START + "runpy.run_path(sys.argv[0], run_name='__main__')"
COMMAND = START + "from perceiver_rl.cli import main; main()"
TWO_ITERATIONS = START + "import wind_ppo; wind_ppo.ITERATIONS = 2; wind_ppo.run()"


@pytest.fixture
def game(tmp_path: Path) -> Path:
    """A folder with the examples' files alone; beside it, one with the library alone."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "perceiver_rl").symlink_to(ROOT / "perceiver_rl", target_is_directory=True)
    return Path(shutil.copytree(FOLDER, tmp_path / "game", ignore=shutil.ignore_patterns("__pycache__")))


def run(program: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(cwd.parent / "library"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(config: str, run_folder: str, *arguments: str, cwd: Path) -> list[dict[str, float]]:
    """The progress of a run, one record an iteration."""
    run(COMMAND, "perceiver-rl", "train", config, "--out", run_folder, "--no-pictures", *arguments, cwd=cwd)
    return [json.loads(line) for line in (cwd / run_folder / "progress.jsonl").read_text().splitlines()]


def evaluate(run_folder: str, *arguments: str, cwd: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Records by policy and mode."""
    run(COMMAND, "perceiver-rl", "evaluate", run_folder, "--json", "evaluation.json", *arguments, cwd=cwd)
    return {(each["policy"], each["mode"]): each for each in json.loads((cwd / "evaluation.json").read_text())}


@pytest.mark.parametrize("name", FILES)
def test_guide__shows_each_file_as_it_is(name: str) -> None:
    assert f"`{name}`" in GUIDE.read_text()
    assert f"```python\n{(FOLDER / name).read_text()}```\n" in GUIDE.read_text()


def test_guide__shows_no_other_python() -> None:
    assert GUIDE.read_text().count("```python\n") == len(FILES)


@pytest.mark.parametrize("script", ["check_fires.py", "check_foraging.py"])
def test_checks__find_nothing_to_complain_of(script: str, game: Path) -> None:
    reports = run(SCRIPT, script, cwd=game).splitlines()
    assert reports
    assert all(report.startswith("EntityEnvReport(num_episodes=") for report in reports)


@pytest.mark.slow
def test_fires__train_and_are_evaluated_beside_a_random_policy(game: Path) -> None:
    progress = train("fires_ppo.py", "runs/fires", "--steps", "1500", cwd=game)
    assert len(progress) == 2
    records = evaluate("runs/fires", "--episodes", "32", "--against", "random", cwd=game)
    assert set(records) == {("fires", "greedy"), ("fires", "sampled"), ("random", "sampled")}
    assert all(0 <= record["win_rate"] <= 1 for record in records.values())
    assert list((game / "runs" / "fires").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_fires__are_learned_in_thirty_thousand_steps(game: Path) -> None:
    train("fires_ppo.py", "runs/fires", cwd=game)
    records = evaluate("runs/fires", "--episodes", "128", "--against", "random", cwd=game)
    assert records["fires", "greedy"]["return_mean"] > 0.8
    assert records["random", "sampled"]["return_mean"] < 0.4


@pytest.mark.slow
def test_foraging__is_learned_by_parallel_agents(game: Path) -> None:
    train("foraging_ppo.py", "runs/foraging", cwd=game)
    records = evaluate("runs/foraging", "--episodes", "64", "--against", "random", cwd=game)
    assert records["foraging", "sampled"]["return_mean"] > 1.25 * records["random", "sampled"]["return_mean"]


@pytest.mark.slow
def test_forecast__is_learned_beside_the_policy_and_read_from_a_checkpoint(game: Path) -> None:
    progress = train("forecast_ppo.py", "runs/forecast", "--steps", "20000", cwd=game)
    assert progress[-1]["auxiliary/forecast_error"] < 0.8 * progress[-1]["auxiliary/forecast_error_of_a_constant"]
    assert len(run(SCRIPT, "show_forecast.py", "runs/forecast", cwd=game).splitlines()) == 9
    assert evaluate("runs/forecast", "--episodes", "16", cwd=game)


@pytest.mark.slow
def test_wind__trains_two_kinds_of_policy(game: Path) -> None:
    first, second = run(TWO_ITERATIONS, "wind_ppo.py", cwd=game).splitlines()
    assert first.startswith("1 ")
    assert "'squad'" in second
    assert "'wind'" in second
