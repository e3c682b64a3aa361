"""What an army of MAgent2's battle sees and may do: one schema for all maps but for the number of slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.magent_rules import ADJACENT, FAR_AWAY, MOVES, NUM_MOVES, Battlefield
from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    EntitySchema,
    EntityType,
    Feature,
    Observation,
    TargetedVerb,
    features_key,
    mask_key,
)

# The declared range of a position is what the model reads as [-1, 1]: the length of a fight rather than of the map
# (docs/decisions.md), and the same for every map, so that weights mean the same on all.
FIGHT = 6.0
NEAR = 3
"""Who is at most this many columns and rows away is near: a unit can walk and strike over it in two steps."""

_FARTHEST = 6.0  # offsets to the nearest opponent are cut here, at the radius of a unit's view in battle_v4

UNIT_FEATURES = (
    Feature("health", 0.0, 1.0),  # fraction of the full health
    Feature("x", -FIGHT, FIGHT),  # cells from the map's centre, to where the enemy begins
    Feature("y", -FIGHT, FIGHT),  # cells from the map's centre, to the north
    Feature("opponent_dx", -3.0, 3.0),  # to the nearest unit of the other army, at most 6 cells; 0 if there is none
    Feature("opponent_dy", -3.0, 3.0),
    Feature("opponents_adjacent", 0.0, 4.0),  # units of the other army in the eight neighbouring cells
    Feature("opponents_near", 0.0, 8.0),  # … at most three columns and rows away
    Feature("friends_near", 0.0, 8.0),  # other units of its own army there
)
FEATURE_NAMES = tuple(feature.name for feature in UNIT_FEATURES)

# Fractions, which mean the same for armies of any size. There is no clock: battles on large maps last several times as long,
# and the time limit is truncation, where values are bootstrapped.
GLOBAL_FEATURES = (
    Feature("allies_left", 0.0, 1.0),  # fraction of the army
    Feature("enemies_left", 0.0, 1.0),
    Feature("ally_health", 0.0, 1.0),  # of all, the dead as zero
    Feature("enemy_health", 0.0, 1.0),
)


def schema_of_army(units: int) -> EntitySchema:
    """The schema of a battle between two armies of that many units."""
    return EntitySchema(
        entity_types=(EntityType("ally", UNIT_FEATURES, units), EntityType("enemy", UNIT_FEATURES, units)),
        actors=("ally",),
        verbs=tuple(MOVES),
        targeted_verbs=(TargetedVerb("attack", "enemy"),),
        globals=GLOBAL_FEATURES,
    )


def observe(field: Battlefield) -> Observation:
    """The observation of an army in a batch of battles, by the keys of `schema_of_army`."""
    ally_mask, enemy_mask = field.health > 0, field.other_health > 0
    distance = field.squared_distance
    battles = len(field.side)
    global_features = np.stack(
        [ally_mask.mean(axis=1), enemy_mask.mean(axis=1), field.health.mean(axis=1), field.other_health.mean(axis=1)],
        axis=1,
        dtype=np.float32,
        casting="same_kind",
    )
    action_mask = np.empty((battles, ally_mask.shape[1], NUM_MOVES + enemy_mask.shape[1]), bool)
    action_mask[..., :NUM_MOVES] = field.can_move
    action_mask[..., NUM_MOVES:] = field.can_attack
    ally_near, enemy_near = _near(field.xy, field.other_xy, ally_mask, enemy_mask)
    return {
        features_key("ally"): _features(field.xy, field.health, field.other_xy, distance, ally_near),
        mask_key("ally"): ally_mask,
        features_key("enemy"): _features(
            field.other_xy, field.other_health, field.xy, distance.transpose(0, 2, 1), enemy_near[..., ::-1]
        ),
        mask_key("enemy"): enemy_mask,
        GLOBALS: global_features,
        ACTION_MASK: action_mask,
    }


def _features(
    xy: NDArray[np.float32],
    health: NDArray[np.float32],
    opponent_xy: NDArray[np.float32],
    distance: NDArray[np.int32],
    near: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Rows of one army, `[battles, units, features]`; zeros for the dead."""
    nearest = distance.argmin(axis=2)
    offset = np.take_along_axis(opponent_xy, nearest[..., None], axis=1) - xy
    anybody = np.take_along_axis(distance, nearest[..., None], axis=2) < FAR_AWAY
    features = np.empty((*health.shape, len(UNIT_FEATURES)), np.float32)
    features[..., 0] = health
    features[..., 1:3] = xy
    features[..., 3:5] = np.where(anybody, offset.clip(-_FARTHEST, _FARTHEST), 0.0)
    features[..., 5] = np.count_nonzero(distance <= ADJACENT, axis=2)
    features[..., 6] = near[..., 1]
    features[..., 7] = near[..., 0] - 1  # not the unit itself
    features[health <= 0] = 0.0
    return features


def _near(
    xy: NDArray[np.float32], other_xy: NDArray[np.float32], alive: NDArray[np.bool_], other_alive: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each unit of both armies, how many living units of the first and of the second are near, `[battles, units, 2]`.

    Counted by running sums over the map, so that the cost grows with units and cells, not with pairs.
    """
    positions = np.stack([xy, other_xy], axis=1)  # battles army units 2
    living = np.stack([alive, other_alive], axis=1)
    origin = positions[living].min(initial=0.0)
    cells = np.where(living[..., None], positions - origin, 0.0).astype(np.int64) + NEAR + 1
    side = int(cells.max()) + NEAR + 1
    sums = np.zeros((len(alive), 2, side, side), np.int32)
    battle, army, unit = np.nonzero(living)
    sums[battle, army, cells[battle, army, unit, 0], cells[battle, army, unit, 1]] = 1
    np.cumsum(sums, axis=2, out=sums)
    np.cumsum(sums, axis=3, out=sums)
    sums = sums.transpose(0, 2, 3, 1)  # battles x y army
    battle = np.arange(len(alive))[:, None, None]
    x_high, y_high = np.moveaxis(cells + NEAR, -1, 0)
    x_low, y_low = np.moveaxis(cells - NEAR - 1, -1, 0)
    near = (
        sums[battle, x_high, y_high] - sums[battle, x_low, y_high] - sums[battle, x_high, y_low] + sums[battle, x_low, y_low]
    )
    return near[:, 0], near[:, 1]
