"""MAgent2's battle as a squad environment: against the engine's own views, seed by seed, and as gymnasium sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs
from agents.random_agent import RandomAgent
from agents.registry import make_agent
from envs.magent import BattleEnv, BattleVectorEnv, battle_names, battle_schema
from envs.magent_opponents import OPPONENTS
from envs.magent_rules import MOVES, NUM_MOVES, STAY
from envs.magent_schema import FEATURE_NAMES, NEAR, UNIT_FEATURES
from envs.registry import names
from perceiver_rl.entities import Observation, schema_of
from tests.battles import INFO_KEYS, hunters, play, stay

HEALTH, X, Y = (FEATURE_NAMES.index(name) for name in ("health", "x", "y"))
DAMAGE, RECOVERY = 0.2, 0.01  # of the full health


# -- the contract --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "units"), [("battle-16", 6), ("battle-24", 16), ("battle-45", 81)])
def test_schema__differs_between_maps_in_the_number_of_slots_alone(name: str, units: int) -> None:
    schema, smallest = battle_schema(name), battle_schema("battle-16")
    assert (schema.max_actors, schema.num_options) == (units, NUM_MOVES + units)
    assert schema.entity_type("ally").features == schema.entity_type("enemy").features == UNIT_FEATURES
    assert (schema.verbs, schema.targeted_verbs, schema.globals) == (
        smallest.verbs,
        smallest.targeted_verbs,
        smallest.globals,
    )
    assert schema.option_name(NUM_MOVES + 5) == "attack enemy 5"


@pytest.mark.parametrize("name", ["battle-16", "battle-25-vs-random"])
def test_observations__keep_the_contract_through_episodes(name: str) -> None:
    env = BattleVectorEnv(name, 3, max_steps=25)
    agent = RandomAgent(env.schema)
    agent.reset(3, seed=1)
    observation, _ = env.reset(seed=7)
    assert schema_of(env.single_observation_space) == env.schema == battle_schema(name)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    ends = 0
    for _ in range(80):
        assert env.observation_space.contains(observation)
        env.schema.check(observation, batch_shape=(3,))
        absent = ~observation["entity_mask/ally"]
        assert not observation["entities/ally"][absent].any()
        observation, _, terminated, truncated, _ = env.step(agent.act(observation, np.zeros(3, bool), greedy=False))
        ends += int((terminated | truncated).sum())
    assert ends >= 6


# The schema's boxes are unbounded on purpose: feature ranges are declared for scaling, not enforced.
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is:UserWarning")
def test_single_env__passes_gymnasiums_checker() -> None:
    check_env(BattleEnv("battle-16"), skip_render_check=True)


# -- what is seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["red", "blue"])
def test_units__are_those_of_the_engines_own_views(side: str) -> None:
    """An independent way: each living unit's 13 by 13 view, which the engine draws from its map and not from lists."""
    env = BattleVectorEnv("battle-24", 2, side=side)
    observation, _ = env.reset(seed=3)
    act, deaths, seen = hunters(env), 0, 0
    east = 1 if side == "red" else -1
    for _ in range(25):
        for index, engine in enumerate(env._engines):
            army = ("red", "blue").index(side)
            slots = engine.slots(army)
            allies, enemies = observation["entities/ally"][index], observation["entities/enemy"][index]
            alive, others = observation["entity_mask/ally"][index], observation["entity_mask/enemy"][index]
            assert set(slots.tolist()) == set(np.flatnonzero(alive).tolist())
            for view, slot in zip(engine.views(army), slots, strict=True):
                own, other = _from_window(view, allies[slot, [X, Y]], east)
                assert own == _in_circle(allies[alive], allies[slot, [X, Y]])
                assert other == _in_circle(enemies[others], allies[slot, [X, Y]])
                seen += len(other)
            deaths += int((~alive).sum())
        observation, _, terminated, *_ = env.step(act(observation))
        if terminated.any():
            break
    assert deaths
    assert seen


