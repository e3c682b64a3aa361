"""The policy as a `ModelV2` with its action distribution: for configs on RLlib's old API stack.

    observation ─ preprocessor ─► flat float32 ─ ModelV2.__call__ ─► arrays by key ─ EntityPolicy ─► flat tensor, value
                  (RLlib's)                      (RLlib's)                           (ours)          └► distribution

Both classes are adapters: the network, the masks and the probabilities are those of the new stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import torch
from jaxtyping import Float, Int
from ray.rllib.models.modelv2 import restore_original_dimensions
from ray.rllib.models.preprocessors import ATARI_RAM_OBS_SHAPE
from ray.rllib.models.torch.torch_action_dist import TorchDistributionWrapper
from ray.rllib.models.torch.torch_modelv2 import TorchModelV2
from torch import Tensor, nn

from perceiver_rl.configuration import from_mapping
from perceiver_rl.entities import ACTION_MASK, EntitySchema, schema_of
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from perceiver_rl.rllib.distribution import SquadDistribution, squad_distribution_class, to_dist_inputs

MODEL_NAME = "perceiver"
"""What `custom_model` and `custom_action_dist` are called in a config, after `perceiver_rl.rllib.register()`."""


class SquadActionDistribution(TorchDistributionWrapper):
    """The distribution of the squad's action in the old stack's form; what it means is `ActorCategorical`'s.

    PPO's loss of the old stack makes one probability ratio of `logp`, that of the joint action: a product over the actors
    present, whose variance grows with the squad. The ratio of each actor needs `SquadPPOLearner`, on the new stack.

    Args:
        inputs: What the model's forward pass returned, float32 `[batch, actors · options]`.
        model: That model; its action space tells the number of options.
    """

    def __init__(self, inputs: Any, model: TorchModelV2) -> None:
        super().__init__(inputs, model)
        self.dist = squad_distribution_class(int(model.action_space.nvec[0])).from_logits(self.inputs).per_actor

    def logp(self, actions: Any) -> Float[Tensor, " batch"]:
        """Log-probability of the joint action; absent actors' choices do not count."""
        return self.dist.log_prob(torch.as_tensor(actions, device=self.inputs.device).long())

    def kl(self, other: SquadActionDistribution) -> Float[Tensor, " batch"]:
        """KL(self ‖ other) of the joint action, in nats."""
        return self.dist.kl(other.dist)

    def deterministic_sample(self) -> Int[Tensor, "batch actors"]:
        """The most probable option of each actor, option 0 for absent ones."""
        self.last_sample = self.dist.mode()
        return self.last_sample

    @staticmethod
    def required_model_output_shape(action_space: gymnasium.Space[Any], model_config: Mapping[str, Any]) -> int:
        """Length of the flat tensor, from an action space `MultiDiscrete([options] * actors)`."""
        return SquadDistribution.required_input_dim(action_space)


class PerceiverModelV2(TorchModelV2, nn.Module):
    """An `EntityPolicy` as RLlib's `custom_model`, for any environment whose observation space carries a schema.

    `custom_model_config` holds the fields of `EntityPolicyConfig`, nested, as `module_spec` takes them; an unknown key is an
    error. RLlib flattens observations of the old stack to one float32 vector on the way and the model gets them back by key;
    with `config.experimental(_disable_preprocessor_api=True)` they travel as they are. Both give the same outputs.

    Args:
        obs_space: The environment's observation space, or RLlib's flat one that keeps it as `original_space`.
        action_space: The schema's action space.
        num_outputs: Length of the flat tensor that the distribution is made from.
        model_config: RLlib's `config.model`.
        name: RLlib's name for the model.
        settings: `custom_model_config`.

    Raises:
        ValueError: If the space carries no schema, a setting is unknown, the action distribution is another one, RLlib would
            wrap the model, or its preprocessor would change what is observed.
    """

    def __init__(
        self,
        obs_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        num_outputs: int | None,
        model_config: Mapping[str, Any],
        name: str,
        **settings: Any,
    ) -> None:
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        nn.Module.__init__(self)
        original = getattr(obs_space, "original_space", None)
        schema = schema_of(obs_space if original is None else original)
        if original is not None:
            _require_preserved(schema)
        _require_plain(model_config)
        config = from_mapping(EntityPolicyConfig, settings, "custom_model_config")
        if config.joint != "independent":
            raise ValueError(
                f"custom_model_config.joint: got {config.joint!r}, expected 'independent'; the old stack draws all actions "
                "from one distribution, after the model has run. Use the new stack"
            )
        self.policy = EntityPolicy(schema, config)
        self._value: Tensor | None = None

    def forward(
        self, input_dict: Mapping[str, Any], state: list[Tensor], seq_lens: Tensor | None
    ) -> tuple[Float[Tensor, "batch inputs"], list[Tensor]]:
        """Decode every actor's options, and keep the value for `value_function`.

        Outside of training, that is where environments are sampled, every observation is checked against the contract.
        """
        observation = self._observation(input_dict["obs"])
        output = self.policy(observation)
        self._value = output.value
        return to_dist_inputs(output), state

    def value_function(self) -> Float[Tensor, " batch"]:
        """The values of the observations of the last forward pass."""
        if self._value is None:
            raise ValueError("value_function: got no forward pass before it, expected one; call the model first")
        return self._value

    def _observation(self, obs: Any) -> dict[str, Tensor]:
        """The arrays that the schema tells, in its types: RLlib's preprocessor makes floats of masks."""
        schema = self.policy.schema
        restored = restore_original_dimensions(obs, self.obs_space, "torch")
        observation: dict[str, Tensor] = {}
        for key, space in schema.observation_space.items():
            values = restored[key]
            is_mask = space.dtype == bool
            observation[key] = values != 0 if is_mask else values.float()
            if is_mask and not self.training and not bool((values == observation[key]).all()):
                raise ValueError(
                    f"observation[{key!r}]: got values other than 0 and 1, expected a mask; something on the way from the "
                    "environment changes observations, such as observation_filter: set it to 'NoFilter'"
                )
        if not self.training:
            arrays = {key: tensor.cpu().numpy() for key, tensor in observation.items()}
            schema.check(arrays, (len(arrays[ACTION_MASK]),))
        return observation


def _require_plain(model_config: Mapping[str, Any]) -> None:
    """Raise if RLlib would read the model's outputs in another way than they are meant."""
    if model_config.get("custom_action_dist") is None:
        raise ValueError(
            f"model config: got no custom_action_dist, expected {MODEL_NAME!r}; RLlib's own distribution for MultiDiscrete "
            "actions would let absent actors act and count their entropy"
        )
    for wrapper in ("use_lstm", "use_attention"):
        if model_config.get(wrapper):
            raise ValueError(
                f"model config: got {wrapper}=True, expected False; RLlib would put a layer after the model's outputs, "
                "which are masked logits"
            )


def _require_preserved(schema: EntitySchema) -> None:
    """Raise if RLlib's preprocessor would change an array on the way: it takes 128 numbers for the memory of an Atari."""
    for key, space in schema.observation_space.items():
        if space.shape == ATARI_RAM_OBS_SHAPE:
            raise ValueError(
                f"observation[{key!r}]: got shape {list(ATARI_RAM_OBS_SHAPE)}, which RLlib's preprocessor takes for the "
                "memory of an Atari game and rescales; turn it off by config.experimental(_disable_preprocessor_api=True)"
            )
