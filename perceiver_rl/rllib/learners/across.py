"""Figures over the batches of all learners.

Each of several learners has a part of the batch, and torch averages their gradients. What is not a sum over samples, as a
standard deviation, has to be made of the whole batch for that average to be the gradient of it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor, distributed

MIN_DEVIATION = 1e-4


def work_together(config: AlgorithmConfig) -> bool:
    """Whether figures are to be made over all learners: there are several, and all of them train the same modules.

    The parts of a multi-agent batch may lack a module each; a learner would wait for the figure of another that has none.
    """
    return bool(config.num_learners > 1 and not config.is_multi_agent)


def mean_over_learners(value: Float[Tensor, ""], *, together: bool) -> Float[Tensor, ""]:
    """The mean of a figure that each learner has, all of which call this at the same time; carries no gradient."""
    if not together:
        return value.detach()
    return _sum(value) / distributed.get_world_size()


def standardized(values: Float[Tensor, "*shape"], of: Float[Tensor, " some"], *, together: bool) -> Float[Tensor, "*shape"]:
    """Values less the mean of some of them, over their deviation.

    Args:
        values: To be standardised.
        of: Those that mean and deviation are of.
        together: Whether these are of the batches of all learners, each of which calls this at the same time.

    Returns:
        Zeros if there are none that mean and deviation could be of.
    """
    if not together:
        return (values - of.mean()) / of.std(correction=0).clamp(min=MIN_DEVIATION) if len(of) else torch.zeros_like(values)
    count, total = _sum(torch.stack([of.new_tensor(len(of)), of.sum()]))
    mean = total / count.clamp(min=1)
    deviation = (_sum((of - mean).square().sum()) / count.clamp(min=1)).sqrt()
    return (values - mean) / deviation.clamp(min=MIN_DEVIATION) * (count > 0)


def _sum(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Over all learners."""
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value
