"""Two squads of couriers and a referee who sees one number: a multi-agent environment of unlike agents."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from tests.environments import COURIERS
from tests.rllib.single_couriers import CourierEnv

SQUADS = ("home", "away")
REFEREE = "referee"


class CourierMatch(MultiAgentEnv):
    """Each squad plays couriers for itself; the referee is paid for action 1. Ends with the home squad's episode."""

    possible_agents = (*SQUADS, REFEREE)
    observation_spaces = {  # noqa: RUF012 (as RLlib declares it)
        **dict.fromkeys(SQUADS, COURIERS.observation_space),
        REFEREE: gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
    }
    action_spaces = {  # noqa: RUF012
        **dict.fromkeys(SQUADS, COURIERS.action_space),
        REFEREE: gymnasium.spaces.Discrete(2),
    }

    def __init__(self) -> None:
        super().__init__()
        self.agents = list(self.possible_agents)
        self._squads = {squad: CourierEnv() for squad in SQUADS}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents = list(self.possible_agents)
        seeds = dict.fromkeys(SQUADS) if seed is None else {squad: seed + i for i, squad in enumerate(SQUADS)}
        observations: dict[str, Any] = {squad: env.reset(seed=seeds[squad])[0] for squad, env in self._squads.items()}
        return observations | {REFEREE: np.zeros(1, np.float32)}, {}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        steps = {squad: env.step(actions[squad]) for squad, env in self._squads.items()}
        observations: dict[str, Any] = {squad: step[0] for squad, step in steps.items()}
        rewards = {squad: step[1] for squad, step in steps.items()} | {REFEREE: float(actions[REFEREE])}
        _, _, terminated, truncated, _ = steps["home"]
        if terminated or truncated:
            self.agents = []
        return (
            observations | {REFEREE: np.zeros(1, np.float32)},
            rewards,
            {"__all__": terminated},
            {"__all__": truncated},
            {},
        )


def make_env(**options: Any) -> CourierMatch:
    """For `register_env`."""
    return CourierMatch(**options)
