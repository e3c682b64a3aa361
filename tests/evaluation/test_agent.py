from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.presets import preset
from agents.registry import AGENTS, make_agent
from envs.magent import battle_schema
from envs.smax import smax_schema
from perceiver_rl.entities import ACTION_MASK, Observation
from perceiver_rl.evaluation import PolicyAgent
from perceiver_rl.evaluation import agent as agent_file
from perceiver_rl.evaluation.random_agent import RandomAgent
from perceiver_rl.policy.entity_policy import EntityPolicy
from tests.evaluation.streaks import SCHEMA, Streaks

NUM_ENVS = 5
STARTED = np.ones(NUM_ENVS, bool)


@pytest.fixture
def policy() -> EntityPolicy:
    return EntityPolicy(SCHEMA, preset("tiny"))


@pytest.fixture
def observation() -> Observation:
    observation, _ = Streaks(NUM_ENVS).reset(seed=0)
    observation[ACTION_MASK][:, 0, 0] = False
    return observation


def agent_of(policy: EntityPolicy, seed: int) -> PolicyAgent:
    agent = PolicyAgent(policy)
    agent.reset(NUM_ENVS, seed)
    return agent


def test_policy_agent__greedy_takes_the_most_probable_legal_option(policy: EntityPolicy, observation: Observation) -> None:
    with torch.no_grad():
        logits = policy({key: torch.tensor(array) for key, array in observation.items()}).logits.numpy()
    expected = np.where(observation[ACTION_MASK], logits, -np.inf).argmax(axis=-1)
    options = agent_of(policy, 0).act(observation, STARTED, greedy=True)
    assert options.dtype == np.int64
    np.testing.assert_array_equal(options, expected)


def test_policy_agent__sampled_draws_by_the_policys_probabilities(policy: EntityPolicy, observation: Observation) -> None:
    agent = agent_of(policy, 0)
    draws = np.stack([agent.act(observation, STARTED, greedy=False) for _ in range(400)])
    with torch.no_grad():
        output = policy({key: torch.tensor(array) for key, array in observation.items()})
    expected = output.distribution.log_probs.exp()[0].numpy()  # all environments show the same
    frequencies = (draws[..., None] == np.arange(SCHEMA.num_options)).mean(axis=(0, 1))
    np.testing.assert_allclose(frequencies, expected, atol=0.05)  # 5 standard deviations of 2,000 draws
    assert frequencies[0, 0] == 0.0  # illegal


def test_policy_agent__sampled_depends_on_the_seed_alone(policy: EntityPolicy, observation: Observation) -> None:
    def draws(seed: int) -> list[list[int]]:
        torch.rand(seed)  # the global generator moves on, and does not matter
        agent = agent_of(policy, seed)
        return np.concatenate([agent.act(observation, STARTED, greedy=False) for _ in range(9)]).tolist()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


@pytest.mark.parametrize("name", [*AGENTS, "perceiver_rl.evaluation.random_agent:RandomAgent"])
def test_make_agent__builds_by_name_and_by_import_string(name: str) -> None:
    schema = battle_schema("battle-16") if name == "hunter" else smax_schema("3m")
    observation, _ = Streaks(2, schema=schema).reset(seed=0)
    agent = make_agent(name, schema)
    assert type(agent).__name__ in AGENTS.get(name, name)
    agent.reset(2, 0)
    options = agent.act(observation, np.ones(2, bool), False)
    assert options.shape == (2, schema.max_actors)
    assert (options < schema.num_options).all()


def test_make_agent__lists_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"agent: got unknown name 'randm' \(did you mean 'random'\?\).* random, heur"):
        make_agent("randm", SCHEMA)


@pytest.mark.parametrize("name", ["random", "perceiver_rl.evaluation.random_agent:RandomAgent"])
def test_make_agent__needs_no_checkout_for_the_random_agent_and_ones_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_file, "REGISTRY", "no_such_checkout:make_agent")
    assert isinstance(agent_file.make_agent(name, SCHEMA), RandomAgent)
    with pytest.raises(ValueError, match="no_such_checkout"):
        agent_file.make_agent("heuristic", SCHEMA)
