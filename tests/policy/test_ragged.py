"""A batch of squads of 1 to 81 units computes on the units that are there, and learns from each as if it were alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.presets import preset
from benchmarks.ragged import UNITS, observations
from envs.magent_schema import schema_of_army
from perceiver_rl.nn import Packed
from perceiver_rl.policy.entity_policy import EntityPolicy

SCHEMA = schema_of_army(UNITS)
SIZES = 1 + np.arange(UNITS)


def _loss(policy: EntityPolicy, observation: dict[str, Tensor]) -> Tensor:
    output = policy(observation)
    assert output.value is not None
    return output.distribution.entropy().sum() + output.value.sum()


def test_squads_of_1_to_81__cost_their_units_and_learn_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    policy = EntityPolicy(SCHEMA, preset("tiny"))
    observation = observations(SCHEMA, {"ally": SIZES, "enemy": SIZES[::-1].copy()}, np.random.default_rng(0))
    rows: dict[str, int] = {}

    def counted(name: str, position: int) -> Any:
        whole = getattr(policy.encoder, name)

        def call(*args: Packed) -> Any:
            rows[name] = len(args[position].values)
            return whole(*args)

        return call

    monkeypatch.setattr(policy.encoder, "read_packed", counted("read_packed", 0))
    monkeypatch.setattr(policy.encoder, "decode_packed", counted("decode_packed", 1))
    _loss(policy, observation).backward()
    units = 2 * int(SIZES.sum())
    assert rows["read_packed"] == units + UNITS  # one token of global features a squad
    assert rows["decode_packed"] == units + UNITS  # one value a squad
    batched = {name: parameter.grad.clone() for name, parameter in policy.named_parameters() if parameter.grad is not None}

    monkeypatch.undo()
    policy.zero_grad()
    for squad in range(UNITS):  # one by one, padded
        part = {key: array[squad : squad + 1] for key, array in observation.items()}
        policy.packing = False
        _loss(policy, part).backward()
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(batched[name] / scale, parameter.grad / scale, rtol=0.0, atol=1e-3)
