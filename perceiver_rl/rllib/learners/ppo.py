"""PPO for squads: the probability ratio is clipped for each actor, not for the product of all."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from perceiver_rl.rllib.learners.across import mean_over_learners, work_together
from perceiver_rl.rllib.learners.choices import Choices, clipped_surrogate
from perceiver_rl.rllib.learners.keep_loss_steps import KeepLossSteps
from perceiver_rl.rllib.learners.raw_advantages import RawAdvantages
from perceiver_rl.rllib.learners.squad_learner import SquadLearner, SquadLearnerConfig

CLIP_FRACTION_KEY = "clip_fraction"


class SquadPPOLearner(SquadLearner, PPOTorchLearner):
    """RLlib's PPO learner with the clipped ratio of each actor.

    The joint ratio of a squad is a product of one ratio for each actor, so its variance grows with the squad and one unit
    that changed its mind clips the gradient of all others. Here each actor has its own clipped ratio under the shared
    advantage, and a sample's loss is the mean over its present actors: independent PPO with one value, as in IPPO and
    MAPPO. `learner_config_dict={"ratio": "joint"}` gives RLlib's usual ratio of the joint action, for comparison.

    Entropy and KL are per actor in both cases (means over present actors, in nats), so that coefficients and logged figures
    keep their meaning when the size of the squad changes.

    Source: Schulman et al. 2017 (PPO), de Witt et al. 2020 (IPPO), Yu et al. 2022 (MAPPO).
    """

    remembered = ("curr_kl_coeffs_per_module",)

    @classmethod
    def settings(cls, config: AlgorithmConfig) -> SquadLearnerConfig:
        """As of `SquadLearner`; the config needs a critic."""
        if not config.use_critic:
            raise ValueError("training.use_critic: got False, expected True; the squad's value is part of its policy")
        settings: SquadLearnerConfig = super().settings(config)
        return settings

    def build(self) -> None:
        """Build as RLlib does, and let the train batch be compacted and shuffled last."""
        super().build()
        if self._learner_connector is not None:
            together = work_together(self.config)
            if together:
                self._learner_connector.remove(GeneralAdvantageEstimation)
                self._learner_connector.append(RawAdvantages(gamma=self.config.gamma, lambda_=self.config.lambda_))
            self._learner_connector.append(KeepLossSteps(seed=self.config.seed, together=together))

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """The PPO loss of one module's minibatch: clipped policy loss, value loss, entropy bonus, KL penalty."""
        module = self.module[module_id].unwrapped()
        current = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS]).per_actor
        previous = module.get_exploration_action_dist_cls().from_logits(batch[Columns.ACTION_DIST_INPUTS]).per_actor
        actions, advantages = batch[Columns.ACTIONS], batch[Postprocessing.ADVANTAGES]
        choices = Choices.of(current, previous, actions)
        if self.squad.ratio == "per_actor":
            ratio = choices.log_ratio.exp()
            surrogate = choices.mean_over_actors(clipped_surrogate(ratio, advantages.unsqueeze(1), config.clip_param))
        else:
            ratio = choices.joint_log_ratio.exp()
            surrogate = clipped_surrogate(ratio, advantages, config.clip_param)
        entropy = choices.mean_over_actors(current.entropy_per_actor()).mean()

        values = module.compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])
        squared_error = (values - batch[Postprocessing.VALUE_TARGETS]).square()
        value_loss = squared_error.clamp(max=config.vf_clip_param).mean()

        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = -surrogate.mean() + config.vf_loss_coeff * value_loss - entropy_coeff * entropy
        kl = choices.mean_over_actors(previous.kl_per_actor(current)).mean()
        if config.use_kl_loss:
            loss = loss + self.curr_kl_coeffs_per_module[module_id] * kl

        with torch.no_grad():
            clipped = ((ratio - 1).abs() > config.clip_param).float()
            clip_fraction = choices.mean_over_actors(clipped).mean() if ratio.ndim == 2 else clipped.mean()
        # Means over all minibatches of the update (RLlib's own learner logs the last minibatch only).
        self.metrics.log_dict(
            {
                POLICY_LOSS_KEY: -surrogate.mean().detach(),
                VF_LOSS_KEY: value_loss.detach(),
                LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: squared_error.mean().detach(),
                LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained_variance(
                    batch[Postprocessing.VALUE_TARGETS], values.detach()
                ),
                ENTROPY_KEY: entropy.detach(),
                CLIP_FRACTION_KEY: clip_fraction,
            },
            key=module_id,
            reduce="mean",
        )
        # … but the last minibatch's KL is how far the update went: what `kl_target` is about. Each learner changes its own
        # coefficient by it, so that it has to be the same for all.
        kl = mean_over_learners(kl, together=work_together(self.config))
        self.metrics.log_value((module_id, LEARNER_RESULTS_KL_KEY), kl, window=1)
        return loss
