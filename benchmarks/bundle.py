"""How long one decision takes: 64 units among 512 entities, by `load_policy(…).act` and by onnxruntime.

    python -m benchmarks.bundle

Preset `small` with fresh weights (speed does not depend on them), one thread, one observation at a time. Both get a whole
observation as numpy arrays and give back one option for each unit; `act` checks the observation first.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from agents.presets import preset
from perceiver_rl.bundle import Provenance, load_policy, save_bundle
from perceiver_rl.bundle.format import ONNX_FILE
from perceiver_rl.entities import ACTION_MASK, EntitySchema, EntityType, Observation, TargetedVerb
from perceiver_rl.policy.entity_policy import EntityPolicy

UNITS, ENTITIES = 64, 512
REPEATS, WARM_UP = 200, 20

SCHEMA = EntitySchema(
    entity_types=(
        EntityType("unit", ("health", "x", "y", "cooldown"), UNITS),
        EntityType("other", ("health", "x", "y", "owner"), ENTITIES - UNITS),
    ),
    actors=("unit",),
    verbs=("stop", "north", "south", "east", "west"),
    targeted_verbs=(TargetedVerb("attack", "other"),),
)

UNTRAINED = Provenance(
    env="none",
    env_config={},
    config="none",
    seed=0,
    env_steps=0,
    seconds=0.0,
    commit=None,
    versions={},
    policy="p",
    agents={},
)


def make_observation(seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    return SCHEMA.pack(
        entities={each.name: random.normal(size=(each.max_count, each.num_features)) for each in SCHEMA.entity_types},
        action_mask=np.ones((UNITS, SCHEMA.num_options), bool),
    )


def median_ms(call: Callable[[], object]) -> tuple[float, float]:
    """Median of `REPEATS` calls in milliseconds, and the fastest."""
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds), 1e3 * min(seconds)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    observation = make_observation()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        save_bundle(path, EntityPolicy(SCHEMA, preset("small")), UNTRAINED)
        policy = load_policy(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path / ONNX_FILE, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def by_onnx() -> np.ndarray:
        (logits,) = session.run(["logits"], {name: observation[name][None] for name in names})
        return np.where(observation[ACTION_MASK], logits[0], -np.inf).argmax(axis=-1)

    np.testing.assert_array_equal(policy.act(observation), by_onnx())
    print(f"{UNITS} units among {ENTITIES} entities, preset small, 1 thread, load {os.getloadavg()[0]:.1f}")
    for name, call in (("load_policy().act", lambda: policy.act(observation)), ("onnxruntime", by_onnx)):
        median, fastest = median_ms(call)
        print(f"{name:18} median of {REPEATS}: {median:6.2f} ms, fastest {fastest:6.2f} ms")


if __name__ == "__main__":
    main()
