"""Models and environments made known to RLlib by name, so that a config need not import them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from ray import tune
from ray.rllib.models.catalog import ModelCatalog

from perceiver_rl.environments import known_names, make_env, make_parallel_env, make_vector_env
from perceiver_rl.rllib.model_v2 import MODEL_NAME, PerceiverModelV2, SquadActionDistribution
from perceiver_rl.rllib.multi_agent_env import ParallelMultiAgentEnv


def register() -> None:
    """Make our environments and, for the old API stack, our model known to RLlib by name.

    After it a config of either stack can say `.environment("smax/2s3z")` with every name of the checkout's `envs.registry`
    whose extra is installed. Environments that are multi-agent alone, such as `kaz/default`, are registered as that. Where
    the library is installed without a checkout there are no such names; environments of your own go through `register_env`.
    A config of the old stack can say `custom_model: "perceiver"` and `custom_action_dist: "perceiver"`. The new stack knows
    no models by name: there it is `module_spec`.

    RLlib tells all processes of a Ray session what one of them has registered, and forgets it with `ray.shutdown()`. Call
    this as often as you like.
    """
    ModelCatalog.register_custom_model(MODEL_NAME, PerceiverModelV2)
    ModelCatalog.register_custom_action_dist(MODEL_NAME, SquadActionDistribution)
    single = set(known_names("env"))
    for name in known_names():
        if name in single:
            register_env(name)
        else:
            register_multi_agent_env(name)


def register_env(env: str) -> str:
    """Register an environment with RLlib and give back its name: `config.environment(register_env("smax/2s3z"))`.

    RLlib then gets what it asks for, made with the config's `env_config` as options:

    - with `gym_env_vectorize_mode="vector_entry_point"` (new stack, the fast way) one native vector environment. An import
      string's callable is called as `callable(num_envs=…, **env_config)`;
    - in every other case (old stack, `gym_env_vectorize_mode="sync"`, multi-agent) single environments, of which RLlib makes
      batches. An import string's callable is called as `callable(**env_config)`.

    A name works in all of these. An import string works where its callable returns what is asked for; it may do both, by
    `def make(num_envs: int | None = None, **options)`.

    Args:
        env: A name such as `"smax/2s3z"` or an import string `"module:callable"`.
    """
    tune.register_env(env, partial(_create, env))
    return env


def _create(env: str, context: Mapping[str, Any]) -> VectorEnv[Any, Any, Any] | gymnasium.Env[Any, Any]:
    """What RLlib asks for: it names a number of environments only where it wants a vector environment.

    Of the module, not of the function above: Ray pickles creators, and this way it need not pickle code.
    """
    options = dict(context)
    if "num_envs" in options:
        return make_vector_env(env, options.pop("num_envs"), **options)
    return make_env(env, **options)


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
