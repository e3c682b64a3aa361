from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo import ParallelEnv

from agents.presets import preset
from envs.kaz import kaz_scene, kaz_schema, make_parallel
from perceiver_rl.entities import EntitySchema
from perceiver_rl.evaluation.agent import PolicyAgent
from perceiver_rl.evaluation.parallel import evaluate_parallel
from perceiver_rl.evaluation.trained import Trained
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.replay import Recording, read_page, record_parallel, write_page
from perceiver_rl.replay.trained import record_trained
from tests.parallel_environments import SCHEMAS, TIME_LIMIT, Deliveries, make_deliveries

KINDS = ("courier", "porter")


def policies() -> dict[str, EntityPolicy]:
    torch.manual_seed(0)
    return {kind: EntityPolicy(SCHEMAS[kind], preset("tiny")) for kind in KINDS}


def recording_of(kind: str = "courier", episodes: int = 2, seed: int = 5, greedy: bool = False) -> Recording:
    env = make_deliveries(kinds=KINDS)
    policy_of = {agent: agent.split("_")[0] for agent in env.possible_agents}
    return record_parallel(
        policies(),
        policy_of,
        env,
        shown=kind,
        episodes=episodes,
        env_name="deliveries",
        policy_name="fresh",
        seed=seed,
        greedy=greedy,
    )


def test_record_parallel__has_an_episode_for_each_agent_from_its_birth_to_its_end() -> None:
    recording = recording_of()
    names = [episode.name for episode in recording.episodes]
    assert names[0] == "1: courier_0"
    assert len(names) == len(set(names)) == 8
    assert not any("porter" in name for name in names)
    lengths = {episode.name: episode.length for episode in recording.episodes}
    assert lengths["1: courier_0"] == lengths["2: courier_0"] == TIME_LIMIT
    assert {lengths[name] for name in names if not name.endswith("_0")} <= {1, 2, 3}
    for episode in recording.episodes:
        assert episode.entity_mask.shape == (episode.length + 1, 4)
        np.testing.assert_allclose(episode.probabilities.astype(float).sum(axis=2), 1.0, atol=2e-3)
    assert recording.control == "per agent"


class Revenant(ParallelEnv[str, Any, Any]):
    """Two couriers for four steps; the life of the first ends after two, and another begins."""

    metadata = {"name": "revenant"}  # noqa: RUF012
    possible_agents = ["courier_0", "courier_1"]  # noqa: RUF012

    def __init__(self) -> None:
        self.env = make_deliveries(kinds=("courier",))

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        return self.env.action_space(agent)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        observations, _ = self.env.reset(seed=seed)
        self.seen, self.steps, self.agents = observations["courier_0"], 0, list(self.possible_agents)
        return dict.fromkeys(self.agents, self.seen), {}

    def step(self, actions: Any) -> Any:
        self.steps += 1
        acted = list(self.agents)
        gone = self.steps in (2, 4)
        self.agents = [] if self.steps == 4 else list(self.possible_agents)
        ends = {agent: gone and (agent == "courier_0" or self.steps == 4) for agent in acted}
        no = dict.fromkeys(acted, False)
        return dict.fromkeys(acted, self.seen), dict.fromkeys(acted, 1.0), ends, no, {}


def test_record_parallel__has_an_episode_for_each_life_of_a_name() -> None:
    env = Revenant()
    policy_of = dict.fromkeys(env.possible_agents, "courier")
    told = {"env_name": "revenant", "policy_name": "fresh", "seed": 0, "greedy": True}
    recording = record_parallel({"courier": policies()["courier"]}, policy_of, env, shown="courier", episodes=1, **told)
    lengths = {episode.name: episode.length for episode in recording.episodes}
    assert lengths == {"courier_0": 2, "courier_0, life 2": 2, "courier_1": 4}
    for episode in recording.episodes:
        assert len(episode.entity_mask) == episode.length + 1


@pytest.mark.parametrize("greedy", [True, False])
def test_record_parallel__plays_the_episode_that_evaluate_plays(greedy: bool) -> None:
    env = make_deliveries(kinds=KINDS)
    policy_of = {agent: agent.split("_")[0] for agent in env.possible_agents}
    players = {kind: PolicyAgent(policy) for kind, policy in policies().items()}
    (record,) = evaluate_parallel(players, policy_of, [env], episodes_per_env=1, seed=5, greedy=greedy)
    got = sum(episode.total_reward for kind in KINDS for episode in recording_of(kind, episodes=1, greedy=greedy).episodes)
    assert got == pytest.approx(record.total_reward)


def test_record_parallel__refuses_a_policy_that_nobody_plays_by() -> None:
    with pytest.raises(ValueError, match="got policy 'knight', by which no agent plays; expected one of courier, porter"):
        recording_of("knight")


def test_record_parallel__tells_the_step_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Deliveries.step

    def broken(env: Deliveries, actions: Any) -> Any:
        observations, rewards, *others = step(env, actions)
        return observations, dict.fromkeys(rewards, np.inf if env._time == 3 else 0.0), *others

    monkeypatch.setattr(Deliveries, "step", broken)
    with pytest.raises(ValueError, match="reward of 'courier_0': got inf, expected finite numbers") as caught:
        recording_of()
    assert caught.value.__notes__ == ["in step 3 of a replay in deliveries"]


def test_record_trained__asks_whom_to_show_where_several_policies_play(tmp_path: Path) -> None:
    made = policies()
    asked: list[tuple[str, int]] = []

    def policy(schema: EntitySchema, module: str, rows: int) -> EntityPolicy:
        asked.append((module, rows))
        return made[module]

    settings: dict[str, Any] = {
        "title": "a policy",
        "name": "mine",
        "checkpoint": "mine/checkpoint_10",
        "env_config": {"kinds": KINDS},
        "env_steps": 10,
    }
    trained = Trained(
        **settings,
        envs=("tests.parallel_environments:make_deliveries",),
        agents={f"{kind}_{number}": kind for kind in KINDS for number in range(4)},
        module=None,
        policy=policy,
        curves=None,
    )
    with pytest.raises(ValueError, match="got policies courier, porter that play together, expected one to show: --policy"):
        record_trained(trained, episodes=1, seed=0, greedy=True)
    recording = record_trained(trained, episodes=1, seed=0, greedy=True, policy="porter")
    assert asked[-2:] == [("courier", 4), ("porter", 4)]
    assert all(episode.name.startswith("porter_") for episode in recording.episodes)
    write_page(recording, tmp_path / "replay.html")
    assert read_page((tmp_path / "replay.html").read_text()).episodes[0].name == recording.episodes[0].name


def test_kaz__declares_how_an_agents_view_is_drawn() -> None:
    env = make_parallel("default")
    scene = env.metadata["scene"]
    assert scene == kaz_scene()
    scene.check(kaz_schema())
    assert (scene.looks["self"].position, scene.looks["zombie"].position) == ("origin", ("aside", "ahead"))
