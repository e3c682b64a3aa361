"""What a unit of MAgent2's battle may do, seen from its own army's side.

Every army sees itself begin in the west: x grows towards where the other army begins, y to the north, both from the map's
centre. So one policy plays both sides. All arrays have a leading axis of battles; units are rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RED, BLUE = 0, 1
REACH = 2
"""Cells that a unit moves at most: every cell within a circle of this radius, over units and walls too."""

MOVES: dict[str, tuple[int, int]] = {
    "north 2": (0, 2),
    "northwest": (-1, 1),
    "north": (0, 1),
    "northeast": (1, 1),
    "west 2": (-2, 0),
    "west": (-1, 0),
    "stay": (0, 0),
    "east": (1, 0),
    "east 2": (2, 0),
    "southwest": (-1, -1),
    "south": (0, -1),
    "southeast": (1, -1),
    "south 2": (0, -2),
}
"""Each move by name with its offset (x, y) in cells."""

OFFSETS = np.array(list(MOVES.values()), np.int32)
NUM_MOVES = len(MOVES)
STAY = list(MOVES).index("stay")
ADJACENT = 2
"""Squared distance of the farthest of the eight cells that a unit can strike."""

FAR_AWAY = np.int32(2**20)
"""Squared distance told for pairs of which one is dead."""

# The engine counts rows of its map from the north, so its order of moves is that of the names; attacks follow, the eight
# neighbours row by row.
_NEIGHBOURS = [(x, y) for y in (1, 0, -1) for x in (-1, 0, 1) if (x, y) != (0, 0)]
_ENGINE_ACTION = np.zeros((2, 2, 2 * REACH + 1, 2 * REACH + 1), np.int32)  # side, attack or not, x + 2, y + 2
for _side, _east in ((RED, 1), (BLUE, -1)):
    for _attack, _offsets in ((0, list(MOVES.values())), (1, _NEIGHBOURS)):
        for _action, (_x, _y) in enumerate(_offsets):
            _ENGINE_ACTION[_side, _attack, _east * _x + REACH, _y + REACH] = _action + _attack * NUM_MOVES


@dataclass(frozen=True)
class Battlefield:
    """What an army knows and may do. Letters: b battles, a units of the army, t units of the other army."""

    side: NDArray[np.int64]
    """Which army this is, `[b]`: 0 red, 1 blue."""
    xy: NDArray[np.float32]
    """Positions, `[b, a, 2]`, in cells from the map's centre; those of the dead mean nothing."""
    health: NDArray[np.float32]
    """Fraction of the full health, `[b, a]`; 0 for the dead."""
    other_xy: NDArray[np.float32]
    """The other army's positions, `[b, t, 2]`."""
    other_health: NDArray[np.float32]
    """The other army's health, `[b, t]`."""
    squared_distance: NDArray[np.int32]
    """Of every pair of living units, `[b, a, t]`; `FAR_AWAY` where one is dead."""
    can_move: NDArray[np.bool_]
    """Moves of living units to cells that are free now, `[b, a, moves]`; staying is always one."""
    can_attack: NDArray[np.bool_]
    """Units of the other army in the eight neighbouring cells, `[b, a, t]`."""

    def engine_actions(self, options: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The engine's action for each unit's option, `[b, a]`: a move, or `NUM_MOVES` plus the slot that it attacks.

        An attack at a unit that is not in a neighbouring cell becomes the engine's "stay".
        """
        attacks, target = self._attacks(options)
        to_target = np.take_along_axis(self.other_xy, target, axis=1) - self.xy
        move = OFFSETS[np.where(options < NUM_MOVES, options, STAY)]
        x, y = np.moveaxis(np.where(attacks[..., None], to_target, move).astype(np.int64) + REACH, -1, 0)
        return _ENGINE_ACTION[self.side[:, None], attacks.astype(np.int64), x, y]

    def shares(self, options: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Each unit's share in what befalls each unit of the other army, `[b, a, t]`: attackers of one share it equally."""
        attacks, target = self._attacks(options)
        aimed = np.zeros(self.can_attack.shape, np.float32)
        np.put_along_axis(aimed, target, attacks[..., None], axis=2)
        return aimed / np.maximum(aimed.sum(axis=1, keepdims=True), 1)

    def _attacks(self, options: NDArray[np.integer[Any]]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Who attacks, `[b, a]`, and the slot of whom, `[b, a, 1]`; 0 for who does not."""
        target = np.where(options >= NUM_MOVES, options - NUM_MOVES, 0)[..., None].astype(np.int64)
        return (options >= NUM_MOVES) & np.take_along_axis(self.can_attack, target, axis=2)[..., 0], target


def battlefields(
    side: NDArray[np.int64], position: NDArray[np.int32], health: NDArray[np.float32], map_size: int
) -> tuple[Battlefield, Battlefield]:
    """A battle as an army sees it, and as the other army does.

    Args:
        side: The first army in each battle, `[b]`.
        position: The engine's cells of both armies, `[b, 2, units, 2]`.
        health: Of both armies, `[b, 2, units]`.
        map_size: Side of the map.
    """
    battle = np.arange(len(side))
    alive = health > 0
    can_move = _free_cells(position, alive, map_size)  # in the engine's directions
    # One axis at a time: numpy is slow on a last axis of two.
    own, other = (np.moveaxis(position[battle, army], -1, 0) for army in (side, 1 - side))
    distance = np.square(own[0][:, :, None] - other[0][:, None]) + np.square(own[1][:, :, None] - other[1][:, None])
    distance[~alive[battle, side]] = FAR_AWAY
    distance.transpose(0, 2, 1)[~alive[battle, 1 - side]] = FAR_AWAY
    xy = position.astype(np.float32) - np.float32((map_size - 1) / 2)
    first = _seen_from(side, xy, health, distance, can_move)
    second = _seen_from(1 - side, xy, health, distance.transpose(0, 2, 1), can_move)
    return first, second


def _seen_from(
    side: NDArray[np.int64],
    xy: NDArray[np.float32],
    health: NDArray[np.float32],
    distance: NDArray[np.int32],
    can_move: NDArray[np.bool_],
) -> Battlefield:
    battle = np.arange(len(side))
    # The engine's y grows to the south; blue's east is the engine's west.
    turn = np.stack([np.where(side == RED, 1, -1), np.full(len(side), -1)], axis=-1).astype(np.float32)[:, None]
    moves = can_move[battle, side]
    moves = np.where((side == RED)[:, None, None], moves, moves[..., _MIRRORED])
    return Battlefield(
        side=side,
        xy=xy[battle, side] * turn,
        health=health[battle, side],
        other_xy=xy[battle, 1 - side] * turn,
        other_health=health[battle, 1 - side],
        squared_distance=distance,
        can_move=moves,
        can_attack=distance <= ADJACENT,
    )


_MIRRORED = np.array([list(MOVES.values()).index((-x, y)) for x, y in MOVES.values()])


def _free_cells(position: NDArray[np.int32], alive: NDArray[np.bool_], map_size: int) -> NDArray[np.bool_]:
    """Whether each living unit's move ends in a free cell, `[b, 2, units, moves]`, east being the engine's."""
    taken = np.ones((len(position), map_size + 2, map_size + 2), bool)  # a margin, as moves reach one cell past the walls
    taken[:, 2:-2, 2:-2] = False
    battle, army, unit = np.nonzero(alive)
    x, y = (position[battle, army, unit] + 1).T
    taken[battle, x, y] = True
    to_x, to_y = x[:, None] + OFFSETS[:, 0], y[:, None] - OFFSETS[:, 1]
    free = ~taken[battle[:, None], to_x, to_y]
    free[:, STAY] = True
    can_move = np.zeros((*alive.shape, NUM_MOVES), bool)
    can_move[battle, army, unit] = free
    return can_move
