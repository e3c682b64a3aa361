"""A small run on couriers, the environment of `tests/environments.py`; nothing here needs Ray to be running."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.evaluation.collect import collect
from perceiver_rl.rllib.callbacks import EpisodeOutcomes
from perceiver_rl.rllib.env_runner import VectorEnvRunner
from perceiver_rl.rllib.learners import SquadPPOLearner
from perceiver_rl.rllib.module import module_spec
from perceiver_rl.rllib.registration import register_env

MakeConfig = Callable[..., PPOConfig]


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """PPO on couriers in this process; keyword arguments are settings of `PPOConfig.training`."""

    def make(num_envs: int = 64, **training: Any) -> PPOConfig:
        return (
            PPOConfig()
            .environment(register_env("tests.environments:make_couriers"))
            .env_runners(
                env_runner_cls=VectorEnvRunner,
                gym_env_vectorize_mode="vector_entry_point",
                num_env_runners=0,
                num_envs_per_env_runner=num_envs,
                rollout_fragment_length=16,
            )
            .rl_module(rl_module_spec=module_spec(preset("tiny")))
            .callbacks(EpisodeOutcomes)
            .training(
                **{
                    "lr": 3e-3,
                    "gamma": 0.5,
                    "train_batch_size_per_learner": 16 * num_envs,
                    "minibatch_size": 4 * num_envs,
                    "num_epochs": 4,
                    "vf_clip_param": float("inf"),
                    "vf_loss_coeff": 0.5,
                    "entropy_coeff": 0.01,
                    "use_kl_loss": False,
                    "grad_clip": 0.5,
                    **training,
                }
            )
            .learners(learner_class=SquadPPOLearner)
            .debugging(seed=0)
            .reporting(metrics_num_episodes_for_smoothing=200)
        )

    return make


@pytest.fixture(scope="session")
def expert_couriers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of couriers who all deliver where they should: 256 episodes, about 640 steps."""
    return _collected("tests.couriers_expert:Expert", 256, tmp_path_factory)


@pytest.fixture(scope="session")
def muddled_couriers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of couriers who wait more often than anything else: 1,024 episodes, about 2,560 steps."""
    return _collected("tests.couriers_expert:Muddler", 1024, tmp_path_factory)


def _collected(agent: str, episodes: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets") / "couriers"
    collect(agent, folder, env="tests.environments:make_couriers", episodes=episodes, seed=0, greedy=False)
    return folder
