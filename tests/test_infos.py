"""One environment's part of a vector environment's infos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perceiver_rl.infos import Outcome, info_of, numbers_in, only_info, outcome_in, won_in


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (0, {"won": True, "always": 7, "episode": {"r": 1.0}}),
        (1, {"always": 8}),
    ],
)
def test_info_of__takes_one_environments_valid_values(env: int, expected: dict[str, Any]) -> None:
    """The form is gymnasium's: `_key` tells for whom `key` is valid, and infos may be nested."""
    valid = np.array([True, False])
    infos = {
        "won": np.array([True, False]),
        "_won": valid,
        "always": np.array([7, 8]),
        "episode": {"r": np.array([1.0, 0.0]), "_r": valid},
        "_episode": valid,
    }
    assert info_of(infos, env) == expected


def test_info_of__leaves_out_what_belongs_to_no_environment() -> None:
    assert info_of({"map": "2s3z", "version": 3, "none": None, "score": np.array([1.5, 2.5])}, 1) == {"score": 2.5}


def test_numbers_in__keeps_numbers_and_booleans_only() -> None:
    info = {
        "won": np.bool_(True),
        "lost": False,
        "left": np.int64(3),
        "score": np.float32(0.5),
        "steps": 7,
        "map": "2s3z",
        "position": np.zeros(2),
        "episode": {"r": 1.0},
    }
    numbers = numbers_in(info)
    assert numbers == {"won": 1.0, "lost": 0.0, "left": 3.0, "score": 0.5, "steps": 7.0}
    assert {type(value) for value in numbers.values()} == {float}


def test_outcome_in__tells_the_win_apart_from_the_numbers() -> None:
    info = {"won": np.bool_(True), "left": np.int64(3), "map": "2s3z"}
    assert outcome_in(info) == Outcome(True, {"left": 3.0})
    assert outcome_in({"left": 0, "won": None}) == Outcome(None, {"left": 0.0})
    with pytest.raises(ValueError, match="info 'won': got 'yes'"):
        outcome_in({"won": "yes"})


def test_only_info__is_of_one_environment_and_of_pythons_own_numbers() -> None:
    units = {"kind": np.array([["marine", ""]], object), "kills": np.array([[2.0, 0.0]])}
    info = only_info({"won": np.array([True]), "allies_left": np.array([3]), "units": units})
    assert (info["won"], info["allies_left"]) == (True, 3)
    assert (type(info["won"]), type(info["allies_left"])) == (bool, int)
    assert info["units"]["kind"].tolist() == ["marine", ""]
    assert info["units"]["kills"].tolist() == [2.0, 0.0]


@pytest.mark.parametrize(("told", "won"), [(True, True), (np.bool_(False), False), (1, True), (0.0, False), (None, None)])
def test_won_in__is_true_false_or_untold(told: object, won: bool | None) -> None:
    assert won_in({"won": told}) is won
    assert won_in({}) is None


@pytest.mark.parametrize("told", [-1, 0.5, np.nan, "yes", np.array([True, False])])
def test_won_in__takes_no_score_for_a_win(told: object) -> None:
    with pytest.raises(ValueError, match=r"info 'won': got .*, expected True or False"):
        won_in({"won": told})
