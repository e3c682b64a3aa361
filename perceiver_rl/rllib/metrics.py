"""RLlib's nested result of one training iteration as a flat table of readable names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from perceiver_rl.entities import EntitySchema
from perceiver_rl.verbs import shares, verb_names

# TensorBoard tag → where RLlib keeps the number. Tags are grouped by what they are asked for: how well does it play, what
# does the policy do, is the value right, is the optimiser healthy, where does the time go.
TAGS: dict[str, tuple[str, ...]] = {
    "outcome/win_rate": ("env_runners", "outcome", "won"),
    "outcome/return": ("env_runners", "episode_return_mean"),
    "outcome/episode_length": ("env_runners", "episode_len_mean"),
    "time/sampling_forward_s": ("env_runners", "sampling_s", "forward"),
    "time/sampling_env_s": ("env_runners", "sampling_s", "env"),
    "time/sampling_s": ("env_runners", "sampling_s", "total"),
    "time/learning_s": ("learners", "__all_modules__", "update_s"),
    "time/learning_batch_s": ("learners", "__all_modules__", "batch_s"),
    "time/learning_gradient_s": ("learners", "__all_modules__", "gradient_s"),
}
MODULE_TAGS: dict[str, str] = {
    "policy/entropy_per_actor": "entropy",
    "policy/kl": "mean_kl_loss",
    "policy/lag_kl": "lag_kl",
    "policy/clip_fraction": "clip_fraction",
    "policy/loss": "policy_loss",
    "policy/agreement": "agreement",
    "policy/mean_weight": "mean_weight",
    "value/loss": "vf_loss_unclipped",
    "value/explained_variance": "vf_explained_var",
    "optimizer/learning_rate": "default_optimizer_learning_rate",
    "optimizer/gradient_norm": "gradients_default_optimizer_global_norm",
}
"""The same for each policy, in its own part of RLlib's learner results."""
AUXILIARY = "auxiliary"
"""Group in a policy's learner results for the figures of a learner of your own; they appear as `auxiliary/<name>`."""
STEPS_TRAINED = "num_module_steps_trained"
LEARNERS = "learners"
ALL_MODULES = "__all_modules__"
OUTCOMES = ("env_runners", "outcome")
VERBS = ("env_runners", "verbs")
ACTIONS = "actions"
"""Group of the verbs' shares."""
MODULE_RETURNS = ("env_runners", "module_episode_returns_mean")
ENV_STEPS = ("env_runners", "num_env_steps_sampled_lifetime")


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one `Algorithm.train()` result by TensorBoard tag; those that are not there yet are left out.

    Every other number that episodes end with (see `EpisodeOutcomes`) appears as `outcome/<key>`, and what
    a learner logs under `(module id, "auxiliary", name)` as `auxiliary/<name>`. Where several policies
    train, those of each have its module id at the end: `policy/kl/<module>`, `outcome/return/<module>`,
    `outcome/<key>/<module>`. What `VerbCounts` counted appears as shares, `actions/<verb>`.

    An asynchronous algorithm has iterations in which a policy was not updated, and RLlib's mean over no updates is NaN: such
    a policy's figures are left out.
    """
    table = {tag: value for tag, path in TAGS.items() if (value := _find(result, path)) is not None}
    modules = [module for module in result.get(LEARNERS, {}) if module != ALL_MODULES]
    for module in modules:
        steps = _find(result, (LEARNERS, module, STEPS_TRAINED))
        if steps is not None and not steps > 0:
            continue
        ending = f"/{module}" if len(modules) > 1 else ""
        for tag, name in MODULE_TAGS.items():
            if (value := _find(result, (LEARNERS, module, name))) is not None:
                table[tag + ending] = value
        for name, value in (_find_group(result, (LEARNERS, module, AUXILIARY)) or {}).items():
            table[f"{AUXILIARY}/{name}{ending}"] = float(value)
    if len(modules) > 1:
        for module, value in (_find_group(result, MODULE_RETURNS) or {}).items():
            table[f"outcome/return/{module}"] = float(value)
    for key, value in (_find_group(result, OUTCOMES) or {}).items():
        if isinstance(value, Mapping):  # of a multi-agent episode: by module id
            for name, number in value.items():
                table[f"outcome/{name}/{key}" if len(modules) > 1 else f"outcome/{name}"] = float(number)
        elif key != "won":
            table[f"outcome/{key}"] = float(value)
    for module, counts in _by_module(_find_group(result, VERBS) or {}).items():
        ending = f"/{module}" if module and len(modules) > 1 else ""
        found = shares({verb: float(count) for verb, count in counts.items()})
        table |= {f"{ACTIONS}/{verb}{ending}": share for verb, share in found.items()}
    # RLlib's mean over no episodes or no updates at all is NaN.
    return {tag: value for tag, value in table.items() if not (tag.startswith(("outcome/", "time/")) and math.isnan(value))}


def env_steps(result: Mapping[str, Any]) -> int:
    """Environment steps since the run began: sampled by all env runners, or drawn from datasets; 0 before the first."""
    found = _find(result, ENV_STEPS)
    return int((_find(result, ENV_STEPS[-1:]) if found is None else found) or 0)


def verb_shares(numbers: Mapping[str, float], schema: EntitySchema, module: str) -> dict[str, float]:
    """How often a policy chose each verb in an iteration, in the schema's order; nothing if that is not known.

    Args:
        numbers: What `flatten` gave back.
        schema: The policy's.
        module: Its module id.
    """
    found = {}
    for verb in verb_names(schema):
        tag = f"{ACTIONS}/{verb}"
        share = numbers.get(f"{tag}/{module}", numbers.get(tag))
        if share is not None:
            found[verb] = share
    return found


def _by_module(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was logged for each module id; under `""` what a squad logged, which has no module ids."""
    return group if any(isinstance(value, Mapping) for value in group.values()) else {"": group}


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
