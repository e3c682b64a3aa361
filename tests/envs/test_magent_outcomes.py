"""MAgent2's battle as it is counted: rewards, ends, and what became of whom."""

from __future__ import annotations

import numpy as np
import pytest

from envs.magent import BattleEnv, BattleVectorEnv
from envs.magent_rules import MOVES, NUM_MOVES, STAY
from envs.magent_schema import FEATURE_NAMES
from tests.battles import INFO_KEYS, hunters, play

HEALTH = FEATURE_NAMES.index("health")


def test_reward__is_health_taken_plus_one_for_annihilation() -> None:
    records = play("hunter", "battle-16", 24)
    assert {record.won for record in records} == {True, False}
    for record in records:
        won = record.info["enemies_left"] == 0
        assert record.won == bool(record.info["annihilated"]) == won
        assert (record.info["allies_left"] == 0) != won
        assert record.total_reward == pytest.approx(record.info["damage_dealt"] / 6 + won, abs=1e-4)
        assert record.info["damage_taken"] >= 6 - record.info["allies_left"] - 1e-6


@pytest.mark.parametrize(
    ("agent", "name", "max_steps", "won"),
    [
        ("hunter", "battle-16-vs-random", 12, True),  # it has killed some by then
        ("hunter", "battle-16-vs-random", 2, False),  # nobody has met: as many are left on both sides
        ("random", "battle-16", 13, False),  # it has lost some
    ],
)
def test_time_limit__is_truncation_and_won_by_who_has_more_units(agent: str, name: str, max_steps: int, won: bool) -> None:
    records = play(agent, name, 24, max_steps=max_steps)
    timed_out = [record for record in records if record.info["allies_left"] and record.info["enemies_left"]]
    assert len(timed_out) > 12
    for record in timed_out:
        assert record.length == max_steps
        assert record.won == (record.info["allies_left"] > record.info["enemies_left"])
        assert not record.info["annihilated"]
        assert record.total_reward == pytest.approx(record.info["damage_dealt"] / 6, abs=1e-4)  # no bonus
    assert any(record.won for record in timed_out) == won


def test_autoreset__starts_the_next_episode_one_step_later_and_in_ended_environments_only() -> None:
    env = BattleVectorEnv("battle-16", 3, side="red", max_steps=4)
    first, _ = env.reset(seed=0)
    env._steps[1] = -2  # this one plays two steps longer
    east = np.full((3, 6), list(MOVES).index("east"))
    for _ in range(3):
        _, _, terminated, truncated, infos = env.step(east)
        assert not (terminated | truncated).any()
        assert infos == {}
    last, _, terminated, truncated, infos = env.step(east)
    np.testing.assert_array_equal(truncated, [True, False, True])
    assert not terminated.any()
    assert infos.keys() == INFO_KEYS | {f"_{key}" for key in INFO_KEYS}
    for key in INFO_KEYS:
        np.testing.assert_array_equal(infos[f"_{key}"], [True, False, True])
    new, reward, terminated, truncated, infos = env.step(east)
    assert not (terminated | truncated).any()
    assert infos == {}
    np.testing.assert_array_equal(reward[[0, 2]], 0.0)
    # The last observation is the ended episode's own; the next shows the start formation, to which no action was done.
    for index, starts in enumerate((True, False, True)):
        assert not np.array_equal(last["entities/ally"][index], first["entities/ally"][index])
        assert np.array_equal(new["entities/ally"][index], first["entities/ally"][index]) == starts
    again, *_ = env.step(east)
    assert not np.array_equal(again["entities/ally"][0], first["entities/ally"][0])


def test_terminal_observation__shows_the_last_battlefield() -> None:
    env = BattleVectorEnv("battle-16", 12)
    observation, _ = env.reset(seed=0)
    act, ends = hunters(env), 0
    for _ in range(40):
        observation, _, terminated, _, infos = env.step(act(observation))
        for index in np.flatnonzero(terminated):
            left = observation["entity_mask/ally"][index].sum(), observation["entity_mask/enemy"][index].sum()
            assert (infos["allies_left"][index], infos["enemies_left"][index]) == left
            assert min(left) == 0 < max(left)
            assert observation["action_mask"][index].any() == (left[0] > 0)
            ends += 1
    assert ends >= 12


# -- units ---------------------------------------------------------------------------------------------------


def test_units__add_up_to_their_squad() -> None:
    recovered = []
    for record in play("hunter", "battle-24", 12, max_steps=60):
        units = record.units
        assert set(units["kind"]) == {"soldier"}
        assert units["survived"].sum() == record.info["allies_left"]
        np.testing.assert_allclose(units["damage_taken"].sum(), record.info["damage_taken"], rtol=1e-5)
        assert units["damage_taken"][~units["survived"]].tolist() == [1.0] * int(16 - record.info["allies_left"])
        np.testing.assert_allclose(units["kills"].sum(), 16 - record.info["enemies_left"], rtol=1e-5)
        recovered.append(units["damage_dealt"].sum() - record.info["damage_dealt"])
    assert -1e-4 < min(recovered) < max(recovered)


def test_units__are_credited_with_what_they_struck_and_nothing_else() -> None:
    env = BattleEnv("battle-16", side="red")
    observation, _ = env.reset(seed=0)
    dealt, struck = np.zeros(6), False
    for _ in range(40):
        # the first unit hunts, the others wait and do not strike
        attack = observation["action_mask"][0, NUM_MOVES:]
        option = NUM_MOVES + int(attack.argmax()) if attack.any() else list(MOVES).index("east 2")
        options = np.full(6, STAY)
        options[0] = option
        before = observation["entities/enemy"][:, HEALTH].copy()
        observation, _, terminated, truncated, info = env.step(options)
        lost = np.maximum(before - observation["entities/enemy"][:, HEALTH], 0)
        dealt[0] += lost[option - NUM_MOVES] if option >= NUM_MOVES else 0
        np.testing.assert_allclose(info["units"]["damage_dealt"], dealt, atol=1e-5)
        struck |= dealt[0] > 0
        if terminated or truncated:
            break
    assert struck
    assert info["units"]["damage_dealt"][1:].tolist() == [0.0] * 5
    env.reset(seed=0)
    *_, info = env.step(np.full(6, STAY))
    assert info["units"]["damage_dealt"].tolist() == [0.0] * 6
    assert info["units"]["survived"].all()
