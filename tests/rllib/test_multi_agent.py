"""One RLlib agent for each agent of a parallel environment: births, deaths, policies shared or not, by RLlib's runner."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from perceiver_rl.entities import EntitySchema, EntityType
from perceiver_rl.rllib.checkpoint import find_checkpoint, load_info, load_policy, require_whole
from perceiver_rl.rllib.learners import SquadPPOLearner
from perceiver_rl.rllib.metrics import flatten
from perceiver_rl.rllib.multi_agent_env import ParallelMultiAgentEnv
from perceiver_rl.rllib.run_folder import RunFolder
from tests.deliveries_config import kind_of, make_config
from tests.parallel_environments import COURIER, PORTER, SCHEMAS, TIME_LIMIT, Deliveries, make_deliveries
from tests.rllib.running import running

pytestmark = pytest.mark.usefixtures("ray_local")

ITERATIONS = 16
CONTROL_ITERATIONS = 8
LEARNED = 0.8
NOT_LEARNED = 0.45
"""Chance is 0.31: one of three or four options is right, half the time each."""


def _shared_policy() -> PPOConfig:
    return (
        make_config()
        .environment(env_config={"kinds": ["courier"], "number": 4})
        .multi_agent(policies={"all"}, policy_mapping_fn=lambda agent, episode, **kwargs: "all")
    )


class _KeepsBatches(SquadPPOLearner):
    """Remembers what it is given to learn from."""

    def build(self) -> None:
        super().build()
        self.batches: list[dict[str, dict[str, Any]]] = []

    def _make_batch_if_necessary(self, training_data: Any) -> Any:
        batch = super()._make_batch_if_necessary(training_data)
        self.batches.append({module: dict(each) for module, each in batch.policy_batches.items()})
        return batch


class _ShuffledAdvantages(SquadPPOLearner):
    """Every step is told another step's advantage; all else is as it is."""

    def compute_loss_for_module(self, *, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        advantages = batch[Postprocessing.ADVANTAGES]
        batch = {**batch, Postprocessing.ADVANTAGES: advantages[torch.randperm(len(advantages))]}
        return super().compute_loss_for_module(batch=batch, **kwargs)


def _learn(config: PPOConfig, modules: tuple[str, ...], iterations: int = ITERATIONS) -> list[float]:
    """The worst policy's fraction of right deliveries after each iteration, until all have learned or time is up."""
    scores: list[float] = []
    with running(config) as algorithm:
        while len(scores) < iterations and max(scores, default=0.0) < LEARNED:
            outcome = algorithm.train()["env_runners"]["outcome"]
            scores.append(min(float(outcome[module]["delivered"]) for module in modules))
    return scores


# -- learning ----------------------------------------------------------------------------------------------------


def test_agents_who_come_and_go__learn_with_a_policy_for_each_kind() -> None:
    scores = _learn(make_config(), ("courier", "porter"))
    assert scores[0] < NOT_LEARNED
    assert scores[-1] >= LEARNED, scores


@pytest.mark.slow
def test_agents_who_come_and_go__learn_with_a_shared_policy() -> None:
    scores = _learn(_shared_policy(), ("all",))
    assert scores[-1] >= LEARNED, scores


@pytest.mark.slow
def test_agents__learn_nothing_from_shuffled_advantages() -> None:
    scores = _learn(make_config().learners(learner_class=_ShuffledAdvantages), ("courier", "porter"), CONTROL_ITERATIONS)
    assert len(scores) == CONTROL_ITERATIONS
    assert max(scores) < NOT_LEARNED, scores


# -- what is learned from ------------------------------------------------------------------------------------------


def test_train_batch__holds_the_steps_that_were_lived_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    lived: Counter[str] = Counter()
    rewards: Counter[str] = Counter()
    step = Deliveries.step

    def counting(env: Deliveries, actions: Mapping[str, int]) -> Any:
        result = step(env, actions)
        for agent in actions:
            lived[kind_of(agent, None)] += 1
            rewards[kind_of(agent, None)] += result[1][agent]
        return result

    with running(make_config().learners(learner_class=_KeepsBatches)) as algorithm:
        monkeypatch.setattr(Deliveries, "step", counting)  # from here on: RLlib tries each environment when it is made
        for _ in range(3):
            algorithm.train()
        batches = algorithm.learner_group._learner.batches
    assert len(batches) == 3
    for kind, schema in SCHEMAS.items():
        mine = [batch[kind] for batch in batches]
        # No step of somebody who is dead, not born yet, or of RLlib's making.
        assert sum(len(batch["actions"]) for batch in mine) == lived[kind] > 0
        assert sum(batch["rewards"].sum() for batch in mine) == pytest.approx(rewards[kind])
        for batch in mine:
            observation = batch["obs"]
            assert schema.actor_mask({key: tensor.numpy() for key, tensor in observation.items()}).all()
            # Every row is one step: what was seen, done and paid belongs together.
            option = batch["actions"][:, 0]
            wanted = observation[f"entities/{kind}"][:, 0, 0] * (1 if kind == "courier" else -1)
            team = observation["entities/post"][torch.arange(len(option)), (option - 1).clamp(min=0), 0]
            assert torch.equal(((option > 0) & (team == wanted)).float(), batch["rewards"])
    assert lived["courier"] + lived["porter"] < 8 * 3 * 256 / 2  # of eight possible agents most are not there


def test_time_limit__is_truncation_for_the_living_and_death_is_termination() -> None:
    with running(_shared_policy()) as algorithm:
        episodes = algorithm.env_runner.sample(num_episodes=32, random_actions=False)
    ends = Counter()
    for episode in episodes:
        assert len(episode) == TIME_LIMIT
        for agent, each in episode.agent_episodes.items():
            ends[agent == "courier_0", each.is_terminated] += 1
            assert each.is_done
    assert ends[True, False] == 32  # the first lives until the limit …
    assert ends[True, True] == 0
    assert ends[False, True] > 32  # … most others die before it


def test_numbers_of_agents__differ_inside_a_batch() -> None:
    with running(_shared_policy()) as algorithm:
        episodes = algorithm.env_runner.sample(num_timesteps=256)
    assert len({len(episode.agent_episodes) for episode in episodes}) > 1
    assert len({len(each) for episode in episodes for each in episode.agent_episodes.values()}) > 2


# -- environments --------------------------------------------------------------------------------------------------


def test_adapter__tells_rllib_who_lives_and_when_an_episode_is_over() -> None:
    env = ParallelMultiAgentEnv(make_deliveries())
    assert env.possible_agents == ["courier_0", "courier_1", "courier_2", "courier_3"]
    assert all(env.get_observation_space(agent).schema is COURIER for agent in env.possible_agents)
    observations, infos = env.reset(seed=3)
    for time in range(1, TIME_LIMIT + 1):
        assert set(env.agents) == set(env.env.agents)
        before = set(env.agents)
        actions = {agent: env.get_action_space(agent).sample(observations[agent]["action_mask"]) for agent in env.agents}
        observations, rewards, terminateds, truncateds, infos = env.step(actions)
        assert set(infos) <= set(observations)
        assert set(rewards) >= before
        over = time == TIME_LIMIT
        assert (terminateds["__all__"], truncateds["__all__"]) == (False, over)
    assert env.agents == []


def test_adapter__ends_an_episode_where_all_that_are_left_die() -> None:
    class EveryoneDies(Deliveries):
        def step(self, actions: Mapping[str, int]) -> Any:
            observations, rewards, terminations, truncations, infos = super().step(actions)
            self.agents = []
            return observations, rewards, dict.fromkeys(terminations, True), dict.fromkeys(truncations, False), infos

    env = ParallelMultiAgentEnv(EveryoneDies(number=1))
    env.reset(seed=0)
    *_, terminateds, truncateds, _ = env.step({"courier_0": 0})
    assert terminateds == {"courier_0": True, "__all__": True}
    assert truncateds == {"courier_0": False, "__all__": False}


def test_rllibs_own_wrapper__does_not_do() -> None:
    """What `ParallelMultiAgentEnv` is for; if this fails, Ray may have mended it."""
    env = ParallelPettingZooEnv(make_deliveries(number=6))
    assert set(env.observation_space.spaces) < set(env.par_env.possible_agents)  # who is born later has no space
    # Flags of all agents beside that of the episode: an episode's end by time counts as everybody's death.
    episode = MultiAgentEpisode()
    episode.add_env_reset(observations={"a": 0})
    episode.add_env_step(
        {"a": 0}, {"a": 0}, {"a": 0.0}, terminateds={"__all__": False}, truncateds={"a": True, "__all__": True}
    )
    assert episode.agent_episodes["a"].is_terminated


class _OwnEnv(MultiAgentEnv):
    """A user's own RLlib environment of two kinds of agents: nothing of ours but the schemas in its spaces."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._schemas = {
            "cat": EntitySchema((EntityType("cat", ("x",), 1),), ("cat",), ("left", "right")),
            "dog": EntitySchema((EntityType("dog", ("x", "y"), 1),), ("dog",), ("left", "right", "sit")),
        }
        self.agents = self.possible_agents = list(self._schemas)
        self.observation_spaces = {name: schema.observation_space for name, schema in self._schemas.items()}
        self.action_spaces = {name: schema.action_space for name, schema in self._schemas.items()}
        self._steps = 0

    def _observe(self) -> dict[str, Any]:
        return {
            name: schema.pack({name: [[0.5] * schema.entity_types[0].num_features]}, [[True] * schema.num_options])
            for name, schema in self._schemas.items()
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._steps = 0
        return self._observe(), {}

    def step(self, action_dict: Mapping[str, Any]) -> Any:
        self._steps += 1
        rewards = {agent: float(action[0] == 1) for agent, action in action_dict.items()}
        return self._observe(), rewards, {"__all__": self._steps == 5}, {"__all__": False}, {}


def test_a_users_own_multi_agent_env__trains() -> None:
    tune.register_env("own_env", _OwnEnv)
    config = (
        make_config()
        .environment("own_env", env_config={})
        .multi_agent(policies={"cat", "dog"}, policy_mapping_fn=lambda agent, episode, **kwargs: agent)
        .env_runners(rollout_fragment_length=2)
        .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
    )
    with running(config) as algorithm:
        algorithm.train()
        for name in ("cat", "dog"):
            assert algorithm.get_module(name).policy.schema.actors == (name,)


# -- what is reported and kept ---------------------------------------------------------------------------------------


def test_metrics__are_told_for_each_policy() -> None:
    with running(make_config()) as algorithm:
        several = flatten(algorithm.train())
    with running(_shared_policy()) as algorithm:
        one = flatten(algorithm.train())
    for kind in ("courier", "porter"):
        assert 0 < several[f"policy/entropy_per_actor/{kind}"] < 1.4  # nats of four options
        assert 0 <= several[f"outcome/delivered/{kind}"] <= 1
    total = sum(several[f"outcome/return/{kind}"] for kind in ("courier", "porter"))
    assert total == pytest.approx(several["outcome/return"], rel=1e-6)  # RLlib's return is everybody's
    assert "policy/entropy_per_actor" not in several
    assert {"policy/entropy_per_actor", "outcome/delivered", "outcome/return"} <= set(one)
    assert not [tag for tag in one if tag.endswith("/all")]


def test_outcome__counts_each_agents_last_info_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []
    step = Deliveries.step

    def noting(env: Deliveries, actions: Mapping[str, int]) -> Any:
        result = step(env, actions)
        _, rewards, terminations, truncations, _ = result
        of_episode = env.__dict__.setdefault("ends", [])
        of_episode += [rewards[agent] for agent in actions if terminations[agent] or truncations[agent]]
        if not env.agents:
            ended.append(sum(of_episode) / len(of_episode))
            of_episode.clear()
        return result

    # Chunks of three steps: who dies in one chunk is not in the next.
    config = _shared_policy().env_runners(rollout_fragment_length=3, num_envs_per_env_runner=2)
    config.training(train_batch_size_per_learner=6, minibatch_size=6, num_epochs=1)
    with running(config) as algorithm:
        monkeypatch.setattr(Deliveries, "step", noting)
        told = 0
        for _ in range(12):
            outcome = algorithm.train()["env_runners"].get("outcome")
            if ended:  # RLlib tells of the episodes that ended in this iteration
                assert outcome["all"]["delivered"] == pytest.approx(sum(ended) / len(ended))
                told += len(ended)
                ended.clear()
    assert told >= 6


def test_checkpoint__keeps_every_policy(tmp_path: Path) -> None:
    info = {
        "env": "tests.parallel_environments:make_deliveries",
        "env_config": {},
        "config": "c.py",
        "seed": 0,
        "seconds": 1.0,
    }
    schemas = {name: schema.to_dict() for name, schema in SCHEMAS.items()}
    agents = {"courier_0": "courier", "porter_0": "porter"}
    with running(make_config()) as algorithm:
        algorithm.train()
        RunFolder(tmp_path).save_checkpoint(algorithm, 256, {**info, "schemas": schemas, "agents": agents})
        weights = algorithm.get_weights()
    found = find_checkpoint(tmp_path)
    record = load_info(found)
    assert (record.schemas, record.agents) == ({"courier": COURIER, "porter": PORTER}, agents)
    for name, schema in SCHEMAS.items():
        loaded = load_policy(found, schema, name).state_dict()
        for key, value in weights[name].items():
            assert torch.equal(loaded[key.removeprefix("policy.")], torch.as_tensor(value)), key
    with pytest.raises(ValueError, match="got policy None, expected one of courier, porter"):
        load_policy(found)
    with pytest.raises(ValueError, match="got policy 'cook', expected one of courier, porter"):
        load_policy(found, module="cook")
    with pytest.raises(ValueError, match="entity types: got porter, post, trained with courier, post"):
        load_policy(found, PORTER, "courier")

    with running(make_config().debugging(seed=1)) as resumed:
        resumed.restore_from_path(str(found))
        for name, module_weights in resumed.get_weights().items():
            for key, value in module_weights.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(weights[name][key])), key

    (found / "learner_group/learner/rl_module/porter/module_state.pkl").unlink()
    with pytest.raises(ValueError, match=r"rl_module/porter/module_state\.pkl is missing"):
        require_whole(found)
