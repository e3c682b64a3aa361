"""What a run was asked to do, as TensorBoard shows it: text for readers, hyper-parameters for comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from perceiver_rl.descriptions import model_parameters, table_text
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY
from perceiver_rl.rllib.run_folder import RunSettings

METRICS = (
    "outcome/win_rate",
    "outcome/return",
    "outcome/episode_length",
    "policy/entropy_per_actor",
    "value/explained_variance",
    "time/env_steps_per_second",
)
"""Scalars whose last values stand beside the hyper-parameters."""

_TRAINING = (
    "gamma",
    "lambda_",
    "train_batch_size_per_learner",
    "minibatch_size",
    "num_epochs",
    "clip_param",
    "entropy_coeff",
    "vf_loss_coeff",
    "num_env_runners",
    "num_envs_per_env_runner",
)


def hyper_parameters(config: AlgorithmConfig, settings: RunSettings, control: str) -> dict[str, bool | int | float | str]:
    """The hyper-parameters by which runs are told apart, under names that are the same for both encoders; the text has all.

    TensorBoard sorts them by name and shows the first five. A schedule counts as its first value. Of several policies, the
    model is the first one's. What an algorithm does not have, or is None, is left out.
    """
    model = next(iter(models(config).values()), {})
    found: dict[str, Any] = {
        **model_parameters(model),
        "env": config.env,
        "learning_rate": _first(config.lr),
        "model/control": control,
        "seed": settings.seed,
        "total_env_steps": settings.total_env_steps,
        "training/algorithm": type(config).__name__.removesuffix("Config"),
        **{f"training/{key}": _first(getattr(config, key, None)) for key in _TRAINING},
    }
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def models(config: AlgorithmConfig) -> dict[str, dict[str, Any]]:
    """Settings of the model of each policy that is one of ours, by module id; of the only one, by `""`."""
    spec = config.rl_module_spec
    specs: Mapping[str, Any] = {}
    if isinstance(spec, MultiRLModuleSpec) and isinstance(spec.rl_module_specs, Mapping):
        specs = spec.rl_module_specs
    elif isinstance(spec, RLModuleSpec):
        specs = {"": spec}
    found = {module: (each.model_config or {}).get(MODEL_CONFIG_KEY) for module, each in specs.items()}
    return {module: model for module, model in found.items() if model is not None}


def processes_text(config: AlgorithmConfig) -> str:
    """A run's env runners and learners, in words; empty if both are in the driver."""
    runners, learners = config.num_env_runners, config.num_learners
    parts = []
    if runners:
        parts.append(f"{runners} env runner{'s' * (runners > 1)} of {config.num_envs_per_env_runner} environments each")
    if learners:
        parts.append(f"{learners} learner{'s' * (learners > 1)}")
    return ", ".join(parts)


def settings_text(settings: RunSettings, config: AlgorithmConfig) -> str:
    """What was asked for on the command line, and what of RLlib's config differs from its defaults, as Markdown."""
    asked = {
        "config": settings.config,
        "environment": config.env,
        "seed": settings.seed,
        "environment steps": settings.total_env_steps,
        "overrides": " ".join(settings.overrides) or "none",
    }
    defaults = type(config)().to_dict()
    changed = {key: value for key, value in config.to_dict().items() if repr(value) != repr(defaults.get(key))}
    changed = {key: value for key, value in changed.items() if key not in _TOLD_ELSEWHERE and not key.startswith("_")}
    tables = [table_text(("asked for", ""), asked.items()), table_text(("RLlib setting", "value"), sorted(changed.items()))]
    return "\n\n".join(tables)


_TOLD_ELSEWHERE = {"env", "rl_module_spec", "seed", "policies"}


def _first(value: Any) -> Any:
    """The first value of a schedule such as `[[0, 1e-3], [500_000, 0.0]]`; anything else as it is."""
    return value[0][1] if isinstance(value, list) and value and isinstance(value[0], Sequence) else value
