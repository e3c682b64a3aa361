"""Advantages as they are, for several learners to standardise together."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets


class RawAdvantages(ConnectorV2):
    """RLlib's `GeneralAdvantageEstimation`, but advantages are not standardised.

    RLlib's are, by the mean and the deviation of one learner's part of the batch, which it does not tell, so that nothing
    after it can take that back.

    Args:
        gamma: Discount of one step.
        lambda_: Of the estimator.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        gamma: float,
        lambda_: float,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._gamma, self._lambda = gamma, lambda_

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add advantages and value targets to every module's columns."""
        for module_id, columns in batch.items():
            values = rl_module[module_id].unwrapped().compute_values(columns)
            targets = compute_value_targets(
                values=convert_to_numpy(values),
                rewards=convert_to_numpy(columns[Columns.REWARDS]),
                terminateds=convert_to_numpy(columns[Columns.TERMINATEDS]),
                truncateds=convert_to_numpy(columns[Columns.TRUNCATEDS]),
                gamma=self._gamma,
                lambda_=self._lambda,
            )
            columns[Postprocessing.VALUE_TARGETS] = torch.from_numpy(targets).to(values)
            columns[Postprocessing.ADVANTAGES] = columns[Postprocessing.VALUE_TARGETS] - values
        return batch
