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

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

Observation = dict[str, NDArray[Any]]

GLOBALS = "globals"
ACTION_MASK = "action_mask"
VISIBILITY = "visibility"

Control = Literal["centralized", "decentralized"]
"""Whether each actor's choice may depend on everything that is shown, or on what this actor sees alone."""


def features_key(entity_type: str) -> str:
    """Observation key of a type's features, float32 `[max_count, features]`."""
    return f"entities/{entity_type}"


def mask_key(entity_type: str) -> str:
    """Observation key of a type's presence mask, bool `[max_count]`, True = present."""
    return f"entity_mask/{entity_type}"


@dataclass(frozen=True)
class Feature:
    """One number of an entity, with the range that it is expected to stay in.

    The model rescales `[low, high]` linearly to [-1, 1], so declare the range wherever it is not [-1, 1]
    already. Values outside the range are legal; they are rescaled by the same line, not clipped.

    Args:
        name: Name for plots, replays and error messages; unique within its entity type.
        low: Value that the model reads as -1.
        high: Value that the model reads as +1.
    """

    name: str
    low: float | int = -1.0
    high: float | int = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("feature name: got an empty string, expected a name")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"feature {self.name!r}: got range [{self.low}, {self.high}], expected finite low < high")


@dataclass(frozen=True)
class EntityType:
    """A kind of thing that can be seen: its features and how many slots it has.

    Args:
        name: Unique name, used in observation keys and messages.
        features: `Feature`s, or plain names for features that already lie in [-1, 1].
        max_count: Number of slots, the most entities of this type that one observation can hold.
    """

    name: str
    features: tuple[Feature, ...]
    max_count: int

    def __init__(self, name: str, features: Sequence[Feature | str], max_count: int) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "features", _as_features(features))
        object.__setattr__(self, "max_count", max_count)
        if not name or "/" in name:
            raise ValueError(f"entity type name: got {name!r}, expected a non-empty name without '/'")
        if not self.features:
            raise ValueError(f"entity type {name!r}: got no features, expected at least one")
        if max_count < 1:
            raise ValueError(f"entity type {name!r}: got max_count={max_count}, expected at least 1")
        _require_unique(self.feature_names, f"entity type {name!r}: feature names")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the observation's columns."""
        return tuple(feature.name for feature in self.features)

    @property
    def num_features(self) -> int:
        """Number of columns of this type in the observation."""
        return len(self.features)


