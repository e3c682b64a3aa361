"""Training configs as Python files, and overrides of them; all mistakes are found before Ray starts."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from perceiver_rl.configuration import from_mapping, to_mapping, unknown_name
from perceiver_rl.environments import load
from perceiver_rl.policy.entity_policy import EntityPolicyConfig
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY
from perceiver_rl.rllib.registration import register_env, register_multi_agent_env

FACTORY = "make_config"
STEPS_ARGUMENT = "total_env_steps"
MODEL_SECTION = "model"
SECTIONS = (
    "environment",
    "env_runners",
    "learners",
    "offline_data",
    "training",
    "evaluation",
    "reporting",
    "debugging",
    "fault_tolerance",
)
"""Methods of `AlgorithmConfig` whose keyword arguments can be set, besides our `model`."""


def load_factory(config: str) -> Callable[..., AlgorithmConfig]:
    """The `make_config` function of a config.

    Args:
        config: Path of a Python file that defines `make_config(total_env_steps: int = …) -> AlgorithmConfig`, or an import
            string `"module:function"`.

    Raises:
        ValueError: If there is no such file or function, or it takes no `total_env_steps` with a default.
    """
    if ":" in config:
        factory = load(config)
    else:
        path = Path(config)
        if not path.is_file():
            folders = [path.parent, Path("configs")]
            found = [sorted(each.glob("*.py")) for each in folders if each.is_dir()]
            there = next(([str(each) for each in files if each.name != "__init__.py"] for files in found if files), [])
            raise ValueError(
                f"config: got {config!r}, which is no file; expected the path of a Python file that defines "
                f"{FACTORY}(), or an import string 'module:function'. Files here: {', '.join(there) or 'none'}"
            )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"config {config!r}: got a file that is not Python, expected one ending in .py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, FACTORY):
            raise ValueError(f"config {config!r}: got no function {FACTORY}(), expected it to return an AlgorithmConfig")
        factory = getattr(module, FACTORY)
    parameter = inspect.signature(factory).parameters.get(STEPS_ARGUMENT)
    if parameter is None or not isinstance(parameter.default, int):
        raise ValueError(
            f"config {config!r}: {FACTORY}() takes no argument '{STEPS_ARGUMENT}' with an integer default; expected "
            f"`def {FACTORY}({STEPS_ARGUMENT}: int = 1_000_000)`, the length of the run"
        )
    return factory


def default_steps(factory: Callable[..., AlgorithmConfig]) -> int:
    """The length of the run that a config asks for, in environment steps."""
    steps: int = inspect.signature(factory).parameters[STEPS_ARGUMENT].default
    return steps


def apply_overrides(config: AlgorithmConfig, overrides: list[str]) -> None:
    """Change a config by assignments such as `training.lr=3e-4` or `model.perceiver.num_latents=16`.

    The first name is `model`, for the fields of `EntityPolicyConfig`, or a method of RLlib's `AlgorithmConfig`, for that
    method's arguments. Numbers after an argument go into its lists, from 0: `training.lr.0.1=3e-4` is where a schedule
    `[[0, 1e-3], [500_000, 0.0]]` begins, while `training.lr=3e-4` is a constant in its place. Values are Python
    literals, or lists and objects of JSON; what is neither is a string.

    Raises:
        ValueError: If a name is unknown (the message lists the known ones) or a value has another type than the setting.
    """
    model: dict[str, Any] = {}
    for override in overrides:
        _, equals, text = override.partition("=")
        section, dot, key = setting_of(override).partition(".")
        if not equals or not dot or not key:
            raise ValueError(f"--set {override}: expected section.key=value, e.g. training.lr=3e-4")
        value = literal(text.strip())
        if section == MODEL_SECTION:
            *groups, leaf = key.split(".")
            target = model
            for group in groups:
                target = target.setdefault(group, {})
            target[leaf] = value
        elif section in SECTIONS:
            _set(config, section, key, value)
        else:
            raise ValueError(unknown_name(f"--set {override}: unknown section", section, (*SECTIONS, MODEL_SECTION)))
    if model:
        _set_model(config, model)


def setting_of(assignment: str) -> str:
    """The setting that an assignment changes: `training.lr` of `training.lr=3e-4`."""
    return assignment.partition("=")[0].strip()


def _set(config: AlgorithmConfig, section: str, path: str, value: Any) -> None:
    key, *places = path.split(".")
    known = _arguments(type(config), section)
    if key not in known:
        raise ValueError(unknown_name(f"--set {section}.{key}: unknown key", key, known))
    whole = deepcopy(getattr(config, key, None))
    current, part, place = whole, None, 0
    for text in places:
        part, place = _list_and_place(current, text, f"--set {section}.{path}")
        current = part[place]
    if isinstance(current, (bool, int, float, str)) and not _fits(current, value):
        raise ValueError(
            f"--set {section}.{path}: got {value!r} ({type(value).__name__}), expected {type(current).__name__} such as "
            f"{current!r}"
        )
    if isinstance(current, dict) and not isinstance(value, dict):
        raise ValueError(
            f"--set {section}.{path}: got {value!r} ({type(value).__name__}), expected a mapping as Python or JSON, e.g. "
            """'{"name": 1}'"""
        )
    if (section, path) == ("environment", "env"):
        value = register_for(config, value)
    if part is not None:
        part[place] = value
        value = whole
    getattr(config, section)(**{key: value})


def _list_and_place(current: Any, text: str, where: str) -> tuple[list[Any], int]:
    """A list, and the place in it that a part of a setting's name means."""
    if not isinstance(current, list):
        raise ValueError(f"{where}: got {text!r} behind {current!r}, expected nothing: only lists have places")
    if not text.isdecimal() or int(text) >= len(current):
        raise ValueError(f"{where}: got {text!r}, expected a place in {current!r}, from 0 to {len(current) - 1}")
    return current, int(text)


