"""RLlib callbacks: what an episode's end tells, as training metrics."""

from __future__ import annotations

import math
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from perceiver_rl.infos import numbers_in

OUTCOME_KEY = "outcome"


class EpisodeOutcomes(RLlibCallback):
    """Mean of every number in an episode's last info, e.g. `won` (its mean is the win rate).

    The means appear under `env_runners/outcome/<key>`. Like RLlib's own figures of episodes they are over the episodes that
    ended in an iteration, at most the last `metrics_num_episodes_for_smoothing` of them.
    """

    def on_episode_end(
        self, *, episode: SingleAgentEpisode, env_runner: Any, metrics_logger: MetricsLogger, **kwargs: Any
    ) -> None:
        """Log the numbers of the episode's last info."""
        config = env_runner.config
        window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / max(1, config.num_env_runners)))
        for key, value in numbers_in(episode.get_infos(-1)).items():
            metrics_logger.log_value((OUTCOME_KEY, key), value, window=window)
