"""RLlib callbacks: what an episode's end tells, and what was chosen, as training metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from perceiver_rl.entities import ACTION_MASK, EntityObservationSpace
from perceiver_rl.infos import numbers_in
from perceiver_rl.verbs import count_verbs

OUTCOME_KEY = "outcome"
VERBS_KEY = "verbs"


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


class VerbCounts(RLlibCallback):
    """How often each verb was chosen while sampling, absent actors left out.

    The counts appear under `env_runners/verbs/<verb>`, those of a multi-agent environment under
    `env_runners/verbs/<module id>/<verb>`. `perceiver-rl train` adds this callback to every config.
    """

    def on_sample_end(
        self, *, env_runner: Any, metrics_logger: MetricsLogger, samples: Sequence[Any], **kwargs: Any
    ) -> None:
        """Count the choices of all episode chunks; those of policies without a schema are left out."""
        counts: dict[tuple[str, ...], int] = defaultdict(int)
        for sample in samples:
            several = isinstance(sample, MultiAgentEpisode)
            for episode in sample.agent_episodes.values() if several else (sample,):
                module = env_runner.module[episode.module_id] if several else env_runner.module
                space = module.observation_space
                if isinstance(space, EntityObservationSpace) and len(episode):
                    key = (VERBS_KEY, str(episode.module_id)) if several else (VERBS_KEY,)
                    options = np.asarray(episode.get_actions())
                    for verb, count in count_verbs(space.schema, options, _action_masks(episode)).items():
                        counts[(*key, verb)] += count
        for name, count in counts.items():
            metrics_logger.log_value(name, count, reduce="sum")


def _action_masks(episode: SingleAgentEpisode) -> Bool[np.ndarray, "steps actors options"]:
    """Of all steps; RLlib's own runners give lists of observations, ours arrays."""
    seen = episode.get_observations(slice(0, len(episode)))
    return seen[ACTION_MASK] if isinstance(seen, dict) else np.stack([each[ACTION_MASK] for each in seen])
