"""An environment whose short episodes are always won and whose long ones are always lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    EntitySchema,
    EntityType,
    Observation,
    TargetedVerb,
    features_key,
    mask_key,
)

SCHEMA = EntitySchema(
    entity_types=(EntityType("ally", ("health", "x"), 2), EntityType("enemy", ("health", "x", "y"), 3)),
    actors=("ally",),
    verbs=("stop", "north", "south"),
    targeted_verbs=(TargetedVerb("attack", "enemy"),),
)
SHORT, LONG = 2, 11
GARBAGE = 1e6
"""Reward of the steps that reset."""


class Streaks(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Short, won episodes in even sub-environments and long, lost ones in odd ones; or in turns, if they alternate.

    The reward is 1 a step, plus `noise` times a random number from the environment's seed, plus `action_reward`
    times the first ally's option. NEXT_STEP autoreset, and garbage as the reward of the steps that reset.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        schema: EntitySchema = SCHEMA,
        noise: float = 0.0,
        action_reward: float = 0.0,
        alternate: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.schema, self.noise, self.action_reward = schema, noise, action_reward
        self.single_observation_space, self.single_action_space = schema.observation_space, schema.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.alternate = alternate
        self.tells_won = True
        self.broken_at: int | None = None
        self.reward_broken_at: int | None = None

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        if seed is not None:
            self.streams = [np.random.default_rng(seed + index) for index in range(self.num_envs)]
        self.num_steps = 0
        self.short = np.arange(self.num_envs) % 2 == 0
        self.step_of_episode = np.zeros(self.num_envs, int)
        self.ended = np.zeros(self.num_envs, bool)
        return self._observe(), {}

    def step(self, actions: NDArray[Any]) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        assert actions.shape == (self.num_envs, self.schema.max_actors)
        self.num_steps += 1
        resets = self.ended
        noise = np.array([stream.random() for stream in self.streams])
        rewards = np.where(resets, GARBAGE, 1 + self.noise * noise + self.action_reward * actions[:, 0])
        if self.num_steps == self.reward_broken_at:
            rewards[-1] = np.inf
        self.short ^= resets & self.alternate
        self.step_of_episode = np.where(resets, 0, self.step_of_episode + 1)
        short = self.short
        self.ended = (self.step_of_episode == np.where(short, SHORT, LONG)) & ~resets
        infos: dict[str, Any] = {}
        if self.ended.any():
            # As gymnasium has it: what `_key` says is not valid may hold anything.
            infos = {
                "won": np.where(self.ended, short, ~short),
                "_won": self.ended,
                "allies_left": np.where(self.ended, 2 * short, 99),
                "_allies_left": self.ended,
                "pace": np.ones(self.num_envs),
                "_pace": self.ended & short,
                "map": np.array(["a map"] * self.num_envs, object),
            }
            if not self.tells_won:
                infos = {key: value for key, value in infos.items() if not key.endswith("won")}
        return self._observe(), rewards.astype(np.float32), self.ended & short, self.ended & ~short, infos

    def _observe(self) -> Observation:
        observation: Observation = {GLOBALS: np.zeros((self.num_envs, len(self.schema.globals)), np.float32)}
        for each in self.schema.entity_types:
            features = np.full((self.num_envs, each.max_count, each.num_features), 0.5, np.float32)
            features[..., 0] = (self.step_of_episode / LONG)[:, None] if self.num_envs else 0
            if self.broken_at is not None and self.num_steps >= self.broken_at:
                features[-1, -1, -1] = np.nan
            # a view of memory that is not ours to write, as JAX gives it away
            features.flags.writeable = False
            observation[features_key(each.name)] = features
            observation[mask_key(each.name)] = np.ones((self.num_envs, each.max_count), bool)
        observation[ACTION_MASK] = np.ones((self.num_envs, self.schema.max_actors, self.schema.num_options), bool)
        return observation
