"""Squads learn a small task from recorded episodes; from choices that belong to other steps they do not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from torch import Tensor

from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner, SquadMARWILLearner
from perceiver_rl.rllib.recovery import RECOVERY_POINT, ResumePoint, save_recovery_point
from perceiver_rl.rllib.run_folder import RunFolder
from tests.rllib.imitation import BATCH, Learner, make_config, score
from tests.rllib.learning_gate import LEARNED, NOT_LEARNED

UPDATES = 120


class Shuffled(SquadBCLearner):
    """Every step is told what was chosen in another one, as far as it was to be had there; all else is as it is."""

    def compute_loss_for_module(self, *, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        actions, legal = batch[Columns.ACTIONS], batch[Columns.OBS]["action_mask"]
        other = actions[torch.randperm(len(actions))]
        allowed = legal.gather(2, other.unsqueeze(2)).squeeze(2)
        drawn = torch.where(legal, torch.rand(legal.shape), -1.0).argmax(dim=2)
        there = legal.any(dim=2)
        chosen = torch.where(there, torch.where(allowed, other, drawn), 0)
        return super().compute_loss_for_module(batch={**batch, Columns.ACTIONS: chosen}, **kwargs)


@contextmanager
def _algorithm(learner: type[Learner], *datasets: Path, **training: Any) -> Iterator[Algorithm]:
    algorithm = make_config(learner, *datasets, **training).build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def _policy(algorithm: Algorithm) -> EntityPolicy:
    policy: EntityPolicy = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped().policy
    return policy


def _learned(learner_class: type[Learner], *datasets: Path, updates: int = UPDATES) -> float:
    """The score after so many updates, without RLlib's `Algorithm` around them."""
    config = make_config(learner_class, *datasets)
    spaces = {DEFAULT_MODULE_ID: (config.observation_space, config.action_space)}
    learner = learner_class(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces))
    learner.build()
    data = RecordedEpisodes(config)
    for _ in range(updates):
        learner.update(training_data=TrainingData(batch=data.sample(BATCH)), minibatch_size=BATCH)
    return score(learner.module[DEFAULT_MODULE_ID].unwrapped().policy)


def test_bc__learns_to_give_each_actor_its_own_target(expert_couriers: Path) -> None:
    assert _learned(SquadBCLearner, expert_couriers, updates=0) < NOT_LEARNED
    assert _learned(SquadBCLearner, expert_couriers) >= LEARNED


def test_bc__learns_nothing_from_shuffled_choices(expert_couriers: Path) -> None:
    assert _learned(Shuffled, expert_couriers) < NOT_LEARNED


def test_marwil__learns_what_is_rewarded_where_bc_learns_what_is_done(muddled_couriers: Path) -> None:
    assert _learned(SquadBCLearner, muddled_couriers) < NOT_LEARNED
    assert _learned(SquadMARWILLearner, muddled_couriers) >= LEARNED


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("saved", ["checkpoint", RECOVERY_POINT])
@pytest.mark.parametrize("learner", [SquadBCLearner, SquadMARWILLearner])
def test_resumed_run__ends_where_a_run_in_one_piece_does(
    learner: type[Learner], saved: str, expert_couriers: Path, tmp_path: Path
) -> None:
    with _algorithm(learner, expert_couriers) as algorithm:
        for _ in range(2):
            algorithm.train()
        algorithm.save_to_path(tmp_path / "checkpoint")
        save_recovery_point(RunFolder(tmp_path), algorithm, 2 * BATCH, 1.0)
        for _ in range(2):
            algorithm.train()
        whole = {name: each.clone() for name, each in _policy(algorithm).state_dict().items()}
    with _algorithm(learner, expert_couriers) as algorithm:
        ResumePoint(tmp_path / saved, 2 * BATCH, 1.0).restore(algorithm)
        algorithm.offline_data.skip(2 * BATCH)
        for _ in range(2):
            result = algorithm.train()
        assert result["num_env_steps_sampled_lifetime"] == 4 * BATCH
        torch.testing.assert_close(_policy(algorithm).state_dict(), whole, rtol=0, atol=0)
