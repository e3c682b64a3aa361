"""The run of fires_ppo.py with the module and the learner of forecast.py."""

from fires_ppo import MODEL
from fires_ppo import make_config as make_fires_config
from forecast import ForecastLearner, ForecastModule
from ray.rllib.algorithms.ppo import PPOConfig

from perceiver_rl.rllib import module_spec


def make_config(total_env_steps: int = 30_000) -> PPOConfig:
    """The run's configuration."""
    return (
        make_fires_config(total_env_steps)
        .rl_module(rl_module_spec=module_spec(MODEL, module_class=ForecastModule))
        .learners(learner_class=ForecastLearner)
    )
