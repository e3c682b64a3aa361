"""The contract: names, sizes, packing and back, and what every error says."""

import copy
import doctest
import json
import pickle
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiver_rl import entities
from perceiver_rl.entities import (
    EntityObservationSpace,
    EntitySchema,
    EntityType,
    Feature,
    Observation,
    TargetedVerb,
    features_key,
    mask_key,
    schema_of,
)
from perceiver_rl.entities.checks import check_arrays
from tests.schemas import SKIRMISH, observe

NUM_OPTIONS = 2 + 7 + 3 + 7
"""Of SKIRMISH: stop and north, attack, heal, stun."""


def raises(message: str) -> Any:
    """Expect a ValueError with exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def skirmish() -> Observation:
    """Two marines, one medic, two zerglings: the medic may only stop and heal."""
    return SKIRMISH.pack(
        {
            "marine": [[45.0, 0.1, 0.2], [30.0, 0.3, 0.4]],
            "medic": [[1.0, 50.0]],
            "zergling": np.arange(10).reshape(2, 5),
        },
        action_mask=[_legal("stop", "attack zergling 1"), _legal("north"), _legal("stop", "heal marine 1")],
        globals=[7.0],
    )


def _legal(*options: str) -> list[bool]:
    names = [SKIRMISH.option_name(option) for option in range(SKIRMISH.num_options)]
    assert set(options) <= set(names)
    return [name in options for name in names]


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
            lambda: EntitySchema((A,), actors=("a",)),
            "verbs: got neither verbs nor targeted verbs, expected something to choose",
        ),
    ],
)
def test_schema__refuses_what_makes_no_sense(build: Callable[[], object], message: str) -> None:
    with raises(message):
        build()


# -- packing and back ----------------------------------------------------------------------------------------


def test_pack__puts_present_entities_in_the_first_slots() -> None:
    observation = skirmish()
    np.testing.assert_array_equal(observation["entities/marine"], np.float32([[45, 0.1, 0.2], [30, 0.3, 0.4], [0, 0, 0]]))
    assert observation["entity_mask/marine"].tolist() == [True, True, False]
    assert observation["entity_mask/rock"].tolist() == [False] * 4  # left out, so none is present
    assert observation["globals"].tolist() == [7.0]


def test_pack__puts_legal_options_in_the_rows_of_the_present_actors() -> None:
    legal = skirmish()["action_mask"]
    assert legal[0].tolist() == _legal("stop", "attack zergling 1")
    assert legal[1].tolist() == _legal("north")
    assert not legal[2].any()
    assert legal[3].tolist() == _legal("stop", "heal marine 1")
    assert not legal[4].any()


def test_pack__takes_an_observation_of_nothing() -> None:
    observation = SKIRMISH.pack({}, action_mask=[], globals=[0.0])
    assert not any(observation[mask_key(each.name)].any() for each in SKIRMISH.entity_types)
    assert all(len(rows) == 0 for rows in SKIRMISH.unpack(observation).values())


@st.composite
def _types(draw: st.DrawFn) -> list[tuple[NDArray[np.float32], int, bool]]:
    """For each type: rows, number of slots, whether it acts. Plain arrays: our classes check types at "
    "random."""
    types = []
    for _ in range(draw(st.integers(1, 4))):
        num_features, max_count = draw(st.integers(1, 5)), draw(st.integers(1, 6))
        row = st.lists(st.floats(-1e6, 1e6, width=32), min_size=num_features, max_size=num_features)
        rows = np.array(draw(st.lists(row, max_size=max_count)), np.float32).reshape(-1, num_features)
        types.append((rows, max_count, draw(st.booleans()) or not types))
    return types


@given(_types())
def test_unpack__is_the_inverse_of_pack(types: list[tuple[NDArray[np.float32], int, bool]]) -> None:
    entities = {f"type {index}": rows for index, (rows, _, _) in enumerate(types)}
    schema = EntitySchema(
        entity_types=tuple(
            EntityType(name, [f"f{column}" for column in range(rows.shape[1])], max_count)
            for name, (rows, max_count, _) in zip(entities, types, strict=True)
        ),
        actors=tuple(name for name, (_, _, acts) in zip(entities, types, strict=True) if acts),
        verbs=("stop",),
    )
    num_actors = sum(len(rows) for rows, _, acts in types if acts)
    observation = schema.pack(entities, np.ones((num_actors, 1), bool))
    assert schema.observation_space.contains(observation)
    assert schema.actor_mask(observation).sum() == num_actors
    unpacked = schema.unpack(observation)
    assert unpacked.keys() == entities.keys()
    for name, rows in entities.items():
        np.testing.assert_array_equal(unpacked[name], rows)


