"""Minefield-10: reach the target and step on none of up to ten mines. Typed entities, variable counts, masks."""

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

SIZE = 8
"""Cells along each side of the field."""
MIN_MINES, MAX_MINES = 6, 10
MIN_DISTANCE = 4
"""Steps between robot and target at the beginning, at least."""
_THERE = Feature("dx", -4, 4), Feature("dy", -4, 4), Feature("nearness", 0, 1)
"""Where a thing is, seen from the robot; nearness is one over the steps to it."""


class MinefieldVectorEnv(TaskVectorEnv):
    """Walk over a field of eight by eight cells to the target; six to ten cells hold mines.

    No two mines are neighbours, not even diagonally, so there is a way around each of them.

    Observation: the robot with its distances to the four edges, the target and the mines, each with its offset from the
    robot and how near it is.
    Action: a step north, east, south or west; leaving the field is not legal.
    Reward: the steps to the target if there were no mines, one less (1) or one more (-1), divided by those at the beginning.
    A mine takes back what was earned.
    Termination: on the target or on a mine. Truncation: after 32 steps.
    Best return: 1, for whoever arrives; 0 on a mine.
    Negative control: everything is shown as a mine, the target too.

    >>> env = MinefieldVectorEnv(num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> observation["entities/mine"].shape
    (3, 11, 3)
    >>> observation, reward, terminated, truncated, info = env.step(observation["action_mask"].argmax(axis=2))
    """

    name = "minefield"
    schema = EntitySchema(
        entity_types=(
            EntityType("robot", tuple(Feature(f"room_{verb}", 0, SIZE - 1) for verb in STREETS_VERBS), max_count=1),
            EntityType("target", _THERE, max_count=1),
            # one slot more than there are mines: the negative control shows the target there
            EntityType("mine", _THERE, max_count=MAX_MINES + 1),
        ),
        actors=("robot",),
        verbs=STREETS_VERBS,
    )
    time_limit = 32

    def draw(self, random: np.random.Generator, count: int) -> State:
        """Mines on every other row and column, then robot and target on what is free."""
        sites = np.stack(np.meshgrid(*[np.arange(0, SIZE, 2)] * 2), axis=-1).reshape(-1, 2)
        order = random.random((count, len(sites))).argsort(axis=1)[:, :MAX_MINES]
        mines = sites[order] + random.integers(0, 2, (count, 1, 2))
        num_mines = random.integers(MIN_MINES, MAX_MINES + 1, count)
        is_mine = np.arange(MAX_MINES) < num_mines[:, None]
        cells = np.stack(np.meshgrid(*[np.arange(SIZE)] * 2), axis=-1).reshape(-1, 2)
        mined = ((cells[None, :, None] == mines[:, None]).all(axis=-1) & is_mine[:, None]).any(axis=-1)  # episodes cells
        robot = cells[np.where(mined, -1.0, random.random(mined.shape)).argmax(axis=1)]
        far = np.abs(cells - robot[:, None]).sum(axis=-1) >= MIN_DISTANCE
        target = cells[np.where(mined | ~far, -1.0, random.random(mined.shape)).argmax(axis=1)]
        return {
            "robot": robot,
            "target": target,
            "mines": mines,
            "is_mine": is_mine,
            "earned": np.zeros(count),
            "distance_at_first": np.abs(target - robot).sum(axis=1),
        }

    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Step, and see what is there."""
        before = np.abs(state["target"] - state["robot"]).sum(axis=1)
        state["robot"] = (state["robot"] + NO_STEP_LAST[choice]).clip(0, SIZE - 1)
        distance = np.abs(state["target"] - state["robot"]).sum(axis=1)
        on_mine = ((state["mines"] == state["robot"][:, None]).all(axis=-1) & state["is_mine"]).any(axis=1)
        reward = np.where(on_mine, -state["earned"], (before - distance) / state["distance_at_first"])
        state["earned"] += reward
        return reward, on_mine | (distance == 0)

    def observe(self, state: State) -> Observation:
        """Everything, seen from the robot."""
        robot, count = state["robot"], len(state["robot"])
        room = np.concatenate([SIZE - 1 - robot[:, ::-1], robot[:, ::-1]], axis=1)  # north east south west
        mines = np.zeros((count, MAX_MINES + 1, len(_THERE)), np.float32)
        mines[:, :MAX_MINES] = _there(state["mines"] - robot[:, None])
        is_mine = np.zeros((count, MAX_MINES + 1), bool)
        is_mine[:, :MAX_MINES] = state["is_mine"]
        return {
            features_key("robot"): room[:, None].astype(np.float32),
            mask_key("robot"): np.ones((count, 1), bool),
            features_key("target"): _there(state["target"] - robot)[:, None],
            mask_key("target"): np.ones((count, 1), bool),
            features_key("mine"): mines,
            mask_key("mine"): is_mine,
            GLOBALS: np.zeros((count, 0), np.float32),
            ACTION_MASK: (room > 0)[:, None],
        }

    def hide(self, observation: Observation) -> None:
        """Show the target as one more mine."""
        observation[features_key("mine")][:, -1] = observation[features_key("target")][:, 0]
        observation[mask_key("mine")][:, -1] = True
        observation[features_key("target")][:] = 0.0
        observation[mask_key("target")][:] = False


def _there(offset: NDArray[np.int64]) -> NDArray[np.float32]:
    """The features of things at offsets `[*batch, 2]`; on the robot itself, nearness is 1 as beside it."""
    steps = np.abs(offset).sum(axis=-1, keepdims=True).clip(min=1)
    return np.concatenate([offset, 1.0 / steps], axis=-1).astype(np.float32)


class MinefieldAgent:
    """Plays Minefield perfectly, by the shortest way around the mines.

    It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The task's.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Step to the neighbour that is nearest to the target, `[num_envs, 1]`."""
        room = observation[features_key("robot")][:, 0].astype(int)
        robot = room[:, [3, 2]]  # to the west edge, and to the south edge
        target = robot + observation[features_key("target")][:, 0, :2].astype(int)
        mines = robot[:, None] + observation[features_key("mine")][..., :2].astype(int)
        free = np.ones((len(robot), SIZE + 2, SIZE + 2), bool)  # with a border around the field
        free[:, [0, -1]] = free[:, :, [0, -1]] = False
        env, slot = np.nonzero(observation[mask_key("mine")])
        free[env, mines[env, slot, 0] + 1, mines[env, slot, 1] + 1] = False
        return _steps_to(target, free, robot).argmin(axis=1)[:, None]


def _steps_to(target: NDArray[np.int64], free: NDArray[np.bool_], robot: NDArray[np.int64]) -> NDArray[np.float64]:
    """Steps from each of the robot's four neighbours to the target, by flooding the field from there, `[episodes, 4]`."""
    rows = np.arange(len(target))
    steps = np.full(free.shape, np.inf)
    steps[rows, target[:, 0] + 1, target[:, 1] + 1] = 0.0
    for _ in range(SIZE * SIZE):
        nearest = np.min([np.roll(steps, tuple(move), axis=(1, 2)) for move in STREETS], axis=0)
        flooded = np.where(free, np.minimum(steps, nearest + 1), np.inf)
        if np.array_equal(flooded, steps):
            break
        steps = flooded
    neighbours = robot[:, None] + STREETS + 1
    return steps[rows[:, None], neighbours[..., 0], neighbours[..., 1]]
