"""A schema: names, sizes, spaces, copies, and what every error says."""

import copy
import doctest
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from perceiver_rl import entities
from perceiver_rl.entities import (
    EntityObservationSpace,
    EntitySchema,
    EntityType,
    Feature,
    TargetedVerb,
    features_key,
    mask_key,
    schema_of,
)
from perceiver_rl.entities.checks import check_arrays
from tests.schemas import NORTH, NUM_OPTIONS, SKIRMISH, STOP, raises, skirmish

# -- sizes and names -----------------------------------------------------------------------------------------


def test_schema__counts_entities_actors_and_options() -> None:
    assert SKIRMISH.max_entities == 3 + 2 + 7 + 4
    assert SKIRMISH.max_actors == 3 + 2
    assert SKIRMISH.num_verbs == 2
    assert SKIRMISH.num_options == NUM_OPTIONS
    assert SKIRMISH.target_slices == (slice(2, 9), slice(9, 12), slice(12, 19))
    assert SKIRMISH.entity_type("medic").num_features == 2
    assert SKIRMISH.entity_type("medic").feature_names == ("health", "energy")


def test_schema__counts_options_without_targets_and_without_verbs() -> None:
    types = (EntityType("a", ("f",), 2), EntityType("b", ("f",), 3))
    only_verbs = EntitySchema(types, actors=("a",), verbs=("go", "stay"))
    assert (only_verbs.num_options, only_verbs.target_slices) == (2, ())
    only_targets = EntitySchema(types, actors=("a",), targeted_verbs=(TargetedVerb("hit", "b"),))
    assert (only_targets.num_options, only_targets.target_slices) == (3, (slice(0, 3),))
    assert only_targets.option_name(2) == "hit b 2"


def test_option_name__tells_verbs_and_targets() -> None:
    names = [SKIRMISH.option_name(option) for option in range(NUM_OPTIONS)]
    assert names[:3] == ["stop", "north", "attack zergling 0"]
    assert names[8:13] == [*("attack zergling 6", "heal marine 0", "heal marine 1", "heal marine 2", "stun zergling 0")]
    assert names[-1] == "stun zergling 6"
    assert len(set(names)) == NUM_OPTIONS


@pytest.mark.parametrize("option", [-1, NUM_OPTIONS])
def test_option_name__refuses_what_is_out_of_range(option: int) -> None:
    with raises(f"option: got {option}, expected 0 to {NUM_OPTIONS - 1}"):
        SKIRMISH.option_name(option)


def test_actor_name__tells_type_and_slot() -> None:
    names = [SKIRMISH.actor_name(actor) for actor in range(SKIRMISH.max_actors)]
    assert names == ["marine 0", "marine 1", "marine 2", "medic 0", "medic 1"]


@pytest.mark.parametrize("actor", [-1, 5])
def test_actor_name__refuses_what_is_out_of_range(actor: int) -> None:
    with raises(f"actor: got {actor}, expected 0 to 4"):
        SKIRMISH.actor_name(actor)


def test_entity_type__lists_the_known_names_when_it_is_unknown() -> None:
    with raises("entity type: got unknown name 'zergling ', known are marine, medic, zergling, rock"):
        SKIRMISH.entity_type("zergling ")


# -- a schema that makes no sense ----------------------------------------------------------------------------

