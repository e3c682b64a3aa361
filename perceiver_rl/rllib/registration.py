"""Environments made known to RLlib by the names and import strings that `perceiver_rl.environments` understands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from gymnasium.vector import VectorEnv
from ray import tune

from perceiver_rl.environments import make_vector_env


def register_env(env: str) -> str:
    """Register an environment with RLlib and give back its name: `config.environment(register_env("smax/2s3z"))`.

    RLlib calls the creator with the config's `env_config` and the number of sub-environments; set
    `gym_env_vectorize_mode="vector_entry_point"`.

    Args:
        env: A name such as `"smax/2s3z"` or an import string `"module:callable"`.
    """
    tune.register_env(env, partial(_create, env))
    return env


def _create(env: str, context: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Of the module, not of the function above: Ray pickles creators, and this way it need not pickle code."""
    options = dict(context)
    return make_vector_env(env, options.pop("num_envs", 1), **options)
