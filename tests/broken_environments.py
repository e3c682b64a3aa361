"""Environments with the mistakes that their writers make; each is one line away from couriers that work."""

from __future__ import annotations

from typing import Any

import numpy as np

from perceiver_rl.entities import Observation
from tests.environments import COURIERS, CourierVectorEnv
from tests.parallel_environments import make_deliveries


class _Arithmetic(CourierVectorEnv):
    def step(self, actions: Any) -> Any:
        np.zeros((4, 2)) + np.zeros(5)


class _Forgetful(CourierVectorEnv):
    def step(self, actions: Any) -> Any:
        return super().step(actions)[:4]


class _Bare(CourierVectorEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, _ = super().reset(seed=seed, options=options)
        return observation


class _TooMany(CourierVectorEnv):
    def step(self, actions: Any) -> Any:
        observation: Observation = COURIERS.pack({"courier": [[1.0]] * 5, "post": []}, np.zeros((5, 6), bool))
        return observation, *super().step(actions)[1:]


def make_arithmetic(num_envs: int) -> CourierVectorEnv:
    """Adds what does not fit in `step`."""
    return _Arithmetic(num_envs)


def make_forgetful(num_envs: int) -> CourierVectorEnv:
    """Forgets to return infos."""
    return _Forgetful(num_envs)


def make_bare(num_envs: int) -> CourierVectorEnv:
    """Returns the observation alone from `reset`."""
    return _Bare(num_envs)


def make_too_many(num_envs: int) -> CourierVectorEnv:
    """Has more couriers than slots."""
    return _TooMany(num_envs)


def make_unfinished(num_envs: int) -> CourierVectorEnv:
    """Cannot be made."""
    return undefined(num_envs)  # type: ignore[name-defined]


def make_parallel_forgetful() -> Any:
    """A multi-agent environment whose `step` forgets to return infos."""
    env = make_deliveries()
    step = env.step
    env.step = lambda actions: step(actions)[:4]
    return env


def make_parallel_bare() -> Any:
    """A multi-agent environment of an old form, whose `reset` returns observations alone."""
    env = make_deliveries()
    reset = env.reset
    env.reset = lambda seed=None, options=None: reset(seed=seed, options=options)[0] | {"another": None}
    return env


def make_parallel_blind() -> Any:
    """A multi-agent environment that shows one agent nothing."""
    env = make_deliveries()
    step = env.step

    def blind(actions: Any) -> Any:
        observations, *others = step(actions)
        return {agent: each for agent, each in observations.items() if agent != "courier_0"}, *others

    env.step = blind
    return env


def make_parallel_silent() -> Any:
    """A multi-agent environment without infos."""
    env = make_deliveries()
    step = env.step
    env.step = lambda actions: (*step(actions)[:4], None)
    return env
