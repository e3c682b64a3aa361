"""A bundle of a small policy, and what it takes to forge others from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.presets import preset
from perceiver_rl.bundle import Provenance, save_bundle
from perceiver_rl.bundle.format import POLICY_FILE, WEIGHTS_FILE
from perceiver_rl.bundle.strict_json import digest
from perceiver_rl.bundle.weights import sha256_of
from perceiver_rl.entities import EntitySchema, Feature
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.schemas import SKIRMISH

PROVENANCE = Provenance(
    env="smax/2s3z",
    env_config={"control": "centralized"},
    config="configs/smax_2s3z_ppo.py",
    seed=3,
    env_steps=500_000,
    seconds=401.5,
    commit="60431dc",
    versions={"torch": "2.13.0"},
    policy="default_policy",
    agents={},
)

TINY = preset("tiny")
DECENTRALIZED = replace(SKIRMISH, control="decentralized", relative=(Feature("health", -45.0, 45.0),))


def make_policy(schema: EntitySchema = SKIRMISH, config: EntityPolicyConfig = TINY, seed: int = 0) -> EntityPolicy:
    """A policy that prefers something: fresh ones are near uniform, and hardly tell observations apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = EntityPolicy(schema, config)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if name.startswith(("heads.verb_head", "heads.pointer_queries")):
                    parameter.mul_(10)
    return policy.eval()


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "skirmish"
    save_bundle(path, make_policy(), PROVENANCE, evaluation=[{"win_rate": 0.5}], onnx=False)
    return path


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def change_json(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change `policy.json` in place."""
    file = bundle / POLICY_FILE
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def forge(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change `policy.json`, and make every digest agree with it, as somebody with bad intentions would."""
    change_json(bundle, change)
    record = json.loads((bundle / POLICY_FILE).read_text())
    metadata = {part: digest(record[part]) for part in ("schema", "config")}
    write_tensors(bundle, load_file(bundle / WEIGHTS_FILE), metadata)


def change_tensors(bundle: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors, and make the digest agree with them."""
    with safe_open(bundle / WEIGHTS_FILE, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(bundle / WEIGHTS_FILE)
    change(tensors)
    write_tensors(bundle, tensors, metadata)


def write_tensors(bundle: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    save_file(tensors, bundle / WEIGHTS_FILE, metadata=dict(metadata))
    sign(bundle)


def sign(bundle: Path) -> None:
    """Let `policy.json` name whatever file is there now."""
    change_json(bundle, lambda record: record.update(weights_sha256=sha256_of(bundle / WEIGHTS_FILE)))
