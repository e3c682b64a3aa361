"""Lists of present entities laid out in the padded observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities.description import (
    ACTION_MASK,
    GLOBALS,
    VISIBILITY,
    Observation,
    features_key,
    mask_key,
)

if TYPE_CHECKING:
    from perceiver_rl.entities.schema import EntitySchema


def pack(
    schema: EntitySchema,
    entities: Mapping[str, ArrayLike],
    legal: NDArray[np.bool_],
    globals: NDArray[np.float32],
    visibility: ArrayLike | None,
) -> Observation:
    """The padded observation; `EntitySchema.pack` tells the arguments and errors."""
    for name in entities:
        schema.entity_type(name)
    observation: Observation = {}
    counts: dict[str, int] = {}
    for entity_type in schema.entity_types:
        rows = np.asarray(entities.get(entity_type.name, ()), dtype=np.float32)
        rows = rows.reshape(0, entity_type.num_features) if rows.shape == (0,) else rows
        if rows.ndim != 2 or rows.shape[1] != entity_type.num_features:
            raise ValueError(
                f"entities of type {entity_type.name!r}: got shape {list(rows.shape)}, expected "
                f"[count, {entity_type.num_features}] with columns {', '.join(entity_type.feature_names)}"
            )
        if len(rows) > entity_type.max_count:
            raise ValueError(
                f"entities of type {entity_type.name!r}: got {len(rows)}, expected at most "
                f"{entity_type.max_count}; raise max_count in the schema or leave out the least important"
            )
        features = np.zeros((entity_type.max_count, entity_type.num_features), np.float32)
        features[: len(rows)] = rows
        observation[features_key(entity_type.name)] = features
        observation[mask_key(entity_type.name)] = np.arange(entity_type.max_count) < len(rows)
        counts[entity_type.name] = len(rows)
    observation[GLOBALS] = globals
    present = schema.actor_mask(observation)
    legal = legal.reshape(0, schema.num_options) if legal.shape == (0,) else legal
    if legal.shape != (present.sum(), schema.num_options):
        actors = ", ".join(f"{counts[actor]} {actor}" for actor in schema.actors)
        raise ValueError(
            f"action_mask: got shape {list(legal.shape)}, expected [{present.sum()}, {schema.num_options}]"
            f", one row for each present actor ({actors}) and one column for each option"
        )
    observation[ACTION_MASK] = np.zeros((schema.max_actors, schema.num_options), bool)
    observation[ACTION_MASK][present] = legal
    if schema.control == "decentralized":
        there = schema.entity_mask(observation)
        sees = np.ones((present.sum(), there.sum()), bool) if visibility is None else np.asarray(visibility, bool)
        if sees.shape != (present.sum(), there.sum()):
            raise ValueError(
                f"visibility: got shape {list(sees.shape)}, expected [{present.sum()}, {there.sum()}], one row for each "
                "present actor and one column for each present entity"
            )
        observation[VISIBILITY] = np.zeros((schema.max_actors, schema.max_entities), bool)
        observation[VISIBILITY][np.ix_(present, there)] = sees
    elif visibility is not None:
        raise ValueError("visibility: got an array under centralized control, expected None")
    schema.check(observation)
    return observation
