"""The hunter as an agent: the script that commands MAgent2's other army, for the army of the agent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.magent_opponents import hunter
from envs.magent_rules import FAR_AWAY, NUM_MOVES, RED, Battlefield
from envs.magent_schema import FEATURE_NAMES, schema_of_army
from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation, features_key, mask_key

_XY = slice(FEATURE_NAMES.index("x"), FEATURE_NAMES.index("y") + 1)
_HEALTH = FEATURE_NAMES.index("health")


class HunterAgent:
    """Each unit strikes its weakest neighbour, else walks to the nearest enemy; see `envs.magent_opponents.hunter`.

    It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: The schema of a MAgent2 battle.

    Raises:
        ValueError: If it is another schema.
    """

    def __init__(self, schema: EntitySchema) -> None:
        expected = schema_of_army(schema.max_actors)
        if schema != expected:
            raise ValueError(
                f"HunterAgent: got a schema with actors {', '.join(schema.actors)} and verbs {', '.join(schema.verbs)}, "
                "expected that of a MAgent2 battle (envs.magent.battle_schema)"
            )
        self._random = np.random.default_rng()

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew, with a random stream that depends on the seed alone; it decides between equals."""
        self._random = np.random.default_rng(seed)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Choose for every actor of every environment.

        Args:
            observation: Batched arrays `[num_envs, …]`.
            started: Not used; this agent remembers nothing.
            greedy: Not used.

        Returns:
            Options, `[num_envs, max_actors]`; 0 for absent actors.
        """
        field = _battlefield(observation)
        num_envs = len(field.health)
        options = hunter(field, lambda *shape: self._random.random((num_envs, *shape), np.float32))
        return np.where(field.health > 0, options, 0)


def _battlefield(observation: Observation) -> Battlefield:
    """What the observation tells, in the form that the script reads."""
    allies, enemies = observation[features_key("ally")], observation[features_key("enemy")]
    alive, others_alive = observation[mask_key("ally")], observation[mask_key("enemy")]
    legal = observation[ACTION_MASK]
    difference = allies[:, :, None, _XY] - enemies[:, None, :, _XY]
    both = alive[:, :, None] & others_alive[:, None]
    return Battlefield(
        side=np.full(len(allies), RED),
        xy=allies[..., _XY],
        health=np.where(alive, allies[..., _HEALTH], 0.0),
        other_xy=enemies[..., _XY],
        other_health=np.where(others_alive, enemies[..., _HEALTH], 0.0),
        squared_distance=np.where(both, np.square(difference).sum(axis=-1), FAR_AWAY).astype(np.int32),
        can_move=legal[..., :NUM_MOVES],
        can_attack=legal[..., NUM_MOVES:],
    )
