"""Two learners do what one does: as many updates each, and the gradient of the whole batch."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from agents.presets import preset
from perceiver_rl.rllib.env_runner import VectorEnvRunner
from perceiver_rl.rllib.learners import SquadAPPOLearner, SquadIMPALALearner, SquadLearner, SquadPPOLearner
from perceiver_rl.rllib.module import module_spec
from perceiver_rl.rllib.registration import register_env
from tests.rllib.conftest import MakeConfig
from tests.rllib.learner_groups import gradients, learner_group, of_each, other_weights
from tests.rllib.learning_gate import LEARNED, NOT_LEARNED

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # Ray Train warns of a setting of Ray Data's own
]

NUM_ENVS, FRAGMENT = 12, 8
TIMESTEPS = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 0}
LEARNERS = [SquadPPOLearner, SquadIMPALALearner, SquadAPPOLearner]

EPOCHS, MINIBATCH = 2, 16
HANGS_S = 300.0
MAX_ITERATIONS, NOISE = 12, 3
"""Alone it takes four to six."""


@dataclass(frozen=True)
class Pair:
    """Two learners of a kind."""

    learner: type[SquadLearner]
    config: AlgorithmConfig
    group: LearnerGroup


def _config(make_config: MakeConfig, learner: type[SquadLearner], num_learners: int) -> AlgorithmConfig:
    """Without what hides a gradient: it is not clipped, and is followed by a step of no length."""
    if issubclass(learner, SquadPPOLearner):
        config: AlgorithmConfig = make_config(NUM_ENVS, use_kl_loss=True, grad_clip=None, lr=0.0)
    else:
        config = APPOConfig() if issubclass(learner, SquadAPPOLearner) else IMPALAConfig()
        if isinstance(config, APPOConfig):
            config.training(circular_buffer_num_batches=1, circular_buffer_iterations_per_batch=1, use_kl_loss=True)
        config = (
            config.environment(register_env("tests.environments:make_couriers"))
            .env_runners(
                env_runner_cls=VectorEnvRunner,
                gym_env_vectorize_mode="vector_entry_point",
                num_env_runners=0,
                num_envs_per_env_runner=NUM_ENVS,
                rollout_fragment_length=FRAGMENT,
            )
            .rl_module(rl_module_spec=module_spec(preset("tiny")))
            .training(lr=0.0, gamma=0.5, train_batch_size_per_learner=NUM_ENVS * FRAGMENT, grad_clip=None)
        )
    return config.learners(learner_class=learner, num_learners=num_learners).debugging(seed=0)


def _halves(config: AlgorithmConfig) -> tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]]:
    """Chunks of episodes, dealt out in pairs of one length: as many steps on either side, and none has to be cut."""
    runner = VectorEnvRunner(config=config, worker_index=0)
    by_length = defaultdict(list)
    for episode in runner.sample(num_timesteps=NUM_ENVS * FRAGMENT * 2):
        by_length[len(episode)].append(episode)
    runner.stop()
    pairs = [pair for episodes in by_length.values() for pair in zip(episodes[::2], episodes[1::2], strict=False)]
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)


def _update(
    group: LearnerGroup,
    learner: type[SquadLearner],
    halves: tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]],
    **passes: int,
) -> None:
    """Send the chunks the way that the learner's algorithm sends them."""
    if issubclass(learner, SquadPPOLearner):
        episodes = copy.deepcopy([*halves[0], *halves[1]])  # a learner in this process appends its artificial steps to them
        group.update(episodes=episodes, timesteps=TIMESTEPS, **passes)
    else:
        data = TrainingData(episodes_refs=[ray.put(half) for half in halves])
        group.update(training_data=data, timesteps=TIMESTEPS, **passes)


@pytest.fixture(scope="module", params=LEARNERS)
def pair(request: pytest.FixtureRequest, make_config: MakeConfig, ray_local: None) -> Iterator[Pair]:
    """Two learners in processes of their own."""
    config = _config(make_config, request.param, 2)
    with learner_group(config) as group:
        yield Pair(request.param, config, group)


