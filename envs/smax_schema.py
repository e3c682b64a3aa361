"""What a squad sees of an SMAX battle: names, ranges and order of features and options. Needs no jax."""

from __future__ import annotations

from typing import NamedTuple

from perceiver_rl.entities import GLOBALS, Control, EntitySchema, EntityType, Feature, TargetedVerb

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

UNIT_KINDS = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")  # in the order of SMAX's numbers
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
    *(Feature(f"is_{kind}", 0.0, 1.0) for kind in UNIT_KINDS),
)
# Under decentralized control an offset to a target would tell where a unit is that the observer does not see. The target is
# told as SMAX's own `unit_list` tells it: by its number, among slots that are numbered for that reason.
DECENTRALIZED_UNIT_FEATURES = (
    *(feature for feature in UNIT_FEATURES if not feature.name.startswith("target_")),
    Feature("slot", 0.0, 1.0),  # number among the units of its side, from the first (0) to the last (1)
    Feature("target_slot", 0.0, 1.0),  # that of the unit that it attacked, 0 if it did not attack
)
# Where others are, seen by an actor; in the same measure as positions.
RELATIVE_FEATURES = (Feature("x", -4.0, 4.0), Feature("y", -4.0, 4.0))


class MapSize(NamedTuple):
    """Number of units of each side at the start of a battle."""

    num_allies: int
    num_enemies: int


def unit_features(control: Control) -> tuple[Feature, ...]:
    """The features of a unit, in the order of the observation's columns."""
    return UNIT_FEATURES if control == "centralized" else DECENTRALIZED_UNIT_FEATURES


def schema_of_size(size: MapSize, control: Control) -> EntitySchema:
    """The schema of a map with that many units.

    Under decentralized control the observation holds all living units of both sides, for the value, and tells which of them
    each ally sees. The time, which `unit_list` does not tell, is for the value alone, too.
    """
    features = unit_features(control)
    apart = control == "decentralized"
    return EntitySchema(
        entity_types=(
            EntityType("ally", features, size.num_allies),
            EntityType("enemy", features, size.num_enemies),
        ),
        actors=("ally",),
        verbs=VERBS,
        targeted_verbs=(TargetedVerb("attack", "enemy"),),
        globals=(Feature("time", 0.0, 1.0),),
        control=control,
        relative=RELATIVE_FEATURES if apart else (),
        privileged=(GLOBALS,) if apart else (),
    )