def _from_window(view: Any, centre: Any, east: int) -> tuple[set[Any], set[Any]]:
    """(x, y, health) of own and other units in a view, whose rows count from the north."""
    found: tuple[set[Any], set[Any]] = (set(), set())
    for units, channel in zip(found, (1, 3), strict=True):
        for row, column in np.argwhere(view[..., channel] > 0):
            x, y = centre[0] + east * (column - 6), centre[1] - (row - 6)
            units.add((float(x), float(y), round(float(view[row, column, channel + 1]), 4)))
    return found


def _in_circle(units: Any, centre: Any) -> set[Any]:
    near = np.square(units[:, [X, Y]] - centre).sum(axis=1) <= 36
    return {(float(unit[X]), float(unit[Y]), round(float(unit[HEALTH]), 4)) for unit in units[near]}


def test_surroundings__are_those_of_the_positions() -> None:
    env = BattleVectorEnv("battle-25", 2)
    observation, _ = env.reset(seed=0)
    act = hunters(env)
    for _ in range(12):
        observation, *_ = env.step(act(observation))
        for index in range(2):
            sides = [
                (observation[f"entities/{name}"][index], observation[f"entity_mask/{name}"][index])
                for name in ("ally", "enemy")
            ]
            for (units, alive), (others, others_alive) in (sides, sides[::-1]):
                for unit in np.flatnonzero(alive):
                    told = dict(zip(FEATURE_NAMES, units[unit], strict=True))
                    to_others = (others - units[unit])[others_alive][:, [X, Y]]
                    to_friends = np.delete(units - units[unit], unit, axis=0)[np.delete(alive, unit)][:, [X, Y]]
                    assert told["opponents_adjacent"] == (np.abs(to_others).max(axis=1) <= 1).sum()
                    assert told["opponents_near"] == (np.abs(to_others).max(axis=1) <= NEAR).sum()
                    assert told["friends_near"] == (np.abs(to_friends).max(axis=1) <= NEAR).sum()
                    nearest = to_others[np.square(to_others).sum(axis=1).argmin()].clip(-6, 6)
                    np.testing.assert_array_equal([told["opponent_dx"], told["opponent_dy"]], nearest)


def test_both_sides__see_themselves_begin_in_the_west() -> None:
    for side in ("red", "blue"):
        observation, _ = BattleEnv("battle-24", side=side).reset(seed=0)
        assert observation["entities/ally"][:, X].max() < -2 < 2 < observation["entities/enemy"][:, X].min()


# -- what may be done ----------------------------------------------------------------------------------------


@pytest.fixture
def idle_enemy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enemy that stands where it is, so that what happens is the squad's own doing."""
    monkeypatch.setitem(OPPONENTS, "hunter", lambda field, draw: np.full(field.health.shape, STAY))


@pytest.mark.parametrize("side", ["red", "blue"])
@pytest.mark.parametrize("verb", MOVES)
def test_moves__go_where_their_names_say(verb: str, side: str, idle_enemy: None) -> None:
    env = BattleEnv("battle-20", side=side)
    before = _approach(env, 2)  # in the formation of the start some moves are nobody's
    option = list(MOVES).index(verb)
    moves = 0
    for unit in range(env.schema.max_actors):  # one at a time, so that none is in another's way
        after, *_ = env.step(_order(env, unit, option))
        moved = (after["entities/ally"] - before["entities/ally"])[:, [X, Y]]
        np.testing.assert_array_equal(moved[unit], MOVES[verb] if before["action_mask"][unit, option] else (0, 0))
        assert not np.delete(moved, unit, axis=0).any()
        assert not (after["entities/enemy"] - before["entities/enemy"])[:, [X, Y]].any()
        moves += before["action_mask"][unit, option]
        before = after
    assert moves


@pytest.mark.parametrize("side", ["red", "blue"])
def test_mask__offers_exactly_the_moves_that_the_engine_makes(side: str, idle_enemy: None) -> None:
    env = BattleEnv("battle-16", side=side)
    tried = {True: 0, False: 0}
    for steps in (0, 4, 7):
        for unit in range(6):
            for option in set(range(NUM_MOVES)) - {STAY}:
                before = _approach(env, steps)
                legal = bool(before["action_mask"][unit, option])
                after, *_ = env.step(_order(env, unit, option))
                moved = (after["entities/ally"] - before["entities/ally"])[unit, [X, Y]]
                np.testing.assert_array_equal(moved, list(MOVES.values())[option] if legal else (0, 0))
                tried[legal] += 1
    assert min(tried.values()) > 30


