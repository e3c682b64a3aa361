"""Count: how many of nine things are beans? Variable counts of two types, and masked answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tasks.base import State, TaskVectorEnv
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

NUM_THINGS = 9
NUM_ANSWERS = NUM_THINGS + 1


class CountVectorEnv(TaskVectorEnv):
    """Answer how many of nine things are beans; three of the ten answers are allowed, the right one among them.

    Observation: the counter, who acts, zero to nine beans, and pebbles for the rest. All beans are alike, and all pebbles.
    Action: `"0"` to `"9"`.
    Reward: 1 for the right answer, else 0.
    Termination: after one step.
    Best return: 1. Blind play gets a third.
    Negative control: neither beans nor pebbles are shown.

    >>> env = CountVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> beans = observation["entity_mask/bean"].sum(axis=1)
    >>> observation, reward, terminated, truncated, info = env.step(beans[:, None])
    >>> reward.tolist()
    [1.0, 1.0, 1.0]
    """

    name = "count"
    schema = EntitySchema(
        entity_types=(
            EntityType("counter", (Feature("here", 0, 1),), max_count=1),
            EntityType("bean", (Feature("here", 0, 1),), max_count=NUM_THINGS),
            EntityType("pebble", (Feature("here", 0, 1),), max_count=NUM_THINGS),
        ),
        actors=("counter",),
        verbs=tuple(str(number) for number in range(NUM_ANSWERS)),
    )
    time_limit = 1
    num_choices = 3

    def draw(self, random: np.random.Generator, count: int) -> State:
        """A number of beans, and two wrong answers beside the right one."""
        beans = random.integers(0, NUM_ANSWERS, count)
        preference = random.random((count, NUM_ANSWERS))
        preference[np.arange(count), beans] = 2.0
        allowed = preference.argsort(axis=1).argsort(axis=1) >= NUM_ANSWERS - self.num_choices
        return {"beans": beans, "allowed": allowed}

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Compare the answer."""
        return (choice == state["beans"]).astype(float), np.ones(len(choice), bool)

    def observe(self, state: State) -> Observation:
        """Beans and pebbles, each in the first slots of their type."""
        count, beans = len(state["beans"]), state["beans"][:, None]
        return {
            features_key("counter"): np.ones((count, 1, 1), np.float32),
            mask_key("counter"): np.ones((count, 1), bool),
            features_key("bean"): np.ones((count, NUM_THINGS, 1), np.float32),
            mask_key("bean"): np.arange(NUM_THINGS) < beans,
            features_key("pebble"): np.ones((count, NUM_THINGS, 1), np.float32),
            mask_key("pebble"): np.arange(NUM_THINGS) < NUM_THINGS - beans,
            GLOBALS: np.zeros((count, 0), np.float32),
            ACTION_MASK: state["allowed"][:, None].copy(),
        }

    def hide(self, observation: Observation) -> None:
        """Show nothing to count."""
        observation[mask_key("bean")][:] = False
        observation[mask_key("pebble")][:] = False


class CountAgent:
    """Plays Count perfectly: it counts. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Answer, `[num_envs, 1]`."""
        return observation[mask_key("bean")].sum(axis=1, keepdims=True)
