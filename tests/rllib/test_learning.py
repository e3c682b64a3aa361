"""Squads learn a small task in seconds; with advantages that belong to other steps they do not."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from agents.presets import preset
from perceiver_rl.entities import Control
from perceiver_rl.policy.entity_policy import EntityPolicyConfig
from perceiver_rl.rllib.learners import SquadPPOLearner
from perceiver_rl.rllib.module import module_spec
from tests.rllib.conftest import MakeConfig
from tests.rllib.learning_gate import LEARNED, NOT_LEARNED

pytestmark = pytest.mark.usefixtures("ray_local")

TINY = preset("tiny")
ITERATIONS = 12
CONTROL_ITERATIONS = 8
"""The real runs need four to six."""


class _ShuffledAdvantages(SquadPPOLearner):
    """Every step is told another step's advantage; all else is as it is."""

    def compute_loss_for_module(self, *, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        advantages = batch[Postprocessing.ADVANTAGES]
        batch = {**batch, Postprocessing.ADVANTAGES: advantages[torch.randperm(len(advantages))]}
        return super().compute_loss_for_module(batch=batch, **kwargs)


def _scores(
    make_config: MakeConfig,
    model: EntityPolicyConfig = TINY,
    learner: type[SquadPPOLearner] = SquadPPOLearner,
    ratio: str = "per_actor",
    iterations: int = ITERATIONS,
    control: Control = "centralized",
) -> list[float]:
    """The fraction of right deliveries after each iteration of 1,024 steps, until it is learned or time is up."""
    config = (
        make_config()
        .environment(env_config={"control": control})
        .rl_module(rl_module_spec=module_spec(model))
        .learners(learner_class=learner, learner_config_dict={"ratio": ratio})
    )
    algorithm = config.build_algo()
    try:
        scores: list[float] = []
        while len(scores) < iterations and max(scores, default=0.0) < LEARNED:
            scores.append(float(algorithm.train()["env_runners"]["outcome"]["score"]))
    finally:
        algorithm.stop()
    return scores


@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        (TINY, "per_actor"),
        pytest.param(TINY, "joint", marks=pytest.mark.slow),
        pytest.param(preset("tiny-transformer"), "per_actor", marks=pytest.mark.slow),
        pytest.param(replace(TINY, joint="sequential"), "per_actor", marks=pytest.mark.slow),
    ],
    ids=["per actor", "joint ratio", "transformer", "sequential"],
)
def test_ppo__learns_to_give_each_actor_its_own_target(
    model: EntityPolicyConfig, ratio: str, make_config: MakeConfig
) -> None:
    scores = _scores(make_config, model=model, ratio=ratio)
    assert scores[0] < NOT_LEARNED
    assert scores[-1] >= LEARNED, scores


@pytest.mark.parametrize("critic", ["central", pytest.param("local", marks=pytest.mark.slow)])
def test_ppo__learns_under_decentralized_control(critic: Literal["central", "local"], make_config: MakeConfig) -> None:
    scores = _scores(make_config, model=replace(TINY, critic=critic), control="decentralized")
    assert scores[0] < NOT_LEARNED
    assert scores[-1] >= LEARNED, scores


def test_ppo__learns_nothing_from_shuffled_advantages(make_config: MakeConfig) -> None:
    scores = _scores(make_config, learner=_ShuffledAdvantages, iterations=CONTROL_ITERATIONS)
    assert len(scores) == CONTROL_ITERATIONS
    assert max(scores) < NOT_LEARNED, scores
