"""Drones put out fires that grow: a squad environment of one's own, in one file."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from perceiver_rl.entities import EntitySchema, EntityType, Feature, Observation, TargetedVerb

MAX_DRONES, MAX_FIRES, MAX_SIZE = 4, 6, 3.0

SCHEMA = EntitySchema(
    entity_types=(
        EntityType("drone", (Feature("x", 0, 1), Feature("y", 0, 1)), max_count=MAX_DRONES),
        EntityType("fire", (Feature("x", 0, 1), Feature("y", 0, 1), Feature("size", 0, MAX_SIZE)), max_count=MAX_FIRES),
    ),
    actors=("drone",),
    verbs=("wait",),
    targeted_verbs=(TargetedVerb("douse", "fire"),),  # options: 0 waits, 1 + i douses fire i
    globals=(Feature("time left", 0, 1),),
)

TIME_LIMIT = 30
SPEED = 0.12  # of the map's side, in a step
WATER = 0.5  # what one drone takes off a fire in a step
GROWTH = 0.06


class FireEnv(gymnasium.Env[Observation, NDArray[Any]]):
    """Two to four drones and three to six fires on a square map.

    Observation: where drones and fires are, how large the fires are, how much time is left. A fire that is out stays, with
        size 0, so that slots keep their meaning during an episode.
    Action: for each drone, wait, or fly to a fire and pour water on it.
    Reward: 1 / number of fires for each fire put out, so that the best return is 1.
    Termination: when all fires are out; truncation after 30 steps. `info["won"]` tells which.
    """

    metadata = {"control": "centralized"}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(self) -> None:
        self.observation_space = SCHEMA.observation_space
        self.action_space = SCHEMA.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)  # seeds self.np_random, from which all randomness has to come
        self.drones = self.np_random.random((self.np_random.integers(2, MAX_DRONES + 1), 2))
        self.fires = self.np_random.random((self.np_random.integers(3, MAX_FIRES + 1), 2))
        self.sizes = self.np_random.uniform(0.5, 1.5, len(self.fires))
        self.steps = 0
        return self.observe(), {"won": False}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Fly, pour water, and let the fires that are left grow."""
        burning = self.sizes > 0
        for drone, option in enumerate(action[: len(self.drones)]):  # slots without a drone come last, and mean nothing
            if option > 0:
                self.fly(drone, int(option) - 1)
        out = burning & (self.sizes <= 0)
        self.sizes = np.where(self.sizes > 0, np.minimum(self.sizes + GROWTH, MAX_SIZE), 0.0)
        self.steps += 1
        won = not (self.sizes > 0).any()
        truncated = self.steps == TIME_LIMIT and not won
        return self.observe(), float(out.sum() / len(self.fires)), won, truncated, {"won": won}

    def fly(self, drone: int, fire: int) -> None:
        """Towards a fire, and pour water on it if the drone arrives."""
        way = self.fires[fire] - self.drones[drone]
        distance = float(np.hypot(*way))
        self.drones[drone] += way * min(1.0, SPEED / max(distance, SPEED))
        if distance <= SPEED:
            self.sizes[fire] -= WATER

    def observe(self) -> Observation:
        """Lists of what is there and what is legal now; `pack` puts them into slots and checks them."""
        legal = np.concatenate([[True], self.sizes > 0, np.zeros(MAX_FIRES - len(self.fires), bool)])
        return SCHEMA.pack(
            entities={"drone": self.drones, "fire": np.column_stack([self.fires, self.sizes])},
            action_mask=np.tile(legal, (len(self.drones), 1)),
            globals=[1 - self.steps / TIME_LIMIT],
        )


def make_env(num_envs: int | None = None) -> gymnasium.Env[Any, Any] | SyncVectorEnv:
    """One environment, or `num_envs` of them in a batch."""
    return FireEnv() if num_envs is None else SyncVectorEnv([FireEnv] * num_envs)
