"""Scripted couriers: one that delivers where it should, and one whose rewards alone tell what is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation


class Expert:
    """Every courier delivers to the post of its team."""

    def __init__(self, schema: EntitySchema) -> None:
        assert schema.verbs == ("wait",)

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew; it draws nothing."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """The option of each courier; see `perceiver_rl.evaluation.Agent`."""
        teams = observation["entities/courier"][..., 0]
        posts = np.where(observation["entity_mask/post"], observation["entities/post"][..., 0], 0.0)
        right = 1 + (posts[:, None] == teams[..., None]).argmax(axis=-1)
        return np.where(observation["entity_mask/courier"], right, 0)


class Muddler(Expert):
    """Draws among all that is legal, and waits instead now and then: what it does most is never right."""

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew."""
        self._random = np.random.default_rng(seed)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """As of `Expert`."""
        legal = observation[ACTION_MASK]
        drawn = np.where(legal, self._random.random(legal.shape), 0.0).argmax(axis=-1)
        return np.where(self._random.random(drawn.shape) < 0.1, 0, drawn)
