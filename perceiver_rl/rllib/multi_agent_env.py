"""A PettingZoo parallel environment as RLlib's `MultiAgentEnv`.

RLlib ships `ParallelPettingZooEnv` for this. As of Ray 2.60 it takes its agents and their spaces from one reset, so an agent
that is born later has none; it lets an episode end where all agents that are left are terminated, or all truncated, but not
where one dies as time runs out for the others; and it flags each agent as truncated at a time limit, which RLlib's episodes
take for termination, so that values are not bootstrapped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from perceiver_rl.environments import require_possible_agents

ALL = "__all__"


class ParallelMultiAgentEnv(MultiAgentEnv):
    """RLlib's view of a PettingZoo parallel environment: agents come and go, and an episode ends when none is left.

    Observations of the step in which an agent dies are passed on: RLlib wants them at an episode's end. Who died is not
    heard of again, and nothing stands in its place.

    RLlib ends an episode also where everybody alive so far dies in the very step in which others are born.

    Args:
        env: The environment. It knows its `possible_agents`, since RLlib asks for all spaces before the first reset. Whether
            their observation spaces carry a schema is the module's affair.

    Raises:
        ValueError: If it does not know its possible agents.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        possible = require_possible_agents(env)
        self.possible_agents = possible
        self.agents = list(possible)
        self.observation_spaces = {agent: env.observation_space(agent) for agent in possible}
        self.action_spaces = {agent: env.action_space(agent) for agent in possible}
        # Older parts of RLlib read these.
        self.observation_space = gymnasium.spaces.Dict(self.observation_spaces)
        self.action_space = gymnasium.spaces.Dict(self.action_spaces)
        self.metadata = dict(getattr(env, "metadata", {}))  # RLlib writes into it
        self.render_mode = getattr(env, "render_mode", None)
        super().__init__()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        return observations, {agent: infos[agent] for agent in observations if agent in infos}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Let everybody alive act."""
        observations, rewards, terminateds, truncateds, infos = self.env.step(dict(action_dict))
        self.agents = list(self.env.agents)
        over = not self.agents
        cut_off = over and any(truncateds[agent] and not terminateds[agent] for agent in truncateds)
        terminateds = {**terminateds, ALL: over and not cut_off}
        # Not the agents' own flags beside it: where all agents have one, RLlib takes the episode for terminated, and values
        # are not bootstrapped at a time limit. Who died in this very step has its own `terminated` flag.
        truncateds = {ALL: True} if cut_off else {**truncateds, ALL: False}
        return observations, dict(rewards), terminateds, truncateds, {a: infos[a] for a in observations if a in infos}

    def render(self) -> Any:
        """The environment's picture."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
