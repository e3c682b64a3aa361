"""MAgent2's battle with an agent for each unit, beside the package's own PettingZoo environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from magent2.environments.battle import battle

from envs.magent_parallel import BattleParallelEnv, unit_schema
from envs.magent_rules import MOVES, NUM_MOVES, STAY
from perceiver_rl.entities import Observation, schema_of

EAST = {"red": 1, "blue": -1}  # of the package's columns

# The package's actions: the cells of a circle of radius 2, then the neighbours, row by row from the north.
PACKAGE_MOVES = [(x, y) for y in range(-2, 3) for x in range(-2, 3) if x * x + y * y <= 4]
PACKAGE_ATTACKS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0)]


def choose(observations: dict[str, Observation], agents: list[str], random: np.random.Generator) -> dict[str, Any]:
    """Attack if there is anybody to attack, else walk about, mostly to the east."""
    actions = {}
    for agent in agents:
        legal = observations[agent]["action_mask"][0]
        weight = legal * np.where(np.arange(len(legal)) >= NUM_MOVES, 100.0, 1.0)
        weight[list(MOVES).index("east 2")] *= 10.0
        actions[agent] = np.array([(weight * random.random(len(legal))).argmax()])
    return actions


def package_action(agent: str, option: int, observation: Observation) -> int:
    """The package's number for what an option names."""
    east = EAST[agent.split("_")[0]]
    if option < NUM_MOVES:
        x, y = list(MOVES.values())[option]
        return PACKAGE_MOVES.index((east * x, -y))
    x, y, _ = observation["entities/enemy"][option - NUM_MOVES]
    return NUM_MOVES + PACKAGE_ATTACKS.index((east * int(x), -int(y)))


def in_window(observation: Observation, name: str, east: int) -> set[Any]:
    """(row, column, health) in the package's 13 by 13 view."""
    rows = observation[f"entities/{name}"][observation[f"entity_mask/{name}"]]
    return {(6 - int(y), 6 + east * int(x), round(float(health), 4)) for x, y, health in rows}


def of_channel(view: Any, channel: int) -> set[Any]:
    return {
        (int(row), int(column), round(float(view[row, column, channel + 1]), 4))
        for row, column in np.argwhere(view[..., channel] > 0)
    }


@pytest.mark.parametrize("map_size", [16, 24])
def test_battle__is_the_packages_own_seen_as_entities(map_size: int) -> None:
    env = BattleParallelEnv(f"battle-{map_size}", max_steps=60)
    package = battle.parallel_env(map_size=map_size, max_cycles=60)
    observations, infos = env.reset(seed=5)
    views, _ = package.reset(seed=int(np.random.default_rng(5).integers(2**31)))
    # The package counts armies before it places them, so that blue would get red's actions in the first step of an episode.
    package.team_sizes = [len(env.possible_agents) // 2] * 2
    assert env.possible_agents == package.possible_agents
    assert infos == {agent: {} for agent in env.agents}
    random, deaths = np.random.default_rng(0), 0
    while env.agents:
        assert env.agents == package.agents
        for agent in env.agents:
            observation, view, east = observations[agent], views[agent], EAST[agent.split("_")[0]]
            env.schema.check(observation)
            assert env.observation_space(agent).contains(observation)
            assert in_window(observation, "ally", east) | {(6, 6, round(float(view[6, 6, 2]), 4))} == of_channel(view, 1)
            assert in_window(observation, "enemy", east) == of_channel(view, 3)
            _check_self(observation, view, east)
        actions = choose(observations, env.agents, random)
        package_actions = {agent: package_action(agent, int(actions[agent][0]), observations[agent]) for agent in actions}
        before = env.agents
        observations, rewards, terminations, truncations, infos = env.step(actions)
        views, package_rewards, package_terminations, package_truncations, _ = package.step(package_actions)
        assert rewards == pytest.approx(package_rewards, abs=1e-6)
        assert terminations == package_terminations
        for agent in before:  # where an agent is dead, the package says that it was cut off, too
            assert truncations[agent] == (package_truncations[agent] and not terminations[agent])
        assert list(observations) == list(rewards) == list(infos) == before
        for agent in set(before) - set(env.agents):
            env.schema.check(observations[agent])
            deaths += int(not observations[agent]["entity_mask/self"].any())
    assert deaths > 2
    left = [sum(view[6, 6, 1] > 0 for agent, view in views.items() if agent.startswith(name)) for name in ("red", "blue")]
    for agent, info in infos.items():
        own, other = left if agent.startswith("red") else left[::-1]
        assert info == {"won": own > other, "annihilated": other == 0, "allies_left": own, "enemies_left": other}


def _check_self(observation: Observation, view: Any, east: int) -> None:
    health, *walls = observation["entities/self"][0]
    assert health == view[6, 6, 2]
    for told, (x, y) in zip(walls, [(east, 0), (-east, 0), (0, -1), (0, 1)], strict=True):
        obstacles = [step for step in range(1, 7) if view[6 + y * step, 6 + x * step, 0]]
        assert told == (obstacles[0] - 1 if obstacles else 6)


def test_one_army__plays_against_the_opponent_in_the_name() -> None:
    for name, most in (("battle-16", 0), ("battle-16-vs-random", 6)):
        env = BattleParallelEnv(name, armies="blue", max_steps=40)
        env.reset(seed=0)
        assert env.agents == env.possible_agents == [f"blue_{unit}" for unit in range(6)]
        while env.agents:  # blue stands where it is: hunters come and kill it, random play hardly does
            _, _, terminations, truncations, infos = env.step({})
        left = next(iter(infos.values()))["allies_left"]
        assert left == most
        assert all(truncations.values()) == (left == 6)
        assert all(terminations.values()) == (left == 0)


def test_agents__stay_where_they_are_without_an_action() -> None:
    env = BattleParallelEnv("battle-16")
    first, _ = env.reset(seed=0)
    second, *_ = env.step(dict.fromkeys(env.agents[:3], STAY))
    for agent in env.agents:
        np.testing.assert_array_equal(first[agent]["entities/ally"], second[agent]["entities/ally"])


def test_seed__reproduces_battles_and_the_stream_goes_on() -> None:
    env = BattleParallelEnv("battle-16", armies="red")
    ends = []
    for seed in (3, None, 3, None):
        observations, _ = env.reset(seed=seed)
        random, total = np.random.default_rng(0), 0.0
        while env.agents:
            observations, rewards, *_ = env.step(choose(observations, env.agents, random))
            total += sum(rewards.values())
        ends.append(total)
    assert ends[:2] == ends[2:]
    assert ends[0] != ends[1]


def test_spaces__carry_the_schema() -> None:
    env = BattleParallelEnv("battle-25")
    for agent in ("red_0", "blue_19"):
        assert schema_of(env.observation_space(agent)) == env.schema == unit_schema("battle-25")
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) == env.schema.action_space
    assert (env.schema.max_actors, env.schema.num_options) == (1, NUM_MOVES + 20)


def test_bad_arguments__say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="unknown name 'battle-12'"):
        BattleParallelEnv("battle-12")
    with pytest.raises(ValueError, match="armies of magent/battle-16: got 'green', expected one of both, red, blue"):
        BattleParallelEnv("battle-16", armies="green")
    with pytest.raises(ValueError, match="max_steps of magent/battle-16: got 0, expected at least 1"):
        BattleParallelEnv("battle-16", max_steps=0)
    env = BattleParallelEnv("battle-16")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action of red_1 in magent/battle-16: got 19, expected one option, 0 to 18"):
        env.step({"red_1": 19})
