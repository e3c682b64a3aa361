"""Sampling in bulk gives the episodes that RLlib's own runner gives; what it cannot do it refuses."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)

from perceiver_rl.rllib.env_runner import SAMPLING_KEY, VectorEnvRunner
from perceiver_rl.rllib.registration import register_env
from perceiver_rl.seeding import EVALUATION, stream_seed
from tests.environments import COURIERS, CourierVectorEnv
from tests.rllib.conftest import MakeConfig

NUM_ENVS = 5

MakeRunner = Callable[..., SingleAgentEnvRunner]


@pytest.fixture
def make_runner(make_config: MakeConfig) -> MakeRunner:
    def make(
        runner_class: type[SingleAgentEnvRunner] = VectorEnvRunner, change: Callable[[PPOConfig], object] = lambda _: None
    ) -> SingleAgentEnvRunner:
        config = make_config(NUM_ENVS).env_runners(env_runner_cls=runner_class)
        change(config)
        return runner_class(config=config, worker_index=0)

    return make


def _content(episode: SingleAgentEpisode) -> dict[str, Any]:
    """All that learners read of an episode, as arrays."""
    episode = episode if episode.is_numpy else episode.to_numpy()
    return {
        **{f"observation {key}": array for key, array in episode.get_observations().items()},
        "actions": episode.get_actions(),
        "rewards": np.asarray(episode.get_rewards(), np.float32),
        "logp": episode.get_extra_model_outputs(Columns.ACTION_LOGP),
        "dist_inputs": episode.get_extra_model_outputs(Columns.ACTION_DIST_INPUTS),
        "ended": np.array([episode.is_terminated, episode.is_truncated]),
        "t_started": np.array(episode.t_started),
    }


def _by_beginning(episodes: list[SingleAgentEpisode]) -> dict[bytes, dict[str, Any]]:
    """Chunks by the observation that they begin with, which is unique."""
    contents = [_content(episode) for episode in episodes]
    chunks = {content["observation entities/post"][0].tobytes(): content for content in contents}
    assert len(chunks) == len(episodes)
    return chunks


@pytest.mark.parametrize("explore", [False, True])
def test_sample__gives_the_episodes_of_rllibs_own_runner(explore: bool, make_runner: MakeRunner) -> None:
    ours, theirs = make_runner(VectorEnvRunner), make_runner(SingleAgentEnvRunner)
    theirs.set_state(ours.get_state())
    theirs._seed = ours._stream_seed()
    # Several calls, so that episodes go on from one to the next. The first is greedy: ours seeds torch in it.
    for num_timesteps, exploring in ((5, False), (37, explore), (1, explore), (24, explore)):
        samples = []
        for runner in (ours, theirs):
            torch.manual_seed(num_timesteps)
            samples.append(_by_beginning(runner.sample(num_timesteps=num_timesteps, explore=exploring)))
        chunks, expected_chunks = samples
        assert chunks.keys() == expected_chunks.keys()
        for beginning, expected in expected_chunks.items():
            for name, array in expected.items():
                np.testing.assert_allclose(chunks[beginning][name], array, atol=1e-6, err_msg=name)
    metrics, expected_metrics = ours.get_metrics(), theirs.get_metrics()
    for key in (EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN, NUM_ENV_STEPS_SAMPLED, NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_EPISODES):
        assert _number(metrics[key]) == pytest.approx(_number(expected_metrics[key])), key


def test_runners__play_other_battles_than_their_neighbours_and_than_before_a_restart(make_runner: MakeRunner) -> None:
    seeds = []
    for seed in range(3):
        for worker in range(3):
            runner = make_runner(change=lambda config, seed=seed: config.debugging(seed=seed))
            runner.worker_index = worker
            seeds.append(runner._stream_seed())
            runner.num_env_steps_sampled_lifetime = 5_000
            seeds.append(runner._stream_seed())
    seeds.append(stream_seed(EVALUATION, 0))
    # A vector environment takes the seeds from its own on: streams must lie further apart than environments are many.
    assert np.diff(sorted(seeds)).min() > 1_000


def _number(value: Any) -> float:
    return float(value.peek() if hasattr(value, "peek") else value)


def test_sample__continues_episodes_in_the_next_call(make_runner: MakeRunner) -> None:
    runner = make_runner()
    chunks: dict[str, list[SingleAgentEpisode]] = {}
    for _ in range(6):
        for episode in runner.sample(num_timesteps=NUM_ENVS):
            chunks.setdefault(episode.id_, []).append(episode)
    assert max(len(parts) for parts in chunks.values()) >= 2
    for parts in chunks.values():
        assert [part.t_started for part in parts] == np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        assert not any(part.is_done for part in parts[:-1])
        for before, after in pairwise(parts):
            for key, last in before.get_observations(-1).items():
                np.testing.assert_array_equal(last, after.get_observations(0)[key])
        if parts[-1].is_done:
            assert sum(len(part) for part in parts) == (2 if parts[-1].is_terminated else 3)


def test_sample__keeps_the_contract_in_every_step(make_runner: MakeRunner) -> None:
    episodes = make_runner().sample(num_timesteps=100, random_actions=False, explore=True)
    assert sum(len(episode) for episode in episodes) >= 100
    for episode in episodes:
        assert len(episode.get_infos()) == len(episode) + 1
        observations, actions = episode.get_observations(), episode.get_actions()
        for time in range(len(episode)):
            observation = {key: array[time] for key, array in observations.items()}
            COURIERS.check(observation)
            COURIERS.check_action(observation, actions[time])


def test_sample__of_episodes_gives_whole_ones_and_begins_anew(make_runner: MakeRunner) -> None:
    runner = make_runner()
    runner.sample(num_timesteps=NUM_ENVS)
    for _ in range(2):
        episodes = runner.sample(num_episodes=7)
        assert len(episodes) >= 7
        for episode in episodes:
            assert episode.is_done
            assert episode.t_started == 0
            assert len(episode) == (2 if episode.is_terminated else 3)


def test_sample__at_random_needs_no_module(make_runner: MakeRunner) -> None:
    (episode, *_) = make_runner().sample(num_timesteps=40, random_actions=True)
    assert episode.get_actions().shape == (len(episode), 4)


def test_sample__of_no_steps_is_empty(make_runner: MakeRunner) -> None:
    assert make_runner().sample(num_timesteps=0) == []


def test_metrics__tell_outcomes_and_where_the_time_went(make_runner: MakeRunner) -> None:
    runner = make_runner()
    episodes = runner.sample(num_timesteps=60)
    metrics = runner.get_metrics()
    scores = [episode.get_infos(-1)["score"] for episode in episodes if episode.is_done]
    assert len(scores) > 5
    assert _number(metrics["outcome"]["score"]) == pytest.approx(np.mean(scores))
    assert all(_number(metrics[SAMPLING_KEY][part]) > 0 for part in ("forward", "env"))


def test_sample__follows_the_seed(make_runner: MakeRunner) -> None:
    first, again = (_by_beginning(make_runner().sample(num_timesteps=30)) for _ in range(2))
    other = _by_beginning(make_runner(change=lambda config: config.debugging(seed=1)).sample(num_timesteps=30))
    assert first.keys() == again.keys()
    assert first.keys() != other.keys()


# -- faults and refusals -------------------------------------------------------------------------------------


class _Fails(CourierVectorEnv):
    """Some of its resets and steps fail, by their number over all copies."""

    resets: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    num_steps = 0
    begun: list[bytes]
    """What each reset showed, or would have shown had it not failed."""

    def reset(self, **options: Any) -> Any:
        shown = super().reset(**options)
        self.begun.append(shown[0]["entities/post"].tobytes())
        if len(self.begun) in self.resets:
            raise OSError("the simulator did not start")
        return shown

    def step(self, actions: Any) -> Any:
        type(self).num_steps += 1
        if self.num_steps in self.steps:
            raise OSError("the simulator crashed")
        return super().step(actions)


def _failing_runner(
    make_runner: MakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    *,
    resets: tuple[int, ...] = (),
    steps: tuple[int, ...] = (),
    in_evaluation: bool = False,
) -> SingleAgentEnvRunner:
    """A runner that makes environments anew when these resets and steps fail."""
    for name, value in {"resets": resets, "steps": steps, "num_steps": 0, "begun": []}.items():
        monkeypatch.setattr(_Fails, name, value, raising=False)

    def change(config: PPOConfig) -> None:
        config.environment(register_env(f"{__name__}:_Fails"))
        config.fault_tolerance(restart_failed_sub_environments=True)
        config.in_evaluation = in_evaluation

    return make_runner(change=change)


def test_sample__drops_what_a_failed_environment_had_begun(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = _failing_runner(make_runner, monkeypatch, steps=(4,))
    episodes = runner.sample(num_timesteps=40)
    assert sum(len(episode) for episode in episodes) >= 40
    assert all(len(episode) == (2 if episode.is_terminated else 3) for episode in episodes if episode.is_done)


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        ({"steps": (4, 6)}, 1 + 2 + 1),  # both in the first sample
        ({"steps": (4, 60)}, 1 + 2 + 1),  # one in each
        ({"resets": (1, 2)}, 1 + 2 + 1),
        ({"resets": (2,)}, 1 + 1 + 1),  # of a reset that goes on with the random stream of the one before
    ],
)
def test_environments_made_anew__play_battles_of_the_seed_that_were_not_played_yet(
    failing: dict[str, tuple[int, ...]], expected: int, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for _ in range(2):
        runner = _failing_runner(make_runner, monkeypatch, **failing)
        for force_reset in (False, True):
            runner.sample(num_timesteps=30 * NUM_ENVS, force_reset=force_reset)
        runs.append(_Fails.begun)
    assert len(set(runs[0])) == len(runs[0]) == expected
    assert runs[0] == runs[1]


def test_evaluation__plays_its_usual_battles_after_one_that_failed(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _failing_runner(make_runner, monkeypatch, steps=(4,), in_evaluation=True)
    for _ in range(2):
        runner.sample(num_episodes=20)
    first, anew, second = _Fails.begun
    assert first == second != anew


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_runner__refuses_environments_that_reset_otherwise(mode: AutoresetMode, make_runner: MakeRunner) -> None:
    expected = rf"got metadata\['autoreset_mode'\] = {mode}, expected AutoresetMode.NEXT_STEP"
    with pytest.raises(ValueError, match=expected):
        make_runner(change=lambda config: config.environment(env_config={"autoreset_mode": mode}))


@pytest.mark.parametrize("kind", ["env_to_module_connector", "module_to_env_connector"])
def test_runner__refuses_connectors_that_it_would_not_run(kind: str, make_runner: MakeRunner) -> None:
    with pytest.raises(ValueError, match=r"^config: got env-to-module or module-to-env connectors, which VectorEnvRunner"):
        make_runner(change=lambda config: config.env_runners(**{kind: lambda *_: []}))
