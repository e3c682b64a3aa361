"""Squads learn a small task by IMPALA and by APPO; with advantages that belong to other steps they do not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig

from agents.presets import preset
from perceiver_rl.rllib.callbacks import EpisodeOutcomes
from perceiver_rl.rllib.env_runner import VectorEnvRunner
from perceiver_rl.rllib.learners import SquadAPPOLearner, SquadIMPALALearner
from perceiver_rl.rllib.learners.vtrace import VTrace
from perceiver_rl.rllib.module import module_spec
from perceiver_rl.rllib.registration import register_env
from tests.rllib.learning_gate import LEARNED, NOT_LEARNED

pytestmark = pytest.mark.usefixtures("ray_local")

NUM_ENVS, FRAGMENT = 64, 8
MAX_STEPS, CONTROL_STEPS = 60_000, 30_000


class _Shuffled:
    """Every step is told another step's advantage; all else is as it is."""

    def _vtrace(self, *args: Any) -> VTrace:
        traced: VTrace = super()._vtrace(*args)  # type: ignore[misc]
        return replace(traced, advantages=traced.advantages[torch.randperm(len(traced.advantages))])


class ShuffledIMPALA(_Shuffled, SquadIMPALALearner):
    """The control of IMPALA."""


class ShuffledAPPO(_Shuffled, SquadAPPOLearner):
    """The control of APPO."""


def _scores(learner: type[SquadIMPALALearner | SquadAPPOLearner], max_steps: int, num_aggregators: int = 0) -> list[float]:
    """The fraction of right deliveries after each iteration, until it is learned or time is up."""
    config = APPOConfig() if issubclass(learner, SquadAPPOLearner) else IMPALAConfig()
    if isinstance(config, APPOConfig):
        config.training(circular_buffer_num_batches=2, circular_buffer_iterations_per_batch=2, clip_param=0.2)
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
        .callbacks(EpisodeOutcomes)
        .training(
            lr=3e-3,
            gamma=0.5,
            train_batch_size_per_learner=NUM_ENVS * FRAGMENT,
            entropy_coeff=0.01,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=learner, num_learners=0, num_aggregator_actors_per_learner=num_aggregators)
        .debugging(seed=0)
        .reporting(metrics_num_episodes_for_smoothing=200, min_time_s_per_iteration=0)
    )
    algorithm, steps = config.build_algo(), 0
    try:
        scores: list[float] = []
        while steps < max_steps and max(scores, default=0.0) < LEARNED:
            result = algorithm.train()["env_runners"]
            steps = result.get("num_env_steps_sampled_lifetime", 0)
            if "outcome" in result:
                scores.append(float(result["outcome"]["score"]))
    finally:
        algorithm.stop()
    return scores


@pytest.mark.parametrize(
    ("learner", "num_aggregators"),
    [
        (SquadIMPALALearner, 0),
        pytest.param(SquadAPPOLearner, 0, marks=pytest.mark.slow),
        pytest.param(SquadIMPALALearner, 1, marks=pytest.mark.slow),
        pytest.param(SquadAPPOLearner, 1, marks=pytest.mark.slow),
    ],
)
def test_vtrace_learners__learn_to_give_each_actor_its_own_target(learner: Any, num_aggregators: int) -> None:
    scores = _scores(learner, MAX_STEPS, num_aggregators)
    assert scores[0] < NOT_LEARNED
    assert scores[-1] >= LEARNED, scores[::10]


@pytest.mark.slow
@pytest.mark.parametrize("learner", [ShuffledIMPALA, ShuffledAPPO])
def test_vtrace_learners__learn_nothing_from_shuffled_advantages(learner: Any) -> None:
    scores = _scores(learner, CONTROL_STEPS)
    assert len(scores) > 10
    assert max(scores) < NOT_LEARNED, scores[::10]
