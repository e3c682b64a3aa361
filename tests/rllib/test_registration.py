"""Environments and models by name: one name serves both API stacks and every way to make batches."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, RLLIB_ACTION_DIST, RLLIB_MODEL, _global_registry

from agents.presets import preset
from envs import registry
from envs.registry import Family
from perceiver_rl import environments
from perceiver_rl.configuration import to_mapping
from perceiver_rl.rllib import ParallelMultiAgentEnv, module_spec, register, register_env
from perceiver_rl.rllib.model_v2 import PerceiverModelV2, SquadActionDistribution
from tests.environments import CourierVectorEnv
from tests.rllib.single_couriers import CourierEnv

NAME = "couriers/four"
SINGLE = "tests.rllib.single_couriers:make_couriers"
OLD_STACK = {"enable_rl_module_and_learner": False, "enable_env_runner_and_connector_v2": False}


@pytest.fixture
def couriers(monkeypatch: pytest.MonkeyPatch) -> str:
    """A family of the checkout's registry that costs nothing to build."""
    family = Family("couriers_family:make_vec", "couriers_family:make", "couriers_family:members")
    module = ModuleType("couriers_family")
    module.members = lambda: ["four"]  # type: ignore[attr-defined]
    module.make = lambda member: CourierEnv()  # type: ignore[attr-defined]
    module.make_vec = lambda member, num_envs: CourierVectorEnv(num_envs)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "couriers_family", module)
    monkeypatch.setitem(registry.FAMILIES, "couriers", family)
    return NAME


def _registered(name: str, **context: Any) -> Any:
    """What RLlib gets that asks its registry."""
    return _global_registry.get(ENV_CREATOR, name)(context)


# -- which environment -----------------------------------------------------------------------------------------


def test_register__makes_every_name_and_the_old_stacks_model_known(couriers: str) -> None:
    register()
    assert _global_registry.get(RLLIB_MODEL, "perceiver") is PerceiverModelV2
    assert _global_registry.get(RLLIB_ACTION_DIST, "perceiver") is SquadActionDistribution
    for name in ("smax/2s3z", "smax/smacv2_10_units", couriers):
        assert _global_registry.contains(ENV_CREATOR, name), name
    register()  # again
    assert isinstance(_registered(couriers, num_envs=3), CourierVectorEnv)


def test_register__leaves_out_families_without_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def members() -> list[str]:
        raise ImportError("run: pip install 'perceiver-rl[chess]'")

    module = ModuleType("chess_family")
    module.members = members  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chess_family", module)
    monkeypatch.setitem(registry.FAMILIES, "chess", Family("chess_family:A", "chess_family:B", "chess_family:members"))
    assert "chess/…" in registry.names()
    known = environments.known_names()
    assert "smax/2s3z" in known
    assert not any("chess" in name for name in known)
    register()  # Ray would refuse the sign


def test_register__knows_what_is_multi_agent_alone() -> None:
    register()
    assert isinstance(_registered("mpe/simple_spread"), ParallelMultiAgentEnv)
    assert isinstance(_registered("magent/battle-16"), gymnasium.Env)


@pytest.mark.parametrize("missing", ["nowhere.registry:names", "tests.environments:names"])
def test_register__needs_no_checkout(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a user's own package called `envs` disturb it."""
    monkeypatch.setattr(environments, "DEFAULT_NAMES", missing)
    assert environments.known_names() == []
    register()
    assert _global_registry.contains(RLLIB_MODEL, "perceiver")


@pytest.mark.parametrize("name", [NAME, SINGLE])
def test_creator__makes_a_vector_environment_only_where_it_is_told_how_many(name: str, couriers: str) -> None:
    register_env(name)
    assert isinstance(_registered(name), CourierEnv)
    vector = _registered(name, num_envs=3)
    assert isinstance(vector, CourierVectorEnv)
    assert vector.num_envs == 3
    # RLlib's own context is no plain mapping
    assert isinstance(_global_registry.get(ENV_CREATOR, name)(EnvContext({}, worker_index=1)), CourierEnv)


def test_creator__passes_env_config_on() -> None:
    register_env("smax/3m")
    for context in ({}, {"num_envs": 2}):
        with pytest.raises(ValueError, match=r"got options .*gravity"):
            _registered("smax/3m", gravity=3, **context)


def test_creator__says_when_an_import_string_makes_vector_environments_only() -> None:
    vector_only = register_env("tests.environments:make_couriers")
    message = (
        r"^environment 'tests.environments:make_couriers' makes no single environment, .*vector_entry_point' on the new API "
        r"stack; calling it with options {} fails: missing a required argument: 'num_envs'"
    )
    with pytest.raises(ValueError, match=message):
        _registered(vector_only)
    with pytest.raises(
        ValueError, match=r"makes no single environment, .*; got CourierVectorEnv, expected a gymnasium\.Env"
    ):
        environments.make_env(SINGLE, num_envs=2)


# -- one name, every stack -------------------------------------------------------------------------------------


def _config(stack: str, name: str) -> PPOConfig:
    config = PPOConfig().environment(name).env_runners(num_env_runners=0, num_envs_per_env_runner=3)
    if stack == "old":
        model = {"custom_model": "perceiver", "custom_action_dist": "perceiver"}
        model["custom_model_config"] = to_mapping(preset("tiny"))  # type: ignore[assignment]
        return config.api_stack(**OLD_STACK).training(model=model, train_batch_size=48, minibatch_size=24, num_epochs=1)
    return (
        config.rl_module(rl_module_spec=module_spec(preset("tiny")))
        .env_runners(gym_env_vectorize_mode=stack)
        .training(train_batch_size_per_learner=48, minibatch_size=24, num_epochs=1)
    )


@pytest.mark.usefixtures("ray_local")
@pytest.mark.filterwarnings("ignore:.*has been deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered in reduce:RuntimeWarning")
@pytest.mark.parametrize("stack", ["vector_entry_point", "sync", "old"])
def test_name__trains_on_every_stack(stack: str, couriers: str) -> None:
    register()
    algorithm = _config(stack, couriers).build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    runners = result["env_runners"]
    assert result["num_env_steps_sampled_lifetime"] >= 48
    assert 2 <= runners["episode_len_mean"] <= 3
    assert 0 < runners["episode_return_mean" if stack != "old" else "episode_reward_mean"] < 3


@pytest.mark.usefixtures("ray_local")
@pytest.mark.filterwarnings("ignore:.*has been deprecated:DeprecationWarning")
@pytest.mark.parametrize("stack", ["vector_entry_point", "old"])
def test_smax_name__builds_on_both_stacks(stack: str) -> None:
    register()
    algorithm = _config(stack, "smax/2s3z").build_algo()
    try:
        env = algorithm.env_runner.env
    finally:
        algorithm.stop()
    squad = env.unwrapped if isinstance(env, VectorEnv) else env
    assert np.array_equal(getattr(squad, "single_action_space", squad.action_space).nvec, [10] * 5)
