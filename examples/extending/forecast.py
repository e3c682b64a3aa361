"""An output of one's own: how will each fire's size change in this step? Asked by one more query for each fire."""

from __future__ import annotations

from typing import Any

from fires import SCHEMA
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from perceiver_rl.entities import EntitySchema, features_key
from perceiver_rl.policy.entity_policy import EntityPolicy, PolicyOutput
from perceiver_rl.rllib import PerceiverRLModule, SquadPPOLearner
from perceiver_rl.rllib.learners.keep_loss_steps import KeepLossSteps
from perceiver_rl.rllib.metrics import AUXILIARY

FORECAST, NEXT_SIZES = "forecast", "next_sizes"
COEFFICIENT = 1.0
SIZE = SCHEMA.entity_type("fire").feature_names.index("size")


class ForecastModule(PerceiverRLModule):
    """The model with one more query for each fire, answered in the same pass as the actors' choices."""

    def build_policy(self, schema: EntitySchema) -> EntityPolicy:
        """Ask more of the encoder."""
        return EntityPolicy(schema, self.policy_config(), extra_queries={FORECAST: ("fire",)})

    def setup(self) -> None:
        """Add the head that reads the answers."""
        super().setup()
        dim = self.policy.encoder.output_dim
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def train_outputs(self, output: PolicyOutput) -> dict[str, Tensor]:
        """Hand the forecast to the loss, a change of size `[batch, fires]`."""
        return {**super().train_outputs(output), FORECAST: self.head(output.extra[FORECAST]).squeeze(-1)}


class NextSizes(ConnectorV2):
    """Adds the target. RLlib's batch holds each episode's steps in order, its last observation included: the next row.

    After the last observation comes another episode; `KeepLossSteps` drops that row.
    """

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """One more column of each module's batch."""
        for columns in batch.values():
            columns[NEXT_SIZES] = columns[Columns.OBS][features_key("fire")][..., SIZE].roll(-1, dims=0)
        return batch


class ForecastLearner(SquadPPOLearner):
    """PPO's loss and the forecast's."""

    def build(self) -> None:
        """Put the target into the batch while its rows are still in order."""
        super().build()
        if self._learner_connector is not None:
            self._learner_connector.insert_before(KeepLossSteps, NextSizes())

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Squared error over burning fires; in TensorBoard beside that of the best constant, the variance of changes."""
        loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        sizes = batch[Columns.OBS][features_key("fire")][..., SIZE]
        burning = sizes > 0  # absent slots are zeros
        changes = (batch[NEXT_SIZES] - sizes)[burning]
        error = (fwd_out[FORECAST][burning] - changes).square().mean()
        figures = {"forecast_error": error.detach(), "forecast_error_of_a_constant": changes.var()}
        self.metrics.log_dict(figures, key=(module_id, AUXILIARY), reduce="mean")
        return loss + COEFFICIENT * error
