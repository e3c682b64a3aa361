"""How entities are drawn: which of their features are positions, health, cooldown and kind. Needs nothing but the schema.

A schema says what a model reads; a scene says what of it a viewer may draw. Most environments need to declare none: features
that bear the usual names are found (`Scene.of`). One whose names differ puts its own under `"scene"` in its `metadata`:

>>> from perceiver_rl.entities import EntitySchema, EntityType
>>> schema = EntitySchema(
...     entity_types=(EntityType("tank", ("armour", "x", "y"), 2), EntityType("mine", ("x", "y"), 3)),
...     actors=("tank",),
...     verbs=("stop",),
... )
>>> scene = Scene.of(schema).with_look("tank", health="armour")
>>> scene.looks["tank"]
Look(side='own', position=('x', 'y'), health='armour', cooldown=None, kinds=())
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from perceiver_rl.entities import EntitySchema, EntityType

SCENE = "scene"
"""Key of an environment's `metadata` under which it declares its own scene."""

Side = Literal["own", "other", "neutral"]
"""Whose an entity is: it acts, it is acted upon, or neither."""

ORIGIN: Final = "origin"
"""In place of a position's features: these entities stand where x and y are 0, and others are told relative to them."""

_RELATIVE = ("dx", "dy")
_POSITIONS = (("x", "y"), _RELATIVE)
_HEALTH = ("health", "hp", "hit_points")
_COOLDOWN = ("cooldown", "weapon_cooldown")
_KIND = "is_"


@dataclass(frozen=True)
class Look:
    """How the entities of one type are drawn.

    Args:
        side: Whose they are: decides the colour.
        position: Features of the position, the first to the east and the second to the north, in any unit, the same for all
            types of a scene; `"origin"` if they stand at (0, 0); None if they stand nowhere: they are then drawn in rows.
        health: Feature whose declared range goes from dead to unhurt.
        cooldown: Feature whose declared range goes from ready to just used.
        kinds: Features of which the largest tells the kind, and so the shape; the kind's name is the feature's without
            `is_`.
    """

    side: Side = "neutral"
    position: tuple[str, str] | Literal["origin"] | None = None
    health: str | None = None
    cooldown: str | None = None
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise ValueError(f"side: got {self.side!r}, expected one of {', '.join(get_args(Side))}")
        if isinstance(self.position, str) and self.position != ORIGIN:
            raise ValueError(f"position: got {self.position!r}, expected two features, {ORIGIN!r} or None")

    @property
    def features(self) -> tuple[str, ...]:
        """All features that it names."""
        position = () if self.position is None or isinstance(self.position, str) else self.position
        return (*position, *filter(None, (self.health, self.cooldown)), *self.kinds)


@dataclass(frozen=True)
class Scene:
    """How everything of a schema is drawn.

    Args:
        looks: By entity type. A type that is left out is neutral and stands nowhere.
        bounds: West, south, east and north end of the world, in the unit of positions; None if it has none that is known.
        sorted_anew: Entities are listed anew in each step, so that a slot may hold another one in the next. A viewer then
            draws no path over a leap.
    """

    looks: Mapping[str, Look]
    bounds: tuple[float, float, float, float] | None = None
    sorted_anew: bool = False

    @classmethod
    def of(cls, schema: EntitySchema) -> Scene:
        """The scene that feature names tell.

        Positions are `x` and `y`. Where no type but the actors' has those, `dx` and `dy` are positions relative to the
        actors, which stand at the origin. Health is `health`, `hp` or `hit_points`, cooldown `cooldown` or
        `weapon_cooldown`, and features that begin with `is_` are kinds. Actors are `own`, types that a verb is aimed at or
        that have an actor's features are `other`, and the rest are `neutral`.
        """
        others = [each for each in schema.entity_types if each.name not in schema.actors]
        position = _positions_of(others) or _positions_of(schema.entity_types)
        return cls({each.name: _guess(schema, each, position) for each in schema.entity_types})

    def with_look(self, entity_type: str, **changes: Any) -> Scene:
        """The same, with some fields of one type's look changed."""
        return replace(self, looks={**self.looks, entity_type: replace(self.look(entity_type), **changes)})

    def look(self, entity_type: str) -> Look:
        """How a type is drawn."""
        return self.looks.get(entity_type, Look())

    def check(self, schema: EntitySchema) -> None:
        """Raise if the scene names what the schema does not have.

        Raises:
            ValueError: If a type or a feature is unknown; the message lists the known ones.
        """
        for name, look in self.looks.items():
            known = schema.entity_type(name).feature_names
            for feature in look.features:
                if feature not in known:
                    raise ValueError(
                        f"scene, entity type {name!r}: got unknown feature {feature!r}, known are {', '.join(known)}"
                    )

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, strings and numbers, for JSON."""
        return {
            "looks": {name: asdict(look) for name, look in self.looks.items()},
            "bounds": self.bounds,
            "sorted_anew": self.sorted_anew,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scene:
        """The inverse of `to_dict`, also after a round trip through JSON."""
        looks = {}
        for name, look in data["looks"].items():
            position: Any = look["position"]
            looks[name] = Look(
                side=look["side"],
                position=tuple(position) if isinstance(position, list | tuple) else position,
                health=look["health"],
                cooldown=look["cooldown"],
                kinds=tuple(look["kinds"]),
            )
        return cls(looks, None if data["bounds"] is None else tuple(data["bounds"]), data["sorted_anew"])


def _guess(schema: EntitySchema, each: EntityType, position: tuple[str, str] | None) -> Look:
    own = each.name in schema.actors
    targets = {verb.target for verb in schema.targeted_verbs}
    like_actors = any(each.features == schema.entity_type(actor).features for actor in schema.actors)
    where: tuple[str, str] | Literal["origin"] | None = None
    if position is not None and _has(each, position):
        where = position
    elif own and position == _RELATIVE:
        where = ORIGIN
    return Look(
        side="own" if own else "other" if each.name in targets or like_actors else "neutral",
        position=where,
        health=_first(each, _HEALTH),
        cooldown=_first(each, _COOLDOWN),
        kinds=tuple(name for name in each.feature_names if name.startswith(_KIND)),
    )


def _positions_of(types: Iterable[EntityType]) -> tuple[str, str] | None:
    """The first pair of usual names that some type has."""
    return next((pair for pair in _POSITIONS if any(_has(each, pair) for each in types)), None)


def _has(entity_type: EntityType, features: tuple[str, ...]) -> bool:
    return set(features) <= set(entity_type.feature_names)


def _first(entity_type: EntityType, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in entity_type.feature_names), None)
