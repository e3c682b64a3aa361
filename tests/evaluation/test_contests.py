from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.presets import preset
from agents.random_agent import RandomAgent
from perceiver_rl.entities import EntitySchema
from perceiver_rl.evaluation.contests import closing_all, contests_of
from perceiver_rl.evaluation.statistics import Summary
from perceiver_rl.evaluation.trained import Trained, _environments
from perceiver_rl.policy.entity_policy import EntityPolicy
from tests.evaluation.streaks import SCHEMA, Streaks
from tests.parallel_environments import COURIER, Deliveries

EVEN, TURNS = "tests.evaluation.test_contests:make_even", "tests.evaluation.test_contests:make_turns"
make_even: Callable[..., Streaks] = lambda num_envs: Streaks(num_envs, action_reward=1.0)  # noqa: E731
make_turns: Callable[..., Streaks] = lambda num_envs: Streaks(num_envs, noise=1.0, alternate=True)  # noqa: E731


POLICY = EntityPolicy(SCHEMA, preset("tiny"))


def trained(*envs: str) -> Trained:
    return Trained(
        title="a policy",
        name="mine",
        checkpoint="mine/checkpoint_10",
        envs=envs,
        env_config={},
        env_steps=10,
        agents={},
        module="default",
        policy=lambda schema, module, rows: POLICY,
        curves=None,
    )


def play(seed: int, *envs: str, against: tuple[str, ...] = ("random",)) -> list[Summary]:
    return [contest.play(6, seed, lambda done, total: None) for contest in contests_of(trained(*envs), against, 6)]


def test_contests__are_those_of_every_environment_with_the_trained_policy_first() -> None:
    contests = contests_of(trained(EVEN, TURNS), ["random"], 6)
    assert [(each.arena.env, each.policy, each.mode, each.is_evaluated) for each in contests] == [
        (env, policy, mode, policy == "mine")
        for env in (EVEN, TURNS)
        for policy, mode in (("mine", "greedy"), ("mine", "sampled"), ("random", "sampled"))
    ]


def test_contests__tell_what_it_takes_to_repeat_them() -> None:
    mine, _, other = play(0, EVEN)
    assert (mine.checkpoint, mine.env_steps, other.checkpoint, other.env_steps) == ("mine/checkpoint_10", 10, None, None)
    assert "jaxmarl" in mine.versions


def _ignore(done: int, total: int) -> None:
    pass


def _counting(build: Callable[..., None], made: list[Deliveries]) -> Callable[..., None]:
    def building(env: Deliveries, *args: Any, **kwargs: Any) -> None:
        made.append(env)
        build(env, *args, **kwargs)

    return building


def test_contests__tell_a_policy_how_many_observations_it_decides_about_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def policy(schema: EntitySchema, module: str, rows: int) -> EntityPolicy:
        asked.append((module, rows))
        return POLICY

    with closing_all(contests_of(replace(trained(EVEN), policy=policy), [], 300)):
        assert asked == [("default", 100)]
    couriers = {"env_config": {"number": 3}, "agents": {f"courier_{each}": "mover" for each in range(3)}, "module": None}
    many = replace(trained("tests.parallel_environments:make_deliveries"), policy=policy, **couriers)
    made: list[Deliveries] = []
    monkeypatch.setattr("tests.parallel_environments.Deliveries.__init__", _counting(Deliveries.__init__, made))
    contests = contests_of(many, [], 32)
    with closing_all(contests):
        assert asked[1:] == [("mover", 3 * 16)]
        assert len(made) == 1, "the others wait until it is known that all is within limits"
        contests[0].arena.play({"mover": RandomAgent(COURIER)}, episodes_per_env=1, seed=0, greedy=False, on_episode=_ignore)
    assert len(made) == 16


def test_contests__give_the_same_figures_to_the_digit_for_the_same_seed() -> None:
    first, second, other = (play(seed, EVEN, TURNS) for seed in (3, 3, 4))
    assert first == second
    assert [each.return_mean for each in first] != [each.return_mean for each in other]


@pytest.mark.parametrize(("given", "expected"), [(None, ("a", "b")), ("c", ("c",)), ("c,d+e", ("c", "d+e"))])
def test_environments__are_the_members_trained_in_or_those_given(given: str | None, expected: tuple[str, ...]) -> None:
    assert _environments(given, "a+b") == expected


@pytest.mark.parametrize("given", ["a,", "a,a", ","])
def test_environments__must_differ(given: str) -> None:
    with pytest.raises(ValueError, match="expected different environments separated by commas"):
        _environments(given, "x")


def test_contests__say_that_a_path_holds_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("nowhere/near", str(tmp_path / "empty")):
        with pytest.raises(ValueError, match=f"{place}: got no bundle there, expected a folder that `perceiver-rl export`"):
            contests_of(trained(EVEN), [place], 6)


def test_contests__refuse_unknown_agents_before_anything_is_played(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Streaks, "step", lambda *args: pytest.fail("played"))
    with pytest.raises(ValueError, match="nobody"):
        contests_of(trained(EVEN), ["random", "nobody"], 6)
