"""Learning tasks: the contract, perfect play, what each control hides, the rules of each, and that they are learned."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from agents.random_agent import RandomAgent
from benchmarks.tasks import run_task
from envs.tasks import make, make_best_agent, make_vec, names
from envs.tasks.base import TaskVectorEnv
from perceiver_rl.evaluation.agent import Agent
from perceiver_rl.evaluation.rollout import evaluate
from perceiver_rl.testing import check_entity_env

TASKS = names()
NORTH, EAST, SOUTH, WEST = range(4)


def _returns(agent: Agent, env: TaskVectorEnv, episodes_per_env: int = 4) -> list[float]:
    return [record.total_reward for record in evaluate(agent, env, episodes_per_env=episodes_per_env, seed=0, greedy=True)]


# -- all tasks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablate", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_task__keeps_the_contract(task: str, ablate: bool) -> None:
    assert check_entity_env(lambda: make_vec(task, 3, ablate=ablate), steps=40).num_episodes > 0


@pytest.mark.parametrize("task", TASKS)
def test_task__keeps_the_contract_as_a_single_environment(task: str) -> None:
    assert check_entity_env(lambda: make(task), steps=40).num_episodes > 0


@pytest.mark.parametrize("task", TASKS)
def test_perfect_play__has_the_best_return_in_every_episode(task: str) -> None:
    env = make_vec(task, 32)
    np.testing.assert_allclose(_returns(make_best_agent(task), env), env.best_return, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_random_play__stays_below_half_of_the_best(task: str) -> None:
    env = make_vec(task, 64)
    assert np.mean(_returns(RandomAgent(env.schema), env)) < 0.5 * env.best_return


@pytest.mark.parametrize("task", TASKS)
def test_perfect_play__fails_where_what_decides_is_hidden(task: str) -> None:
    env = make_vec(task, 64, ablate=True)
    assert np.mean(_returns(make_best_agent(task), env)) < 0.5 * env.best_return


@pytest.mark.parametrize("task", TASKS)
def test_ablation__leaves_the_rules_alone(task: str) -> None:
    whole, ablated = make_vec(task, 16), make_vec(task, 16, ablate=True)
    agent = make_best_agent(task)
    observation, _ = whole.reset(seed=3)
    hidden, _ = ablated.reset(seed=3)
    assert any(not np.array_equal(observation[key], hidden[key]) for key in observation)
    for _ in range(40):
        action = agent.act(observation, np.zeros(16, bool), True)
        observation, *rules, infos = whole.step(action)
        hidden, *ablated_rules, ablated_infos = ablated.step(action)
        np.testing.assert_array_equal(rules, ablated_rules)
        assert infos.keys() == ablated_infos.keys()
        np.testing.assert_array_equal(observation["action_mask"], hidden["action_mask"])


@pytest.mark.parametrize("task", TASKS)
def test_infos__tell_who_won_at_an_end(task: str) -> None:
    env = make_vec(task, 8)
    records = evaluate(make_best_agent(task), env, episodes_per_env=2, seed=0, greedy=True)
    assert all(record.won for record in records)
    lost = [
        record
        for record in evaluate(RandomAgent(env.schema), env, episodes_per_env=8, seed=0, greedy=True)
        if not record.won
    ]
    assert lost
    assert all(record.total_reward < env.best_return - 1e-6 for record in lost)


def test_step__says_what_is_wrong_with_an_action() -> None:
    env = make_vec("xor", 3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((3, 1), int))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions of task/xor: got float64 of shape \[3, 1\], expected one integer"):
        env.step(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"actions of task/xor: got int64 of shape \[3\], expected .* = \[3, 1\]"):
        env.step(np.zeros(3, int))
    with pytest.raises(ValueError, match="actions of task/xor, environment 1, gate 0: got option 2, expected 0 to 1"):
        env.step(np.array([[0], [2], [0]]))


def test_task__says_what_it_cannot_make() -> None:
    with pytest.raises(
        ValueError, match=r"task: got unknown name 'xnor' \(did you mean 'xor'\?\); known are count, floor_is_lava"
    ):
        make_vec("xnor", 1)
    with pytest.raises(ValueError, match="num_envs of task/xor: got 0, expected at least 1"):
        make_vec("xor", 0)


def test_single_task__must_be_reset_after_an_end() -> None:
    env = make("count")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0])
    env.reset(seed=0)
    *_, terminated, _, info = env.step([0])
    assert terminated
    assert info.keys() == {"won"}
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0])


# -- the rules of each -----------------------------------------------------------------------------------------


def _set(env: TaskVectorEnv, **values: Any) -> None:
    """Put every episode in one situation."""
    assert env._state is not None
    for key, value in values.items():
        env._state[key][:] = value
    env._show(env._state)


def test_count__allows_three_answers_and_the_right_one() -> None:
    env = make_vec("count", 200)
    observation, _ = env.reset(seed=0)
    beans = observation["entity_mask/bean"].sum(axis=1)
    assert set(beans) == set(range(10))
    assert (observation["action_mask"].sum(axis=2) == 3).all()
    assert observation["action_mask"][np.arange(200), 0, beans].all()


def test_illegal_answer__counts_as_wrong() -> None:
    env = make_vec("count", 8)
    observation, _ = env.reset(seed=0)
    _, reward, *_ = env.step(observation["action_mask"].argmin(axis=2))
    assert (reward == 0).all()


def test_floor_is_lava__covers_all_eight_directions() -> None:
    env = make_vec("floor_is_lava", 200)
    observation, _ = env.reset(seed=0)
    tiles = np.concatenate([observation["entities/high_ground"], observation["entities/lava"]], axis=1)
    assert all(len(np.unique(each, axis=0)) == 8 for each in tiles)
    assert len(np.unique(observation["entities/high_ground"][:, 0], axis=0)) == 8


def test_cherry_pick__pays_quality_over_the_better_halfs() -> None:
    env = make_vec("cherry_pick", 1)
    env.reset(seed=0)
    _set(env, quality=np.arange(32.0), worth=np.arange(16, 32).sum())
    observation, reward, *_ = env.step([[31]])
    assert reward == pytest.approx([31 / np.arange(16, 32).sum()])
    assert not observation["entity_mask/cherry"][0, 31]
    _, reward, *_ = env.step([[31]])  # gone: nothing happens
    assert reward == [0.0]


def test_pick_matching_balls__ends_at_the_first_that_does_not_match() -> None:
    env = make_vec("pick_matching_balls", 2)
    env.reset(seed=0)
    _set(env, colour=np.arange(32) // 6)
    _, reward, terminated, *_ = env.step([[0], [0]])
    assert reward == pytest.approx([1 / 6, 1 / 6])
    assert not terminated.any()
    observation, reward, terminated, *_ = env.step([[1], [6]])
    assert reward == pytest.approx([1 / 6, 0])
    assert terminated.tolist() == [False, True]
    assert observation["entities/picker"][0, 0].tolist() == [1, 0, 0, 0, 0, 0]


def test_pick_matching_balls__has_three_balls_of_each_colour_at_least() -> None:
    observation, _ = make_vec("pick_matching_balls", 100).reset(seed=0)
    assert observation["entities/ball"].sum(axis=1).min() == 3


def test_move_to_origin__stops_at_the_edge_and_ends_at_the_origin() -> None:
    env = make_vec("move_to_origin", 4)
    env.reset(seed=0)
    _set(env, offset=(-0.95, 0.0), stride=0.2, needed_at_first=5)
    options = np.array([[NORTH], [EAST], [SOUTH], [WEST]])
    observation, reward, *_ = env.step(options)
    np.testing.assert_allclose(
        observation["entities/origin"][:, 0], [(-0.95, -0.2), (-1.0, 0.0), (-0.95, 0.2), (-0.75, 0.0)], atol=1e-6
    )
    assert reward == pytest.approx([-0.2, 0, -0.2, 0.2])  # against the edge it stays five strides away
    _set(env, offset=(-0.25, 0.0))
    *_, terminated, _, _ = env.step(options)
    assert terminated.tolist() == [False, False, False, True]


def test_minefield__has_a_way_around_every_mine() -> None:
    observation, _ = make_vec("minefield", 300).reset(seed=0)
    counts = observation["entity_mask/mine"].sum(axis=1)
    assert (counts.min(), counts.max()) == (6, 10)
    apart = np.abs(observation["entities/mine"][:, :, None] - observation["entities/mine"][:, None]).max(axis=-1)
    both = observation["entity_mask/mine"][:, :, None] & observation["entity_mask/mine"][:, None] & ~np.eye(11, dtype=bool)
    assert apart[both].min() >= 2
    assert np.abs(observation["entities/target"][:, 0]).sum(axis=1).min() >= 4


def test_minefield__takes_back_what_was_earned_on_a_mine() -> None:
    env = make_vec("minefield", 1)
    env.reset(seed=0)
    _set(env, robot=(2, 2), target=(2, 6), mines=(2, 4), is_mine=True, distance_at_first=4, earned=0.0)
    _, reward, terminated, *_ = env.step([[NORTH]])
    assert (reward, terminated) == ([0.25], [False])
    _, reward, terminated, *_ = env.step([[NORTH]])
    assert (reward, terminated) == ([-0.25], [True])


def test_minefield__lets_nobody_off_the_field() -> None:
    env = make_vec("minefield", 1)
    env.reset(seed=0)
    _set(env, robot=(0, 7), target=(5, 5), is_mine=False)
    observation = env.observe(env._state or {})
    assert observation["action_mask"][0, 0].tolist() == [False, True, True, False]
    after, reward, *_ = env.step([[WEST]])
    assert reward == [0.0]
    np.testing.assert_array_equal(after["entities/target"], observation["entities/target"])


def test_minefield__kills_those_who_ignore_its_mines() -> None:
    class Straight:
        def reset(self, num_envs: int, seed: int) -> None: ...

        def act(self, observation: Any, started: Any, greedy: bool) -> Any:
            agent = make_best_agent("minefield")
            return agent.act(observation | {"entity_mask/mine": np.zeros((64, 11), bool)}, started, greedy)

    assert np.mean(_returns(Straight(), make_vec("minefield", 64))) < 0.7


# -- learning --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ablated", [False, True])
def test_floor_is_lava__is_learned_only_where_the_tiles_are_shown(ablated: bool, tmp_path: Any) -> None:
    record = run_task("floor_is_lava", seed=0, ablated=ablated, folder=tmp_path / "run", episodes=128, steps=10_000)
    assert (record["greedy_return"] >= 0.9) == (not ablated), record
    assert (record["greedy_return"] < 0.5) == ablated, record


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("task", TASKS)
def test_task__is_learned_within_its_steps(task: str, seed: int, tmp_path: Any) -> None:
    record = run_task(task, seed=seed, ablated=False, folder=tmp_path / "run", episodes=512)
    assert record["greedy_return"] >= 0.98 * record["best_return"], record


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_task__is_not_learned_where_what_decides_is_hidden(task: str, tmp_path: Any) -> None:
    record = run_task(task, seed=0, ablated=True, folder=tmp_path / "run", episodes=512)
    assert record["greedy_return"] < 0.5 * record["best_return"], record
