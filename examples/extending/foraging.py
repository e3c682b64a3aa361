"""A PettingZoo parallel environment as its author wrote it, and the function that makes entities of its observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from perceiver_rl.entities import EntitySchema, EntityType, Feature
from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv

SIZE, NUM_BERRIES, TIME_LIMIT = 6, 8, 15
MOVES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


class Foraging(ParallelEnv):
    """Nothing here knows of this library: three foragers on a grid, a reward for each berry that one of them steps on.

    Observation: one vector, own x and y, then for each other forager and each berry dx, dy and whether it is there.
    """

    metadata = {"name": "foraging_v0", "is_parallelizable": True}  # noqa: RUF012 (as PettingZoo declares it)

    def __init__(self) -> None:
        self.possible_agents = [f"forager_{number}" for number in range(3)]
        self.agents: list[str] = []
        self.render_mode = None
        self._observations = Box(-SIZE, SIZE, (2 + 3 * (2 + NUM_BERRIES),), np.float32)
        self._actions = Discrete(len(MOVES))
        self._random = np.random.default_rng()

    def observation_space(self, agent: str) -> Box:
        """The same for all."""
        return self._observations

    def action_space(self, agent: str) -> Discrete:
        """Stay or move."""
        return self._actions

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.places = dict(zip(self.agents, self._random.integers(0, SIZE, (3, 2)), strict=True))
        self.berries = self._random.integers(0, SIZE, (NUM_BERRIES, 2))
        self.ripe = np.ones(NUM_BERRIES, bool)
        self.steps = 0
        return {agent: self.observe(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: Mapping[str, int]) -> tuple[dict[str, Any], ...]:
        """Move, and eat."""
        rewards = {}
        for agent, action in actions.items():
            self.places[agent] = np.clip(self.places[agent] + MOVES[action], 0, SIZE - 1)
            eaten = self.ripe & (self.berries == self.places[agent]).all(axis=1)
            self.ripe &= ~eaten
            rewards[agent] = float(eaten.sum())
        self.steps += 1
        seen = list(self.agents)
        done, late = not self.ripe.any(), self.steps == TIME_LIMIT
        self.agents = [] if done or late else seen
        return (
            {agent: self.observe(agent) for agent in seen},
            rewards,
            dict.fromkeys(seen, done),
            dict.fromkeys(seen, late and not done),
            {agent: {} for agent in seen},
        )

    def observe(self, agent: str) -> NDArray[np.float32]:
        """What one forager sees."""
        here = self.places[agent]
        others = [(*(place - here), 1) for other, place in self.places.items() if other != agent]
        berries = [(*(place - here), there) for place, there in zip(self.berries, self.ripe, strict=True)]
        return np.concatenate([here, *others, *berries]).astype(np.float32)


# From here on: the same game as an entity environment.
_AWAY = (Feature("dx", -SIZE, SIZE), Feature("dy", -SIZE, SIZE))
SCHEMA = EntitySchema(
    entity_types=(
        EntityType("self", (Feature("x", 0, SIZE - 1), Feature("y", 0, SIZE - 1)), max_count=1),
        EntityType("forager", _AWAY, max_count=2),
        EntityType("berry", _AWAY, max_count=NUM_BERRIES),
    ),
    actors=("self",),  # each agent acts for itself
    verbs=("stay", "north", "south", "east", "west"),  # the environment's actions, in their order
)


def observe(raw: NDArray[np.float32], agent: str, info: Mapping[str, Any]) -> AgentView:
    """One agent's raw observation → lists of entities; what is not there is left out."""
    others = raw[2:].reshape(-1, 3)
    foragers, berries = others[:2], others[2:]
    return AgentView({"self": [raw[:2]], "forager": foragers[:, :2], "berry": berries[berries[:, 2] > 0, :2]})


def make_env() -> EntityParallelEnv:
    """For `register_multi_agent_env("foraging:make_env")`."""
    return EntityParallelEnv(Foraging(), SCHEMA, observe)
