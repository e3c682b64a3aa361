"""The contract between an environment and the model: what there is to see, who acts, and what they may do.

An environment describes its observation once, as an `EntitySchema`. Spaces, validation, error messages and
the model's input layers are all made from that one description, so they cannot drift apart. This module needs
numpy and gymnasium only: an environment can depend on it without installing torch or Ray.

One worked example, a squad of at most two marines that sees at most three zerglings:

>>> schema = EntitySchema(
...     entity_types=(
...         EntityType("marine", ("health", "x", "y"), max_count=2),
...         EntityType("zergling", ("health", "x", "y"), max_count=3),
...     ),
...     actors=("marine",),
...     verbs=("stop", "north", "south", "east", "west"),
...     targeted_verbs=(TargetedVerb("attack", "zergling"),),
... )
>>> schema.max_actors, schema.num_options  # five verbs, then one option for each zergling slot
(2, 8)
>>> schema.option_name(6)
'attack zergling 1'
"""

from perceiver_rl.entities.description import (
    ACTION_MASK,
    GLOBALS,
    VISIBILITY,
    Control,
    EntityType,
    Feature,
    Observation,
    TargetedVerb,
    features_key,
    mask_key,
)
from perceiver_rl.entities.schema import EntityObservationSpace, EntitySchema, schema_of

__all__ = [
    "ACTION_MASK",
    "GLOBALS",
    "VISIBILITY",
    "Control",
    "EntityObservationSpace",
    "EntitySchema",
    "EntityType",
    "Feature",
    "Observation",
    "TargetedVerb",
    "features_key",
    "mask_key",
    "schema_of",
]