def test_unpack__leaves_out_what_stands_in_absent_slots() -> None:
    observation = skirmish()
    observation["entities/marine"][2] = np.nan
    observation["entity_mask/marine"][:] = [False, True, False]
    np.testing.assert_array_equal(SKIRMISH.unpack(observation)["marine"], np.float32([[30, 0.3, 0.4]]))


@pytest.mark.parametrize(
    ("entities", "action_mask", "message"),
    [
        (
            {"ghost": [[1.0]]},
            [],
            "entity type: got unknown name 'ghost', known are marine, medic, zergling, rock",
        ),
        (
            {"rock": [[1.0, 2.0]]},
            [],
            "entities of type 'rock': got shape [1, 2], expected [count, 1] with columns size",
        ),
        (
            {"medic": [1.0, 2.0]},
            [],
            "entities of type 'medic': got shape [2], expected [count, 2] with columns health, energy",
        ),
        (
            {"rock": [[], []]},
            [],
            "entities of type 'rock': got shape [2, 0], expected [count, 1] with columns size",
        ),
        (
            {"rock": [[1.0]] * 5},
            [],
            "entities of type 'rock': got 5, expected at most 4; raise max_count in the schema or leave out "
            "the least important",
        ),
        (
            {"marine": [[1.0, 0.0, 0.0]] * 2, "medic": [[1.0, 1.0]]},
            [[True] * NUM_OPTIONS] * 2,
            "action_mask: got shape [2, 19], expected [3, 19], one row for each present actor (2 marine, 1 "
            "medic) and one column for each option",
        ),
        (
            {"medic": [[1.0, 1.0]]},
            [[True] * 5],
            "action_mask: got shape [1, 5], expected [1, 19], one row for each present actor (0 marine, 1 "
            "medic) and one column for each option",
        ),
        (
            {"medic": [[1.0, 1.0]]},
            [[True]] * NUM_OPTIONS,
            "action_mask: got shape [19, 1], expected [1, 19], one row for each present actor (0 marine, 1 "
            "medic) and one column for each option",
        ),
    ],
)
def test_pack__says_what_does_not_fit(entities: Any, action_mask: Any, message: str) -> None:
    with raises(message):
        SKIRMISH.pack(entities, action_mask, globals=[0.0])


def test_pack__checks_what_it_made() -> None:
    with raises("observation['globals']: got float32 array of shape [2], expected float32 array of shape [1]"):
        SKIRMISH.pack({}, [], globals=[0.0, 1.0])


# -- check ---------------------------------------------------------------------------------------------------


def test_check__accepts_what_keeps_the_contract() -> None:
    SKIRMISH.check(skirmish())
    SKIRMISH.check(observe(SKIRMISH, batch=5, seed=0), batch_shape=(5,))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_check__does_not_read_absent_slots(garbage: float) -> None:
    observation = skirmish()
    observation["entities/marine"][2] = garbage
    observation["entities/rock"][:] = garbage
    SKIRMISH.check(observation)


def _drop(key: str) -> Callable[[Observation], object]:
    return lambda observation: observation.pop(key)


def _put(key: str, index: Any, value: Any) -> Callable[[Observation], object]:
    return lambda observation: observation[key].__setitem__(index, value)


