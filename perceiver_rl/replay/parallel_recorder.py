"""Play episodes of a multi-agent environment, and keep them as each agent saw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from perceiver_rl.entities import EntitySchema, Observation, schema_of
from perceiver_rl.environments import require_possible_agents
from perceiver_rl.evaluation.arena import PER_AGENT
from perceiver_rl.evaluation.parallel import agents_of, stacked
from perceiver_rl.evaluation.rollout import telling_where, torch_threads_of
from perceiver_rl.infos import outcome_in
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.replay.recorder import Tape, Thought, frame_of, think
from perceiver_rl.replay.recording import Episode, Recording
from perceiver_rl.rewards import require_finite
from perceiver_rl.scene import SCENE, Scene
from perceiver_rl.seeding import AGENT, EVALUATION, stream_seed


def record_parallel(
    policies: Mapping[str, EntityPolicy],
    policy_of: Mapping[str, str],
    env: Any,
    *,
    shown: str,
    episodes: int,
    env_name: str,
    policy_name: str,
    seed: int,
    greedy: bool,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Recording:
    """Record what every agent of one policy saw, thought and did, from its birth to its end: an episode for each agent.

    Views of separate agents make no one picture, so each has its own.

    Args:
        policies: Who plays, by policy, on the devices where they are; put into evaluation mode.
        policy_of: The policy of each possible agent.
        env: A PettingZoo parallel environment whose observations keep a schema. It is reset first, and not closed. A `Scene`
            under `"scene"` in its metadata tells how it is drawn.
        shown: The policy whose agents are kept.
        episodes: Of the environment; greedy, the first is the one that `evaluate` begins with for the same seed.
        env_name: What the replay calls the environment.
        policy_name: What it calls the policy.
        seed: Seeds the environment and the agents' draws.
        greedy: Each actor's most probable option rather than a draw.
        on_step: Called after every step with episodes done, episodes in all, and steps so far.

    Raises:
        ValueError: If the shown policy is none of them, nobody plays by it, an agent has no policy, or an observation does
            not keep the contract, or a reward of a shown agent is not finite.
        Exception: Whatever else the environment or a policy raises. All errors of a step carry a note that tells the step.
    """
    mine = [agent for agent in require_possible_agents(env) if policy_of.get(agent) == shown]
    if not mine:
        raise ValueError(f"replay: got policy {shown!r}, by which no agent plays; expected one of {', '.join(policies)}")
    schema = schema_of(env.observation_space(mine[0]))
    scene = env.metadata.get(SCENE) or Scene.of(schema)
    scene.check(schema)
    players = [_Player(name, policy, stream_seed(AGENT, seed, i)) for i, (name, policy) in enumerate(policies.items())]
    kept: list[Episode] = []
    steps = 0
    with torch_threads_of(1):
        for number in range(episodes):
            observations, _ = env.reset(seed=stream_seed(EVALUATION, seed) if number == 0 else None)
            tapes: dict[str, list[Tape]] = {}
            while env.agents:
                steps += 1
                actions: dict[str, Any] = {}
                seen: dict[str, tuple[Thought, int]] = {}
                before = observations
                with telling_where(f"in step {steps} of a replay in {env_name}"):
                    for player in players:
                        thoughts = player.think(before, env.agents, policy_of, greedy)
                        actions |= {agent: thought.options[row] for agent, (thought, row) in thoughts.items()}
                        if player.name == shown:
                            seen = thoughts
                    observations, rewards, terminated, truncated, infos = env.step(actions)
                    for agent in seen:
                        require_finite(rewards[agent], f"reward of {agent!r}")
                for agent, (thought, row) in seen.items():
                    lives = tapes.setdefault(agent, [])
                    if not lives or lives[-1].over:  # an agent that comes back begins an episode of its own
                        lives.append(Tape())
                    tape = lives[-1]
                    tape.add(_frame(schema, before[agent]), thought, float(rewards[agent]), row)
                    if terminated[agent] or truncated[agent]:
                        tape.end(_frame(schema, observations[agent]), outcome_in(infos.get(agent) or {}))
                if on_step is not None:
                    on_step(number, episodes, steps)
            prefix = f"{number + 1}: " if episodes > 1 else ""
            for agent in mine:
                for life, tape in enumerate(tapes.get(agent, ()), start=1):
                    kept.append(tape.episode(schema, prefix + agent + (f", life {life}" if life > 1 else "")))
            if on_step is not None:
                on_step(number + 1, episodes, steps)
    return Recording(
        env=env_name,
        policy=policy_name,
        control=PER_AGENT,
        mode="greedy" if greedy else "sampled",
        seed=seed,
        schema=schema,
        scene=scene,
        episodes=tuple(kept),
    )


class _Player:
    """A policy, and its stream of random numbers."""

    def __init__(self, name: str, policy: EntityPolicy, seed: int) -> None:
        self.name = name
        self._policy = policy.eval()
        self._generator = torch.Generator(next(policy.parameters()).device)
        self._generator.manual_seed(seed)

    def think(
        self, observations: Mapping[str, Observation], agents: list[str], policy_of: Mapping[str, str], greedy: bool
    ) -> dict[str, tuple[Thought, int]]:
        """What those think who live and play by this policy: for each the thought of all, and its row in it."""
        rows = agents_of(self.name, agents, policy_of)
        if not rows:
            return {}
        batch = stacked([observations[agent] for agent in rows])
        self._policy.schema.check(batch, (len(rows),))
        thought = think(self._policy, batch, greedy=greedy, generator=self._generator)
        return {agent: (thought, row) for row, agent in enumerate(rows)}


def _frame(schema: EntitySchema, observation: Observation) -> Observation:
    return frame_of(schema, {key: array[None] for key, array in observation.items()}, 0)
