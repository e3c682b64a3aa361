"""Any PettingZoo parallel environment as one of typed entities."""

import builtins
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import AgentSelector
from pettingzoo.utils.conversions import aec_to_parallel

from perceiver_rl.entities import EntitySchema, EntityType, schema_of
from perceiver_rl.environments import make_parallel_env, require_possible_agents
from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv
from perceiver_rl.trial import try_parallel_environment
from tests.parallel_environments import (
    COURIER,
    PORTER,
    SCHEMAS,
    TIME_LIMIT,
    Deliveries,
    make_deliveries,
    observe,
    parallel_api_test,
)

BOTH = ("courier", "porter")


def _legal_actions(env: EntityParallelEnv, observations: dict[str, Any]) -> dict[str, Any]:
    return {agent: env.action_space(agent).sample(observations[agent]["action_mask"]) for agent in env.agents}


# PettingZoo's test expects whoever is possible to have lived.
@pytest.mark.filterwarnings("ignore:No agents present but not all possible_agents:UserWarning")
@pytest.mark.parametrize("kinds", [("courier",), BOTH])
def test_wrapped_env__passes_pettingzoos_own_test(kinds: tuple[str, ...]) -> None:
    parallel_api_test(make_deliveries(kinds), num_cycles=100)


def test_observation__is_what_the_agents_schema_says_of_the_raw_one() -> None:
    env = make_deliveries(BOTH)
    observations, _ = env.reset(seed=0)
    seen = set()
    for _ in range(TIME_LIMIT):
        for agent, observation in observations.items():
            raw = env.env.observations[agent]
            kind = agent.split("_")[0]
            schema = env.schema_of_agent(agent)
            assert schema is SCHEMAS[kind] is schema_of(env.observation_space(agent))
            entities = schema.unpack(observation)
            np.testing.assert_allclose(entities["post"], raw["posts"], rtol=1e-6)
            own = [raw["team"]] if kind == "courier" else [raw["team"], raw["strength"]]
            np.testing.assert_allclose(entities[kind], [own], rtol=1e-6)
            # Everything is legal but what would be aimed at posts that are not there.
            count = len(raw["posts"])
            assert observation["action_mask"].tolist() == [[True] * (1 + count) + [False] * (3 - count)]
            assert env.observation_space(agent).contains(observation)
            seen.add((kind, count))
        if env.agents:
            observations, *_ = env.step(_legal_actions(env, observations))
    assert len(seen) == 4


def test_agents__leave_when_they_die_and_appear_when_they_are_born() -> None:
    env = make_deliveries()
    observations, _ = env.reset(seed=3)
    lived = set(env.agents)
    dead: set[str] = set()
    numbers = set()
    while env.agents:
        before = set(env.agents)
        assert set(observations) >= before
        observations, rewards, terminations, truncations, _ = env.step(_legal_actions(env, observations))
        now = set(env.agents)
        assert not now & dead
        # Nobody but who lived, or was just born, is told of at all.
        assert set(observations) == set(rewards) == set(terminations) == set(truncations) == before | now
        gone = {agent for agent in before if terminations[agent] or truncations[agent]}
        assert now == (before | now) - gone
        dead |= gone
        lived |= now
        numbers.add(len(now))
    assert len(numbers) > 2  # how many live does change
    assert dead == lived


def test_step__hands_the_environments_own_action_on() -> None:
    taken: list[dict[str, Any]] = []

    class Listening(Deliveries):
        def step(self, actions: Any) -> Any:
            taken.append(dict(actions))
            return super().step(actions)

    env = EntityParallelEnv(Listening(number=1), COURIER, observe)
    env.reset(seed=0)
    env.step({"courier_0": np.array([2])})
    env.step({"courier_0": 1})  # a plain integer too
    assert taken == [{"courier_0": 2}, {"courier_0": 1}]
    env = EntityParallelEnv(Listening(number=1), COURIER, observe, act=lambda option, agent: f"{agent} does {option}")
    env.reset(seed=0)
    with pytest.raises(TypeError):  # the environment knows no words
        env.step({"courier_0": 2})
    assert taken[-1] == {"courier_0": "courier_0 does 2"}


def test_step__counts_actions_from_the_spaces_start() -> None:
    class FromTen(Deliveries):
        def action_space(self, agent: str) -> Discrete:
            return Discrete(4, start=10)

        def step(self, actions: Any) -> Any:
            return super().step({agent: action - 10 for agent, action in actions.items()})

    env = EntityParallelEnv(FromTen(number=1), COURIER, observe)
    env.reset(seed=0)
    _, rewards, *_ = env.step({"courier_0": 0})
    assert rewards == {"courier_0": 0.0}


@pytest.mark.parametrize("action", [4, -1, [1, 2], 1.7])
def test_step__refuses_what_is_no_option(action: Any) -> None:
    env = make_deliveries()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action of agent 'courier_0': got .*, expected one option, 0 to 3"):
        env.step({"courier_0": action})


@pytest.mark.parametrize(
    ("schema", "view", "message"),
    [
        (COURIER, lambda raw: AgentView({"post": raw["posts"]}), r"got 0 rows, expected 1, the agent itself$"),
        (COURIER, lambda raw: AgentView({"courier": [[1.0], [1.0]]}), r"got 2 rows, expected 1"),
        (COURIER, lambda raw: AgentView({"courier": [[np.nan]]}), r"feature 'team', entity 0: got nan"),
        (COURIER, lambda raw: AgentView({"courier": [[1.0]], "post": np.zeros((4, 2))}), r"got 4, expected at most 3"),
        (COURIER, lambda raw: AgentView({"courier": [[1.0]]}, legal=[False] * 4), r"got no legal option"),
    ],
)
def test_observe__is_held_to_the_schema(schema: EntitySchema, view: Callable[[Any], AgentView], message: str) -> None:
    env = EntityParallelEnv(Deliveries(), schema, lambda raw, agent, info: view(raw))
    with pytest.raises(ValueError, match=rf"observation of agent 'courier_0': .*{message}"):
        env.reset(seed=0)


