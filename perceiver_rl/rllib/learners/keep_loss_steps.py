"""The last piece of PPO's learner pipeline."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from perceiver_rl.rllib.learners.across import standardized
from perceiver_rl.rllib.learners.rows import take_rows


class KeepLossSteps(ConnectorV2):
    """Last piece of the learner's pipeline: drop the steps that no loss counts, standardise and shuffle the rest.

    To bootstrap values, RLlib adds one artificial step to each episode chunk, masked in the loss. Once value targets are
    there nobody needs these steps, but every epoch would pass them through the network. And RLlib walks through the first
    epoch in the order of the episodes, so that minibatches of it are correlated: one permutation here mends that too.

    Args:
        seed: Seed of the permutation; None for a fresh one.
        together: Whether to standardise over the batches of all learners, each of which then calls this at the same time and
            for the same modules.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        seed: int | None = None,
        together: bool = False,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._together = together
        self._generator = torch.Generator()
        if seed is not None:
            self._generator.manual_seed(seed)

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Filter and permute every column of every module's batch."""
        for columns in batch.values():
            kept = columns.pop(Columns.LOSS_MASK).nonzero().squeeze(1)
            order = kept[torch.randperm(len(kept), generator=self._generator).to(kept.device)]
            columns.update(take_rows(columns, order))
            # RLlib's mean and deviation include the artificial steps, whose advantages reach from one chunk into the next
            # and mean nothing. Standardising is affine, so doing it again on the rest is exact.
            advantages = columns[Postprocessing.ADVANTAGES]
            columns[Postprocessing.ADVANTAGES] = standardized(advantages, advantages, together=self._together)
        return batch