def register_for(config: AlgorithmConfig, env: str) -> str:
    """Register an environment in the form that a config samples from: vector for squads, parallel for many agents."""
    return register_multi_agent_env(env) if config.is_multi_agent else register_env(env)


def _fits(current: bool | int | float | str, value: Any) -> bool:
    """Whether a value can stand where `current` stands. Schedules (lists) may replace numbers, and None anything."""
    if value is None:
        return True
    if isinstance(current, bool) or isinstance(value, bool):
        return isinstance(current, bool) and isinstance(value, bool)
    if value == "auto":  # RLlib's word for several of its numbers; its own validation knows which
        return True
    if isinstance(current, int):
        return isinstance(value, (int, list))
    if isinstance(current, float):
        return isinstance(value, (int, float, list))
    return isinstance(value, str)


def _arguments(config_class: type[AlgorithmConfig], section: str) -> list[str]:
    """Keyword arguments of a config's method, those of the classes that it extends included."""
    names: dict[str, None] = {}
    for cls in config_class.__mro__:
        if section in vars(cls):
            for parameter in inspect.signature(vars(cls)[section]).parameters.values():
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    names[parameter.name] = None
    return list(names)


def _set_model(config: AlgorithmConfig, changes: dict[str, Any]) -> None:
    spec = config.rl_module_spec
    if not isinstance(spec, RLModuleSpec) or MODEL_CONFIG_KEY not in (spec.model_config or {}):
        raise ValueError("--set model.…: the config's RLModule is not the one of perceiver_rl.rllib.module.module_spec")
    merged = _merge(spec.model_config[MODEL_CONFIG_KEY], changes)
    model = to_mapping(from_mapping(EntityPolicyConfig, merged, MODEL_SECTION))
    config.rl_module(rl_module_spec=replace(spec, model_config={**spec.model_config, MODEL_CONFIG_KEY: model}))


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def literal(text: str) -> Any:
    """What a value means as it is written on the command line: a Python literal, a list or object of JSON, else a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
