"""The policy as an RLModule: built from spaces, configured by a mapping, values in chunks."""

import re
from dataclasses import replace
from typing import Any

import gymnasium
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor

from agents.presets import preset
from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy, PolicyOutput
from perceiver_rl.rllib import module as module_file
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY, PerceiverRLModule, module_spec
from tests.schemas import SKIRMISH, observe, to_tensors

BATCH = 7


def _module(model: Any = None) -> PerceiverRLModule:
    spec = module_spec(model)
    spec.observation_space, spec.action_space = SKIRMISH.observation_space, SKIRMISH.action_space
    return spec.build()


def _batch(batch: int = BATCH) -> dict[str, dict[str, Tensor]]:
    return {Columns.OBS: to_tensors(observe(SKIRMISH, batch, seed=0))}


def test_module_spec__builds_from_the_spaces() -> None:
    module = _module()
    assert isinstance(module, PerceiverRLModule)
    assert module.policy.schema is SKIRMISH
    assert module.get_train_action_dist_cls().num_options == 19
    assert module.get_exploration_action_dist_cls().num_options == 19
    assert module.get_inference_action_dist_cls().num_options == 19


def test_module_spec__takes_a_mapping_or_a_configuration() -> None:
    by_mapping = _module({"encoder": "transformer", "token_dim": 12, "transformer": {"model_dim": 10, "num_layers": 2}})
    config = preset("tiny-transformer")
    assert len(by_mapping.policy.encoder.layers) == 2
    assert by_mapping.policy.encoder.config.model_dim == 10
    assert _module(config).policy.encoder.config == config.transformer


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"encodr": "perceiver"},
            "model: unknown key 'encodr' (did you mean 'encoder'?); known are encoder, perceiver, transformer, "
            "token_dim, pointer_dim, policy_init_scale",
        ),
        ({"perceiver": {"latents": 3}}, "model.perceiver: unknown key 'latents' (did you mean 'num_latents'?); known"),
        ({"token_dim": "64"}, "model.token_dim: got '64' (str), expected int"),
        ({"perceiver": {"num_latents": 0}}, "model.perceiver: num_latents: got 0, expected at least 1"),
    ],
)
def test_module_spec__says_which_key_is_wrong(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        module_spec(model)


def test_module__says_which_key_of_a_model_config_is_wrong() -> None:
    spec = module_spec()
    spec.observation_space, spec.action_space = SKIRMISH.observation_space, SKIRMISH.action_space
    spec.model_config = {MODEL_CONFIG_KEY: {"tokendim": 3}, "fcnet_hiddens": [256]}  # RLlib adds keys of its own
    message = "model_config['perceiver_rl']: unknown key 'tokendim' (did you mean 'token_dim'?); known are encoder, "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        spec.build()


def test_module__wants_an_observation_space_with_a_schema() -> None:
    spec = module_spec()
    spec.observation_space, spec.action_space = gymnasium.spaces.Box(0, 1, (3,)), SKIRMISH.action_space
    with pytest.raises(ValueError, match=r"^observation space: got Box, expected the EntityObservationSpace"):
        spec.build()


def test_forward_passes__give_the_same_distribution() -> None:
    module, batch = _module(), _batch()
    with torch.no_grad():
        outputs = [forward(batch) for forward in (module.forward_inference, module.forward_exploration)]
    outputs.append(module.forward_train(batch))
    for output in outputs:
        torch.testing.assert_close(output[Columns.ACTION_DIST_INPUTS], outputs[0][Columns.ACTION_DIST_INPUTS])
    assert outputs[2][Columns.ACTION_DIST_INPUTS].requires_grad
    acting = {Columns.ACTIONS, Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS}
    assert outputs[0].keys() == outputs[1].keys() == acting  # env runners pay for nothing else


@pytest.mark.parametrize("forward", ["forward_exploration", "forward_inference"])
def test_acting__says_which_feature_is_no_number(forward: str) -> None:
    batch = _batch()
    entity_type = SKIRMISH.entity_types[0]
    batch[Columns.OBS][f"entities/{entity_type.name}"][:, :, 1] = float("nan")
    with pytest.raises(
        ValueError, match=f"entity type '{entity_type.name}', feature '{entity_type.feature_names[1]}'.*got nan"
    ):
        getattr(_module(), forward)(batch)


def test_compute_values__shares_the_embeddings_of_the_forward_pass_with_gradient() -> None:
    module, batch = _module(), _batch()
    output = module.forward_train(batch)
    values = module.compute_values(batch, embeddings=output[Columns.EMBEDDINGS])
    assert values.shape == (BATCH,)
    values.sum().backward()
    assert module.policy.value_head[-1].weight.grad.any()
    assert module.policy.encoder.latents.grad.any()
    torch.testing.assert_close(module.compute_values(batch), values.detach())


def test_compute_values__reads_in_chunks_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = _module(), _batch()
    whole = module.compute_values(batch)
    sizes = []
    value = module.policy.value
    monkeypatch.setattr(module_file, "VALUE_CHUNK", 3)
    monkeypatch.setattr(module.policy, "value", lambda chunk: (sizes.append(len(chunk["globals"])), value(chunk))[1])
    chunked = module.compute_values(batch)
    assert sizes == [3, 3, 1]
    assert not chunked.requires_grad
    torch.testing.assert_close(chunked, whole)


def test_module__keeps_its_weights_in_its_state() -> None:
    config = replace(preset("tiny"), policy_init_scale=1.0)
    first, second = _module(config), _module(config)
    batch = _batch()
    before = second.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    second.set_state(first.get_state())
    after = second.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    assert not torch.equal(before, after)
    assert torch.equal(after, first.forward_inference(batch)[Columns.ACTION_DIST_INPUTS])


@pytest.mark.parametrize("joint", ["independent", "sequential"])
@pytest.mark.parametrize("explore", [True, False])
def test_choices__are_made_in_the_forward_pass_and_have_the_same_probability_in_training(joint: Any, explore: bool) -> None:
    module = _module(replace(preset("tiny"), joint=joint, policy_init_scale=1.0))
    batch = _batch()
    output = module.forward_exploration(batch) if explore else module.forward_inference(batch)
    trained = module.forward_train({**batch, Columns.ACTIONS: output[Columns.ACTIONS]})
    distribution = module.get_train_action_dist_cls().from_logits(trained[Columns.ACTION_DIST_INPUTS])
    expected = distribution.logp(output[Columns.ACTIONS])
    torch.testing.assert_close(output[Columns.ACTION_LOGP], expected, atol=1e-5, rtol=0.0)
    assert (expected[:-1] < 0).all()  # the last observation shows nobody


class _OutlookModule(PerceiverRLModule):
    def build_policy(self, schema: EntitySchema) -> EntityPolicy:
        return EntityPolicy(schema, self.policy_config(), extra_queries={"outlook": ()})

    def train_outputs(self, output: PolicyOutput) -> dict[str, Tensor]:
        return {**super().train_outputs(output), "outlook": output.extra["outlook"]}


def test_module_spec__builds_a_subclass_whose_outputs_reach_the_loss() -> None:
    spec = module_spec({"token_dim": 12}, module_class=_OutlookModule)
    spec.observation_space, spec.action_space = SKIRMISH.observation_space, SKIRMISH.action_space
    outputs = spec.build().forward_train(_batch())
    assert set(outputs) == {Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS, "outlook"}
    assert outputs["outlook"].shape[:2] == (BATCH, 1)