def _replace(key: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Observation], object]:
    return lambda observation: observation.update({key: change(observation[key])})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _drop("entity_mask/rock"),
            "observation keys: missing ['entity_mask/rock'], unknown [], expected exactly ['action_mask', "
            "'entities/marine', 'entities/medic', 'entities/rock', 'entities/zergling', "
            "'entity_mask/marine', 'entity_mask/medic', 'entity_mask/rock', 'entity_mask/zergling', "
            "'globals']",
        ),
        (
            _replace("entities/rock", lambda array: array.astype(np.float64)),
            "observation['entities/rock']: got float64 array of shape [4, 1], expected float32 array of shape [4, 1]",
        ),
        (
            _replace("entity_mask/rock", lambda array: array.astype(np.int8)),
            "observation['entity_mask/rock']: got int8 array of shape [4], expected bool array of shape [4]",
        ),
        (
            _replace("entities/medic", lambda array: array.T[:1]),
            "observation['entities/medic']: got float32 array of shape [1, 2], expected float32 array of shape [2, 2]",
        ),
        (
            _replace("globals", lambda array: array.tolist()),
            "observation['globals']: got a list, expected float32 array of shape [1]",
        ),
        (
            _put("entities/zergling", (1, 3), np.nan),
            "entity type 'zergling', feature 'vx', entity 1: got nan, expected a finite number",
        ),
        (
            _put("entities/marine", (0, 0), -np.inf),
            "entity type 'marine', feature 'health', entity 0: got -inf, expected a finite number",
        ),
        (_put("globals", 0, np.nan), "global feature 'clock': got nan, expected a finite number"),
        (
            _put("action_mask", (3, slice(None)), False),
            "action_mask of medic 0, which is present: got no legal option, expected at least one; give "
            "actors with nothing to do a verb such as 'stop'",
        ),
        (
            _put("action_mask", (4, 0), True),
            "action_mask of medic 1, which is absent: got legal options, expected all False",
        ),
        (
            _put("action_mask", (1, 12 + 5), True),
            "action_mask of marine 1: got legal option 'stun zergling 5', but zergling 5 is absent; expected "
            "options at absent entities to be False",
        ),
    ],
)
def test_check__says_what_is_wrong_and_where(spoil: Callable[[Observation], object], message: str) -> None:
    observation = skirmish()
    spoil(observation)
    with raises(message):
        SKIRMISH.check(observation)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _put("entities/zergling", (2, 0, 3), np.nan),
            "entity type 'zergling', feature 'vx', entity 0 of batch entry 2: got nan, expected a finite number",
        ),
        (
            _put("globals", (3, 0), np.inf),
            "global feature 'clock' of batch entry 3: got inf, expected a finite number",
        ),
        (
            _put("action_mask", (1, 0), False),
            "action_mask of marine 0 of batch entry 1, which is present: got no legal option, expected at "
            "least one; give actors with nothing to do a verb such as 'stop'",
        ),
        (
            _put("action_mask", (4, 3), True),
            "action_mask of medic 0 of batch entry 4, which is absent: got legal options, expected all False",
        ),
        (
            _put("entity_mask/zergling", 3, False),
            None,
        ),
    ],
)
def test_check__says_where_in_a_batch(spoil: Callable[[Observation], object], message: str | None) -> None:
    observation = observe(SKIRMISH, batch=5, seed=0)
    spoil(observation)
    match = "of batch entry 3: got legal option" if message is None else f"^{re.escape(message)}$"
    with pytest.raises(ValueError, match=match):
        SKIRMISH.check(observation, batch_shape=(5,))


def test_check__wants_the_batch_shape_that_it_was_told() -> None:
    observation = observe(SKIRMISH, batch=5, seed=0)
    with raises(
        "observation['entities/marine']: got float32 array of shape [5, 3, 3], expected float32 array of shape [3, 3]"
    ):
        SKIRMISH.check(observation)
    nested = {key: array[None].repeat(2, axis=0) for key, array in observation.items()}
    SKIRMISH.check(nested, batch_shape=(2, 5))
    nested["globals"][1, 2] = np.nan
    with raises("global feature 'clock' of batch entry 1, 2: got nan, expected a finite number"):
        SKIRMISH.check(nested, batch_shape=(2, 5))


# -- check_action --------------------------------------------------------------------------------------------

STOP, NORTH, ATTACK_1, HEAL_1 = 0, 1, 3, 10


def test_check_action__accepts_legal_options() -> None:
    SKIRMISH.check_action(skirmish(), [ATTACK_1, NORTH, 0, HEAL_1, 0])
    SKIRMISH.check_action(skirmish(), np.array([STOP, NORTH, 0, STOP, 0], np.int32))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            [0, 1],
            "action: got int64 of shape [2], expected one integer option for each actor, shape [5]",
        ),
        (
            [0.0, 1.0, 0.0, 0.0, 0.0],
            "action: got float64 of shape [5], expected one integer option for each actor, shape [5]",
        ),
        ([0, 19, 0, 0, 0], "action of marine 1: got option 19, expected 0 to 18"),
        ([-1, 1, 0, 0, 0], "action of marine 0: got option -1, expected 0 to 18"),
        (
            [0, 1, 0, 0, 1],
            "action of medic 1, which is absent: got option 1 (north), expected 0",
        ),
        (
            [0, 1, 0, 1, 0],
            "action of medic 0: got 'north', which is not legal now; legal are stop, heal marine 1",
        ),
        (
            [2, 1, 0, 0, 0],
            "action of marine 0: got 'attack zergling 0', which is not legal now; legal are stop, attack zergling 1",
        ),
    ],
)
def test_check_action__says_who_chose_what_and_what_is_legal(action: Any, message: str) -> None:
    with raises(message):
        SKIRMISH.check_action(skirmish(), action)


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
