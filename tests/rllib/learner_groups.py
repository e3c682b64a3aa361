"""Groups of learners, and what each of them has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.learner_group import LearnerGroup

from tests.environments import COURIERS

SPACES = {DEFAULT_MODULE_ID: (COURIERS.observation_space, COURIERS.action_space)}

Arrays = dict[str, NDArray[np.float32]]


@contextmanager
def learner_group(config: AlgorithmConfig) -> Iterator[LearnerGroup]:
    """The learners of a config on couriers; they are stopped at the end."""
    group = LearnerGroup(config=config, module_spec=config.get_multi_rl_module_spec(spaces=SPACES))
    try:
        yield group
    finally:
        group.shutdown()


def other_weights(group: LearnerGroup) -> Arrays:
    """The weights of a group's policy, moved at random; those of its target network stay."""
    random = np.random.default_rng(0)
    return {
        name: value if name.startswith("target_policy") else value + 0.1 * random.standard_normal(value.shape, np.float32)
        for name, value in group.get_weights()[DEFAULT_MODULE_ID].items()
    }


def gradients(learner: Learner) -> Arrays:
    """Of the last update, by parameter; those that have one."""
    parameters = learner.module[DEFAULT_MODULE_ID].unwrapped().named_parameters()
    return {name: parameter.grad.numpy().copy() for name, parameter in parameters if parameter.grad is not None}


def of_each(group: LearnerGroup, function: Any) -> list[Any]:
    """What a function of a learner gives for each of a group."""
    return [result.get() for result in group.foreach_learner(function).result_or_errors]
