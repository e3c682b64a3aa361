"""The policy as an RLlib `RLModule` (new API stack)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI
from ray.rllib.core.rl_module.apis.target_network_api import TARGET_NETWORK_ACTION_DIST_INPUTS, TargetNetworkAPI
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from perceiver_rl.configuration import from_mapping, to_mapping
from perceiver_rl.entities import ACTION_MASK, EntitySchema, schema_of
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig, PolicyOutput
from perceiver_rl.rllib.distribution import squad_distribution_class, to_dist_inputs

MODEL_CONFIG_KEY = "perceiver_rl"
"""Our settings' key in RLlib's `model_config`, which RLlib fills with keys of its own."""

VALUE_CHUNK = 2048
"""Samples a forward pass where values of a whole train batch are wanted: bounds the memory that the pass takes."""


class PerceiverRLModule(TorchRLModule, ValueFunctionAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """One agent that commands a squad: an `EntityPolicy` for any environment whose observation space carries a schema.

    `model_config["perceiver_rl"]` holds the fields of `EntityPolicyConfig`, nested; an unknown key is an error. The schema
    comes with the observation space, see `EntitySchema.observation_space`.

    For outputs of your own, subclass it and name the class in `module_spec`: override `build_policy` to ask more of the
    encoder, `setup` to add heads, and `train_outputs` to hand their outputs to a learner's loss (docs/extending.md).
    """

    def setup(self) -> None:
        """Build the policy from `observation_space` and `model_config`."""
        schema = schema_of(self.observation_space)
        self.policy = self.build_policy(schema)
        self.action_dist_cls = squad_distribution_class(schema.num_options)

    def build_policy(self, schema: EntitySchema) -> EntityPolicy:
        """The policy for a schema; evaluation asks for another one where its environment has other numbers of slots."""
        return EntityPolicy(schema, self.policy_config())

    def policy_config(self) -> EntityPolicyConfig:
        """What the policy is built from beside the schema.

        Raises:
            ValueError: If `model_config` has an unknown key or a value of the wrong type.
        """
        settings = (self.model_config or {}).get(MODEL_CONFIG_KEY, {})
        return from_mapping(EntityPolicyConfig, settings, f"model_config[{MODEL_CONFIG_KEY!r}]")

    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        self._check(batch[Columns.OBS])
        return self._act(batch[Columns.OBS], greedy=True)

    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        self._check(batch[Columns.OBS])
        return self._act(batch[Columns.OBS], greedy=False)

    def _check(self, observation: Mapping[str, Tensor]) -> None:
        """Raise if an observation breaks the contract.

        Every way of sampling passes here. Later, in training, a NaN would only be a loss that is NaN.
        """
        arrays = {key: tensor.cpu().numpy() for key, tensor in observation.items()}
        self.policy.schema.check(arrays, (len(arrays[ACTION_MASK]),))

    @torch.no_grad()
    def _act(self, observation: Mapping[str, Tensor], greedy: bool) -> dict[str, Tensor]:
        """Actions, their log-probability, and the inputs of their distribution."""
        actions, output = self.policy.act(observation, greedy=greedy)
        return {
            Columns.ACTIONS: actions,
            Columns.ACTION_LOGP: output.distribution.log_prob(actions),
            Columns.ACTION_DIST_INPUTS: to_dist_inputs(output),
        }

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        actions = None if self.policy.sequence is None else batch[Columns.ACTIONS]
        return self.train_outputs(self.policy(batch[Columns.OBS], actions))

    def train_outputs(self, output: PolicyOutput) -> dict[str, Tensor]:
        """What the loss is given as `fwd_out`, made from one forward pass; the two keys here have to be in it."""
        assert output.value is not None  # the loss needs it, so `_forward_train` asks for it
        return {Columns.ACTION_DIST_INPUTS: to_dist_inputs(output), Columns.EMBEDDINGS: output.value}

    def make_target_networks(self) -> None:
        """A second policy, which follows the first at intervals; only learners that need one ask for it, such as APPO's."""
        self.target_policy = make_target_network(self.policy)

    def get_target_network_pairs(self) -> list[tuple[EntityPolicy, EntityPolicy]]:
        """The policy and its target."""
        return [(self.policy, self.target_policy)]

    @torch.no_grad()
    def forward_target(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The distribution inputs of the target policy for a train batch."""
        actions = None if self.target_policy.sequence is None else batch[Columns.ACTIONS]
        output = self.target_policy(batch[Columns.OBS], actions, with_value=False)
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: to_dist_inputs(output)}

    def get_non_inference_attributes(self) -> list[str]:
        """What env runners have no use for, so that it is not sent to them."""
        return ["target_policy"]

    def compute_values(self, batch: Mapping[str, Any], embeddings: Tensor | None = None) -> Float[Tensor, " batch"]:
        """Values of a batch: with gradients if `embeddings` are given, **without** if not.

        Without them the observations are read anew, in chunks and under `no_grad`. RLlib's PPO asks so once an update, for
        the value targets of the whole train batch (`GeneralAdvantageEstimation`), and turns the answer into numpy; a graph
        would only take memory. It asks for the values in its loss with `embeddings=fwd_out["embeddings"]`, as do
        `SquadPPOLearner` and the losses of APPO, IMPALA and MARWIL, and those carry gradients.

        A loss or a module of your own must keep to that: where a loss calls `compute_values(batch)`, or passes
        `fwd_out.get("embeddings")` after a `_forward_train` that returns none, the value loss is a number like any other
        but trains nothing. No error tells, since the policy loss still has its gradient.

        Args:
            batch: RLlib's batch; `batch["obs"]` holds the observation.
            embeddings: What `forward_train` returned for the same batch as `"embeddings"`: the values themselves, which the
                policy decodes in the same pass as the actors' choices.

        Returns:
            One value a sample; cut off from the parameters if `embeddings` is None.
        """
        if embeddings is not None:
            return embeddings
        observation = batch[Columns.OBS]
        size = len(next(iter(observation.values())))
        with torch.no_grad():
            chunks = [
                self.policy.value({key: array[start : start + VALUE_CHUNK] for key, array in observation.items()})
                for start in range(0, size, VALUE_CHUNK)
            ]
        return torch.cat(chunks)


def module_spec(
    model: EntityPolicyConfig | Mapping[str, Any] | None = None,
    module_class: type[PerceiverRLModule] = PerceiverRLModule,
) -> RLModuleSpec:
    """The spec that puts the model into an RLlib config: `config.rl_module(rl_module_spec=module_spec({...}))`.

    Args:
        model: An `EntityPolicyConfig`, or a nested mapping of its fields, e.g.
            `{"encoder": "perceiver", "perceiver": {"num_latents": 16}}`; None for the defaults.
        module_class: The model's class. One of your own has to be importable by name, as everything in a checkpoint.

    Raises:
        ValueError: If a key is unknown or a value has the wrong type; the message lists what is known.
    """
    if not isinstance(model, EntityPolicyConfig):
        model = from_mapping(EntityPolicyConfig, model or {}, "model")
    return RLModuleSpec(module_class=module_class, model_config={MODEL_CONFIG_KEY: to_mapping(model)})
