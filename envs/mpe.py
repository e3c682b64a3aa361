"""Multi-particle environments (mpe2): flat observations as entities. Each agent sees itself, landmarks and others.

`mpe/simple_tag`: three adversaries (actor `self`, with the prey's velocity in view) chase one faster prey around two
obstacles.
`mpe/simple_spread`: three agents share out three landmarks.

Observation: offsets are relative to the agent, as the environment has them; its unused communication channel is left out.
Action: stay, left, right, down, up; all of them always legal.
Reward, truncation: the environment's; episodes are cut off after `max_cycles` steps, 25 by default.

>>> from envs.registry import make_parallel
>>> env = make_parallel("mpe/simple_tag", num_adversaries=2)
>>> env.possible_agents
['adversary_0', 'adversary_1', 'agent_0']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.configuration import unknown_name
from perceiver_rl.entities import EntitySchema, EntityType, Feature

try:
    from mpe2 import simple_spread_v3, simple_tag_v3
except ModuleNotFoundError as error:
    if error.name not in ("mpe2", "pettingzoo", "pygame"):
        raise
    raise ImportError(f"mpe2: got no package {error.name!r}, expected it; pip install 'perceiver-rl[pettingzoo]'") from error

from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv

VERBS = ("stay", "left", "right", "down", "up")

# Agents are put into a square of side 2 and may leave it; speeds stay below 1.3.
_SELF = EntityType("self", ("vx", "vy", "x", "y"), max_count=1)
_OFFSET = (Feature("dx", -2.0, 2.0), Feature("dy", -2.0, 2.0))


def members() -> list[str]:
    """Names of the environments."""
    return list(_MAKERS)


def make_parallel(member: str, **options: Any) -> EntityParallelEnv:
    """Build an environment.

    Args:
        member: One of `members()`.
        options: mpe2's own settings, e.g. `max_cycles`, `num_adversaries`, `num_good`, `num_obstacles` (simple_tag) or `N`
            (simple_spread). Actions stay discrete, and everybody is in view.

    Raises:
        ValueError: If there is no such member, or an option changes what the observation means.
    """
    if member not in _MAKERS:
        raise ValueError(unknown_name("mpe: got unknown environment", member, _MAKERS))
    for name in ("continuous_actions", "num_agent_neighbors", "num_landmark_neighbors"):
        if options.get(name):
            raise ValueError(
                f"mpe/{member}: got {name}={options[name]!r}, expected it left out: entities are made from all of them"
            )
    return _MAKERS[member](**options)


def _simple_tag(*, num_good: int = 1, num_adversaries: int = 3, num_obstacles: int = 2, **options: Any) -> EntityParallelEnv:
    """Row layout: own velocity, own position, offsets of obstacles and of others, velocities of the good among those."""
    env = simple_tag_v3.parallel_env(
        num_good=num_good, num_adversaries=num_adversaries, num_obstacles=num_obstacles, **options
    )
    schema = EntitySchema(
        entity_types=(
            _SELF,
            EntityType("obstacle", _OFFSET, max(1, num_obstacles)),
            EntityType("adversary", _OFFSET, max(1, num_adversaries)),
            EntityType("prey", (*_OFFSET, "vx", "vy"), max(1, num_good)),
        ),
        actors=("self",),
        verbs=VERBS,
        globals=(Feature("is_adversary", 0.0, 1.0),),
    )

    def observe(row: NDArray[np.float32], agent: str, info: Mapping[str, Any]) -> AgentView:
        is_adversary = agent.startswith("adversary")
        adversaries, prey = num_adversaries - is_adversary, num_good - (not is_adversary)
        own, obstacles, chasing, fleeing, velocities = _split(
            row, [4, 2 * num_obstacles, 2 * adversaries, 2 * prey, 2 * prey]
        )
        return AgentView(
            {
                "self": own.reshape(1, 4),
                "obstacle": obstacles.reshape(-1, 2),
                "adversary": chasing.reshape(-1, 2),
                "prey": np.hstack([fleeing.reshape(-1, 2), velocities.reshape(-1, 2)]),
            },
            globals=[is_adversary],
        )

    return EntityParallelEnv(env, schema, observe)


def _simple_spread(*, N: int = 3, **options: Any) -> EntityParallelEnv:
    """Row layout: own velocity, own position, offsets of landmarks and of others, what others say, which is always 0."""
    env = simple_spread_v3.parallel_env(N=N, **options)
    schema = EntitySchema(
        entity_types=(_SELF, EntityType("landmark", _OFFSET, N), EntityType("other", _OFFSET, max(1, N - 1))),
        actors=("self",),
        verbs=VERBS,
    )

    def observe(row: NDArray[np.float32], agent: str, info: Mapping[str, Any]) -> AgentView:
        own, landmarks, others, _ = _split(row, [4, 2 * N, 2 * (N - 1), 2 * (N - 1)])
        return AgentView({"self": own.reshape(1, 4), "landmark": landmarks.reshape(-1, 2), "other": others.reshape(-1, 2)})

    return EntityParallelEnv(env, schema, observe)


_MAKERS: dict[str, Callable[..., EntityParallelEnv]] = {"simple_tag": _simple_tag, "simple_spread": _simple_spread}


def _split(row: NDArray[np.float32], lengths: list[int]) -> list[NDArray[np.float32]]:
    """Cut a row into parts of those lengths."""
    if row.shape != (sum(lengths),):
        raise ValueError(
            f"mpe2 observation: got shape {list(row.shape)}, expected [{sum(lengths)}]; mpe2's layout has changed"
        )
    return np.split(row, np.cumsum(lengths)[:-1])
