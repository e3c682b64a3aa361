"""A bundle's policy beside one that learns, and as what training begins with."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import MultiRLModuleSpec

from agents.presets import preset
from perceiver_rl.bundle import load_policy, save_bundle
from perceiver_rl.entities import EntityType
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib import bundle_spec, module_spec
from perceiver_rl.rllib.distribution import to_dist_inputs
from tests.bundle.conftest import PROVENANCE, make_policy
from tests.deliveries_config import make_config
from tests.parallel_environments import PORTER
from tests.schemas import SKIRMISH, observe, to_tensors


def test_bundle_spec__makes_a_module_that_chooses_as_the_bundle(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", make_policy(), PROVENANCE, onnx=False)
    more_slots = replace(
        SKIRMISH,
        entity_types=tuple(EntityType(each.name, each.features, each.max_count + 2) for each in SKIRMISH.entity_types),
    )
    for schema in (SKIRMISH, more_slots):
        spec = bundle_spec(tmp_path / "bundle")
        shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")  # what is built later needs it no more
        spec.observation_space, spec.action_space = schema.observation_space, schema.action_space
        module = spec.build()
        shutil.move(tmp_path / "elsewhere", tmp_path / "bundle")
        assert module.policy_config() == preset("tiny")
        batch = to_tensors(observe(schema, 9, seed=2))
        with torch.no_grad():
            expected = load_policy(tmp_path / "bundle").for_schema(schema)(batch, with_value=False)
        got = module.forward_inference({Columns.OBS: batch})[Columns.ACTION_DIST_INPUTS]
        own = module_spec(preset("tiny"))
        own.observation_space, own.action_space = schema.observation_space, schema.action_space
        other = own.build().forward_inference({Columns.OBS: batch})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(got, to_dist_inputs(expected), rtol=0, atol=0)
        assert not torch.allclose(got, other)


def test_bundle_spec__refuses_another_environment(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", make_policy(), PROVENANCE, onnx=False)
    spec = bundle_spec(tmp_path / "bundle")
    spec.observation_space, spec.action_space = PORTER.observation_space, PORTER.action_space
    with pytest.raises(ValueError, match="the environment's schema is another one: entity types: got porter, post"):
        spec.build()


def test_bundle_spec__refuses_what_is_no_bundle_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        bundle_spec(tmp_path / "nothing")


@pytest.mark.usefixtures("ray_local")
def test_bundle__stays_as_it_is_beside_a_policy_that_learns(tmp_path: Path) -> None:
    porter = EntityPolicy(PORTER, preset("tiny"))
    save_bundle(tmp_path / "porter", porter, PROVENANCE, onnx=False)
    specs = {"courier": module_spec(preset("tiny")), "porter": bundle_spec(tmp_path / "porter")}
    config = make_config().rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    config.multi_agent(policies_to_train=["courier"])
    algorithm = config.build_algo()
    try:
        before = {name: each.clone() for name, each in algorithm.get_module("courier").state_dict().items()}
        algorithm.train()
        after = algorithm.get_module("courier").state_dict()
        assert any(not torch.equal(after[name], each) for name, each in before.items())
        kept = algorithm.get_module("porter").policy.state_dict()
        torch.testing.assert_close(dict(kept), dict(porter.state_dict()), rtol=0, atol=0)
    finally:
        algorithm.stop()
