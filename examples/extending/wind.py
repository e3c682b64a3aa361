"""The fires of fires.py and an opponent who fans them: a multi-agent environment of unlike agents."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from fires import SCHEMA, FireEnv
from numpy.typing import NDArray
from ray.rllib.env.multi_agent_env import MultiAgentEnv

FANNED = 0.2  # how much a fire in the chosen quarter of the map grows


class FireAndWind(MultiAgentEnv):
    """The squad sees entities; the wind sees four numbers and chooses a quarter. What one wins the other loses."""

    possible_agents = ("squad", "wind")
    observation_spaces = {  # noqa: RUF012 (as RLlib declares it)
        "squad": SCHEMA.observation_space,
        "wind": gymnasium.spaces.Box(0.0, np.inf, (4,), np.float32),
    }
    action_spaces = {"squad": SCHEMA.action_space, "wind": gymnasium.spaces.Discrete(4)}  # noqa: RUF012

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.agents = list(self.possible_agents)
        self.env = FireEnv()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        squad, _ = self.env.reset(seed=seed)
        return {"squad": squad, "wind": self.burning()}, {}

    def step(self, action_dict: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """The wind fans fires, then the squad acts."""
        fanned = (self.env.sizes > 0) & (self.quarters() == action_dict["wind"])
        self.env.sizes[fanned] += FANNED
        squad, reward, terminated, truncated, _ = self.env.step(action_dict["squad"])
        return (
            {"squad": squad, "wind": self.burning()},
            {"squad": reward, "wind": -reward},
            {"__all__": terminated},
            {"__all__": truncated},
            {},
        )

    def quarters(self) -> NDArray[np.int64]:
        """In which quarter of the map each fire is."""
        return (self.env.fires > 0.5) @ np.array([1, 2])

    def burning(self) -> NDArray[np.float32]:
        """How much burns in each quarter."""
        return np.bincount(self.quarters(), self.env.sizes, minlength=4).astype(np.float32)
