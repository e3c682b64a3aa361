"""What an observation and an action are checked for, and what the messages teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities.description import ACTION_MASK, GLOBALS, VISIBILITY, features_key, mask_key

if TYPE_CHECKING:
    from perceiver_rl.entities.schema import EntitySchema


def check_observation(schema: EntitySchema, observation: Mapping[str, Any], batch_shape: tuple[int, ...] = ()) -> None:
    """Raise if an observation does not keep the contract; `EntitySchema.check` tells what is checked."""
    check_arrays(schema, observation, batch_shape)
    for entity_type in schema.entity_types:
        features = observation[features_key(entity_type.name)]
        mask = observation[mask_key(entity_type.name)]
        if not np.isfinite(features).all():
            bad = np.argwhere(~np.isfinite(features) & mask[..., None])
            if len(bad):
                *batch, slot, column = (int(i) for i in bad[0])
                raise ValueError(
                    f"entity type {entity_type.name!r}, feature {entity_type.feature_names[column]!r}, "
                    f"entity {slot}{_at(batch)}: got {features[tuple(bad[0])]}, expected a finite number"
                )
    if not np.isfinite(observation[GLOBALS]).all():
        *batch, column = (int(i) for i in np.argwhere(~np.isfinite(observation[GLOBALS]))[0])
        raise ValueError(
            f"global feature {schema.globals[column].name!r}{_at(batch)}: got "
            f"{observation[GLOBALS][(*batch, column)]}, expected a finite number"
        )
    _check_action_mask(schema, observation)
    if schema.control == "decentralized":
        _check_visibility(schema, observation)


def check_action(schema: EntitySchema, observation: Mapping[str, NDArray[Any]], action: ArrayLike) -> None:
    """Raise if a choice is not legal; `EntitySchema.check_action` tells the arguments."""
    options = np.asarray(action)
    if options.shape != (schema.max_actors,) or not np.issubdtype(options.dtype, np.integer):
        raise ValueError(
            f"action: got {options.dtype} of shape {list(options.shape)}, expected one integer option "
            f"for each actor, shape [{schema.max_actors}]"
        )
    present = schema.actor_mask(observation)
    for actor, option in enumerate(options.tolist()):
        if not 0 <= option < schema.num_options:
            raise ValueError(
                f"action of {schema.actor_name(actor)}: got option {option}, expected 0 to {schema.num_options - 1}"
            )
        if not present[actor]:
            if option != 0:
                raise ValueError(
                    f"action of {schema.actor_name(actor)}, which is absent: got option {option} "
                    f"({schema.option_name(option)}), expected 0"
                )
        elif not observation[ACTION_MASK][actor, option]:
            options_now = np.flatnonzero(observation[ACTION_MASK][actor]).tolist()
            legal = ", ".join(map(schema.option_name, options_now))
            raise ValueError(
                f"action of {schema.actor_name(actor)}: got {schema.option_name(option)!r}, which is not "
                f"legal now; legal are {legal}"
            )


def check_arrays(schema: EntitySchema, observation: Mapping[str, Any], batch_shape: tuple[int, ...]) -> None:
    """Raise if keys, types, dtypes or shapes are others than the contract's; what the arrays hold is not looked at."""
    expected = schema.arrays
    if observation.keys() != expected.keys():
        missing = sorted(expected.keys() - observation.keys())
        extra = sorted(observation.keys() - expected.keys())
        raise ValueError(f"observation keys: missing {missing}, unknown {extra}, expected exactly {sorted(expected)}")
    for key, (shape, dtype) in expected.items():
        array, full_shape = observation[key], (*batch_shape, *shape)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != full_shape:
            got = (
                f"{array.dtype} array of shape {list(array.shape)}"
                if isinstance(array, np.ndarray)
                else f"a {type(array).__name__}"
            )
            raise ValueError(
                f"observation[{key!r}]: got {got}, expected {np.dtype(dtype)} array of shape {list(full_shape)}"
            )


def _check_action_mask(schema: EntitySchema, observation: Mapping[str, NDArray[Any]]) -> None:
    """Present actors have a legal option, absent ones none, and absent entities are nobody's target."""
    legal, present = observation[ACTION_MASK], schema.actor_mask(observation)
    has_option = legal.any(axis=-1)
    if (has_option != present).any():
        *batch, actor = (int(i) for i in np.argwhere(has_option != present)[0])
        if present[(*batch, actor)]:
            raise ValueError(
                f"action_mask of {schema.actor_name(actor)}{_at(batch)}, which is present: got no legal "
                "option, expected at least one; give actors with nothing to do a verb such as 'stop'"
            )
        raise ValueError(
            f"action_mask of {schema.actor_name(actor)}{_at(batch)}, which is absent: got legal options, expected all False"
        )
    for verb, targets in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        absent = ~observation[mask_key(verb.target)]
        aimed = legal[..., targets] & absent[..., None, :]
        if aimed.any():
            *batch, actor, target = (int(i) for i in np.argwhere(aimed)[0])
            raise ValueError(
                f"action_mask of {schema.actor_name(actor)}{_at(batch)}: got legal option '{verb.name} "
                f"{verb.target} {target}', but {verb.target} {target} is absent; expected options at "
                "absent entities to be False"
            )


def _check_visibility(schema: EntitySchema, observation: Mapping[str, NDArray[Any]]) -> None:
    """Present actors see themselves, and what they may aim at."""
    sees, present = observation[VISIBILITY], schema.actor_mask(observation)
    sees_itself = sees[..., np.arange(schema.max_actors), schema.actor_slots]
    if (present & ~sees_itself).any():
        *batch, actor = (int(i) for i in np.argwhere(present & ~sees_itself)[0])
        raise ValueError(
            f"visibility of {schema.actor_name(actor)}{_at(batch)}, which is present: got False at itself, expected True"
        )
    for verb, targets in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        aimed = observation[ACTION_MASK][..., targets] & ~sees[..., schema.entity_slices[verb.target]]
        if aimed.any():
            *batch, actor, target = (int(i) for i in np.argwhere(aimed)[0])
            raise ValueError(
                f"action_mask of {schema.actor_name(actor)}{_at(batch)}: got legal option '{verb.name} {verb.target} "
                f"{target}', but it does not see {verb.target} {target}; its options would tell of what it cannot see"
            )


def _at(batch: Sequence[int]) -> str:
    """Where in a batch, for messages; empty for a single observation."""
    return f" of batch entry {', '.join(map(str, batch))}" if batch else ""
