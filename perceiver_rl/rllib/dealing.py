"""Deal a config's environments out among more env runners than it has."""

from __future__ import annotations

import math

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig


def deal_out_environments(config: AlgorithmConfig) -> None:
    """Give each env runner so many environments that all of them together sample one train batch in an iteration.

    Only PPO's configs are changed, and only if they would sample more than that: PPO trains on what the newest weights
    sampled, which RLlib insists on. APPO and IMPALA take batches from as many environments as there are.

    Args:
        config: Changed in place: `num_envs_per_env_runner`.
    """
    length = config.rollout_fragment_length
    if not isinstance(config, PPOConfig) or not isinstance(length, int):
        return
    dealt = math.ceil(config.total_train_batch_size / (max(1, config.num_env_runners) * length))
    config.env_runners(num_envs_per_env_runner=min(config.num_envs_per_env_runner, dealt))
