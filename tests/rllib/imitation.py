"""Small offline runs on couriers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.marwil import MARWILConfig

from agents.presets import preset
from perceiver_rl.evaluation import PolicyAgent, evaluate
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner, SquadMARWILLearner, module_spec, register_env
from perceiver_rl.rllib.recorded_episodes import take_recordings
from tests.environments import CourierVectorEnv

COURIERS_ENV = "tests.environments:make_couriers"
BATCH = 256
CONFIGS = {SquadBCLearner: BCConfig, SquadMARWILLearner: MARWILConfig}

Learner = SquadBCLearner | SquadMARWILLearner


def make_config(
    learner_class: type[Learner], *datasets: Path, settings: dict[str, Any] | None = None, **training: Any
) -> MARWILConfig:
    """An offline config on couriers; `settings` are those of the learner, `training` those of RLlib."""
    config_class = next(config for known, config in CONFIGS.items() if issubclass(learner_class, known))
    config = config_class().environment(register_env(COURIERS_ENV))
    if config_class is MARWILConfig:
        config.training(
            gamma=0.5, vf_coeff=0.5, moving_average_sqd_adv_norm_start=0.1, moving_average_sqd_adv_norm_update_rate=0.05
        )
    config.training(
        **{
            "lr": 3e-3,
            "train_batch_size_per_learner": BATCH,
            "grad_clip": 0.5,
            "grad_clip_by": "global_norm",
            **training,
        }
    )
    config.learners(learner_class=learner_class, learner_config_dict=settings or {})
    config.offline_data(
        input_=[str(path) for path in datasets], offline_data_class=RecordedEpisodes, dataset_num_iters_per_learner=1
    )
    config.rl_module(rl_module_spec=module_spec(preset("tiny"))).debugging(seed=0)
    if datasets:
        take_recordings(config)
    return config


def score(policy: EntityPolicy) -> float:
    """The fraction of right deliveries over 128 episodes, greedy; chance is 0.25."""
    records = evaluate(PolicyAgent(policy), CourierVectorEnv(64), episodes_per_env=2, seed=0, greedy=True)
    return float(np.mean([record.total_reward / record.length for record in records]))