@dataclass(frozen=True)
class TargetedVerb:
    """A verb that needs a target: one option for each slot of the target's entity type.

    Args:
        name: Name of the verb, e.g. `"attack"`.
        target: Name of the entity type that it is aimed at.
    """

    name: str
    target: str


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
        ValueError: If a name is used twice, a type is unknown, or there is nothing to choose.
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
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "globals", _as_features(self.globals))
        known = tuple(entity_type.name for entity_type in self.entity_types)
        _require_unique(known, "entity type names")
        _require_unique(self.actors, "actor types")
        _require_unique((*self.verbs, *(verb.name for verb in self.targeted_verbs)), "verb names")
        _require_unique(tuple(feature.name for feature in self.globals), "global feature names")
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
        _require_unique(tuple(feature.name for feature in self.relative), "relative feature names")
        for feature in self.relative:
            for actor in self.actors:
                if feature.name not in self.entity_type(actor).feature_names:
                    raise ValueError(
                        f"relative feature {feature.name!r}: actor type {actor!r} has no such feature, expected one of "
                        f"{', '.join(self.entity_type(actor).feature_names)}"
                    )
        _require_unique(self.privileged, "privileged")
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
        for name in entities:
            self.entity_type(name)
        observation: Observation = {}
        counts: dict[str, int] = {}
        for entity_type in self.entity_types:
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
        observation[GLOBALS] = np.asarray(globals, np.float32).reshape(-1)
        present = self.actor_mask(observation)
        legal = np.asarray(action_mask, bool)
        legal = legal.reshape(0, self.num_options) if legal.shape == (0,) else legal
        if legal.shape != (present.sum(), self.num_options):
            actors = ", ".join(f"{counts[actor]} {actor}" for actor in self.actors)
            raise ValueError(
                f"action_mask: got shape {list(legal.shape)}, expected [{present.sum()}, {self.num_options}]"
                f", one row for each present actor ({actors}) and one column for each option"
            )
        observation[ACTION_MASK] = np.zeros((self.max_actors, self.num_options), bool)
        observation[ACTION_MASK][present] = legal
        if self.control == "decentralized":
            there = self.entity_mask(observation)
            sees = np.ones((present.sum(), there.sum()), bool) if visibility is None else np.asarray(visibility, bool)
            if sees.shape != (present.sum(), there.sum()):
                raise ValueError(
                    f"visibility: got shape {list(sees.shape)}, expected [{present.sum()}, {there.sum()}], one row for each "
                    "present actor and one column for each present entity"
                )
            observation[VISIBILITY] = np.zeros((self.max_actors, self.max_entities), bool)
            observation[VISIBILITY][np.ix_(present, there)] = sees
        elif visibility is not None:
            raise ValueError("visibility: got an array under centralized control, expected None")
        self.check(observation)
        return observation

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
        self._check_arrays(observation, batch_shape)
        for entity_type in self.entity_types:
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
                f"global feature {self.globals[column].name!r}{_at(batch)}: got "
                f"{observation[GLOBALS][(*batch, column)]}, expected a finite number"
            )
        self._check_action_mask(observation)
        if self.control == "decentralized":
            self._check_visibility(observation)

    def check_action(self, observation: Mapping[str, NDArray[Any]], action: ArrayLike) -> None:
        """Raise if a present actor's option is not legal, or an absent one's is not 0.

        Args:
            observation: One unbatched observation.
            action: One option for each actor slot, int `[max_actors]`.

        Raises:
            ValueError: Which actor chose what, and what it could have chosen.
        """
        options = np.asarray(action)
        if options.shape != (self.max_actors,) or not np.issubdtype(options.dtype, np.integer):
            raise ValueError(
                f"action: got {options.dtype} of shape {list(options.shape)}, expected one integer option "
                f"for each actor, shape [{self.max_actors}]"
            )
        present = self.actor_mask(observation)
        for actor, option in enumerate(options.tolist()):
            if not 0 <= option < self.num_options:
                raise ValueError(
                    f"action of {self.actor_name(actor)}: got option {option}, expected 0 to {self.num_options - 1}"
                )
            if not present[actor]:
                if option != 0:
                    raise ValueError(
                        f"action of {self.actor_name(actor)}, which is absent: got option {option} "
                        f"({self.option_name(option)}), expected 0"
                    )
            elif not observation[ACTION_MASK][actor, option]:
                options_now = np.flatnonzero(observation[ACTION_MASK][actor]).tolist()
                legal = ", ".join(map(self.option_name, options_now))
                raise ValueError(
                    f"action of {self.actor_name(actor)}: got {self.option_name(option)!r}, which is not "
                    f"legal now; legal are {legal}"
                )

    def actor_name(self, actor: int) -> str:
        """Readable name of an actor slot, e.g. `"marine 1"`."""
        index = actor
        for name in self.actors:
            count = self.entity_type(name).max_count
            if 0 <= index < count:
                return f"{name} {index}"
            index -= count
        raise ValueError(f"actor: got {actor}, expected 0 to {self.max_actors - 1}")

    def _check_arrays(self, observation: Mapping[str, Any], batch_shape: tuple[int, ...]) -> None:
        """Keys, types, dtypes and shapes."""
        expected = self._arrays
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

    def _check_action_mask(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Present actors have a legal option, absent ones none, and absent entities are nobody's target."""
        legal, present = observation[ACTION_MASK], self.actor_mask(observation)
        has_option = legal.any(axis=-1)
        if (has_option != present).any():
            *batch, actor = (int(i) for i in np.argwhere(has_option != present)[0])
            if present[(*batch, actor)]:
                raise ValueError(
                    f"action_mask of {self.actor_name(actor)}{_at(batch)}, which is present: got no legal "
                    "option, expected at least one; give actors with nothing to do a verb such as 'stop'"
                )
            raise ValueError(
                f"action_mask of {self.actor_name(actor)}{_at(batch)}, which is absent: got legal options, "
                "expected all False"
            )
        for verb, targets in zip(self.targeted_verbs, self.target_slices, strict=True):
            absent = ~observation[mask_key(verb.target)]
            aimed = legal[..., targets] & absent[..., None, :]
            if aimed.any():
                *batch, actor, target = (int(i) for i in np.argwhere(aimed)[0])
                raise ValueError(
                    f"action_mask of {self.actor_name(actor)}{_at(batch)}: got legal option '{verb.name} "
                    f"{verb.target} {target}', but {verb.target} {target} is absent; expected options at "
                    "absent entities to be False"
                )

    def _check_visibility(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Present actors see themselves, and what they may aim at."""
        sees, present = observation[VISIBILITY], self.actor_mask(observation)
        sees_itself = sees[..., np.arange(self.max_actors), self.actor_slots]
        if (present & ~sees_itself).any():
            *batch, actor = (int(i) for i in np.argwhere(present & ~sees_itself)[0])
            raise ValueError(
                f"visibility of {self.actor_name(actor)}{_at(batch)}, which is present: got False at itself, expected True"
            )
        for verb, targets in zip(self.targeted_verbs, self.target_slices, strict=True):
            aimed = observation[ACTION_MASK][..., targets] & ~sees[..., self.entity_slices[verb.target]]
            if aimed.any():
                *batch, actor, target = (int(i) for i in np.argwhere(aimed)[0])
                raise ValueError(
                    f"action_mask of {self.actor_name(actor)}{_at(batch)}: got legal option '{verb.name} {verb.target} "
                    f"{target}', but it does not see {verb.target} {target}; its options would tell of what it cannot see"
                )

    @cached_property
    def _arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every observation array."""
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
        for key, (shape, dtype) in schema._arrays.items():
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


def _as_features(features: Sequence[Feature | str]) -> tuple[Feature, ...]:
    return tuple(feature if isinstance(feature, Feature) else Feature(feature) for feature in features)


def _require_unique(names: Sequence[str], what: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what}: got {', '.join(map(repr, repeated))} more than once, expected unique names")


def _at(batch: Sequence[int]) -> str:
    """Where in a batch, for messages; empty for a single observation."""
    return f" of batch entry {', '.join(map(str, batch))}" if batch else ""
