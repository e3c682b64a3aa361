"""PPO on four SMAX maps at once, centralized control: one policy for squads of three to eight, to be tried on other maps.

Three marines, eight marines, two stalkers with three zealots, and five units of random kinds; docs/results.md has how it
does on maps that it never saw.
"""

from ray.rllib.algorithms.ppo import PPOConfig

from configs import smax_2s3z_ppo
from perceiver_rl.rllib import register_env

MAPS = ("3m", "8m", "2s3z", "smacv2_5_units")


def make_config(total_env_steps: int = 600_000) -> PPOConfig:
    """The run's configuration, that of 2s3z but for the maps, of which each is played in a quarter of the batch."""
    config = smax_2s3z_ppo.make_config(total_env_steps)
    return config.environment(register_env("+".join(f"smax/{name}" for name in MAPS)))
