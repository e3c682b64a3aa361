"""Xor: are two bits different? Neither alone tells anything: entities must be related."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tasks.base import State, TaskVectorEnv
from perceiver_rl.entities import ACTION_MASK, GLOBALS, EntitySchema, EntityType, Observation, features_key, mask_key


class XorVectorEnv(TaskVectorEnv):
    """Answer whether two bits, an entity each, are different.

    Observation: the gate, who acts, and the bits, -1 or 1.
    Action: `"equal"` or `"different"`.
    Reward: 1 for the right answer, -1 for the wrong one, so that blind play gets 0 and not half of the best.
    Termination: after one step.
    Best return: 1.
    Negative control: the second bit is absent.

    >>> env = XorVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> different = np.prod(observation["entities/bit"][:, :, 0], axis=1) < 0
    >>> observation, reward, terminated, truncated, info = env.step(different[:, None].astype(int))
    >>> reward.tolist()
    [1.0, 1.0, 1.0]
    """

    name = "xor"
    schema = EntitySchema(
        entity_types=(EntityType("gate", ("here",), max_count=1), EntityType("bit", ("value",), max_count=2)),
        actors=("gate",),
        verbs=("equal", "different"),
    )
    time_limit = 1

    def draw(self, random: np.random.Generator, count: int) -> State:
        """Two bits."""
        return {"bits": random.integers(0, 2, (count, 2)) * 2 - 1}

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Compare the answer."""
        different = state["bits"][:, 0] != state["bits"][:, 1]
        return np.where(choice == different, 1.0, -1.0), np.ones(len(choice), bool)

    def observe(self, state: State) -> Observation:
        """Both bits."""
        count = len(state["bits"])
        return {
            features_key("gate"): np.ones((count, 1, 1), np.float32),
            mask_key("gate"): np.ones((count, 1), bool),
            features_key("bit"): state["bits"][..., None].astype(np.float32),
            mask_key("bit"): np.ones((count, 2), bool),
            GLOBALS: np.zeros((count, 0), np.float32),
            ACTION_MASK: np.ones((count, 1, 2), bool),
        }

    def hide(self, observation: Observation) -> None:
        """Show the first bit alone."""
        observation[features_key("bit")][:, 1] = 0.0
        observation[mask_key("bit")][:, 1] = False


class XorAgent:
    """Plays Xor perfectly. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Answer, `[num_envs, 1]`."""
        bits = observation[features_key("bit")][:, :, 0]
        return (bits[:, :1] != bits[:, 1:]).astype(np.int64)
