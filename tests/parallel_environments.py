"""A multi-agent environment that tests can learn: couriers and porters are born, deliver and die at different times."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Dict as DictSpace
from gymnasium.spaces import Discrete, Space
from pettingzoo import ParallelEnv

from perceiver_rl.entities import EntitySchema, EntityType, TargetedVerb
from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv

with warnings.catch_warnings():  # PettingZoo's own tests import a game in a way that PettingZoo deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import parallel_api_test as parallel_api_test

MAX_POSTS = 3
TIME_LIMIT = 7

_POST = EntityType("post", ("team", "brightness"), MAX_POSTS)
COURIER = EntitySchema(
    (EntityType("courier", ("team",), 1), _POST), ("courier",), ("wait",), (TargetedVerb("deliver", "post"),)
)
PORTER = EntitySchema(
    (EntityType("porter", ("team", "strength"), 1), _POST), ("porter",), ("wait",), (TargetedVerb("deliver", "post"),)
)
SCHEMAS = {"courier": COURIER, "porter": PORTER}


class Deliveries(ParallelEnv):
    """Agents see their team and up to three posts, of which one is of each team; all is drawn anew in every step.

    Observation: team, strength, posts' teams and brightnesses as arrays in a dictionary; how many posts there are changes.
    Action: 0 waits, i + 1 delivers to post i.
    Reward: 1 for a delivery of a courier to a post of its team, of a porter to one of the other team; none at a post that is
        not there.
    Agents: `<kind>_<number>`. The first lives until the time limit, which truncates; each other one is born in a step of its
    own and dies 1 to 3 steps later.
    What is shown, who is born and who dies depends on seed and step alone.
    """

    def __init__(self, kinds: Iterable[str] = ("courier",), number: int = 4) -> None:
        self.metadata = {"name": "deliveries_v0"}
        self.render_mode = None
        self.possible_agents = [f"{kind}_{each}" for kind in kinds for each in range(number)]
        self.agents: list[str] = []
        self._random = np.random.default_rng()
        self._action_space = Discrete(1 + MAX_POSTS)
        self._observation_space = DictSpace({})

    def observation_space(self, agent: str) -> Space[Any]:
        return self._observation_space  # nobody needs it: the adapter has spaces of its own

    def action_space(self, agent: str) -> Space[Any]:
        return self._action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        first, *others = self.possible_agents
        births = self._random.integers(0, TIME_LIMIT - 1, len(others))
        lives = self._random.integers(1, 4, len(others))
        self._birth = {first: 0} | dict(zip(others, births.tolist(), strict=True))
        self._death = {agent: self._birth[agent] + life for agent, life in zip(others, lives.tolist(), strict=True)}
        self._time = 0
        self.agents = [agent for agent in self.possible_agents if self._birth[agent] == 0]
        self.observations = self._draw(self.agents)
        return self.observations, {agent: {} for agent in self.agents}

    def step(self, actions: Mapping[str, int]) -> tuple[dict[str, Any], ...]:
        assert set(actions) == set(self.agents), "somebody who is not there acted, or somebody did not"
        rewards = {agent: self._reward(agent, action) for agent, action in actions.items()}
        self._time += 1
        over = self._time == TIME_LIMIT
        dead = {agent for agent in self.agents if self._death.get(agent) == self._time}
        born = [] if over else [agent for agent in self.possible_agents if self._birth[agent] == self._time]
        seen = [*self.agents, *born]
        terminations = {agent: agent in dead for agent in seen}
        truncations = {agent: over and agent not in dead for agent in seen}
        infos = {agent: {"delivered": rewards.get(agent, 0.0), "name": agent} for agent in seen}
        self.observations = self._draw(seen)
        self.agents = [] if over else [agent for agent in seen if agent not in dead]
        return self.observations, rewards | dict.fromkeys(born, 0.0), terminations, truncations, infos

    def _reward(self, agent: str, action: int) -> float:
        seen = self.observations[agent]
        if not 0 < action <= len(seen["posts"]):
            return 0.0
        wanted = seen["team"] if agent.startswith("courier") else -seen["team"]
        return float(seen["posts"][action - 1, 0] == wanted)

    def _draw(self, agents: list[str]) -> dict[str, Any]:
        return {agent: self._draw_one() for agent in agents}

    def _draw_one(self) -> dict[str, Any]:
        count = int(self._random.integers(2, MAX_POSTS + 1))
        teams = self._random.permutation([-1.0, 1.0, 0.0][:count])
        posts = np.stack([teams, self._random.normal(size=count)], axis=1)
        return {"team": float(self._random.choice([-1, 1])), "strength": float(self._random.random()), "posts": posts}


def observe(raw: Mapping[str, Any], agent: str, info: Mapping[str, Any]) -> AgentView:
    kind = agent.split("_")[0]
    own = [raw["team"]] if kind == "courier" else [raw["team"], raw["strength"]]
    return AgentView({kind: [own], "post": raw["posts"]})


def make_deliveries(kinds: Iterable[str] = ("courier",), number: int = 4) -> EntityParallelEnv:
    """For `register_multi_agent_env("tests.parallel_environments:make_deliveries")`."""
    env = Deliveries(kinds, number)
    return EntityParallelEnv(
        env,
        {agent: SCHEMAS[agent.split("_")[0]] for agent in env.possible_agents},
        observe,
        act=lambda option, agent: option,
    )
