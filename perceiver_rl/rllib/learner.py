"""PPO for squads: the probability ratio is clipped for each actor, not for the product of all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
import tree
from jaxtyping import Float
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import ALL_MODULES
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from perceiver_rl.configuration import from_mapping
from perceiver_rl.rllib.determinism import leave_memory_unfilled

CLIP_FRACTION_KEY = "clip_fraction"
UPDATE_KEY = "update_s"
BATCH_KEY = "batch_s"
GRADIENT_KEY = "gradient_s"


@dataclass(frozen=True, kw_only=True)
class SquadLearnerConfig:
    """Settings of `SquadPPOLearner`, given as `config.learners(learner_config_dict={…})`.

    Args:
        ratio: What is clipped: the probability ratio of each actor, or that of the joint action as RLlib does.
    """

    ratio: Literal["per_actor", "joint"] = "per_actor"


class SquadPPOLearner(PPOTorchLearner):
    """RLlib's PPO learner with the clipped ratio of each actor.

    The joint ratio of a squad is a product of one ratio for each actor, so its variance grows with the squad and one unit
    that changed its mind clips the gradient of all others. Here each actor has its own clipped ratio under the shared
    advantage, and a sample's loss is the mean over its present actors: independent PPO with one value, as in IPPO and
    MAPPO. `learner_config_dict={"ratio": "joint"}` gives RLlib's usual ratio of the joint action, for comparison.

    Entropy and KL are per actor in both cases (means over present actors, in nats), so that coefficients and logged figures
    keep their meaning when the size of the squad changes.

    Source: Schulman et al. 2017 (PPO), de Witt et al. 2020 (IPPO), Yu et al. 2022 (MAPPO).
    """

    @staticmethod
    def settings(config: AlgorithmConfig) -> SquadLearnerConfig:
        """This learner's settings in a config.

        Raises:
            ValueError: If a key or value in `learner_config_dict` is not valid, or the config has no critic.
        """
        if not config.use_critic:
            raise ValueError("training.use_critic: got False, expected True; the squad's value is part of its policy")
        return from_mapping(SquadLearnerConfig, config.learner_config_dict, "learners.learner_config_dict")

    def build(self) -> None:
        """Build as RLlib does, and let the train batch be compacted and shuffled last."""
        leave_memory_unfilled()
        super().build()
        self.ratio = self.settings(self.config).ratio
        if self._learner_connector is not None:
            self._learner_connector.append(KeepLossSteps(seed=self.config.seed))

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig = None) -> None:
        """Adam as RLlib has it, but one call for all parameters instead of several for each."""
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Note when the update began."""
        super().before_gradient_based_update(timesteps=timesteps)
        self._update_began = time.perf_counter()
        self._gradient_s = 0.0

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log how long the update took, batch and value targets included."""
        super().after_gradient_based_update(timesteps=timesteps)
        seconds = {UPDATE_KEY: time.perf_counter() - self._update_began, GRADIENT_KEY: self._gradient_s}
        self.metrics.log_dict(seconds, key=ALL_MODULES, reduce="sum")

    def _make_batch_if_necessary(self, training_data: Any) -> Any:
        """As RLlib does, and log how long the learner's connectors took, value targets included."""
        began = time.perf_counter()
        batch = super()._make_batch_if_necessary(training_data)
        self.metrics.log_value((ALL_MODULES, BATCH_KEY), time.perf_counter() - began, reduce="sum")
        return batch

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        """As RLlib does, and count the time: forward pass, loss, gradient, optimiser's step."""
        began = time.perf_counter()
        result = super()._update(batch, **kwargs)
        self._gradient_s += time.perf_counter() - began
        return result

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """The PPO loss of one module's minibatch: clipped policy loss, value loss, entropy bonus, KL penalty."""
        module = self.module[module_id].unwrapped()
        current = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS]).per_actor
        previous = module.get_exploration_action_dist_cls().from_logits(batch[Columns.ACTION_DIST_INPUTS]).per_actor
        actions, advantages = batch[Columns.ACTIONS], batch[Postprocessing.ADVANTAGES]
        log_ratio = current.log_prob_per_actor(actions) - previous.log_prob_per_actor(actions)
        present = current.present.float()

        def mean_over_actors(values: Float[Tensor, "batch actors"]) -> Float[Tensor, " batch"]:
            return (values * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)

        if self.ratio == "per_actor":
            ratio = log_ratio.exp()
            surrogate = mean_over_actors(_clipped_surrogate(ratio, advantages.unsqueeze(1), config.clip_param))
        else:
            ratio = log_ratio.sum(dim=1).exp()
            surrogate = _clipped_surrogate(ratio, advantages, config.clip_param)
        entropy = mean_over_actors(current.entropy_per_actor()).mean()

        values = module.compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])
        squared_error = (values - batch[Postprocessing.VALUE_TARGETS]).square()
        value_loss = squared_error.clamp(max=config.vf_clip_param).mean()

        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = -surrogate.mean() + config.vf_loss_coeff * value_loss - entropy_coeff * entropy
        kl = mean_over_actors(previous.kl_per_actor(current)).mean()
        if config.use_kl_loss:
            loss = loss + self.curr_kl_coeffs_per_module[module_id] * kl

        with torch.no_grad():
            clipped = ((ratio - 1).abs() > config.clip_param).float()
            clip_fraction = mean_over_actors(clipped).mean() if ratio.ndim == 2 else clipped.mean()
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
        # … but the last minibatch's KL is how far the update went: what `kl_target` is about.
        self.metrics.log_value((module_id, LEARNER_RESULTS_KL_KEY), kl.detach(), window=1)
        return loss


class KeepLossSteps(ConnectorV2):
    """Last piece of the learner's pipeline: drop the steps that no loss counts, standardise and shuffle the rest.

    To bootstrap values, RLlib adds one artificial step to each episode chunk, masked in the loss. Once value targets are
    there nobody needs these steps, but every epoch would pass them through the network. And RLlib walks through the first
    epoch in the order of the episodes, so that minibatches of it are correlated: one permutation here mends that too.

    Args:
        seed: Seed of the permutation; None for a fresh one.
    """

    def __init__(
        self, input_observation_space: Any = None, input_action_space: Any = None, *, seed: int | None = None
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._generator = torch.Generator()
        if seed is not None:
            self._generator.manual_seed(seed)

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Filter and permute every column of every module's batch."""
        for columns in batch.values():
            kept = columns.pop(Columns.LOSS_MASK).nonzero().squeeze(1)
            order = kept[torch.randperm(len(kept), generator=self._generator).to(kept.device)]
            for name, column in columns.items():
                columns[name] = _take(name, column, order)
            # RLlib's mean and deviation include the artificial steps, whose advantages reach from one chunk into the next
            # and mean nothing. Standardising is affine, so doing it again on the rest is exact.
            advantages = columns[Postprocessing.ADVANTAGES]
            deviation = advantages.std(correction=0).clamp(min=1e-4)
            columns[Postprocessing.ADVANTAGES] = (advantages - advantages.mean()) / deviation
        return batch


def _take(name: str, column: Any, order: Tensor) -> Any:
    """The rows `order` of a column, which may be a nested structure of tensors."""
    others = {type(leaf).__name__ for leaf in tree.flatten(column) if not isinstance(leaf, Tensor)}
    if others:
        raise ValueError(
            f"train batch, column {name!r}: got {', '.join(sorted(others))}, expected tensors only; the batch is filtered "
            "and permuted, and what is not a tensor would stay behind"
        )
    return tree.map_structure(lambda leaf: leaf[order], column)


def _clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's pessimistic objective, elementwise."""
    return torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
