"""FloorIsLava: step onto the one safe tile. Typed entities and relative positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tasks.base import State, TaskVectorEnv
from envs.tasks.moves import COMPASS, COMPASS_VERBS
from perceiver_rl.entities import ACTION_MASK, GLOBALS, EntitySchema, EntityType, Observation, features_key, mask_key

NUM_TILES = len(COMPASS)


class FloorIsLavaVectorEnv(TaskVectorEnv):
    """Of the eight tiles around the player seven are lava and one is high ground; step onto that.

    Observation: the player, the high ground and the lava, each tile's position relative to the player in tiles.
    Action: a step in one of eight directions, `"north"`, `"northeast"`, …
    Reward: 1 on the high ground, else 0.
    Termination: after one step.
    Best return: 1. Blind play gets 0.125.
    Negative control: all tiles are shown where the player is.

    >>> env = FloorIsLavaVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> observation["entities/high_ground"].shape, observation["entities/lava"].shape
    ((3, 1, 2), (3, 7, 2))
    >>> observation, reward, terminated, truncated, info = env.step(np.zeros((3, 1), int))
    """

    name = "floor_is_lava"
    schema = EntitySchema(
        entity_types=(
            EntityType("player", ("here",), max_count=1),
            EntityType("high_ground", ("dx", "dy"), max_count=1),
            EntityType("lava", ("dx", "dy"), max_count=NUM_TILES - 1),
        ),
        actors=("player",),
        verbs=COMPASS_VERBS,
    )
    time_limit = 1

    def draw(self, random: np.random.Generator, count: int) -> State:
        """The tiles in random order; the first is the high ground."""
        return {"tiles": random.random((count, NUM_TILES)).argsort(axis=1)}

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Step."""
        return (choice == state["tiles"][:, 0]).astype(float), np.ones(len(choice), bool)

    def observe(self, state: State) -> Observation:
        """All tiles."""
        count = len(state["tiles"])
        positions = COMPASS[state["tiles"]].astype(np.float32)
        return {
            features_key("player"): np.ones((count, 1, 1), np.float32),
            mask_key("player"): np.ones((count, 1), bool),
            features_key("high_ground"): positions[:, :1].copy(),
            mask_key("high_ground"): np.ones((count, 1), bool),
            features_key("lava"): positions[:, 1:].copy(),
            mask_key("lava"): np.ones((count, NUM_TILES - 1), bool),
            GLOBALS: np.zeros((count, 0), np.float32),
            ACTION_MASK: np.ones((count, 1, NUM_TILES), bool),
        }

    def hide(self, observation: Observation) -> None:
        """Show no position: the lava's would tell the high ground's."""
        observation[features_key("high_ground")][:] = 0.0
        observation[features_key("lava")][:] = 0.0


class FloorIsLavaAgent:
    """Plays FloorIsLava perfectly. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Step to where the high ground is, `[num_envs, 1]`."""
        return (observation[features_key("high_ground")] @ COMPASS.T / np.linalg.norm(COMPASS, axis=1)).argmax(axis=-1)