def _order(env: BattleEnv, unit: int, option: int) -> Any:
    """One unit does something, the others stay."""
    orders = np.full(env.schema.max_actors, STAY)
    orders[unit] = option
    return orders


def _approach(env: BattleEnv, steps: int) -> Observation:
    """The squad goes for the enemy for a while."""
    observation, _ = env.reset(seed=11)
    agent = make_agent("hunter", env.schema)
    agent.reset(1, 0)
    for _ in range(steps):
        batch = {key: values[None] for key, values in observation.items()}
        observation, *_ = env.step(agent.act(batch, np.zeros(1, bool), False)[0])
    return observation


def test_attacks__hurt_the_enemies_that_they_name_and_nobody_else(idle_enemy: None) -> None:
    env = BattleVectorEnv("battle-24", 4)
    observation, _ = env.reset(seed=5)
    act, struck, killed, over = hunters(env), 0, 0, False
    while not over:
        offset = observation["entities/enemy"][:, None, :, [X, Y]] - observation["entities/ally"][:, :, None, [X, Y]]
        both = observation["entity_mask/ally"][:, :, None] & observation["entity_mask/enemy"][:, None]
        in_reach = both & (np.abs(offset).max(axis=-1) <= 1)
        np.testing.assert_array_equal(observation["action_mask"][..., NUM_MOVES:], in_reach)
        options, health = act(observation), observation["entities/enemy"][..., HEALTH]
        hits = np.stack([np.bincount(each[each >= NUM_MOVES] - NUM_MOVES, minlength=16) for each in options])
        observation, _, terminated, truncated, _ = env.step(options)
        left = health - DAMAGE * hits
        expected = np.where(left > 0, np.minimum(left + RECOVERY, 1.0), 0.0)
        sure = np.abs(left) > 1e-5  # rounding decides whether who had just as much health as was taken is dead
        np.testing.assert_allclose(observation["entities/enemy"][..., HEALTH][sure], expected[sure], atol=1e-5)
        np.testing.assert_array_equal(observation["entity_mask/enemy"][sure], expected[sure] > 0)
        struck, killed = struck + hits.sum(), killed + ((expected == 0) & (health > 0)).sum()
        over = bool((terminated | truncated).any())
    assert struck > 200
    assert killed >= 16


def test_attack_out_of_reach__is_a_stay() -> None:
    env = BattleEnv("battle-16")
    before, _ = env.reset(seed=0)
    assert not before["action_mask"][:, NUM_MOVES:].any()
    after, *_ = env.step(np.full(6, NUM_MOVES))
    np.testing.assert_array_equal(after["entities/ally"][:, [X, Y]], before["entities/ally"][:, [X, Y]])
    assert (after["entities/enemy"][:, HEALTH] == 1).all()


# -- opponents -----------------------------------------------------------------------------------------------


def test_hunter__beats_random_play_and_is_its_own_equal() -> None:
    assert all(record.info["annihilated"] for record in play("hunter", "battle-24-vs-random", 12))
    assert not any(record.won for record in play("random", "battle-24", 12))
    wins = sum(record.won for record in play("hunter", "battle-16", 100))
    assert 35 <= wins <= 65


def test_random_play__is_its_own_equal() -> None:
    records = play("random", "battle-16-vs-random", 60, max_steps=100)
    difference = [record.info["damage_dealt"] - record.info["damage_taken"] for record in records]
    assert abs(np.mean(difference)) < 3 * np.std(difference) / np.sqrt(len(difference))
    assert np.std(difference) > 0


def test_hunter_agent__refuses_other_environments() -> None:
    from tests.environments import COURIERS

    with pytest.raises(
        ValueError, match=r"HunterAgent: got a schema with actors courier .* expected that of a MAgent2 battle"
    ):
        make_agent("hunter", COURIERS)


# -- seeds ---------------------------------------------------------------------------------------------------


