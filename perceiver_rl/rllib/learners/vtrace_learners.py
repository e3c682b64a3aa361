"""IMPALA and APPO for squads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.algorithms.impala.torch.impala_torch_learner import IMPALATorchLearner
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_KL_KEY, LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.apis.target_network_api import TARGET_NETWORK_ACTION_DIST_INPUTS
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.rllib.learners.across import mean_over_learners, standardized, work_together
from perceiver_rl.rllib.learners.choices import Choices, clipped_surrogate
from perceiver_rl.rllib.learners.chunks import chunk_minibatches
from perceiver_rl.rllib.learners.snapshots import SnapshotLearner
from perceiver_rl.rllib.learners.squad_learner import SquadLearnerConfig
from perceiver_rl.rllib.learners.vtrace import VTrace, vtrace
from perceiver_rl.rllib.module import PerceiverRLModule

LAG_KEY = "lag_kl"
"""Metric: how far the policy has moved since it made the batch, as KL(behaviour ‖ current) of an actor's choice in nats,
estimated from the choices made (Schulman 2020, "Approximating KL divergence": the estimator that is never negative)."""
MAX_CORRECTION = 2.0
"""Where APPO cuts off the probability of a choice when it was made over that under the target network, as RLlib does."""


@dataclass(frozen=True, kw_only=True)
class VTraceLearnerConfig(SquadLearnerConfig):
    """Settings of `SquadIMPALALearner` and `SquadAPPOLearner`.

    Args:
        standardize_advantages: Whether advantages get mean 0 and deviation 1 in each batch, as RLlib's PPO does and its
            IMPALA does not.
        lambda_: The λ of V-trace, from 0 to 1; RLlib's is 1.
    """

    standardize_advantages: bool = True
    lambda_: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lambda_ <= 1:
            raise ValueError(f"learners.learner_config_dict, lambda_: got {self.lambda_:g}, expected 0 to 1")


class _VTraceLearner(SnapshotLearner):
    """Value targets by V-trace, and what the two losses have in common.

    **Which ratio where.** Each actor's own: it corrects for what *it* would do otherwise by now, as if the others belonged
    to the environment, which is how independent PPO learns, too. So V-trace runs for each actor, over its own ratios: its
    advantages are its own, and the squad's value learns the mean of its present actors' targets. The ratio of the joint
    action would be exact, but it is a product that V-trace cuts off at 1: the traces get shorter, the more so the larger the
    squad (docs/decisions.md has what that cost). The price is a
    bias where others have changed since. `ratio="joint"` weighs by the joint action everywhere, which is RLlib's loss.
    """

    config_class = VTraceLearnerConfig

    @classmethod
    def settings(cls, config: AlgorithmConfig) -> VTraceLearnerConfig:
        """As of `SquadLearner`; the config needs V-trace, and a sample for each learner."""
        if not config.vtrace:
            raise ValueError("training.vtrace: got False, expected True; SquadPPOLearner trains without")
        sample = config.num_envs_per_env_runner * config.get_rollout_fragment_length()
        if config.num_learners > 1 and sample > config.train_batch_size_per_learner:
            raise ValueError(
                f"training.train_batch_size_per_learner: got {config.train_batch_size_per_learner} for each of "
                f"{config.num_learners} learners, expected at least the {sample} steps of one sample "
                "(num_envs_per_env_runner x rollout_fragment_length): samples are dealt out whole, and a learner without "
                "one keeps the others waiting"
            )
        settings: VTraceLearnerConfig = super().settings(config)
        return settings

    def build(self) -> None:
        """As RLlib does."""
        self._chunk_order = torch.Generator()  # first: the learner's thread begins in `build`
        if self.config.seed is not None:
            self._chunk_order.manual_seed(self.config.seed)
        super().build()

    def _create_iterator_if_necessary(
        self, *, training_data: TrainingData, num_epochs: int = 1, minibatch_size: int | None = None, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        """As RLlib does, but minibatches are of whole chunks."""
        size = self.config.train_batch_size_per_learner
        for batch in super()._create_iterator_if_necessary(training_data=training_data):
            yield from chunk_minibatches(
                batch,
                num_epochs=num_epochs,
                num_minibatches=max(1, round(size / (minibatch_size or size))),
                generator=self._chunk_order,
            )

    def _choices(self, module: PerceiverRLModule, batch: dict[str, Any], inputs: Tensor) -> Choices:
        """The batch's choices, as the policy of these distribution inputs sees them; none in artificial steps."""
        distribution = module.get_train_action_dist_cls()
        behaviour: ActorCategorical = distribution.from_logits(batch[Columns.ACTION_DIST_INPUTS]).per_actor
        choices = Choices.of(distribution.from_logits(inputs).per_actor, behaviour, batch[Columns.ACTIONS])
        return choices.only(batch[Columns.LOSS_MASK].bool())

    def _vtrace(self, config: AlgorithmConfig, batch: dict[str, Any], values: Tensor, choices: Choices) -> VTrace:
        """By actor, or by joint action; advantages are standardised if so wanted."""
        counted = batch[Columns.LOSS_MASK].bool()
        per_actor = self.squad.ratio == "per_actor"
        result = vtrace(
            ratio=(choices.log_ratio if per_actor else choices.joint_log_ratio.unsqueeze(1)).exp(),
            rewards=batch[Columns.REWARDS].float(),
            values=values,
            terminated=batch[Columns.TERMINATEDS].bool(),
            ends=~counted,
            discount=config.gamma,
            max_ratio=config.vtrace_clip_rho_threshold,
            lambda_=self.squad.lambda_,
        )
        if not self.squad.standardize_advantages:
            return result
        of_loss = choices.present.bool() if per_actor else counted.unsqueeze(1)
        together = work_together(self.config)
        return VTrace(result.targets, standardized(result.advantages, result.advantages[of_loss], together=together))

    def _loss(
        self,
        module_id: str,
        config: AlgorithmConfig,
        batch: dict[str, Any],
        choices: Choices,
        objective: Float[Tensor, " batch"],
        values: Float[Tensor, " batch"],
        targets: Float[Tensor, "batch ratios"],
        kl: Float[Tensor, " batch"] | None = None,
    ) -> Tensor:
        """The sum of policy loss, value loss, entropy bonus and KL penalty, over the steps that count."""
        mask = batch[Columns.LOSS_MASK].float()

        def mean(values: Float[Tensor, " batch"]) -> Tensor:
            return (values * mask).sum() / mask.sum().clamp(min=1)

        if self.squad.ratio == "per_actor":
            # Where nobody is present all ratios are 1, and so all targets are equal.
            anyone = choices.present.any(dim=1)
            of_squad = torch.where(anyone, choices.mean_over_actors(targets), targets[:, 0])
        else:
            of_squad = targets.squeeze(1)
        policy_loss = -mean(objective)
        value_loss = 0.5 * mean((values - of_squad).square())
        entropy = mean(choices.mean_over_actors(choices.current.entropy_per_actor()))
        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = policy_loss + config.vf_loss_coeff * value_loss - entropy_coeff * entropy
        counted = mask.bool()
        log_ratio = choices.log_ratio.detach()
        numbers = {
            POLICY_LOSS_KEY: policy_loss.detach(),
            VF_LOSS_KEY: value_loss.detach(),
            LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained_variance(of_squad[counted], values[counted].detach()),
            ENTROPY_KEY: entropy.detach(),
            LAG_KEY: mean(choices.mean_over_actors(log_ratio.exp() - 1 - log_ratio)),
        }
        self.metrics.log_dict(numbers, key=module_id, reduce="mean")
        if kl is not None:
            mean_kl = mean(kl)
            loss = loss + self.curr_kl_coeffs_per_module[module_id] * mean_kl
            mean_kl = mean_over_learners(mean_kl, together=work_together(self.config))
            self.metrics.log_value((module_id, LEARNER_RESULTS_KL_KEY), mean_kl, window=1)
        return loss


