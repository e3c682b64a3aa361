"""What a squad sees of an SMAX battle: names, ranges and order of features and options. Needs no jax."""

from __future__ import annotations

from typing import NamedTuple

from perceiver_rl.entities import EntitySchema, EntityType, Feature, TargetedVerb

MAP_SIDE = 32.0  # SMAX's maps are square
# What the model reads as [-1, 1]: not the whole map but the length that decides a fight, attack ranges of 2 to 6. Scaled by
# the map, units that fight stand closer together than a fresh network tells apart (docs/decisions.md has what it cost).
POSITION_RANGE = (MAP_SIDE / 2 - 4.0, MAP_SIDE / 2 + 4.0)
MAX_STEPS = 100  # SMAX's own setting, and jaxmarl's default
# SMAX compares its step counter with that setting before it counts the step, so an episode may take one step
# more.
TIME_LIMIT = MAX_STEPS + 1
VERBS = ("north", "east", "south", "west", "stop")  # in the order of SMAX's actions 0 to 4

# A target was within attack range (at most 6) when the attack began; both may then have moved by up to 2.1.
_TARGET_REACH = 10.0

UNIT_FEATURES = (
    Feature("health", 0.0, 1.0),  # fraction of the unit's full health
    Feature("x", *POSITION_RANGE),  # in map units, 0 (west) to 32 (east)
    Feature("y", *POSITION_RANGE),  # 0 (south) to 32 (north)
    Feature("last_move_x"),  # direction of the last step's move, 0 if it did not move
    Feature("last_move_y"),
    Feature("attacking", 0.0, 1.0),  # its last action was an attack
    Feature("target_dx", -_TARGET_REACH, _TARGET_REACH),  # to what it attacked, 0 if not in view
    Feature("target_dy", -_TARGET_REACH, _TARGET_REACH),
    Feature("cooldown", 0.0, 1.0),  # fraction of the weapon's full cooldown that is left
    Feature("is_marine", 0.0, 1.0),
    Feature("is_marauder", 0.0, 1.0),
    Feature("is_stalker", 0.0, 1.0),
    Feature("is_zealot", 0.0, 1.0),
    Feature("is_zergling", 0.0, 1.0),
    Feature("is_hydralisk", 0.0, 1.0),
)
FEATURE_NAMES = tuple(feature.name for feature in UNIT_FEATURES)


class MapSize(NamedTuple):
    """Number of units of each side at the start of a battle."""

    num_allies: int
    num_enemies: int


def schema_of_size(size: MapSize) -> EntitySchema:
    """The schema of a map with that many units."""
    return EntitySchema(
        entity_types=(
            EntityType("ally", UNIT_FEATURES, size.num_allies),
            EntityType("enemy", UNIT_FEATURES, size.num_enemies),
        ),
        actors=("ally",),
        verbs=VERBS,
        targeted_verbs=(TargetedVerb("attack", "enemy"),),
        globals=(Feature("time", 0.0, 1.0),),
    )
