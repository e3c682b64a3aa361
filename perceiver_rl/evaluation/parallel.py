"""Play a fixed number of episodes in each of several multi-agent environments, all agents' decisions in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from perceiver_rl.entities import EntitySchema, Observation, schema_of
from perceiver_rl.evaluation.agent import Agent
from perceiver_rl.evaluation.rollout import EpisodeRecord, telling_where, torch_threads_of
from perceiver_rl.infos import outcome_in
from perceiver_rl.rewards import require_finite
from perceiver_rl.seeding import AGENT, EVALUATION, stream_seed

RETURN_PER_AGENT = "return_per_agent"
"""Key of a record's info: the mean over all agents that took part of what each got. `total_reward` is their sum."""


def evaluate_parallel(
    policies: Mapping[str, Agent],
    policy_of: Mapping[str, str],
    envs: Sequence[Any],
    *,
    episodes_per_env: int,
    seed: int,
    greedy: bool,
    on_episode: Callable[[int, int], None] | None = None,
    torch_threads: int = 1,
) -> list[EpisodeRecord]:
    """Play `len(envs) * episodes_per_env` episodes; the same arguments give the same records.

    In each step the observations of all living agents of all environments go through their policy together, stacked.

    Args:
        policies: Who plays, by policy. Its rows are whoever lives, in changing number, so it must not remember rows.
        policy_of: The policy of each possible agent.
        envs: PettingZoo parallel environments whose observations keep a schema. They are reset first, and not closed.
        episodes_per_env: Episodes in each environment.
        seed: Seeds the environments (the first episode of environment `i` by `seed + i`) and the policies.
        greedy: The best option rather than a draw.
        on_episode: Called after every episode, with how many are done and how many will be.
        torch_threads: Threads of the forward passes.

    Returns:
        The records, those of environment 0 first, each environment's in the order of time. The numbers of an episode are
        those of each agent's last info, averaged over the agents that tell a finite one. It was won if all agents that tell
        anything say so; None if they disagree, as opponents do.

    Raises:
        ValueError: If `episodes_per_env` is not positive, an agent has no policy, an observation does not keep its schema,
            or a reward is not finite.
        Exception: Whatever an environment or a policy raises, with a note that tells the environment.
    """
    if episodes_per_env < 1:
        raise ValueError(f"episodes_per_env: got {episodes_per_env}, expected at least 1")
    for number, policy in enumerate(policies.values()):
        policy.reset(len(envs), stream_seed(AGENT, seed, number))
    games = [
        _Game(index, env, episodes_per_env, stream_seed(EVALUATION, seed) + index, policy_of)
        for index, env in enumerate(envs)
    ]
    total = len(envs) * episodes_per_env
    tell = on_episode or (lambda done, total: None)
    done = 0
    with torch_threads_of(torch_threads):
        while playing := [game for game in games if game.left]:
            choices = _choose(policies, playing, greedy)
            for game, actions in zip(playing, choices, strict=True):
                if game.step(actions):
                    done += 1
                    tell(done, total)
    return [record for game in games for record in game.records]


@dataclass
class _Game:
    """One environment and how its episode stands."""

    index: int
    env: Any
    left: int
    """Episodes to be played."""
    seed: int | None
    policy_of: Mapping[str, str]
    records: list[EpisodeRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.length = 0
        with self._telling_where():
            self.observations, _ = self.env.reset(seed=self.seed)
        self.seed = None  # of the first episode only; the following ones go on from there
        self.returns = dict.fromkeys(self.env.agents, 0.0)
        self.infos: dict[str, dict[str, Any]] = {}  # the last one of each agent
        self.started = set(self.env.agents)

    def rows_of(self, policy: str) -> list[str]:
        """Agents of a policy that live."""
        return agents_of(policy, self.env.agents, self.policy_of)

    def schema_of(self, agent: str) -> EntitySchema:
        """What an agent sees and does."""
        return schema_of(self.env.observation_space(agent))

    def check(self, agent: str) -> None:
        """Raise if what an agent sees does not keep its schema."""
        with self._telling_where(f"of agent {agent!r} "):
            self.schema_of(agent).check(self.observations[agent])

    def step(self, actions: Mapping[str, Any]) -> bool:
        """One step; whether it ended the episode."""
        before = set(self.env.agents)
        self.length += 1
        with self._telling_where():
            self.observations, rewards, _, _, infos = self.env.step(actions)
            for agent, reward in rewards.items():
                require_finite(reward, f"reward of {agent!r}")
                self.returns[agent] = self.returns.get(agent, 0.0) + float(reward)
        self.infos |= infos
        self.started = set(self.env.agents) - before
        if self.env.agents:
            return False
        of_agents = list(self.returns.values())
        outcomes = [outcome_in(info) for info in self.infos.values()]
        wins = {outcome.won for outcome in outcomes if outcome.won is not None}
        numbers = _means([outcome.numbers for outcome in outcomes]) | {RETURN_PER_AGENT: fmean(of_agents or [0.0])}
        won = wins.pop() if len(wins) == 1 else None  # where one wins what the other loses, nobody's is the episode's
        self.records.append(EpisodeRecord(sum(of_agents), self.length, won, numbers))
        self.left -= 1
        if self.left:
            self._begin()
        return True

    def _telling_where(self, who: str = "") -> AbstractContextManager[None]:
        return telling_where(f"{who}in step {self.length} of an evaluation's episode in environment {self.index}")


def _means(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By key, over those that tell a finite number."""
    told: dict[str, list[float]] = {}
    for each in numbers:
        for key, value in each.items():
            if math.isfinite(value):
                told.setdefault(key, []).append(value)
    return {key: fmean(values) for key, values in sorted(told.items())}


def _choose(policies: Mapping[str, Agent], games: Sequence[_Game], greedy: bool) -> list[dict[str, Any]]:
    """An action for everybody alive: one call for each policy."""
    actions: list[dict[str, Any]] = [{} for _ in games]
    for name, policy in policies.items():
        rows = [(number, agent) for number, game in enumerate(games) for agent in game.rows_of(name)]
        if not rows:
            continue
        batch = _checked_batch(games, rows)
        started = np.array([agent in games[number].started for number, agent in rows])
        for (number, agent), action in zip(rows, policy.act(batch, started, greedy), strict=True):
            actions[number][agent] = action
    return actions


def _checked_batch(games: Sequence[_Game], rows: Sequence[tuple[int, str]]) -> Observation:
    """What agents of one policy see, each given by its game's number and its name; checked together, which is faster."""
    number, agent = rows[0]
    try:
        batch = stacked([games[number].observations[agent] for number, agent in rows])
        games[number].schema_of(agent).check(batch, (len(rows),))
    except (ValueError, KeyError):
        for number, agent in rows:
            games[number].check(agent)
        raise
    return batch


def agents_of(policy: str, agents: Sequence[str], policy_of: Mapping[str, str]) -> list[str]:
    """Those among living agents that play by a policy.

    Raises:
        ValueError: If one of them plays by none at all.
    """
    unknown = [agent for agent in agents if agent not in policy_of]
    if unknown:
        raise ValueError(f"agent {unknown[0]!r}: got no policy, expected one of {', '.join(policy_of)}")
    return [agent for agent in agents if policy_of[agent] == policy]


def stacked(observations: Sequence[Observation]) -> Observation:
    """Single observations of one schema, at least one, as a batch: arrays `[observations, …]`."""
    return {key: np.stack([each[key] for each in observations]) for key in observations[0]}
