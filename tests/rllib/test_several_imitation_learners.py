"""Two learners of recorded episodes do what one does: the gradient of the whole batch, and the same run, resumed, too."""

from pathlib import Path

import numpy as np
import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData

from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner, SquadMARWILLearner
from perceiver_rl.rllib.recovery import RECOVERY_POINT, ResumePoint, save_recovery_point
from perceiver_rl.rllib.run_folder import RunFolder
from tests.rllib.imitation import BATCH, Learner, make_config
from tests.rllib.learner_groups import Arrays, gradients, learner_group, of_each, other_weights
from tests.rllib.running import running

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # Ray Train warns of a setting of Ray Data's own
    pytest.mark.parametrize("learner", [SquadBCLearner, SquadMARWILLearner]),
]

SMALL_BATCH, UPDATES = 32, 3
"""Small: its halves differ in how well the value fits."""


def _config(learner: type[Learner], dataset: Path, num_learners: int, batch: int, lr: float = 3e-3) -> MARWILConfig:
    """Of learners that have a part each of a batch of one size; the gradient is not clipped."""
    parts = max(1, num_learners)
    config = make_config(learner, dataset, train_batch_size_per_learner=batch // parts, grad_clip=None, lr=lr)
    if config.beta:
        config.training(moving_average_sqd_adv_norm_update_rate=0.5)
    config.learners(num_learners=num_learners)
    return config


def _update(group: LearnerGroup, config: MARWILConfig) -> None:
    """Several times, the way that the algorithm does it."""
    data, size = RecordedEpisodes(config), config.train_batch_size_per_learner
    iterators = data.sample(size, return_iterator=True, num_shards=config.num_learners)
    for _ in range(UPDATES):
        group.update(training_data=TrainingData(data_iterators=iterators), minibatch_size=size, num_iters=1)


def test_two_learners__have_the_gradient_of_the_whole_batch(learner: type[Learner], muddled_couriers: Path) -> None:
    config = _config(learner, muddled_couriers, 0, SMALL_BATCH, lr=0.0)
    with learner_group(config) as alone:
        weights = other_weights(alone)
        alone.set_weights({DEFAULT_MODULE_ID: weights})
        _update(alone, config)
        (whole,) = of_each(alone, gradients)
    config = _config(learner, muddled_couriers, 2, SMALL_BATCH, lr=0.0)
    with learner_group(config) as pair:
        pair.set_weights({DEFAULT_MODULE_ID: weights})
        _update(pair, config)
        parts = of_each(pair, gradients)
    assert len(parts) == 2
    assert max(np.abs(gradient).max() for gradient in whole.values()) > 1e-2
    for part in parts:
        assert part.keys() >= whole.keys()
        for name, gradient in part.items():  # BC alone has none for the value
            np.testing.assert_allclose(gradient, whole.get(name, 0.0), atol=1e-5, err_msg=name)


def _weights(algorithm: Algorithm) -> Arrays:
    weights: Arrays = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    return weights


@pytest.mark.slow
def test_two_learners__end_where_one_does_resumed_or_not(
    learner: type[Learner], expert_couriers: Path, tmp_path: Path
) -> None:
    with running(_config(learner, expert_couriers, 0, BATCH)) as algorithm:
        begin = _weights(algorithm)
        for _ in range(4):
            algorithm.train()
        alone = _weights(algorithm)
    config = _config(learner, expert_couriers, 2, BATCH)
    with running(config) as algorithm:
        for _ in range(2):
            algorithm.train()
        save_recovery_point(RunFolder(tmp_path), algorithm, 2 * BATCH, 1.0)
        for _ in range(2):
            algorithm.train()
        whole = _weights(algorithm)
    with running(config) as algorithm:
        ResumePoint(tmp_path / RECOVERY_POINT, 2 * BATCH, 1.0).restore(algorithm)
        algorithm.offline_data.skip(2 * BATCH)
        for _ in range(2):
            result = algorithm.train()
        assert result["num_env_steps_sampled_lifetime"] == 4 * BATCH
        resumed = _weights(algorithm)
    assert max(np.abs(alone[name] - begin[name]).max() for name in alone) > 5e-3
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
        np.testing.assert_allclose(value, alone[name], atol=1e-4, err_msg=name)
