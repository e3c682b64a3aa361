"""An agent that chooses at random among what is legal: the floor that every other agent must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation


class RandomAgent:
    """Chooses uniformly among the legal options of each actor, independently; an absent actor's option is 0.

    It keeps the `Agent` protocol of `perceiver_rl.evaluation`; there is nothing greedy about it, so `greedy`
    changes nothing.

    Args:
        schema: The environment's schema.
    """

    def __init__(self, schema: EntitySchema) -> None:
        self._schema = schema
        self._random = np.random.default_rng()

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew, with a random stream that depends on the seed alone."""
        self._random = np.random.default_rng(seed)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Choose for every actor of every environment.

        Args:
            observation: Batched arrays `[num_envs, …]`.
            started: Not used; this agent remembers nothing.
            greedy: Not used.

        Returns:
            Options, `[num_envs, max_actors]`.
        """
        legal = observation[ACTION_MASK]
        # The largest of independent uniform numbers is at each legal option with equal probability. Illegal
        # ones get -1, so an actor without any legal option, an absent one, gets the first, which is 0.
        return np.where(legal, self._random.random(legal.shape), -1.0).argmax(axis=-1)
