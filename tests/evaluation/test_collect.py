"""Whole episodes are collected, each as it was played."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiver_rl.dataset import read_description, read_episodes
from perceiver_rl.entities import Observation
from perceiver_rl.evaluation import evaluate
from perceiver_rl.evaluation.collect import collect
from perceiver_rl.seeding import COLLECTION
from tests.couriers_expert import Expert, Muddler
from tests.environments import COURIERS, CourierVectorEnv

ENV = "tests.environments:make_couriers"
EXPERT = "tests.couriers_expert:Expert"


class Reused(CourierVectorEnv):
    """Fills the same arrays anew in each step, as shared memory does."""

    def _observe(self) -> Observation:
        fresh = super()._observe()
        if not hasattr(self, "_arrays"):
            self._arrays = fresh
        for key, array in fresh.items():
            self._arrays[key][:] = array
        return self._arrays


def make_reused(num_envs: int) -> Reused:
    """For `env="tests.evaluation.test_collect:make_reused"`."""
    return Reused(num_envs)


def play(out: Path, policy: str = EXPERT, env: str | None = ENV, episodes: int = 12, **settings: Any) -> Any:
    return collect(policy, out, env=env, episodes=episodes, **{"seed": 1, "greedy": False, **settings})


class Watcher(Muddler):
    """Keeps what it was shown and what it did."""

    def reset(self, num_envs: int, seed: int) -> None:
        super().reset(num_envs, seed)
        self.seen: list[tuple[Observation, NDArray[np.int64]]] = []

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        actions = super().act(observation, started, greedy)
        self.seen.append((observation, actions))
        return actions


@pytest.mark.parametrize("env", [ENV, "tests.evaluation.test_collect:make_reused"], ids=["new arrays", "reused arrays"])
def test_collect__writes_what_was_played(env: str, tmp_path: Path) -> None:
    written = play(tmp_path / "d", "tests.couriers_expert:Muddler", env, episodes=128 * 2)
    watcher = Watcher(COURIERS)
    records = evaluate(watcher, CourierVectorEnv(128), episodes_per_env=2, seed=1, greedy=False, purpose=COLLECTION)
    episodes = list(read_episodes(tmp_path / "d"))
    assert len(episodes) == len(records) == written.episodes == 256
    assert sorted((each.length, round(float(each.rewards.sum()), 4)) for each in episodes) == sorted(
        (record.length, round(record.total_reward, 4)) for record in records
    )
    assert {(each.length, each.terminated, each.truncated) for each in episodes} == {(2, True, False), (3, False, True)}
    # Sub-environment 0: its first episode takes three steps, the fourth resets it, and the second one takes two.
    seen = [({key: array[0] for key, array in observation.items()}, actions[0]) for observation, actions in watcher.seen]
    for begin, length in ((0, 3), (4, 2)):
        steps = seen[begin : begin + length]
        posts = np.stack([observation["entities/post"] for observation, _ in steps])
        (found,) = (each for each in episodes if np.array_equal(each.observations["entities/post"][:-1], posts))
        assert found.actions.tolist() == [actions.tolist() for _, actions in steps]
        np.testing.assert_array_equal(found.observations["action_mask"][:-1], [each["action_mask"] for each, _ in steps])
        if begin == 0:  # where it ended was seen, too
            np.testing.assert_array_equal(found.observations["entities/post"][-1], seen[length][0]["entities/post"])


def test_collect__tells_where_the_episodes_come_from(tmp_path: Path) -> None:
    play(tmp_path / "d", seed=7)
    origin = read_description(tmp_path / "d").origin
    assert (origin.env, origin.policy, origin.seed, origin.greedy) == (ENV, EXPERT, 7, False)
    assert "perceiver-rl" in origin.versions


def test_collect__gives_the_same_episodes_for_the_same_seed_only(tmp_path: Path) -> None:
    def posts(name: str, seed: int) -> list[bytes]:
        play(tmp_path / name, seed=seed)
        return [each.observations["entities/post"].tobytes() for each in read_episodes(tmp_path / name)]

    one = posts("a", 1)
    assert one == posts("b", 1)
    assert not set(one) & set(posts("c", 2))


def test_collect__plays_other_episodes_than_an_evaluation(tmp_path: Path) -> None:
    play(tmp_path / "d", seed=1, episodes=12)
    first = {each.observations["entities/post"][0].tobytes() for each in read_episodes(tmp_path / "d")}

    watcher = Watcher(COURIERS)
    evaluate(watcher, CourierVectorEnv(12), episodes_per_env=1, seed=1, greedy=False)
    evaluated = {each.tobytes() for each in watcher.seen[0][0]["entities/post"]}
    assert not first & evaluated


def test_collect__counts_what_is_done(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    play(tmp_path / "d", episodes=5, on_episode=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]
    assert read_description(tmp_path / "d").episodes == 5


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        (EXPERT, None, r"policy .*Expert': expected --env"),
        ("runs/none", ENV, r"policy runs/none: does not exist; expected a run folder"),
        ("tests.couriers_expert:Nobody", ENV, r"has no attribute 'Nobody'"),
        ("nobody", ENV, r"unknown name 'nobody'"),
    ],
)
def test_collect__says_what_is_wrong(policy: str, env: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        play(tmp_path / "d", policy, env)
    assert list(tmp_path.iterdir()) == []


def test_expert__delivers_all() -> None:
    records = evaluate(Expert(COURIERS), CourierVectorEnv(8), episodes_per_env=2, seed=0, greedy=True)
    assert all(record.total_reward == record.length for record in records)
