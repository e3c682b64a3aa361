"""What a run was asked to do, as TensorBoard shows it: text for readers, hyper-parameters for comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from perceiver_rl.entities import EntitySchema, Feature
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
    encoder = model.get(str(model.get("encoder")), {})
    found: dict[str, Any] = {
        "encoder": model.get("encoder"),
        "env": config.env,
        "latents": encoder.get("num_latents", 0),
        "learning_rate": _first(config.lr),
        "model/control": control,
        "model/critic": model.get("critic"),
        "model/joint": model.get("joint"),
        "model/token_dim": model.get("token_dim"),
        "model/width": encoder.get("latent_dim", encoder.get("model_dim")),
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
    return f"{_table(('asked for', ''), asked.items())}\n\n{_table(('RLlib setting', 'value'), sorted(changed.items()))}"


_TOLD_ELSEWHERE = {"env", "rl_module_spec", "seed", "policies"}


def model_text(model: Mapping[str, Any]) -> str:
    """A model's settings as Markdown; of the two encoders, the one in use."""
    other = {"perceiver": "transformer", "transformer": "perceiver"}.get(str(model.get("encoder")))
    return _table(("model setting", "value"), _flat({key: value for key, value in model.items() if key != other}))


def schema_text(schema: EntitySchema) -> str:
    """What a policy sees and may do, as Markdown."""
    types = [
        (each.name, each.max_count, "yes" if each.name in schema.actors else "no", _features(each.features))
        for each in schema.entity_types
    ]
    verbs = [(verb, "") for verb in schema.verbs] + [(verb.name, verb.target) for verb in schema.targeted_verbs]
    parts = [
        f"Control: **{schema.control}**. {schema.max_actors} actors at most, {schema.num_options} options for each.",
        _table(("entity type", "slots", "acts", "features and their ranges"), types),
        _table(("verb", "aimed at"), verbs),
    ]
    if schema.globals:
        parts.append(_table(("globals and their ranges",), [(_features(schema.globals),)]))
    return "\n\n".join(parts)


def _first(value: Any) -> Any:
    """The first value of a schedule such as `[[0, 1e-3], [500_000, 0.0]]`; anything else as it is."""
    return value[0][1] if isinstance(value, list) and value and isinstance(value[0], Sequence) else value


def _features(features: Iterable[Feature]) -> str:
    return ", ".join(f"{each.name} [{each.low:g}, {each.high:g}]" for each in features)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, type):
        value = f"{value.__module__}.{value.__qualname__}"
    return str(value).replace("\n", " ").replace("|", "\\|")
