"""The contract: packing and back, checks of observations and actions, and what every error says."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiver_rl.entities import (
    EntitySchema,
    EntityType,
    Observation,
    mask_key,
)
from tests.schemas import ATTACK_1, HEAL_1, NORTH, NUM_OPTIONS, SKIRMISH, STOP, legal_row, observe, raises, skirmish

# -- packing and back ----------------------------------------------------------------------------------------


def test_pack__puts_present_entities_in_the_first_slots() -> None:
    observation = skirmish()
    np.testing.assert_array_equal(observation["entities/marine"], np.float32([[45, 0.1, 0.2], [30, 0.3, 0.4], [0, 0, 0]]))
    assert observation["entity_mask/marine"].tolist() == [True, True, False]
    assert observation["entity_mask/rock"].tolist() == [False] * 4  # left out, so none is present
    assert observation["globals"].tolist() == [7.0]


def test_pack__puts_legal_options_in_the_rows_of_the_present_actors() -> None:
    legal = skirmish()["action_mask"]
    assert legal[0].tolist() == legal_row("stop", "attack zergling 1")
    assert legal[1].tolist() == legal_row("north")
    assert not legal[2].any()
    assert legal[3].tolist() == legal_row("stop", "heal marine 1")
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
