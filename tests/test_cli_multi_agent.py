"""The command line with many agents: train a policy for each kind, evaluate all together."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from perceiver_rl.cli import app
from perceiver_rl.environments import make_parallel_env
from perceiver_rl.rllib.config_file import register_for
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.training import build_config, prepare
from tests.parallel_environments import COURIER, PORTER

COMMAND = str(Path(sys.executable).parent / "perceiver-rl")
CONFIG = "tests/deliveries_config.py"
ROOT = Path(__file__).parent.parent


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def histogram_of(run: Path, tag: str) -> list[float]:
    """Heights of the last histogram of a tag."""
    events = EventAccumulator(str(run))
    events.Reload()
    return list(events.Histograms(tag)[-1].histogram_value.bucket)


def test_run__is_trained_and_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = _command("train", CONFIG, "--steps", "2048", "--out", str(run))
    assert trained.returncode == 0, trained.stderr
    last = json.loads((run / "progress.jsonl").read_text().splitlines()[-1])
    assert last["env_steps"] >= 2048
    assert last["outcome/delivered/courier"] > 0.5
    assert last["outcome/delivered/porter"] > 0.5
    for kind in ("courier", "porter"):
        assert last[f"actions/wait/{kind}"] + last[f"actions/deliver/{kind}"] == pytest.approx(1.0)
        assert histogram_of(run, f"actions/verbs/{kind}") == pytest.approx(
            [100 * last[f"actions/{verb}/{kind}"] for verb in ("wait", "deliver")]
        )
    assert "Pictures:   none, since the views of separate agents make no one picture" in trained.stderr
    assert not (run / "pictures").exists()

    file = run / "evaluation.json"
    evaluated = CliRunner().invoke(
        app, ["evaluate", str(run), "--episodes", "24", "--against", "random", "--json", str(file)]
    )
    assert evaluated.exit_code == 0, evaluated.output
    assert "mean return" in evaluated.stdout
    records = json.loads(file.read_text())
    assert [(record["policy"], record["mode"]) for record in records] == [
        ("run", "greedy"),
        ("run", "sampled"),
        ("random", "sampled"),
    ]
    greedy, _, random = records
    assert greedy["control"] == "per agent"
    assert greedy["episodes"] == math.ceil(24 / 12) * 12
    assert greedy["return_low"] > random["return_high"] > random["return_mean"] > random["return_per_agent_mean"]


def test_preparation__finds_the_policy_and_schema_of_each_agent(tmp_path: Path) -> None:
    run = prepare(RunSettings(CONFIG, env=None, seed=0, total_env_steps=100), RunFolder(tmp_path / "run"))
    assert run.schemas == {"courier": COURIER, "porter": PORTER}
    assert run.agents == {f"{kind}_{number}": kind for kind in ("courier", "porter") for number in range(4)}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (lambda agent, episode, **kwargs: "cook", r"got policy 'cook' for agent 'courier_0', expected one of"),
        (
            lambda agent, episode, **kwargs: "courier",
            r"got policy 'courier' for agents of several schemas, 'porter_0' among",
        ),
    ],
)
def test_preparation__refuses_a_mapping_that_cannot_be(
    mapping: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.deliveries_config.kind_of", mapping)
    settings = RunSettings("tests.deliveries_config:make_config", env=None, seed=0, total_env_steps=100)
    with pytest.raises(ValueError, match=rf"multi_agent\.policy_mapping_fn: {message}"):
        prepare(settings, RunFolder(tmp_path / "run"))


def test_another_environment__is_registered_in_the_form_that_the_config_samples_from() -> None:
    config = build_config(RunSettings(CONFIG, env="mpe/simple_tag", seed=0, total_env_steps=100))
    assert config.env == "mpe/simple_tag"
    assert register_for(config, "kaz/default") == "kaz/default"
    assert make_parallel_env(config.env).possible_agents[0] == "adversary_0"
