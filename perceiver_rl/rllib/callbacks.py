"""RLlib callbacks: what an episode's end tells, as training metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from perceiver_rl.infos import numbers_in

OUTCOME_KEY = "outcome"


class EpisodeOutcomes(RLlibCallback):
    """Mean of every number in an episode's last info, e.g. `won` (its mean is the win rate).

    The means appear under `env_runners/outcome/<key>`. Of a multi-agent episode the numbers are those of each agent's last
    info, averaged over the agents of a policy, and appear under `env_runners/outcome/<module id>/<key>`. Like RLlib's own
    figures of episodes they are over the episodes that ended in an iteration, at most the last
    `metrics_num_episodes_for_smoothing` of them.
    """

    def on_episode_end(
        self,
        *,
        episode: SingleAgentEpisode | MultiAgentEpisode,
        prev_episode_chunks: Sequence[SingleAgentEpisode | MultiAgentEpisode],
        env_runner: Any,
        metrics_logger: MetricsLogger,
        **kwargs: Any,
    ) -> None:
        """Log the numbers of the episode's last info, or of each agent's last one."""
        config = env_runner.config
        window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / max(1, config.num_env_runners)))
        if not isinstance(episode, MultiAgentEpisode):
            for key, value in numbers_in(episode.get_infos(-1)).items():
                metrics_logger.log_value((OUTCOME_KEY, key), value, window=window)
            return
        # Who died in an earlier chunk is not in this one.
        last = {agent: each for chunk in (*prev_episode_chunks, episode) for agent, each in chunk.agent_episodes.items()}
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for each in last.values():
            for key, value in numbers_in(each.get_infos(-1) or {}).items():
                found[str(each.module_id), key].append(value)
        for (module, key), values in found.items():
            metrics_logger.log_value((OUTCOME_KEY, module, key), sum(values) / len(values), window=window)