def test_seed__reproduces_episodes_across_autoresets() -> None:
    env = BattleVectorEnv("battle-16", 3)
    rollouts = []
    for _ in range(2):
        observation, _ = env.reset(seed=21)
        act, arrays = hunters(env), [observation]
        for _ in range(50):
            observation, *_ = env.step(act(observation))
            arrays.append(observation)
        rollouts.append(arrays)
    for left, right in zip(*rollouts, strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def test_vector_env__plays_the_same_battles_as_single_ones() -> None:
    vector, single = BattleVectorEnv("battle-16", 3), BattleEnv("battle-16")
    for index in range(3):
        batch, _ = vector.reset(seed=30)
        alone, _ = single.reset(seed=30 + index)
        act, over, episodes = hunters(vector), False, 0
        while episodes < 2:
            for key in alone:
                np.testing.assert_array_equal(batch[key][index], alone[key])
            options = act(batch)
            batch, rewards, *_ = vector.step(options)
            if over:
                (alone, _), over = single.reset(), False
                assert rewards[index] == 0
            else:
                alone, reward, terminated, truncated, _ = single.step(options[index])
                assert rewards[index] == pytest.approx(reward)
                over = terminated or truncated
                episodes += over


def test_seed__may_be_given_for_each_environment() -> None:
    env = BattleVectorEnv("battle-16", 3, side="red")
    starts = []
    for seed in ([9, 10, 9], 9):
        observation, _ = env.reset(seed=seed)
        act = hunters(env)
        for _ in range(9):
            observation, *_ = env.step(act(observation))
        starts.append(observation["entities/enemy"])
    np.testing.assert_array_equal(starts[0][:2], starts[1][:2])
    assert not np.array_equal(starts[1][0], starts[1][1])
    with pytest.raises(ValueError, match="got 2 seeds, expected one integer, or one seed for each of 3"):
        env.reset(seed=[1, 2])


# -- errors --------------------------------------------------------------------------------------------------


def test_unknown_arguments__list_the_valid_ones() -> None:
    assert {"battle-16", "battle-45", "battle-24-vs-random"} <= set(battle_names())
    assert {f"magent/{name}" for name in battle_names()} <= set(names())
    with pytest.raises(ValueError, match=r"unknown name 'battle-46' \(did you mean 'battle-\d+'\?\); known are battle-16, "):
        BattleVectorEnv("battle-46")
    with pytest.raises(ValueError, match="side of magent/battle-16: got 'green', expected one of random, red, blue"):
        BattleVectorEnv("battle-16", side="green")
    with pytest.raises(ValueError, match="max_steps of magent/battle-16: got 0, expected at least 1"):
        BattleVectorEnv("battle-16", max_steps=0)


def test_actions__of_another_shape_or_beyond_the_options_are_refused() -> None:
    env = BattleVectorEnv("battle-16", 2)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(stay(env))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"got int64 of shape \[2, 5\], expected one integer option for each actor"):
        env.step(np.zeros((2, 5), int))
    actions = stay(env)
    actions[1, 4] = 19
    with pytest.raises(ValueError, match="environment 1, ally 4: got option 19, expected 0 to 18"):
        env.step(actions)


def test_episode_that_has_ended__asks_for_a_reset() -> None:
    env = BattleEnv("battle-16", max_steps=1)
    env.reset(seed=0)
    *_, truncated, info = env.step(np.full(6, STAY))
    assert truncated
    assert info.keys() == INFO_KEYS
    assert info["won"] is False
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(np.full(6, STAY))


def test_import__leaves_the_number_of_threads_alone_and_says_what_to_install() -> None:
    code = (
        "import os, sys\n"
        "from envs.magent import BattleVectorEnv\n"
        "assert 'magent2' not in sys.modules\n"
        "BattleVectorEnv('battle-16')\n"
        "assert 'OMP_NUM_THREADS' not in os.environ\n"
        "del sys.modules['magent2.c_lib']\n"
        "sys.modules['magent2'] = None\n"
        "try:\n"
        "    BattleVectorEnv('battle-17')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(envs.__path__[0]).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "pip install 'perceiver-rl[magent]'" in run.stdout
