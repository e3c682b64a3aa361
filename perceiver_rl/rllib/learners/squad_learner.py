"""What the learners of all algorithms share."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import ALL_MODULES

from perceiver_rl.configuration import from_mapping
from perceiver_rl.rllib.determinism import leave_memory_unfilled

UPDATE_KEY = "update_s"
BATCH_KEY = "batch_s"
GRADIENT_KEY = "gradient_s"
REMEMBERED = "remembered"


@dataclass(frozen=True, kw_only=True)
class SquadLearnerConfig:
    """Settings of a `SquadLearner`, given as `config.learners(learner_config_dict={…})`.

    Args:
        ratio: What the policy's loss weighs and clips: the probability ratio of each actor, or that of the joint action as
            RLlib does.
    """

    ratio: Literal["per_actor", "joint"] = "per_actor"


class SquadLearner(TorchLearner):
    """Settings, optimiser and clocks; a learner of an algorithm stands after it among the base classes."""

    config_class: ClassVar[type[SquadLearnerConfig]] = SquadLearnerConfig
    remembered: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold a number for each module, which RLlib leaves out of a learner's state."""

    @classmethod
    def settings(cls, config: AlgorithmConfig) -> Any:
        """This learner's settings in a config, an instance of `config_class`.

        Raises:
            ValueError: If a key or value in `learner_config_dict` is not valid, or another setting of the config does not go
                with this learner.
        """
        return from_mapping(cls.config_class, config.learner_config_dict, "learners.learner_config_dict")

    def build(self) -> None:
        """As RLlib does, with settings that are checked."""
        leave_memory_unfilled()
        self.squad = self.settings(self.config)  # first: RLlib's asynchronous learners begin their thread in `build`
        self._gradient_s = 0.0
        super().build()

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig = None) -> None:
        """Adam as RLlib has it, but one call for all parameters instead of several for each."""
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """As RLlib does, in memory of its own.

        Ray hands the same memory to all learners of a machine, and torch's optimiser keeps what it is given and changes it
        in place: each learner would move moments that another one has moved already.
        """
        super()._set_optimizer_state(copy.deepcopy(state))

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As RLlib does, and what is `remembered`."""
        numbers = {name: {module: float(each) for module, each in getattr(self, name).items()} for name in self.remembered}
        return {**super().get_state(*args, **kwargs), REMEMBERED: numbers}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        super().set_state(state)
        for name, numbers in state.get(REMEMBERED, {}).items():
            for module, number in numbers.items():
                getattr(self, name)[module] = self._get_tensor_variable(number)

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
