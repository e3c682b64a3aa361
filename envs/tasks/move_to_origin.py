"""MoveToOrigin: walk to a place on a plane. Continuous positions relative to the actor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tasks.base import State, TaskVectorEnv
from envs.tasks.moves import NO_STEP_LAST, STREETS, STREETS_VERBS
from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    EntitySchema,
    EntityType,
    Feature,
    Observation,
    features_key,
    mask_key,
)

STRIDES = (0.1, 0.2)
"""Shortest and longest stride."""
NUM_DIRECTIONS = len(STREETS)


class MoveToOriginVectorEnv(TaskVectorEnv):
    """Walk to the origin, the middle of a square that reaches 1 in each direction, by strides whose length the episode says.

    Observation: the walker with its stride, and the origin's position relative to the walker.
    Action: a stride north, east, south or west; the square's edge stops the walker.
    Reward: the strides that are still needed, one less (1) or one more (-1), divided by those needed at the beginning.
    Termination: within half a stride of the origin along both axes. Truncation: after 24 steps.
    Best return: 1, for whoever arrives. Blind play gets 0 or less on average.
    Negative control: the origin is shown where the walker is.

    >>> env = MoveToOriginVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> east = (observation["entities/origin"][:, 0, 0] > 0).tolist()
    >>> observation, reward, terminated, truncated, info = env.step(np.ones((3, 1), int))
    """

    name = "move_to_origin"
    schema = EntitySchema(
        entity_types=(
            EntityType("walker", (Feature("stride", *STRIDES),), max_count=1),
            EntityType("origin", ("dx", "dy"), max_count=1),
        ),
        actors=("walker",),
        verbs=STREETS_VERBS,
    )
    time_limit = 24

    def draw(self, random: np.random.Generator, count: int) -> State:
        """A walker at least half way to the edge along one axis."""
        stride = random.uniform(*STRIDES, count)
        offset = random.uniform(-1.0, 1.0, (count, 2))
        far = random.integers(0, 2, count)
        offset[np.arange(count), far] = random.uniform(0.5, 1.0, count) * random.choice([-1.0, 1.0], count)
        return {"stride": stride, "offset": offset, "needed_at_first": _strides_needed(offset, stride)}

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Walk; the origin's offset changes the other way."""
        needed = _strides_needed(state["offset"], state["stride"])
        state["offset"] = (state["offset"] - NO_STEP_LAST[choice] * state["stride"][:, None]).clip(-1.0, 1.0)
        left = _strides_needed(state["offset"], state["stride"])
        return (needed - left) / state["needed_at_first"], left == 0

    def observe(self, state: State) -> Observation:
        """Where the origin is, seen from the walker."""
        count = len(state["stride"])
        return {
            features_key("walker"): state["stride"][:, None, None].astype(np.float32),
            mask_key("walker"): np.ones((count, 1), bool),
            features_key("origin"): state["offset"][:, None].astype(np.float32),
            mask_key("origin"): np.ones((count, 1), bool),
            GLOBALS: np.zeros((count, 0), np.float32),
            ACTION_MASK: np.ones((count, 1, NUM_DIRECTIONS), bool),
        }

    def hide(self, observation: Observation) -> None:
        """Show no position."""
        observation[features_key("origin")][:] = 0.0


def _strides_needed(offset: NDArray[np.float64], stride: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strides to within half a stride along both axes."""
    return np.ceil(np.abs(offset) / stride[:, None] - 0.5).clip(0).sum(axis=1)


class MoveToOriginAgent:
    """Plays MoveToOrigin perfectly. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Walk along the axis that is further away, `[num_envs, 1]`."""
        return (observation[features_key("origin")] @ STREETS.T).argmax(axis=-1)
