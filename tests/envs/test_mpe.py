"""mpe2's flat observations as entities, against the world that they are made from."""

from typing import Any

import numpy as np
import pytest

from envs.mpe import make_parallel, members
from perceiver_rl.pettingzoo import EntityParallelEnv
from tests.parallel_environments import parallel_api_test


def _play(env: EntityParallelEnv, steps: int = 10) -> Any:
    """The world, and what everybody sees of it, after each step."""
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    for _ in range(steps):
        yield env.unwrapped.world, observations
        observations, *_ = env.step({agent: int(rng.integers(5)) for agent in env.agents})


@pytest.mark.parametrize("name", members())
def test_environment__passes_pettingzoos_own_test(name: str) -> None:
    parallel_api_test(make_parallel(name), num_cycles=60)


@pytest.mark.parametrize("options", [{}, {"num_good": 2, "num_adversaries": 2, "num_obstacles": 3}, {"num_adversaries": 1}])
def test_simple_tag__shows_the_world(options: dict[str, int]) -> None:
    env = make_parallel("simple_tag", **options)
    for world, observations in _play(env):
        assert len(observations) == len(world.agents)
        for me in world.agents:
            schema = env.schema_of_agent(me.name)
            entities = schema.unpack(observations[me.name])
            others = [each for each in world.agents if each is not me]

            def offsets(of: Any, me: Any = me) -> Any:
                return np.array([each.state.p_pos - me.state.p_pos for each in of]).reshape(-1, 2)

            prey = [each for each in others if not each.adversary]
            speeds = np.array([each.state.p_vel for each in prey]).reshape(-1, 2)
            expected = {
                "self": [np.concatenate([me.state.p_vel, me.state.p_pos])],
                "obstacle": offsets(world.landmarks),
                "adversary": offsets([each for each in others if each.adversary]),
                "prey": np.hstack([offsets(prey), speeds]),
            }
            for name, rows in expected.items():
                np.testing.assert_allclose(entities[name], rows, rtol=1e-5, atol=1e-6)
            assert observations[me.name]["globals"].tolist() == [float(me.adversary)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_simple_spread__shows_the_world(count: int) -> None:
    env = make_parallel("simple_spread", N=count)
    for world, observations in _play(env):
        for me in world.agents:
            entities = env.schema_of_agent(me.name).unpack(observations[me.name])
            landmarks = [each.state.p_pos - me.state.p_pos for each in world.landmarks]
            others = [each.state.p_pos - me.state.p_pos for each in world.agents if each is not me]
            np.testing.assert_allclose(entities["landmark"], landmarks, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(entities["other"], others, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(entities["self"], [[*me.state.p_vel, *me.state.p_pos]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("option", "axis", "sign"), [(1, 0, -1), (2, 0, 1), (3, 1, -1), (4, 1, 1)])
def test_verbs__are_where_they_lead(option: int, axis: int, sign: int) -> None:
    env = make_parallel("simple_spread")
    env.reset(seed=0)
    observations, *_ = env.step({"agent_0": option, "agent_1": 0, "agent_2": 0})
    assert np.sign(observations["agent_0"]["entities/self"][0, axis]) == sign  # velocity: all begin at rest
    direction = {(0, -1): "left", (0, 1): "right", (1, -1): "down", (1, 1): "up"}[axis, sign]
    assert env.schema_of_agent("agent_0").option_name(option) == direction


def test_options_that_change_the_observation__are_refused() -> None:
    with pytest.raises(ValueError, match="mpe/simple_tag: got continuous_actions=True, expected it left out"):
        make_parallel("simple_tag", continuous_actions=True)
    with pytest.raises(ValueError, match=r"unknown environment 'simple_tags' \(did you mean 'simple_tag'\?\)"):
        make_parallel("simple_tags")