def test_observe__may_leave_an_agent_out_of_its_own_last_observation() -> None:
    env = make_deliveries()

    def observe_only_the_living(raw: Any, agent: str, info: Any) -> AgentView:
        return observe(raw, agent, info) if agent in env.env.agents else AgentView({"post": raw["posts"]})

    env = EntityParallelEnv(env.env, COURIER, observe_only_the_living)
    observations, _ = env.reset(seed=0)
    while env.agents:
        observations, *_ = env.step(_legal_actions(env, observations))
    for observation in observations.values():
        assert not observation["entity_mask/courier"].any()
        assert not observation["action_mask"].any()


def test_schema__is_one_actors() -> None:
    two = EntitySchema((EntityType("courier", ("team",), 2),), ("courier",), ("wait",))
    with pytest.raises(ValueError, match=r"schema: got 2 actors \(courier\), expected 1"):
        EntityParallelEnv(Deliveries(), two, observe)
    with pytest.raises(
        ValueError, match=r"agent 'courier_1': got no schema, expected one for each agent; known are courier_0"
    ):
        EntityParallelEnv(Deliveries(), {"courier_0": COURIER}, observe)


def test_verbs__are_the_environments_actions_unless_something_maps_them() -> None:
    with pytest.raises(ValueError, match=r"agent 'courier_0': got action space Discrete\(4\) and 2 options, .*; pass act"):
        EntityParallelEnv(Deliveries(), EntitySchema((EntityType("me", ("x",), 1),), ("me",), ("a", "b")), observe)


def test_spaces__are_the_same_object_each_time() -> None:
    env = make_deliveries(BOTH)
    assert env.observation_space("porter_1") is env.observation_space("porter_1")
    assert schema_of(env.observation_space("porter_1")) is PORTER
    assert env.action_space("courier_0") is env.action_space("courier_0")
    assert env.action_space("courier_0") == COURIER.action_space


class _Relay(AECEnv):
    """Two runners; each sees how far both are, and each step forward pays."""

    metadata = {"name": "relay_v0", "is_parallelizable": True}  # noqa: RUF012 - PettingZoo's own form

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["runner_0", "runner_1"]
        self.render_mode = None

    def observation_space(self, agent: str) -> Box:
        return Box(-np.inf, np.inf, (2,))

    def action_space(self, agent: str) -> Discrete:
        return Discrete(2)

    def observe(self, agent: str) -> Any:
        other = self.possible_agents[1 - self.possible_agents.index(agent)]
        return np.array([self.place[agent], self.place[other]], np.float32)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.agents = list(self.possible_agents)
        self.place = dict.fromkeys(self.agents, 0.0)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.steps = 0
        self._selector = AgentSelector(self.agents)
        self.agent_selection = self._selector.reset()

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        self.place[agent] += action
        self.rewards[agent] = float(action)
        if self._selector.is_last():
            self.steps += 1
            self.truncations = dict.fromkeys(self.agents, self.steps == 3)
        self.agent_selection = self._selector.next()
        self._accumulate_rewards()


def test_aec_environment__comes_through_pettingzoos_conversion() -> None:
    runner = EntityType("runner", ("place",), 1)
    schema = EntitySchema((runner, EntityType("other", ("place",), 1)), ("runner",), ("stay", "run"))

    def look(raw: Any, agent: str, info: Any) -> AgentView:
        return AgentView({"runner": [[raw[0]]], "other": [[raw[1]]]})

    env = EntityParallelEnv(aec_to_parallel(_Relay()), schema, look)
    parallel_api_test(env, num_cycles=10)
    env.reset(seed=0)
    total = 0.0
    while env.agents:
        observations, rewards, *_ = env.step({"runner_0": [1], "runner_1": [0]})
        total += sum(rewards.values())
    assert total == 3.0
    assert observations["runner_1"]["entities/other"].tolist() == [[3.0]]


def test_import_string__makes_an_environment() -> None:
    env = make_parallel_env("tests.parallel_environments:make_deliveries", number=2)
    assert env.possible_agents == ["courier_0", "courier_1"]
    with pytest.raises(ValueError, match="has no attribute 'make_nothing'"):
        make_parallel_env("tests.parallel_environments:make_nothing")


def test_trial__finds_every_agents_schema() -> None:
    found = try_parallel_environment("tests.parallel_environments:make_deliveries", {"kinds": BOTH, "number": 1}, seed=0)
    assert found == {"courier_0": COURIER, "porter_0": PORTER}


def test_possible_agents__are_asked_for() -> None:
    class Generated(ParallelEnv):
        metadata = {"name": "generated_v0"}  # noqa: RUF012 - PettingZoo's own form

    with pytest.raises(ValueError, match="got no possible_agents, expected the names of all agents that may ever appear"):
        require_possible_agents(Generated())


def test_missing_pettingzoo__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pettingzoo":
            raise ModuleNotFoundError("No module named 'pettingzoo'", name="pettingzoo")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "perceiver_rl.pettingzoo")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'perceiver-rl\[pettingzoo\]'"):
        import perceiver_rl.pettingzoo  # noqa: F401
