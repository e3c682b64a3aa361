"""RLlib's nested result of one training iteration as a flat table of readable names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# TensorBoard tag → where RLlib keeps the number. Tags are grouped by what they are asked for: how well does it play, what
# does the policy do, is the value right, is the optimiser healthy, where does the time go.
MODULE = ("learners", "default_policy")
TAGS: dict[str, tuple[str, ...]] = {
    "outcome/win_rate": ("env_runners", "outcome", "won"),
    "outcome/return": ("env_runners", "episode_return_mean"),
    "outcome/episode_length": ("env_runners", "episode_len_mean"),
    "policy/entropy_per_actor": (*MODULE, "entropy"),
    "policy/kl": (*MODULE, "mean_kl_loss"),
    "policy/clip_fraction": (*MODULE, "clip_fraction"),
    "policy/loss": (*MODULE, "policy_loss"),
    "value/loss": (*MODULE, "vf_loss_unclipped"),
    "value/explained_variance": (*MODULE, "vf_explained_var"),
    "optimizer/learning_rate": (*MODULE, "default_optimizer_learning_rate"),
    "optimizer/gradient_norm": (*MODULE, "gradients_default_optimizer_global_norm"),
    "time/sampling_forward_s": ("env_runners", "sampling_s", "forward"),
    "time/sampling_env_s": ("env_runners", "sampling_s", "env"),
    "time/sampling_s": ("env_runners", "sampling_s", "total"),
    "time/learning_s": ("learners", "__all_modules__", "update_s"),
    "time/learning_batch_s": ("learners", "__all_modules__", "batch_s"),
    "time/learning_gradient_s": ("learners", "__all_modules__", "gradient_s"),
}
OUTCOMES = ("env_runners", "outcome")
ENV_STEPS = ("env_runners", "num_env_steps_sampled_lifetime")


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one `Algorithm.train()` result by TensorBoard tag; those that are not there yet are left out.

    Every other number that episodes end with (see `EpisodeOutcomes`) appears as `outcome/<key>`.
    """
    table = {tag: value for tag, path in TAGS.items() if (value := _find(result, path)) is not None}
    for key, value in (_find_group(result, OUTCOMES) or {}).items():
        if key != "won":
            table[f"outcome/{key}"] = float(value)
    # RLlib's mean over no episodes at all is NaN.
    return {tag: value for tag, value in table.items() if not (tag.startswith("outcome/") and math.isnan(value))}


def env_steps(result: Mapping[str, Any]) -> int:
    """Environment steps sampled since the run began, over all env runners; 0 before the first."""
    return int(_find(result, ENV_STEPS) or 0)


def _find(result: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    *groups, name = path
    group = _find_group(result, tuple(groups))
    return float(group[name]) if group is not None and name in group else None


def _find_group(result: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    for name in path:
        if name not in result:
            return None
        result = result[name]
    return result
