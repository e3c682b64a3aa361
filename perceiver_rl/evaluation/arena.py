"""Where policies are compared: a vector environment of squads, or parallel environments of many agents, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from perceiver_rl.entities import EntitySchema, schema_of
from perceiver_rl.environments import make_parallel_env, make_vector_env, require_possible_agents
from perceiver_rl.evaluation.agent import Agent
from perceiver_rl.evaluation.parallel import evaluate_parallel
from perceiver_rl.evaluation.rollout import EpisodeRecord, evaluate

PER_AGENT = "per agent"
"""Control of a multi-agent environment: each agent decides by what it sees itself."""


@runtime_checkable  # signatures are checked at run time under pytest
class Arena(Protocol):
    """A number of environments to play in."""

    env: str
    """Name or import string."""
    num_envs: int
    control: str
    schemas: dict[str, EntitySchema]
    """What each policy sees and does, by module id."""
    rows: dict[str, int]
    """Observations that each policy decides about at once, at most."""

    def play(
        self,
        policies: Mapping[str, Agent],
        *,
        episodes_per_env: int,
        seed: int,
        greedy: bool,
        on_episode: Callable[[int, int], None],
    ) -> list[EpisodeRecord]:
        """Play; `policies` by module id."""

    def close(self) -> None:
        """Close the environments."""


class VectorArena:
    """One policy for a squad, in a vector environment.

    Args:
        env: Name or import string.
        num_envs: Sub-environments.
        options: The environment's options.
        module: Module id of the policy.
    """

    def __init__(self, env: str, num_envs: int, options: Mapping[str, Any], module: str) -> None:
        self._env = make_vector_env(env, num_envs, **options)
        self._module = module
        schema = schema_of(self._env.single_observation_space)
        self.env = env
        self.num_envs = num_envs
        self.control: str = schema.control
        self.schemas = {module: schema}
        self.rows = {module: num_envs}

    def play(self, policies: Mapping[str, Agent], **settings: Any) -> list[EpisodeRecord]:
        """See `perceiver_rl.evaluation.rollout.evaluate`."""
        return evaluate(policies[self._module], self._env, **settings)

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


class ParallelArena:
    """A policy for each agent, shared or not, in PettingZoo parallel environments.

    Args:
        env: Name or import string.
        num_envs: Environments.
        options: Their options.
        policy_of: Module id of each agent's policy.

    Raises:
        ValueError: If there is an agent of no policy.
    """

    def __init__(self, env: str, num_envs: int, options: Mapping[str, Any], policy_of: Mapping[str, str]) -> None:
        self._options = options
        self._envs = [make_parallel_env(env, **options)]  # the others are made when they are played
        self._policy_of = policy_of
        self.env = env
        self.num_envs = num_envs
        self.control = PER_AGENT
        self.schemas: dict[str, EntitySchema] = {}
        self.rows: dict[str, int] = {}
        for agent in require_possible_agents(self._envs[0]):
            if agent not in policy_of:
                raise ValueError(
                    f"environment {env!r}: got agent {agent!r}, which the checkpoint has no policy for; expected some of "
                    f"{', '.join(policy_of)}"
                )
            module = policy_of[agent]
            self.schemas[module] = schema_of(self._envs[0].observation_space(agent))
            self.rows[module] = self.rows.get(module, 0) + num_envs

    def play(self, policies: Mapping[str, Agent], **settings: Any) -> list[EpisodeRecord]:
        """See `perceiver_rl.evaluation.parallel.evaluate_parallel`."""
        while len(self._envs) < self.num_envs:
            self._envs.append(make_parallel_env(self.env, **self._options))
        return evaluate_parallel(policies, self._policy_of, self._envs, **settings)

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
