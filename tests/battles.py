"""Play MAgent2's battles in tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.registry import make_agent
from envs.magent import BattleVectorEnv
from envs.magent_rules import STAY
from perceiver_rl.evaluation import EpisodeRecord, evaluate

INFO_KEYS = {"won", "annihilated", "allies_left", "enemies_left", "damage_dealt", "damage_taken", "units"}


def play(agent: str, name: str, battles: int, **options: Any) -> list[EpisodeRecord]:
    env = BattleVectorEnv(name, battles, **options)
    return evaluate(make_agent(agent, env.schema), env, episodes_per_env=1, seed=0, greedy=False)


def stay(env: BattleVectorEnv) -> Any:
    return np.full((env.num_envs, env.schema.max_actors), STAY)


def hunters(env: BattleVectorEnv, seed: int = 0) -> Any:
    """A function from an observation to the hunter's options."""
    agent = make_agent("hunter", env.schema)
    agent.reset(env.num_envs, seed)
    return lambda observation: agent.act(observation, np.zeros(env.num_envs, bool), False)
