"""PickMatchingBalls-32: pick balls of one colour out of 32. Pointer targets that must match what the actor holds."""

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

NUM_BALLS = 32
COLOURS = ("red", "orange", "yellow", "green", "blue", "violet")
NUM_COLOURS = len(COLOURS)
LEAST = 3
"""Balls of each colour at least."""
NO_COLOUR = -1


class PickMatchingBallsVectorEnv(TaskVectorEnv):
    """Pick all balls of one colour and no other; the first ball says which colour that is.

    Observation: the picker with the colour that it holds, none at first, and the balls that are left with theirs; one
    feature for each colour, 0 or 1. There are at least three balls of each of six colours.
    Action: pick a ball; one that was picked is absent.
    Reward: for a ball that matches (the first always does), 1 divided by the number of balls of its colour.
    Termination: at the first ball that does not match, and when none of the colour is left.
    Best return: 1. Blind play gets less than 0.3.
    Negative control: no ball's colour is shown.

    >>> env = PickMatchingBallsVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> observation, reward, terminated, truncated, info = env.step(np.zeros((3, 1), int))
    >>> observation["entities/picker"].sum(axis=(1, 2)).tolist()
    [1.0, 1.0, 1.0]
    """

    name = "pick_matching_balls"
    schema = EntitySchema(
        entity_types=(
            EntityType("picker", tuple(Feature(colour, 0, 1) for colour in COLOURS), max_count=1),
            EntityType("ball", tuple(Feature(colour, 0, 1) for colour in COLOURS), max_count=NUM_BALLS),
        ),
        actors=("picker",),
        targeted_verbs=(TargetedVerb("pick", "ball"),),
    )
    time_limit = NUM_BALLS

    def draw(self, random: np.random.Generator, count: int) -> State:
        """Balls in random slots."""
        colour = random.integers(0, NUM_COLOURS, (count, NUM_BALLS))
        colour[:, : LEAST * NUM_COLOURS] = np.tile(np.arange(NUM_COLOURS), LEAST)
        return {
            "colour": random.permuted(colour, axis=1),
            "held": np.full(count, NO_COLOUR),
            "left": np.ones((count, NUM_BALLS), bool),
        }

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pick."""
        colour, left = state["colour"], state["left"]
        rows = np.flatnonzero(choice >= 0)
        picked = colour[rows, choice[rows]]
        matches = (state["held"][rows] == NO_COLOUR) | (state["held"][rows] == picked)
        same = colour[rows] == picked[:, None]
        reward, over = np.zeros(len(choice)), np.zeros(len(choice), bool)
        reward[rows] = matches / same.sum(axis=1)
        state["held"][rows] = picked
        left[rows, choice[rows]] = False
        over[rows] = ~matches | ~(same & left[rows]).any(axis=1)
        return reward, over

    def observe(self, state: State) -> Observation:
        """The balls that are left, and the colour held."""
        left = state["left"]
        one_hot = np.eye(NUM_COLOURS + 1, NUM_COLOURS, dtype=np.float32)  # the last row, NO_COLOUR's, is zeros
        return {
            features_key("picker"): one_hot[state["held"]][:, None],
            mask_key("picker"): np.ones((len(left), 1), bool),
            features_key("ball"): one_hot[state["colour"]],
            mask_key("ball"): left.copy(),
            GLOBALS: np.zeros((len(left), 0), np.float32),
            ACTION_MASK: left[:, None].copy(),
        }

    def hide(self, observation: Observation) -> None:
        """Show no ball's colour."""
        observation[features_key("ball")][:] = 0.0


class PickMatchingBallsAgent:
    """Plays PickMatchingBalls perfectly. It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Pick a ball of the colour held, else any that is left, `[num_envs, 1]`."""
        match = (observation[features_key("ball")] * observation[features_key("picker")]).sum(axis=-1)
        return np.where(observation[mask_key("ball")], match, -1.0).argmax(axis=1)[:, None]
