"""Environments are dealt out among the env runners that a command asks for."""

from __future__ import annotations

import pytest

from perceiver_rl.rllib.run_folder import RunSettings
from perceiver_rl.rllib.training import build_config

PPO, APPO = "configs/smax_2s3z_ppo.py", "configs/smax_2s3z_appo.py"


def num_envs(config: str, *overrides: str) -> int:
    """Of each env runner; RLlib has nothing against it."""
    return int(build_config(RunSettings(config, None, 0, 1_000, overrides)).num_envs_per_env_runner)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), 128),
        (("env_runners.num_env_runners=0",), 128),
        (("env_runners.num_env_runners=2",), 64),
        (("env_runners.num_env_runners=3",), 43),
        (("env_runners.num_env_runners=4",), 32),
        (("env_runners.num_env_runners=16",), 8),
        (("env_runners.num_env_runners=4", "learners.num_learners=2"), 64),
        (("env_runners.num_env_runners=4", "training.train_batch_size_per_learner=16384"), 128),
        (("env_runners.num_env_runners=2", "env_runners.num_envs_per_env_runner=32"), 32),
        (("env_runners.num_env_runners = 2",), 64),
        (("env_runners.num_env_runners=4", "env_runners.rollout_fragment_length=auto"), 128),
    ],
)
def test_ppo__samples_one_batch_in_an_iteration(overrides: tuple[str, ...], expected: int) -> None:
    assert num_envs(PPO, *overrides) == expected


def test_appo__has_as_many_environments_in_each_env_runner() -> None:
    assert num_envs(APPO) == num_envs(APPO, "env_runners.num_env_runners=4") == 64


@pytest.mark.parametrize("equals", ["=", " = "])
def test_number_of_environments__that_is_asked_for_is_not_changed(equals: str) -> None:
    asked = ("env_runners.num_env_runners=4", f"env_runners.num_envs_per_env_runner{equals}128")
    with pytest.raises(ValueError, match="cannot be achieved with your other settings"):
        num_envs(PPO, *asked)
