"""CherryPick-32: pick the better half of 32 cherries, one at a time. Pointer targets by a feature of theirs."""

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
    TargetedVerb,
    features_key,
    mask_key,
)

NUM_CHERRIES = 32
NUM_PICKS = NUM_CHERRIES // 2


class CherryPickVectorEnv(TaskVectorEnv):
    """Pick sixteen of 32 cherries, whose quality is drawn from a standard normal distribution.

    Observation: the picker, and the cherries that are left with their quality.
    Action: pick a cherry; one that was picked is absent.
    Reward: the cherry's quality, divided by the sum of the better half's.
    Termination: after sixteen picks.
    Best return: 1. Blind play gets 0 on average.
    Negative control: every quality is shown as 0.

    >>> env = CherryPickVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> best = observation["entities/cherry"][:, :, 0].argmax(axis=1)
    >>> observation, reward, terminated, truncated, info = env.step(best[:, None])
    >>> observation["entity_mask/cherry"].sum(axis=1).tolist()
    [31, 31, 31]
    """

    name = "cherry_pick"
    schema = EntitySchema(
        entity_types=(
            EntityType("picker", (Feature("picks_left", 0, NUM_PICKS),), max_count=1),
            EntityType("cherry", (Feature("quality", -2, 2),), max_count=NUM_CHERRIES),
        ),
        actors=("picker",),
        targeted_verbs=(TargetedVerb("pick", "cherry"),),
    )
    time_limit = NUM_PICKS

    def draw(self, random: np.random.Generator, count: int) -> State:
        """Cherries, and what the better half is worth."""
        quality = random.standard_normal((count, NUM_CHERRIES))
        worth = np.sort(quality, axis=1)[:, -NUM_PICKS:].sum(axis=1)
        return {"quality": quality, "worth": worth, "left": np.ones((count, NUM_CHERRIES), bool)}

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pick."""
        rows = np.flatnonzero(choice >= 0)
        reward = np.zeros(len(choice))
        reward[rows] = state["quality"][rows, choice[rows]] / state["worth"][rows]
        state["left"][rows, choice[rows]] = False
        return reward, state["left"].sum(axis=1) <= NUM_CHERRIES - NUM_PICKS

    def observe(self, state: State) -> Observation:
        """The cherries that are left."""
        left = state["left"]
        picks_left = left.sum(axis=1) - (NUM_CHERRIES - NUM_PICKS)
        return {
            features_key("picker"): picks_left[:, None, None].astype(np.float32),
            mask_key("picker"): np.ones((len(left), 1), bool),
            features_key("cherry"): state["quality"][..., None].astype(np.float32),
            mask_key("cherry"): left.copy(),
            GLOBALS: np.zeros((len(left), 0), np.float32),
            ACTION_MASK: left[:, None].copy(),
        }

    def hide(self, observation: Observation) -> None:
        """Show no quality."""
        observation[features_key("cherry")][:] = 0.0


class CherryPickAgent:
    """Plays CherryPick perfectly. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Pick the best that is left, `[num_envs, 1]`."""
        quality = observation[features_key("cherry")][:, :, 0]
        return np.where(observation[mask_key("cherry")], quality, -np.inf).argmax(axis=1)[:, None]
