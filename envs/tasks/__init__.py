"""Learning tasks: small environments that each need one ability, with a known best return and a negative control.

After entity-gym's ladder of environments, rebuilt on the contract of `perceiver_rl.entities`. docs/tasks.md tells what each
of them needs, and what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envs.tasks.base import TaskEnv, TaskVectorEnv
from perceiver_rl.configuration import unknown_name
from perceiver_rl.environments import load, with_options

if TYPE_CHECKING:
    from perceiver_rl.evaluation.agent import Agent  # which needs torch; a task does not


@dataclass(frozen=True)
class Task:
    """Where to find a task and who plays it perfectly, each as `"module:class"`."""

    env: str
    agent: str


TASKS: dict[str, Task] = {
    name: Task(f"envs.tasks.{name}:{stem}VectorEnv", f"envs.tasks.{name}:{stem}Agent")
    for name, stem in {
        "count": "Count",
        "floor_is_lava": "FloorIsLava",
        "cherry_pick": "CherryPick",
        "pick_matching_balls": "PickMatchingBalls",
        "xor": "Xor",
        "move_to_origin": "MoveToOrigin",
        "minefield": "Minefield",
    }.items()
}


def names() -> list[str]:
    """Names of all tasks."""
    return list(TASKS)


def make_vec(name: str, num_envs: int, **options: Any) -> TaskVectorEnv:
    """Build a batch of a task.

    Args:
        name: One of `names()`.
        num_envs: Number of sub-environments.
        options: `ablate=True` for the negative control.

    Raises:
        ValueError: If there is no such task; the message lists the known ones.
    """
    env: TaskVectorEnv = with_options(load(_task(name).env), f"environment 'task/{name}'", num_envs)(**options)
    return env


def make(name: str, **options: Any) -> TaskEnv:
    """Build a single environment of a task; arguments and errors as for `make_vec`."""
    return TaskEnv(make_vec(name, 1, **options))


def make_best_agent(name: str) -> Agent:
    """The scripted agent that plays a task perfectly; errors as for `make_vec`."""
    return load(_task(name).agent)(make_vec(name, 1).schema)


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(unknown_name("task: got unknown name", name, TASKS))
    return TASKS[name]
