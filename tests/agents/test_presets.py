"""Every preset builds, runs and compares encoders only; an unknown name lists the known ones."""

import re

import pytest
import torch

from agents.presets import preset, preset_names
from perceiver_rl.nn import EntityTransformer, PerceiverIO
from perceiver_rl.policy.entity_policy import EntityPolicy
from tests.schemas import SKIRMISH, observe, to_tensors


@pytest.mark.parametrize("name", preset_names())
def test_preset__builds_a_policy_that_runs(name: str) -> None:
    policy = EntityPolicy(SKIRMISH, preset(name))
    assert type(policy.encoder) is (EntityTransformer if name.endswith("-transformer") else PerceiverIO)
    with torch.no_grad():
        output = policy(to_tensors(observe(SKIRMISH, 2, seed=0)))
    assert output.logits.shape == (2, 5, 19)
    assert output.logits.isfinite().all()


def test_presets__differ_in_the_encoder_alone() -> None:
    for size in ("tiny", "small", "alphastar"):
        perceiver, transformer = preset(size), preset(f"{size}-transformer")
        assert (perceiver.encoder, transformer.encoder) == ("perceiver", "transformer")
        for field in ("token_dim", "pointer_dim", "policy_init_scale", "perceiver", "transformer"):
            assert getattr(perceiver, field) == getattr(transformer, field)


def test_preset__lists_the_known_names_when_it_is_unknown() -> None:
    message = (
        "preset: unknown name 'smal' (did you mean 'small'?); known are tiny, tiny-transformer, small, "
        "small-transformer, alphastar, alphastar-transformer"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        preset("smal")
