"""Scripted couriers: one that delivers where it should, and worse ones to learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation


class Expert:
    """Every courier delivers to the post of its team."""

    wrong = 0.0
    """The share of choices that are drawn among all that are legal instead."""

    def __init__(self, schema: EntitySchema) -> None:
        assert schema.verbs == ("wait",)

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew."""
        self._random = np.random.default_rng(seed)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """The option of each courier; see `perceiver_rl.evaluation.Agent`."""
        legal = observation[ACTION_MASK]
        teams = observation["entities/courier"][..., 0]
        posts = np.where(observation["entity_mask/post"], observation["entities/post"][..., 0], 0.0)
        right = 1 + (posts[:, None] == teams[..., None]).argmax(axis=-1)
        drawn = np.where(legal, self._random.random(legal.shape), 0.0).argmax(axis=-1)
        chosen = np.where(self._random.random(right.shape) < self.wrong, drawn, right)
        return np.where(observation["entity_mask/courier"], chosen, 0)


class Muddler(Expert):
    """Nearly all of its choices are drawn."""

    wrong = 0.9
