"""An environment's description as a whole, and the spaces that are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_args

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities import checks, layout
from perceiver_rl.entities.description import (
    ACTION_MASK,
    GLOBALS,
    VISIBILITY,
    Control,
    EntityType,
    Feature,
    Observation,
    TargetedVerb,
    as_features,
    as_tuple,
    features_key,
    mask_key,
    require_unique,
)


@dataclass(frozen=True)
class EntitySchema:
    """What an environment's observations and actions mean.

    Each actor makes one choice a step among `num_options` options: the untargeted verbs first, then for each
    targeted verb one option for each slot of its target type. One categorical over all of them is the exact
    joint distribution of (verb, target).

    The observation is a flat `gymnasium.spaces.Dict`:

    | key                  | dtype   | shape                        | meaning                            |
    |----------------------|---------|------------------------------|------------------------------------|
    | `entities/<type>`    | float32 | `[max_count, features]`      | one row per slot                   |
    | `entity_mask/<type>` | bool    | `[max_count]`                | True = present                     |
    | `globals`            | float32 | `[len(globals)]`             | scalars that belong to no entity   |
    | `action_mask`        | bool    | `[max_actors, num_options]`  | True = legal; all False if absent  |
    | `visibility`         | bool    | `[max_actors, max_entities]` | True = this actor sees that entity |

    The action is `MultiDiscrete([num_options] * max_actors)`; an absent actor's action is option 0.

    `visibility` is there under decentralized control only; its columns are the slots of all types in their order. The other
    arrays then hold whatever there is, also what no actor sees: that is for the value alone.

    Args:
        entity_types: All kinds of entities, in a fixed order.
        actors: Names of the types whose entities act; the actors are their slots, in this order.
        verbs: Names of the verbs without a target.
        targeted_verbs: Verbs aimed at an entity.
        globals: Scalar features that belong to no entity; may be empty.
        control: `"centralized"`: every actor's choice depends on all that is shown. `"decentralized"`: on what this actor
            sees, as `visibility` tells, and on nothing else.
        relative: Under decentralized control, features that each actor is also told relative to its own, such as positions:
            `Feature("x", -9, 9)` adds the difference to the actor's own `x`, expected within ±9, to all entities that have
            a feature of that name. The actors must have it.
        privileged: Entity types, or `"globals"`, that only the value reads and no actor.

    Raises:
        ValueError: If a name is used twice, a type is unknown, there is nothing to choose, or one thing stands for a tuple.
    """

    entity_types: tuple[EntityType, ...]
    actors: tuple[str, ...]
    verbs: tuple[str, ...] = ()
    targeted_verbs: tuple[TargetedVerb, ...] = ()
    globals: tuple[Feature, ...] = ()
    control: Control = "centralized"
    relative: tuple[Feature, ...] = ()
    privileged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("entity_types", "actors", "verbs", "targeted_verbs", "relative", "privileged"):
            object.__setattr__(self, name, as_tuple(getattr(self, name), name))
        object.__setattr__(self, "globals", as_features(self.globals, "globals"))
        known = tuple(entity_type.name for entity_type in self.entity_types)
        require_unique(known, "entity type names")
        require_unique(self.actors, "actor types")
        require_unique((*self.verbs, *(verb.name for verb in self.targeted_verbs)), "verb names")
        require_unique(tuple(feature.name for feature in self.globals), "global feature names")
        if not self.actors:
            raise ValueError("actors: got none, expected at least one entity type that acts")
        for actor in self.actors:
            if actor not in known:
                raise ValueError(f"actors: got unknown entity type {actor!r}, known are {', '.join(known)}")
        for verb in self.targeted_verbs:
            if verb.target not in known:
                raise ValueError(
                    f"targeted verb {verb.name!r}: got unknown target type {verb.target!r}, known are {', '.join(known)}"
                )
        if not self.verbs and not self.targeted_verbs:
            raise ValueError("verbs: got neither verbs nor targeted verbs, expected something to choose")
        self._check_views(known)

    def _check_views(self, known: tuple[str, ...]) -> None:
        """Who sees what: `control`, `relative` and `privileged`."""
        if self.control not in get_args(Control):
            raise ValueError(f"control: got {self.control!r}, expected one of {', '.join(get_args(Control))}")
        if self.relative and self.control == "centralized":
            raise ValueError(
                "relative: got features under centralized control, expected none: what all actors see together is relative "
                "to none of them"
            )
        require_unique(tuple(feature.name for feature in self.relative), "relative feature names")
        for feature in self.relative:
            for actor in self.actors:
                if feature.name not in self.entity_type(actor).feature_names:
                    raise ValueError(
                        f"relative feature {feature.name!r}: actor type {actor!r} has no such feature, expected one of "
                        f"{', '.join(self.entity_type(actor).feature_names)}"
                    )
        require_unique(self.privileged, "privileged")
        choosers = {*self.actors, *(verb.target for verb in self.targeted_verbs)}
        for name in self.privileged:
            if name not in (*known, GLOBALS):
                raise ValueError(f"privileged: got unknown {name!r}, known are {', '.join((*known, GLOBALS))}")
            if name in choosers:
                raise ValueError(f"privileged: got {name!r}, which acts or is a target; expected types that no choice needs")

    # -- sizes and names -------------------------------------------------------------------------------------

    def entity_type(self, name: str) -> EntityType:
        """The entity type of that name.

        Raises:
            ValueError: If there is none; the message lists the known names.
        """
        for entity_type in self.entity_types:
            if entity_type.name == name:
                return entity_type
        known = ", ".join(entity_type.name for entity_type in self.entity_types)
        raise ValueError(f"entity type: got unknown name {name!r}, known are {known}")

    @cached_property
    def max_entities(self) -> int:
        """Number of slots over all entity types."""
        return sum(entity_type.max_count for entity_type in self.entity_types)

    @cached_property
    def entity_slices(self) -> dict[str, slice]:
        """Where the slots of each type stand among those of all types."""
        slices, start = {}, 0
        for entity_type in self.entity_types:
            slices[entity_type.name] = slice(start, start + entity_type.max_count)
            start += entity_type.max_count
        return slices

    @cached_property
    def actor_slots(self) -> tuple[int, ...]:
        """For each actor, its slot among those of all types."""
        return tuple(slot for name in self.actors for slot in range(*self.entity_slices[name].indices(self.max_entities)))

    @cached_property
    def max_actors(self) -> int:
        """Number of slots that act."""
        return sum(self.entity_type(actor).max_count for actor in self.actors)

    @cached_property
    def num_verbs(self) -> int:
        """Number of options without a target."""
        return len(self.verbs)

    @cached_property
    def target_slices(self) -> tuple[slice, ...]:
        """For each targeted verb, the range of its options: one for each target slot."""
        slices, start = [], self.num_verbs
        for verb in self.targeted_verbs:
            stop = start + self.entity_type(verb.target).max_count
            slices.append(slice(start, stop))
            start = stop
        return tuple(slices)

    @cached_property
    def num_options(self) -> int:
        """Number of options of each actor: verbs, then targets of each targeted verb."""
        return self.target_slices[-1].stop if self.targeted_verbs else self.num_verbs

    def option_name(self, option: int) -> str:
        """Readable name of an option, e.g. `"north"` or `"attack zergling 1"`."""
        if not 0 <= option < self.num_options:
            raise ValueError(f"option: got {option}, expected 0 to {self.num_options - 1}")
        for verb, targets in zip(self.targeted_verbs, self.target_slices, strict=True):
            if targets.start <= option < targets.stop:
                return f"{verb.name} {verb.target} {option - targets.start}"
        return self.verbs[option]

    # -- spaces ----------------------------------------------------------------------------------------------

    @cached_property
    def observation_space(self) -> EntityObservationSpace:
        """The observation space. It carries this schema, so a model can be built from the space alone."""
        return EntityObservationSpace(self)

    @cached_property
    def action_space(self) -> gymnasium.spaces.MultiDiscrete:
        """The action space: one option for each actor slot."""
        return gymnasium.spaces.MultiDiscrete([self.num_options] * self.max_actors)

    # -- lists to slots and back -----------------------------------------------------------------------------

    def pack(
        self,
        entities: Mapping[str, ArrayLike],
        action_mask: ArrayLike,
        globals: ArrayLike = (),
        visibility: ArrayLike | None = None,
    ) -> Observation:
        """Lay out lists of present entities in the padded observation.

        Args:
            entities: For each type, the present entities as rows `[count, features]` with
                `count <= max_count`. They take the first slots in the order given. A type that is left out
                has no entity present.
            action_mask: Legal options of the present actors, bool `[present actors, num_options]`, rows in
                the order of `actors` and of the rows in `entities`.
            globals: Scalar features, `[len(schema.globals)]`.
            visibility: Under decentralized control, whom each present actor sees, bool
                `[present actors, present entities]`, entities in the order of the schema's types and of their rows. None:
                every actor sees everything.

        Returns:
            The padded observation, already checked.

        Raises:
            ValueError: If a type is unknown, there are more entities than slots, or `check` finds fault.
        """
        legal = np.asarray(action_mask, bool)
        return layout.pack(self, entities, legal, np.asarray(globals, np.float32).reshape(-1), visibility)

    def unpack(self, observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Give back the present entities of each type as rows `[count, features]`: the inverse of `pack`."""
        return {
            each.name: observation[features_key(each.name)][observation[mask_key(each.name)]] for each in self.entity_types
        }

    def actor_mask(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Which actors are present, bool `[..., max_actors]`, in the order of the action."""
        return np.concatenate([observation[mask_key(actor)] for actor in self.actors], axis=-1)

    def entity_mask(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Which entities are present, bool `[..., max_entities]`, all types in their order."""
        return np.concatenate([observation[mask_key(each.name)] for each in self.entity_types], axis=-1)

    # -- validation ------------------------------------------------------------------------------------------

    def check(self, observation: Mapping[str, Any], batch_shape: tuple[int, ...] = ()) -> None:
        """Raise if an observation does not keep this contract.

        Absent slots may hold anything: they are never read. Everything else is checked: keys, dtypes, shapes,
        finite features, at least one legal option for each present actor, none for an absent one, no
        legal option that is aimed at an absent entity, and, under decentralized control, that each actor sees
        itself and whatever it may aim at.

        Args:
            observation: Arrays by key, as the class docstring tells.
            batch_shape: Leading axes of every array, e.g. `(num_envs,)` for a vector environment.

        Raises:
            ValueError: What is wrong, where, what was found and what was expected.
        """
        checks.check_observation(self, observation, batch_shape)

    def check_action(self, observation: Mapping[str, NDArray[Any]], action: ArrayLike) -> None:
        """Raise if a present actor's option is not legal, or an absent one's is not 0.

        Args:
            observation: One unbatched observation.
            action: One option for each actor slot, int `[max_actors]`.

        Raises:
            ValueError: Which actor chose what, and what it could have chosen.
        """
        checks.check_action(self, observation, action)

    def actor_name(self, actor: int) -> str:
        """Readable name of an actor slot, e.g. `"marine 1"`."""
        index = actor
        for name in self.actors:
            count = self.entity_type(name).max_count
            if 0 <= index < count:
                return f"{name} {index}"
            index -= count
        raise ValueError(f"actor: got {actor}, expected 0 to {self.max_actors - 1}")

    @cached_property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every observation array, by key."""
        arrays: dict[str, tuple[tuple[int, ...], type]] = {}
        for each in self.entity_types:
            arrays[features_key(each.name)] = ((each.max_count, each.num_features), np.float32)
            arrays[mask_key(each.name)] = ((each.max_count,), np.bool_)
        arrays[GLOBALS] = ((len(self.globals),), np.float32)
        arrays[ACTION_MASK] = ((self.max_actors, self.num_options), np.bool_)
        if self.control == "decentralized":
            arrays[VISIBILITY] = ((self.max_actors, self.max_entities), np.bool_)
        return arrays

    # -- JSON ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain lists, strings and numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EntitySchema:
        """The inverse of `to_dict`."""
        return cls(
            entity_types=tuple(
                EntityType(
                    name=each["name"],
                    features=[Feature(**feature) for feature in each["features"]],
                    max_count=each["max_count"],
                )
                for each in data["entity_types"]
            ),
            actors=tuple(data["actors"]),
            verbs=tuple(data["verbs"]),
            targeted_verbs=tuple(TargetedVerb(**verb) for verb in data["targeted_verbs"]),
            globals=tuple(Feature(**feature) for feature in data["globals"]),
            control=data["control"],
            relative=tuple(Feature(**feature) for feature in data["relative"]),
            privileged=tuple(data["privileged"]),
        )


class EntityObservationSpace(gymnasium.spaces.Dict):
    """The observation space of a schema. It knows its schema, so that a model can be built from spaces alone.

    Features are unbounded boxes: ranges are declared for scaling, not enforced.
    """

    def __init__(self, schema: EntitySchema, seed: int | np.random.Generator | None = None) -> None:
        self.schema = schema
        spaces: dict[str, gymnasium.Space[Any]] = {}
        for key, (shape, dtype) in schema.arrays.items():
            if dtype is np.bool_:
                # gymnasium's annotation forgets bool, which its own checks and `sample` know.
                spaces[key] = gymnasium.spaces.Box(0, 1, shape, np.bool_)  # type: ignore[arg-type]
            else:
                spaces[key] = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
        super().__init__(spaces, seed=seed)


def schema_of(observation_space: gymnasium.Space[Any]) -> EntitySchema:
    """The schema that an observation space carries.

    Raises:
        ValueError: If the space was not made by `EntitySchema.observation_space`.
    """
    if not isinstance(observation_space, EntityObservationSpace):
        raise ValueError(
            f"observation space: got {type(observation_space).__name__}, expected the EntityObservationSpace "
            "of an EntitySchema; let the environment declare a schema and use `schema.observation_space`"
        )
    return observation_space.schema
