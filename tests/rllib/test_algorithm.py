"""A whole PPO run on couriers: saved and restored, it goes on as if nothing had happened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from perceiver_rl.rllib.learners import SquadPPOLearner
from tests.rllib.conftest import MakeConfig
from tests.rllib.running import running

pytestmark = pytest.mark.usefixtures("ray_local")

TOTAL_STEPS = 1000
STEPS = 16 * 8
"""Of one iteration."""


def _learner(algorithm: Algorithm) -> SquadPPOLearner:
    return algorithm.learner_group._learner


def _parameters(algorithm: Algorithm) -> dict[str, Tensor]:
    module = _learner(algorithm).module[DEFAULT_MODULE_ID].unwrapped()
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _optimizer_state(algorithm: Algorithm) -> list[Tensor]:
    (optimizer,) = _learner(algorithm)._named_optimizers.values()
    return [value.clone() for each in optimizer.state_dict()["state"].values() for value in each.values()]


def _learning_rate(algorithm: Algorithm) -> float:
    (optimizer,) = _learner(algorithm)._named_optimizers.values()
    return float(optimizer.param_groups[0]["lr"])


def _counter(result: dict[str, Any]) -> float:
    return result["num_env_steps_sampled_lifetime"]


def test_algorithm__goes_on_from_a_checkpoint_as_if_nothing_had_happened(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(num_envs=8, lr=[[0, 1e-2], [TOTAL_STEPS, 0.0]])
    with running(config) as algorithm:
        for _ in range(3):
            result = algorithm.train()
        algorithm.save_to_path(tmp_path / "checkpoint")
        parameters, optimizer_state = _parameters(algorithm), _optimizer_state(algorithm)
        learning_rate, iteration, steps = _learning_rate(algorithm), algorithm.iteration, _counter(result)
    assert steps == pytest.approx(3 * STEPS, abs=8)
    assert learning_rate == pytest.approx(1e-2 * (1 - steps / TOTAL_STEPS))

    with running(config.copy(copy_frozen=False).debugging(seed=1)) as resumed:
        assert not all(torch.equal(value, parameters[name]) for name, value in _parameters(resumed).items())
        resumed.restore_from_path(str(tmp_path / "checkpoint"))
        assert resumed.iteration == iteration
        restored = _parameters(resumed)
        for name, value in parameters.items():
            assert torch.equal(restored[name], value), name
        on_runner = resumed.env_runner.module.state_dict()
        for name, value in restored.items():
            assert torch.equal(on_runner[name], value), name
        restored_state = _optimizer_state(resumed)
        assert len(restored_state) == len(optimizer_state) > 0
        for value, expected in zip(restored_state, optimizer_state, strict=True):
            assert torch.equal(value, expected)
        assert _learning_rate(resumed) == learning_rate
        result = resumed.train()
        assert _counter(result) == pytest.approx(steps + STEPS, abs=8)
        assert resumed.iteration == iteration + 1
        assert _learning_rate(resumed) == pytest.approx(1e-2 * (1 - _counter(result) / TOTAL_STEPS))


def test_algorithm__reports_what_a_training_needs_to_know(make_config: MakeConfig) -> None:
    with running(make_config(num_envs=8, use_kl_loss=True)) as algorithm:
        result = algorithm.train()
    runners, learner = result["env_runners"], result["learners"][DEFAULT_MODULE_ID]
    for key in ("episode_return_mean", "episode_len_mean", "num_env_steps_sampled_lifetime"):
        assert np.isfinite(runners[key]), key
    assert 0 <= runners["outcome"]["score"] <= 1
    for key in ("policy_loss", "vf_loss", "vf_explained_var", "entropy", "mean_kl_loss", "clip_fraction"):
        assert np.isfinite(learner[key]), key
    assert 0 < learner["entropy"] < np.log(6)  # nats of one courier, not of all