A = EntityType("a", ("f",), 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Feature(""), "feature name: got an empty string, expected a name"),
        (lambda: Feature("x", 1.0, 1.0), "feature 'x': got range [1.0, 1.0], expected finite low < high"),
        (lambda: Feature("x", 0.0, np.inf), "feature 'x': got range [0.0, inf], expected finite low < high"),
        (
            lambda: Feature("x", np.nan, 1.0),
            "feature 'x': got range [nan, 1.0], expected finite low < high",
        ),
        (
            lambda: EntityType("", ("f",), 1),
            "entity type name: got '', expected a non-empty name without '/'",
        ),
        (
            lambda: EntityType("a/b", ("f",), 1),
            "entity type name: got 'a/b', expected a non-empty name without '/'",
        ),
        (lambda: EntityType("a", (), 1), "entity type 'a': got no features, expected at least one"),
        (lambda: EntityType("a", ("f",), 0), "entity type 'a': got max_count=0, expected at least 1"),
        (
            lambda: EntityType("a", ("f", "g", "f"), 1),
            "entity type 'a': feature names: got 'f' more than once, expected unique names",
        ),
        (
            lambda: EntitySchema((A, A), actors=("a",), verbs=("v",)),
            "entity type names: got 'a' more than once, expected unique names",
        ),
        (
            lambda: EntitySchema((A,), actors=("a", "a"), verbs=("v",)),
            "actor types: got 'a' more than once, expected unique names",
        ),
        (
            lambda: EntitySchema((A,), actors=("a",), verbs=("v",), targeted_verbs=(TargetedVerb("v", "a"),)),
            "verb names: got 'v' more than once, expected unique names",
        ),
        (
            lambda: EntitySchema((A,), actors=("a",), verbs=("v",), globals=(Feature("g"), Feature("g"))),
            "global feature names: got 'g' more than once, expected unique names",
        ),
        (
            lambda: EntitySchema((A,), actors=(), verbs=("v",)),
            "actors: got none, expected at least one entity type that acts",
        ),
        (
            lambda: EntitySchema((A,), actors=("b",), verbs=("v",)),
            "actors: got unknown entity type 'b', known are a",
        ),
        (
            lambda: EntitySchema((A,), actors=("a",), targeted_verbs=(TargetedVerb("v", "b"),)),
            "targeted verb 'v': got unknown target type 'b', known are a",
        ),
        (
            lambda: EntityType("a", "xy", 2),
            "entity type 'a': features: got 'xy', expected a tuple; of one alone it is written ('xy',), with a comma",
        ),
        (
            lambda: EntitySchema((A,), actors=("a",)),
            "verbs: got neither verbs nor targeted verbs, expected something to choose",
        ),
    ],
)
def test_schema__refuses_what_makes_no_sense(build: Callable[[], object], message: str) -> None:
    with raises(message):
        build()


def test_schema__wants_tuples_of_one_thing_too() -> None:
    # In a process without the tests' type checks, which would be faster than the schema.
    told = [
        "verbs: got 'wait', expected a tuple; of one alone it is written ('wait',), with a comma",
        "globals: got 'time', expected a tuple; of one alone it is written ('time',), with a comma",
        "targeted_verbs: got TargetedVerb(name='v', target='a'), expected a tuple",
    ]
    script = """
from perceiver_rl.entities import EntitySchema, EntityType, TargetedVerb
a = EntityType("a", ("f",), 2)
for wrong in ({"verbs": ("wait")}, {"verbs": ("v",), "globals": ("time")}, {"targeted_verbs": TargetedVerb("v", "a")}):
    try:
        EntitySchema((a,), actors=("a",), **wrong)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(told)
    assert all(line.startswith(message) for line, message in zip(lines, told, strict=True))


# -- spaces --------------------------------------------------------------------------------------------------


def test_spaces__contain_observations_and_actions() -> None:
    assert SKIRMISH.observation_space.contains(skirmish())
    assert SKIRMISH.action_space.contains(np.array([STOP, NORTH, 0, STOP, 0]))
    assert SKIRMISH.action_space.shape == (5,)
    assert set(SKIRMISH.action_space.nvec) == {NUM_OPTIONS}


def test_observation_space__samples_what_has_the_right_shapes() -> None:
    check_arrays(SKIRMISH, SKIRMISH.observation_space.sample(), ())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda space: pickle.loads(pickle.dumps(space))])
def test_observation_space__keeps_its_schema_when_it_is_copied(clone: Callable[[Any], Any]) -> None:
    SKIRMISH.observation_space.sample()  # with its caches filled
    space = clone(SKIRMISH.observation_space)
    assert space == SKIRMISH.observation_space
    assert schema_of(space) == SKIRMISH
    assert schema_of(space) is not SKIRMISH
    assert space.contains(skirmish())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda schema: pickle.loads(pickle.dumps(schema))])
def test_schema__is_equal_to_its_copy(clone: Callable[[Any], Any]) -> None:
    schema = clone(SKIRMISH)
    assert schema == SKIRMISH
    assert hash(schema) == hash(SKIRMISH)
    assert schema.num_options == NUM_OPTIONS
    schema.check(skirmish())


def test_schema__goes_through_json() -> None:
    restored = EntitySchema.from_dict(json.loads(json.dumps(SKIRMISH.to_dict())))
    assert restored == SKIRMISH
    assert hash(restored) == hash(SKIRMISH)


def test_schema_of__says_which_space_it_wants() -> None:
    assert schema_of(EntityObservationSpace(SKIRMISH)) is SKIRMISH
    with raises(
        "observation space: got Box, expected the EntityObservationSpace of an EntitySchema; let the "
        "environment declare a schema and use `schema.observation_space`"
    ):
        schema_of(gymnasium.spaces.Box(0, 1, (3,)))


def test_keys__are_those_of_the_contract() -> None:
    assert features_key("zergling") == "entities/zergling"
    assert mask_key("zergling") == "entity_mask/zergling"


def test_module__shows_an_example_that_runs() -> None:
    failed, tried = doctest.testmod(entities)
    assert (failed, tried > 0) == (0, True)
