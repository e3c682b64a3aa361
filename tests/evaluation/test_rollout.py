from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from agents.random_agent import RandomAgent
from perceiver_rl.entities import Observation
from perceiver_rl.evaluation import EpisodeRecord, evaluate
from tests.evaluation.streaks import LONG, SCHEMA, SHORT, Streaks


class Stopper:
    """Always option 0; remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[list[bool]] = []
        self.greedy: set[bool] = set()
        self.threads: set[int] = set()

    def reset(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.seed = num_envs, seed

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        self.started.append(started.tolist())
        self.greedy.add(greedy)
        self.threads.add(torch.get_num_threads())
        return np.zeros((self.num_envs, SCHEMA.max_actors), np.int64)


def play(env: Streaks, **settings: Any) -> list[EpisodeRecord]:
    agent = settings.pop("agent", None) or Stopper()
    return evaluate(agent, env, **{"episodes_per_env": 2, "seed": 5, "greedy": False, **settings})


def first_to_end(env: Streaks, episodes: int) -> list[bool]:
    """The wrong way: whichever episodes end first."""
    env.reset(seed=5)
    won: list[bool] = []
    while len(won) < episodes:
        *_, infos = env.step(np.zeros((env.num_envs, SCHEMA.max_actors), int))
        won += [bool(infos["won"][index]) for index in np.flatnonzero(env.ended)]
    return won[:episodes]


def test_evaluate__has_no_bias_to_short_episodes() -> None:
    records = play(Streaks(4), episodes_per_env=3)
    # Two of four environments win all that they play, at five times the pace: half of all are won, exactly.
    assert [bool(record.won) for record in records] == ([True] * 3 + [False] * 3) * 2


def test_first_episodes_to_end__are_biased() -> None:
    # The control: as many episodes of the same environments, but counted as they end.
    assert sum(first_to_end(Streaks(4), 12)) == 10


@pytest.mark.parametrize("num_envs", [1, 2, 7])
def test_evaluate__lists_each_environments_episodes_in_the_order_of_time(num_envs: int) -> None:
    records = play(Streaks(num_envs, alternate=True))
    assert len(records) == 2 * num_envs
    for index in range(num_envs):
        lengths = [record.length for record in records[2 * index : 2 * index + 2]]
        assert lengths == ([SHORT, LONG] if index % 2 == 0 else [LONG, SHORT])


def test_evaluate__leaves_the_reset_step_out_of_return_and_length() -> None:
    for record in play(Streaks(3), episodes_per_env=3):
        assert record.length in (SHORT, LONG)
        assert record.total_reward == record.length  # 1 a step; the step that resets pays a million


def test_evaluate__keeps_the_last_info_of_each_episode() -> None:
    for record in play(Streaks(2)):
        assert record.won is (record.length == SHORT)
        # Only those that are won tell their pace.
        assert record.info == ({"allies_left": 2.0, "pace": 1.0} if record.won else {"allies_left": 0.0})


def test_evaluate__says_nothing_of_winning_where_the_environment_does_not() -> None:
    env = Streaks(2)
    env.tells_won = False
    assert [record.won for record in play(env)] == [None] * 4


def test_evaluate__tells_the_agent_when_episodes_begin() -> None:
    agent = Stopper()
    play(Streaks(1, alternate=True), agent=agent, greedy=True)
    # Steps of the short episode, the step that resets, steps of the long one.
    expected = [True] + [False] * (SHORT - 1) + [False] + [True] + [False] * (LONG - 1)
    assert [started for (started,) in agent.started] == expected
    assert agent.greedy == {True}


def test_evaluate__reports_each_episode_that_counts() -> None:
    seen: list[tuple[int, int]] = []
    play(Streaks(3), on_episode=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("chance_in", ["environment", "agent"])
def test_evaluate__gives_the_same_figures_for_the_same_seed_only(chance_in: str) -> None:
    def returns(seed: int) -> list[float]:
        env = Streaks(3, noise=0.5) if chance_in == "environment" else Streaks(3, action_reward=1.0)
        return [record.total_reward for record in play(env, agent=RandomAgent(SCHEMA), seed=seed)]

    assert returns(1) == returns(1)
    assert returns(1) != returns(2)


def test_evaluate__gives_the_same_figures_on_a_used_environment_and_agent() -> None:
    env, agent = Streaks(3, noise=0.5, action_reward=1.0), RandomAgent(SCHEMA)
    assert play(env, agent=agent) == play(env, agent=agent)


def test_evaluate__seeds_the_agent_otherwise_than_the_environments() -> None:
    agent = Stopper()
    play(Streaks(2), agent=agent, seed=5)
    draws = np.random.default_rng(agent.seed).random(8)
    for index in range(2):
        assert not np.isin(draws, np.random.default_rng(5 + index).random(64)).any()


def test_evaluate__sets_torch_threads_for_its_duration() -> None:
    before = torch.get_num_threads()
    agent = Stopper()
    play(Streaks(1), agent=agent, torch_threads=before + 1)
    assert agent.threads == {before + 1}
    assert torch.get_num_threads() == before


def test_evaluate__names_the_feature_that_is_not_a_number() -> None:
    env = Streaks(2)
    env.broken_at = 3
    with pytest.raises(ValueError, match=r"(?s)ally.*x.*nan.*in step 4 of an evaluation in 2 environments of Streaks"):
        play(env)


def test_evaluate__wants_finite_rewards() -> None:
    env = Streaks(2)
    env.reward_broken_at = 4
    with pytest.raises(ValueError, match="reward: got inf, expected finite numbers") as caught:
        play(env)
    assert caught.value.__notes__ == ["in step 4 of an evaluation in 2 environments of Streaks"]


def test_evaluate__tells_the_step_in_which_the_environment_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Streaks(2)
    play_on = env.step

    def fail(actions: NDArray[Any]) -> Any:
        return play_on(actions) if env.num_steps < 6 else {}["the enemy's base"]

    monkeypatch.setattr(env, "step", fail)
    with pytest.raises(KeyError, match="enemy's base") as raised:
        play(env)
    assert raised.value.__notes__ == ["in step 7 of an evaluation in 2 environments of Streaks"]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, None])
def test_evaluate__refuses_another_autoreset_mode(mode: AutoresetMode | None) -> None:
    env = Streaks(2)
    env.metadata = {"autoreset_mode": mode}
    with pytest.raises(ValueError, match=r"environment Streaks: got .*autoreset_mode.*expected AutoresetMode.NEXT_STEP"):
        play(env)


def test_evaluate__refuses_to_play_nothing() -> None:
    with pytest.raises(ValueError, match="episodes_per_env: got 0, expected at least 1"):
        play(Streaks(2), episodes_per_env=0)
