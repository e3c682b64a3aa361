"""A small environment that tests can learn: couriers who must each find the one post of their own team."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from perceiver_rl.entities import Control, EntitySchema, EntityType, Observation, TargetedVerb

COURIERS = EntitySchema(
    entity_types=(
        EntityType("courier", ("team",), max_count=4),
        EntityType("post", ("team", "brightness"), max_count=5),
    ),
    actors=("courier",),
    verbs=("wait",),
    targeted_verbs=(TargetedVerb("deliver", "post"),),
)


class CourierVectorEnv(gymnasium.vector.VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Couriers of two teams see posts of which one belongs to each team; everything changes in every step.

    Observation: one to four couriers and two to five posts, in random slots; a post's team is -1, 1, or 0 for nobody's.
    Action: wait, or deliver to a post; every visible post is legal.
    Reward: the fraction of couriers that delivered to the post of their team.
    Termination: after two steps where the sub-environment's episode is one of odd number, else truncation after three.
    What is shown depends on the seed and the number of steps alone, never on the actions.

    Args:
        num_envs: Number of sub-environments.
        autoreset_mode: What the environment says in its metadata; it does NEXT_STEP in any case.
        control: Under decentralized control a courier sees the posts and itself.
    """

    def __init__(
        self,
        num_envs: int,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        control: Control = "centralized",
    ) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.schema = replace(COURIERS, control=control)
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every sub-environment."""
        if seed is not None or not hasattr(self, "_random"):
            self._random = np.random.default_rng(seed)
        self._step_number = np.zeros(self.num_envs, int)
        # Not all alike, so that episodes do not end all at once.
        self._episode_number = np.arange(self.num_envs)
        self._resetting = np.zeros(self.num_envs, bool)
        self._score = np.zeros(self.num_envs)
        self._observation = self._observe()
        return self._observation, {}

    def step(self, actions: NDArray[Any]) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Deliver, or begin anew where the episode ended in the step before."""
        was_resetting, present = self._resetting, self._observation["entity_mask/courier"]
        teams = self._observation["entities/courier"][:, :, 0]
        post = np.maximum(actions - 1, 0)
        post_teams = np.take_along_axis(self._observation["entities/post"][:, :, 0], post, axis=1)
        delivered = (actions > 0) & present & (teams == post_teams)
        reward = np.where(was_resetting, 0.0, delivered.sum(axis=1) / present.sum(axis=1))
        self._step_number = np.where(was_resetting, 0, self._step_number + 1)
        self._episode_number += was_resetting
        self._score = np.where(was_resetting, 0.0, self._score + reward)
        terminated = (self._step_number == 2) & (self._episode_number % 2 == 1)
        truncated = self._step_number == 3
        self._resetting = terminated | truncated
        self._observation = self._observe()
        infos = {"score": self._score / np.maximum(self._step_number, 1), "_score": self._resetting}
        return self._observation, reward, terminated, truncated, infos

    def _observe(self) -> Observation:
        couriers = self._some_slots(4, at_least=1)
        posts = self._some_slots(5, at_least=2)
        teams = self._random.choice([-1.0, 1.0], size=(self.num_envs, 4))
        order = np.where(posts, self._random.random((self.num_envs, 5)), -1.0).argsort(axis=1)[:, ::-1]
        post_teams = np.zeros((self.num_envs, 5))
        np.put_along_axis(post_teams, order[:, :2], np.array([-1.0, 1.0]), axis=1)  # among the present ones
        brightness = self._random.normal(size=(self.num_envs, 5))
        legal = np.ones((self.num_envs, 4, 6), bool)
        legal[:, :, 1:] = posts[:, None, :]
        sees = np.concatenate([np.eye(4, dtype=bool), np.ones((4, 5), bool)], axis=1)
        visibility = {"visibility": np.repeat(sees[None], self.num_envs, axis=0)}
        return ({} if self.schema.control == "centralized" else visibility) | {
            "entities/courier": teams[..., None].astype(np.float32),
            "entity_mask/courier": couriers,
            "entities/post": np.stack([post_teams, brightness], axis=-1).astype(np.float32),
            "entity_mask/post": posts,
            "globals": np.zeros((self.num_envs, 0), np.float32),
            "action_mask": legal & couriers[..., None],
        }

    def _some_slots(self, slots: int, at_least: int) -> NDArray[np.bool_]:
        """A random set of slots for each sub-environment."""
        counts = self._random.integers(at_least, slots + 1, size=(self.num_envs, 1))
        return self._random.random((self.num_envs, slots)).argsort(axis=1) < counts


def make_couriers(num_envs: int, **options: Any) -> CourierVectorEnv:
    """For `register_env("tests.environments:make_couriers")`."""
    return CourierVectorEnv(num_envs, **options)


class FaultyCourierVectorEnv(CourierVectorEnv):
    """Couriers of which one has a brightness that is no number, from the twentieth observation on."""

    def _observe(self) -> Observation:
        observation = super()._observe()
        self._num_observed = getattr(self, "_num_observed", 0) + 1
        if self._num_observed >= 20:
            observation["entities/post"][:, :, 1] = np.nan
        return observation


def make_faulty_couriers(num_envs: int, **options: Any) -> FaultyCourierVectorEnv:
    """For `--env tests.environments:make_faulty_couriers`."""
    return FaultyCourierVectorEnv(num_envs, **options)
