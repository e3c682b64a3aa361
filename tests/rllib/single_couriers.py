"""One environment of couriers, for whatever makes batches of its own: RLlib's old API stack, for one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities import Observation
from tests.environments import COURIERS, CourierVectorEnv


class CourierEnv(gymnasium.Env[Observation, NDArray[Any]]):
    """The couriers of `tests.environments`, one squad."""

    observation_space = COURIERS.observation_space
    action_space = COURIERS.action_space

    def __init__(self) -> None:
        self._vector = CourierVectorEnv(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        observation, _ = self._vector.reset(seed=seed)
        return _only(observation), {}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, rewards, terminated, truncated, _ = self._vector.step(np.asarray(action)[None])
        return _only(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


class FaultyCourierEnv(CourierEnv):
    """Shows a brightness that is no number."""

    def reset(self, **kwargs: Any) -> tuple[Observation, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        observation["entities/post"][:, 1] = np.nan
        return observation, info


def make_couriers(num_envs: int | None = None) -> CourierEnv | VectorEnv[Any, Any, Any]:
    """For `register_env("tests.rllib.single_couriers:make_couriers")` on either stack."""
    return CourierEnv() if num_envs is None else CourierVectorEnv(num_envs)


def _only(observation: Observation) -> Observation:
    return {key: array[0] for key, array in observation.items()}
