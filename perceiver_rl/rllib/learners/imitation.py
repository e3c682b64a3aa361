"""BC and MARWIL for squads: learn from recorded episodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY, LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.rllib.learners.across import mean_over_learners, work_together
from perceiver_rl.rllib.learners.choices import mean_over_actors
from perceiver_rl.rllib.learners.squad_learner import SquadLearner, SquadLearnerConfig

AGREEMENT_KEY = "agreement"
"""Share of the recorded choices that the policy finds most probable."""
WEIGHT_KEY = "mean_weight"
ADVANTAGE_SCALE_KEY = "advantage_scale"


class _ImitationLearner(SquadLearner, MARWILTorchLearner):
    """What both have in common: how likely a recorded choice is.

    The log-likelihood of a step is the mean over its present actors, so that gradients and coefficients do not grow with the
    squad; with `ratio="joint"` it is that of the joint action, their sum, as RLlib has it.
    """

    @classmethod
    def settings(cls, config: AlgorithmConfig) -> Any:
        """As of `SquadLearner`; the config keeps to what these losses know.

        Raises:
            ValueError: If it does not.
        """
        for name, expected, why in (
            ("training.bc_logstd_coeff", 0, "discrete choices have no deviation"),
            ("training.burnin_len", 0, "the policy has no memory to warm up"),
            ("offline_data.dataset_num_iters_per_learner", 1, "steps are counted by batches; make those larger"),
        ):
            got = getattr(config, name.rpartition(".")[2])
            if got != expected:
                raise ValueError(f"{name}: got {got}, expected {expected}: {why}")
        return super().settings(config)

    def _log_likelihood(self, current: ActorCategorical, batch: dict[str, Any]) -> Float[Tensor, " batch"]:
        """Of what was chosen, to the policy."""
        log_prob = current.log_prob_per_actor(batch[Columns.ACTIONS])
        return mean_over_actors(log_prob, current.present) if self.squad.ratio == "per_actor" else log_prob.sum(dim=1)

    def _current(self, module_id: str, fwd_out: dict[str, Tensor]) -> ActorCategorical:
        distribution = self.module[module_id].unwrapped().get_train_action_dist_cls()
        per_actor: ActorCategorical = distribution.from_logits(fwd_out[Columns.ACTION_DIST_INPUTS]).per_actor
        return per_actor

    @torch.no_grad()
    def _log(self, module_id: str, batch: dict[str, Any], current: ActorCategorical, **numbers: Tensor) -> None:
        """Means over all minibatches of an iteration."""
        agreement = (current.mode() == batch[Columns.ACTIONS]).float()
        numbers[AGREEMENT_KEY] = mean_over_actors(agreement, current.present).mean()
        numbers[ENTROPY_KEY] = mean_over_actors(current.entropy_per_actor(), current.present).mean()
        self.metrics.log_dict({name: each.detach() for name, each in numbers.items()}, key=module_id, reduce="mean")


class SquadBCLearner(_ImitationLearner):
    """Behavioural cloning: make what was chosen likely. The value is not trained."""

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Minus the mean log-likelihood."""
        current = self._current(module_id, fwd_out)
        loss = -self._log_likelihood(current, batch).mean()
        self._log(module_id, batch, current, **{POLICY_LOSS_KEY: loss})
        # Several learners wait for a gradient of every parameter, those of the value included.
        return loss + 0.0 * fwd_out[Columns.EMBEDDINGS].sum() if config.num_learners > 1 else loss


@dataclass(frozen=True, kw_only=True)
class MARWILLearnerConfig(SquadLearnerConfig):
    """Settings of `SquadMARWILLearner`.

    Args:
        max_weight: Where a step's weight is cut off, so that no single stroke of luck outweighs a batch.
    """

    max_weight: float = 20.0

    def __post_init__(self) -> None:
        if not self.max_weight > 0 or math.isnan(self.max_weight):
            raise ValueError(f"learners.learner_config_dict, max_weight: got {self.max_weight:g}, expected more than 0")


class SquadMARWILLearner(_ImitationLearner):
    """Monotonic advantage re-weighted imitation: make likely what went better than expected.

    The weight of a step is `exp(beta * advantage / scale)`, one for the squad: the advantage is the return as it was played
    less the squad's value, and the scale the root of a moving average of its square over the batches of all learners.
    `moving_average_sqd_adv_norm_start` and `…_update_rate` are RLlib's settings of that average; RLlib's defaults (100 and
    1e-8) hold the scale at 10 for ever.

    Source: Wang et al. 2018 (MARWIL). The cut-off is that of Peng et al. 2019 (advantage-weighted regression).
    """

    config_class = MARWILLearnerConfig
    remembered = ("moving_avg_sqd_adv_norms_per_module",)

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Minus the weighted mean log-likelihood, and the value loss."""
        current = self._current(module_id, fwd_out)
        targets = batch[Columns.VALUE_TARGETS]
        values = self.module[module_id].unwrapped().compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])
        squared_error = (targets - values).square().mean()
        square = self.moving_avg_sqd_adv_norms_per_module[module_id]
        whole = mean_over_learners(squared_error, together=work_together(config))  # their batches are equally large
        square = square + config.moving_average_sqd_adv_norm_update_rate * (whole - square)
        self.moving_avg_sqd_adv_norms_per_module[module_id] = square
        scale = square.sqrt() + 1e-8
        weight = (config.beta * (targets - values.detach()) / scale).exp().clamp(max=self.squad.max_weight)
        policy_loss = -(weight * self._log_likelihood(current, batch)).mean()
        value_loss = 0.5 * squared_error
        numbers = {
            POLICY_LOSS_KEY: policy_loss,
            VF_LOSS_KEY: value_loss,
            LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: squared_error,
            LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained_variance(targets, values.detach()),
            WEIGHT_KEY: weight.mean(),
            ADVANTAGE_SCALE_KEY: scale,
        }
        self._log(module_id, batch, current, **numbers)
        return policy_loss + config.vf_coeff * value_loss