def test_two_learners__have_the_gradient_of_the_whole_batch(pair: Pair, make_config: MakeConfig) -> None:
    halves = _halves(pair.config)
    with learner_group(_config(make_config, pair.learner, 0)) as alone:
        weights = other_weights(alone)  # the policy is not the one that acted, nor the target network
        alone.set_weights({DEFAULT_MODULE_ID: weights})
        _update(alone, pair.learner, halves)
        (whole,) = of_each(alone, gradients)
    pair.group.set_weights({DEFAULT_MODULE_ID: weights})
    _update(pair.group, pair.learner, halves)
    parts = of_each(pair.group, gradients)
    assert len(parts) == 2
    assert max(np.abs(gradient).max() for gradient in whole.values()) > 1e-2
    for part in parts:
        assert part.keys() == whole.keys()
        for name, gradient in whole.items():
            np.testing.assert_allclose(part[name], gradient, atol=1e-5, err_msg=name)


def test_two_learners__make_as_many_updates_whatever_they_get(pair: Pair) -> None:
    first, second = _halves(pair.config)
    lopsided = (first + second[3:], second[:3])
    steps = sum(len(episode) for part in lopsided for episode in part)
    of_ppo, of_others = EPOCHS * steps // (2 * MINIBATCH), EPOCHS * round(NUM_ENVS * FRAGMENT / MINIBATCH)
    pair.group.foreach_learner(_count_updates)
    with ThreadPoolExecutor(1) as thread:  # the failure to look for is that they wait for each other for ever
        update = thread.submit(_update, pair.group, pair.learner, lopsided, num_epochs=EPOCHS, minibatch_size=MINIBATCH)
        try:
            update.result(timeout=HANGS_S)
        except TimeoutError:
            pair.group.shutdown()
            raise
    counts = of_each(pair.group, lambda learner: learner.num_updates)
    assert counts == [of_ppo if pair.learner is SquadPPOLearner else of_others] * 2


def test_two_learners__go_on_from_a_saved_state_each_in_memory_of_its_own(pair: Pair) -> None:
    halves = _halves(pair.config)
    _update(pair.group, pair.learner, halves)
    state = pair.group.get_state()
    (adam,) = state["learner"]["optimizer"].values()
    before = [moments["exp_avg"] for moments in adam["state"]["state"].values()]
    (decay, _), *_ = [group["betas"] for group in adam["state"]["param_groups"]]
    pair.group.set_state(state)
    _update(pair.group, pair.learner, halves)
    for now, part in zip(of_each(pair.group, _moments), of_each(pair.group, gradients), strict=True):
        for moment, then, gradient in zip(now, before, part.values(), strict=True):
            np.testing.assert_allclose(moment, decay * then + (1 - decay) * gradient, rtol=1e-4, atol=1e-7)


def test_samples_that_not_every_learner_gets_one_of__are_refused(make_config: MakeConfig) -> None:
    config = _config(make_config, SquadIMPALALearner, 2).training(train_batch_size_per_learner=NUM_ENVS * FRAGMENT - 1)
    with pytest.raises(ValueError, match="got 95 for each of 2 learners, expected at least the 96 steps of one sample"):
        SquadIMPALALearner.settings(config)
    SquadIMPALALearner.settings(config.learners(num_learners=1))


@pytest.mark.slow
def test_two_learners__learn_as_one_does(make_config: MakeConfig) -> None:
    iterations = {}
    for num_learners in (0, 1, 2):
        parts = max(1, num_learners)  # batches of all learners together are of one size
        config = make_config(train_batch_size_per_learner=1024 // parts, minibatch_size=256 // parts)
        algorithm = config.learners(num_learners=num_learners).build_algo()
        try:
            scores: list[float] = []
            while len(scores) < MAX_ITERATIONS and max(scores, default=0.0) < LEARNED:
                scores.append(float(algorithm.train()["env_runners"]["outcome"]["score"]))
        finally:
            algorithm.stop()
        assert scores[0] < NOT_LEARNED
        assert scores[-1] >= LEARNED, (num_learners, scores)
        iterations[num_learners] = len(scores)
    assert max(iterations.values()) - min(iterations.values()) <= NOISE, iterations


def _moments(learner: Any) -> list[NDArray[np.float32]]:
    """Adam's averages of gradients, in the order of the parameters."""
    ((_, optimizer),) = learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
    return [moments["exp_avg"].numpy().copy() for moments in optimizer.state.values()]


def _count_updates(learner: Any) -> None:
    update, learner.num_updates = learner._update, 0

    def count(*args: Any, **kwargs: Any) -> Any:
        learner.num_updates += 1
        return update(*args, **kwargs)

    learner._update = count
