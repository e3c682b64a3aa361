from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perceiver_rl.bundle import onnx, save_bundle
from perceiver_rl.bundle.onnx import LogitsGraph, require_exportable
from tests.bundle.conftest import DECENTRALIZED, PROVENANCE, TINY, make_policy
from tests.schemas import SKIRMISH, observe, to_tensors

# In a process of its own, because the shape checks that pytest puts around every function cannot be traced.
PARITY = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import onnxruntime
import torch
from agents.presets import preset
from perceiver_rl.bundle import load_policy, save_bundle
from perceiver_rl.entities import EntityType
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY, PerceiverRLModule
from perceiver_rl.configuration import to_mapping
from ray.rllib.core.columns import Columns
from tests.bundle.conftest import PROVENANCE, make_policy
from tests.schemas import SKIRMISH, observe, to_tensors

kind, folder = sys.argv[1], Path(sys.argv[2])
config = preset("tiny-transformer" if kind == "transformer" else "small")
privileged = ("rock", "globals") if kind == "privileged" else ()
schema = replace(SKIRMISH, privileged=privileged)
policy = make_policy(schema, config)
save_bundle(folder, policy, PROVENANCE)
assert {each.name for each in folder.iterdir()} == {"policy.json", "policy.safetensors", "policy.onnx"}
assert len({each.stat().st_mode for each in folder.iterdir()}) == 1, "who may read one file may read the others"
loaded = load_policy(folder)
session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
inputs = {each.name: each.shape for each in session.get_inputs()}
hidden = {"action_mask", *(name for name in ("globals", "entities/rock", "entity_mask/rock") if privileged)}
random = np.random.default_rng(0)
worst, smallest, largest, compared, empty = 0.0, 0.0, 0.0, 0, 0
for number in range(50):
    # Random numbers of slots, from one to beyond those of the schema; the last of each batch has no entity.
    counts = {each.name: int(random.integers(1, 40)) for each in schema.entity_types}
    if number == 0:
        counts = dict.fromkeys(counts, 1)
    sized = replace(schema, entity_types=tuple(EntityType(e.name, e.features, counts[e.name]) for e in schema.entity_types))
    observation = observe(sized, 20, seed=number, empty=True)
    assert observation.keys() == inputs.keys() | hidden, inputs
    (got,) = session.run(["logits"], {name: observation[name] for name in inputs})
    module = PerceiverRLModule(
        observation_space=sized.observation_space,
        action_space=sized.action_space,
        model_config={MODEL_CONFIG_KEY: to_mapping(config)},
        inference_only=True,
    )
    module.policy.load_state_dict(policy.state_dict())
    of_sized = loaded.for_schema(sized)
    with torch.no_grad():
        of_torch = of_sized(to_tensors(observation), with_value=False)
        of_sized.packing = False
        padded = of_sized(to_tensors(observation), with_value=False)
        of_rllib = module.forward_inference({Columns.OBS: to_tensors(observation)})[Columns.ACTION_DIST_INPUTS]
    legal = observation["action_mask"]
    expected, rllib = of_torch.logits.numpy(), of_rllib.numpy().reshape(got.shape)
    worst = max(worst, np.abs(got - expected)[legal].max(), np.abs(got - rllib)[legal].max())
    # Rows without any entity have no legal option. What is computed there is the same, too, where nothing is packed.
    worst = max(worst, np.abs(got - padded.logits.numpy()).max())
    largest, smallest = max(largest, expected[legal].max()), min(smallest, expected[legal].min())
    compared += len(got)
    empty += int((~sized.entity_mask(observation).any(axis=-1)).sum())
    assert np.isfinite(got).all()
one = {name: observation[name][:1] for name in inputs}
np.testing.assert_allclose(session.run(["logits"], one)[0], got[:1], atol=1e-5)
print(f"{compared} observations, {empty} of them empty, logits {smallest:.2f} to {largest:.2f}, off by {worst:.2e} at most")
assert compared == 1000 and empty >= 50 and largest - smallest > 1
assert worst < 1e-5, worst
"""


@pytest.mark.parametrize(
    "kind", ["perceiver", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("transformer", "privileged"))]
)
def test_onnx__has_the_logits_of_torch_and_rllib_for_any_sizes(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", PARITY, kind, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1000 observations" in done.stdout


def test_logits_graph__is_the_forward_pass_of_the_policy() -> None:
    for schema in (SKIRMISH, replace(SKIRMISH, privileged=("rock", "globals"))):
        policy = make_policy(schema)
        observation = to_tensors(observe(schema, 7, seed=0))
        graph = LogitsGraph(policy)
        with torch.no_grad():
            got = graph({name: observation[name] for name in graph.example()})
            expected = policy(observation, with_value=False).logits
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (make_policy(config=replace(TINY, joint="sequential")), "its choices are sequential"),
        (make_policy(DECENTRALIZED), "its control is decentralized"),
    ],
    ids=["sequential", "decentralized"],
)
def test_onnx__says_what_cannot_be_exported(policy: torch.nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Write the bundle without ONNX \\(--no-onnx\\)"):
        save_bundle(tmp_path / "bundle", policy, PROVENANCE)
    assert not any(tmp_path.iterdir())


def test_onnx__says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnx and onnxscript not installed; pip install 'perceiver-rl\[export\]'"):
        require_exportable(make_policy())
