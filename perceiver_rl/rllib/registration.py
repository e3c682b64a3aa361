"""Environments made known to RLlib by the names and import strings that `perceiver_rl.environments` understands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from gymnasium.vector import VectorEnv
from ray import tune

from perceiver_rl.environments import make_parallel_env, make_vector_env
from perceiver_rl.rllib.multi_agent_env import ParallelMultiAgentEnv


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


def register_multi_agent_env(env: str) -> str:
    """Register a PettingZoo parallel environment with RLlib and give back its name: one RLlib agent for each of its agents.

    RLlib calls the creator with the config's `env_config`, which are the environment's options. The config needs
    `multi_agent(policies=…, policy_mapping_fn=…)`. A `MultiAgentEnv` of your own needs none of this: the module takes its
    schema from the observation spaces.

    Args:
        env: A name such as `"kaz/default"` or an import string `"module:callable"`, which is called with the options and
            returns a parallel environment whose observation spaces carry a schema, e.g. an `EntityParallelEnv`.
    """
    tune.register_env(env, partial(_create_multi_agent, env))
    return env


def _create_multi_agent(env: str, context: Mapping[str, Any]) -> ParallelMultiAgentEnv:
    return ParallelMultiAgentEnv(make_parallel_env(env, **context))
