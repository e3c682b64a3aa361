"""The parts of a description: keys of an observation, features, entity types, verbs with a target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Observation = dict[str, NDArray[Any]]
"""An observation as it travels: arrays by key, see `EntitySchema`."""

GLOBALS = "globals"
"""Observation key of the features that belong to no entity."""
ACTION_MASK = "action_mask"
"""Observation key of the legal options."""
VISIBILITY = "visibility"
"""Observation key of who sees whom, under decentralized control."""

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
        object.__setattr__(self, "features", as_features(features, f"entity type {name!r}: features"))
        object.__setattr__(self, "max_count", max_count)
        if not name or "/" in name:
            raise ValueError(f"entity type name: got {name!r}, expected a non-empty name without '/'")
        if not self.features:
            raise ValueError(f"entity type {name!r}: got no features, expected at least one")
        if max_count < 1:
            raise ValueError(f"entity type {name!r}: got max_count={max_count}, expected at least 1")
        require_unique(self.feature_names, f"entity type {name!r}: feature names")

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


def as_features(features: Sequence[Feature | str], what: str) -> tuple[Feature, ...]:
    """Features, with plain names made features of range [-1, 1]."""
    return tuple(feature if isinstance(feature, Feature) else Feature(feature) for feature in as_tuple(features, what))


def as_tuple(values: Iterable[Any], what: str) -> tuple[Any, ...]:
    """Values as a tuple.

    Raises:
        ValueError: If it is a single name or thing: `("wait")` is a string, and would be taken for four letters.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{what}: got {values!r}, expected a tuple; of one alone it is written ({values!r},), with a comma")
    return tuple(values)


def require_unique(names: Sequence[str], what: str) -> None:
    """Raise ValueError if a name comes twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what}: got {', '.join(map(repr, repeated))} more than once, expected unique names")
