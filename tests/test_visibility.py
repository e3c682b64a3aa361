"""Who sees what: the part of the contract that decentralized control and privileged entities add."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perceiver_rl.entities import EntitySchema, EntityType, Feature, Observation, TargetedVerb

SCOUTS = EntitySchema(
    entity_types=(EntityType("scout", ("x",), 2), EntityType("foe", ("x", "range"), 3), EntityType("fog", ("size",), 1)),
    actors=("scout",),
    verbs=("stop",),
    targeted_verbs=(TargetedVerb("attack", "foe"),),
    globals=(Feature("clock"),),
    control="decentralized",
    relative=(Feature("x", -4, 4),),
    privileged=("fog", "globals"),
)


def _scouts(**changes: Any) -> Observation:
    arguments: dict[str, Any] = {
        "entities": {"scout": [[0.1], [0.2]], "foe": [[0.3, 1.0]], "fog": [[5.0]]},
        "action_mask": [[True, True, False, False], [True, False, False, False]],
        "globals": [0.5],
        "visibility": [[True, False, True, True], [True, True, False, False]],
    }
    return SCOUTS.pack(**(arguments | changes))


def test_pack__lays_out_who_sees_whom() -> None:
    visibility = _scouts()["visibility"]
    assert visibility.astype(int).tolist() == [[1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0]]
    assert SCOUTS.observation_space.contains(_scouts())


def test_pack__lets_everybody_see_everything_unless_told_otherwise() -> None:
    assert _scouts(visibility=None)["visibility"].astype(int).tolist() == [[1, 1, 1, 0, 0, 1]] * 2


def test_slices__tell_where_types_and_actors_stand() -> None:
    assert SCOUTS.entity_slices == {"scout": slice(0, 2), "foe": slice(2, 5), "fog": slice(5, 6)}
    assert replace(SCOUTS, relative=(), privileged=(), actors=("foe", "scout")).actor_slots == (2, 3, 4, 0, 1)


def test_centralized_observations__have_no_visibility() -> None:
    schema = replace(SCOUTS, control="centralized", relative=())
    assert "visibility" not in schema.observation_space.spaces
    with pytest.raises(ValueError, match=r"^visibility: got an array under centralized control, expected None$"):
        schema.pack({"scout": [[0.0]]}, [[True, False, False, False]], [0.0], visibility=[[True]])


def test_schema__goes_through_json() -> None:
    assert EntitySchema.from_dict(json.loads(json.dumps(SCOUTS.to_dict()))) == SCOUTS


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda: _scouts(visibility=[[True]]),
            r"visibility: got shape \[1, 1\], expected \[2, 4\], one row for each present actor and one column",
        ),
        (
            lambda: _scouts(visibility=[[False, False, True, True], [True, True, False, False]]),
            "visibility of scout 0, which is present: got False at itself, expected True",
        ),
        (
            lambda: _scouts(visibility=[[True, False, False, True], [True, True, False, False]]),
            "action_mask of scout 0: got legal option 'attack foe 0', but it does not see foe 0",
        ),
        (lambda: replace(SCOUTS, control="centralized"), "relative: got features under centralized control, expected none"),
        (
            lambda: replace(SCOUTS, relative=(Feature("range"),)),
            "relative feature 'range': actor type 'scout' has no such feature, expected one of x",
        ),
        (
            lambda: replace(SCOUTS, privileged=("smoke",)),
            "privileged: got unknown 'smoke', known are scout, foe, fog, globals",
        ),
        (lambda: replace(SCOUTS, privileged=("foe",)), "privileged: got 'foe', which acts or is a target"),
    ],
)
def test_contract__says_what_is_wrong(spoil: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        spoil()