class SquadIMPALALearner(_VTraceLearner, IMPALATorchLearner):
    """RLlib's asynchronous IMPALA with the importance ratio of each actor.

    Source: Espeholt et al. 2018 (IMPALA). Differs in the ratios (see `_VTraceLearner`) and in V-trace, which here runs over
    whole chunks of episodes (see `vtrace`).
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Policy gradient with truncated importance weights, value loss, entropy bonus."""
        module = self.module[module_id].unwrapped()
        values = module.compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])
        choices = self._choices(module, batch, fwd_out[Columns.ACTION_DIST_INPUTS])
        traced = self._vtrace(config, batch, values, choices)
        limit = config.vtrace_clip_pg_rho_threshold
        if self.squad.ratio == "per_actor":
            weight = choices.log_ratio.detach().exp().clamp(max=limit)
            objective = choices.mean_over_actors(traced.advantages * weight * choices.log_prob)
        else:
            weight = choices.joint_log_ratio.detach().exp().clamp(max=limit)
            objective = traced.advantages.squeeze(1) * weight * choices.log_prob.sum(dim=1)
        return self._loss(module_id, config, batch, choices, objective, values, traced.targets)


class SquadAPPOLearner(_VTraceLearner, APPOTorchLearner):
    """RLlib's asynchronous PPO with the clipped ratio of each actor.

    The ratio that is clipped is that to the target network, which follows the policy at intervals; how far the policy that
    acted was from the target network is corrected by V-trace.

    Source: Espeholt et al. 2018 (V-trace), Luo et al. 2020 (IMPACT: the target network). Differs in the ratios (see
    `_VTraceLearner`) and in V-trace, which here runs over whole chunks of episodes (see `vtrace`).
    """

    remembered = ("curr_kl_coeffs_per_module", "_last_update_ts_by_mid")

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Clipped policy loss, value loss, entropy bonus, and a KL penalty if the config has one."""
        module = self.module[module_id].unwrapped()
        values = module.compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])
        choices = self._choices(module, batch, fwd_out[Columns.ACTION_DIST_INPUTS])
        old = self._choices(module, batch, module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS])
        traced = self._vtrace(config, batch, values, old)
        limit = config.vtrace_clip_pg_rho_threshold
        if self.squad.ratio == "per_actor":
            weighted = traced.advantages * old.log_ratio.exp().clamp(max=limit)
            ratio = (-old.log_ratio).exp().clamp(max=MAX_CORRECTION) * choices.log_ratio.exp()
            objective = choices.mean_over_actors(clipped_surrogate(ratio, weighted, config.clip_param))
        else:
            weighted = traced.advantages.squeeze(1) * old.joint_log_ratio.exp().clamp(max=limit)
            ratio = (-old.joint_log_ratio).exp().clamp(max=MAX_CORRECTION) * choices.joint_log_ratio.exp()
            objective = clipped_surrogate(ratio, weighted, config.clip_param)
        kl = None
        if config.use_kl_loss:
            kl = choices.mean_over_actors(old.current.kl_per_actor(choices.current))
        return self._loss(module_id, config, batch, choices, objective, values, traced.targets, kl)
