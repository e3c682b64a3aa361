"""Scripted opponents that command a whole army, told what `Battlefield` tells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envs.magent_rules import FAR_AWAY, NUM_MOVES, OFFSETS, Battlefield

Draw = Callable[..., NDArray[np.float32]]
"""Called with a shape, gives numbers drawn uniformly from [0, 1), `[battles, *shape]`."""

Opponent = Callable[[Battlefield, Draw], NDArray[np.int64]]
"""Chooses an option for each unit, `[battles, units]`: a move, or `NUM_MOVES` plus the slot that it strikes."""

_TIE = np.float32(1e-3)
"""Decides between equals and changes no other order: healths that differ do so by 0.01, distances by 1."""


def hunter(field: Battlefield, draw: Draw) -> NDArray[np.int64]:
    """Strike the weakest neighbour, else walk to the nearest unit of the other army.

    A unit walks to that free cell in its reach from which the way is shortest, in a straight line, and stays if none is
    nearer. Between equals a random order decides, which is drawn in every step, for the whole army.
    """
    units = field.other_health.shape[1]
    health = np.where(field.can_attack, (field.other_health + _TIE * draw(units))[:, None], np.inf)
    strikes = NUM_MOVES + health.argmin(axis=-1)
    return np.where(field.can_attack.any(axis=-1), strikes, _walk_to_nearest(field, draw))


def _walk_to_nearest(field: Battlefield, draw: Draw) -> NDArray[np.int64]:
    units = field.other_health.shape[1]
    nearest = (field.squared_distance + _TIE * draw(units)[:, None]).argmin(axis=-1)
    offset = np.take_along_axis(field.other_xy, nearest[..., None], axis=1) - field.xy
    left = offset[:, :, None] - OFFSETS  # battles units moves 2
    distance = np.square(left[..., 0]) + np.square(left[..., 1]) + _TIE * draw(len(OFFSETS))[:, None]
    return np.where(field.can_move, distance, np.float32(FAR_AWAY)).argmin(axis=-1)


def random_army(field: Battlefield, draw: Draw) -> NDArray[np.int64]:
    """Any legal option of each unit with equal probability."""
    legal = np.concatenate([field.can_move, field.can_attack], axis=-1)
    return np.where(legal, draw(*legal.shape[1:]), np.float32(-1.0)).argmax(axis=-1)


OPPONENTS: dict[str, Opponent] = {"hunter": hunter, "random": random_army}
