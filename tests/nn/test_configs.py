"""Configurations refuse what cannot be built, and the large preset costs what its source says."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agents.presets import preset
from perceiver_rl.nn import (
    MLP,
    EncoderConfig,
    EntityTransformerConfig,
    PerceiverIO,
    PerceiverIOConfig,
    attention,
    build_encoder,
)
from perceiver_rl.nn.attention import GeluApproximation
from perceiver_rl.nn.perceiver_io import require_one_of, require_positive
from tests.nn.conftest import ENCODERS


@pytest.mark.parametrize(
    "field",
    [
        "num_latents",
        "latent_dim",
        "num_blocks",
        "num_self_attends_per_block",
        "num_cross_attend_heads",
        "num_self_attend_heads",
        "num_decoder_heads",
        "cross_widening_factor",
        "self_widening_factor",
        "decoder_widening_factor",
    ],
)
def test_perceiver_config__wants_sizes_of_at_least_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: got 0, expected at least 1$"):
        PerceiverIOConfig(**{field: 0})


@pytest.mark.parametrize(
    "field",
    [
        "num_layers",
        "model_dim",
        "num_heads",
        "head_dim",
        "widening_factor",
        "num_decoder_heads",
        "decoder_widening_factor",
    ],
)
def test_transformer_config__wants_sizes_of_at_least_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: got -1, expected at least 1$"):
        EntityTransformerConfig(**{field: -1})


@pytest.mark.parametrize("config", [PerceiverIOConfig, EntityTransformerConfig])
@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_configs__want_a_dropout_below_one(config: Callable[..., object], dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"^dropout: got {dropout}, expected at least 0 and less than 1$"):
        config(dropout=dropout)


@pytest.mark.parametrize("size", [8.0, True, "8"])
def test_require_positive__wants_whole_numbers(size: object) -> None:
    # Asked directly: under pytest, a configuration's own type hints are checked before it can say so.
    with pytest.raises(ValueError, match=f"^num_latents: got {size!r}, expected a whole number$"):
        require_positive(SimpleNamespace(num_latents=size), "num_latents")


@pytest.mark.parametrize("config", [PerceiverIOConfig, EntityTransformerConfig])
def test_configs__do_not_take_true_for_one(config: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"^num_decoder_heads: got True, expected a whole number$"):
        config(num_decoder_heads=True)


@pytest.mark.parametrize("scale", [0.0, -0.02, float("nan"), float("inf")])
def test_perceiver_config__wants_latents_that_differ(scale: float) -> None:
    with pytest.raises(ValueError, match=f"^latent_init_scale: got {scale}, expected a number greater than 0$"):
        PerceiverIOConfig(latent_init_scale=scale)


def test_require_one_of__lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"^gelu_approximation: got 'erf', expected one of 'none', 'tanh'$"):
        require_one_of(SimpleNamespace(gelu_approximation="erf"), "gelu_approximation", GeluApproximation)


@pytest.mark.parametrize("name", ENCODERS)
def test_build_encoder__uses_the_gelu_of_the_configuration_everywhere(name: str) -> None:
    config = replace(ENCODERS[name](0.0), gelu_approximation="tanh")
    mlps = [each for each in build_encoder(config, input_dim=3, query_dim=4).modules() if isinstance(each, MLP)]
    assert len(mlps) > 1
    assert {mlp.gelu_approximation for mlp in mlps} == {"tanh"}


@pytest.mark.parametrize("heads", ["num_cross_attend_heads", "num_self_attend_heads"])
def test_perceiver_config__wants_heads_that_share_the_width(heads: str) -> None:
    with pytest.raises(ValueError, match=f"^{heads}: got 5, expected a divisor of the width 64$"):
        PerceiverIOConfig(**{heads: 5})


@pytest.mark.parametrize("config", [PerceiverIOConfig, EntityTransformerConfig])
def test_build_encoder__wants_decoder_heads_that_share_the_queries_width(config: Callable[..., EncoderConfig]) -> None:
    with pytest.raises(ValueError, match=r"^num_decoder_heads: got 5, expected a divisor of the width 64$"):
        build_encoder(config(num_decoder_heads=5), input_dim=3, query_dim=64)


def _flops(name: str, entities: int) -> int:
    """Of reading one set and answering for every entity; a multiplication and an addition are two."""
    policy = preset(name)
    config = policy.transformer if policy.encoder == "transformer" else policy.perceiver
    with torch.device("meta"):  # which computes none of it
        encoder = build_encoder(config, input_dim=policy.token_dim, query_dim=policy.token_dim)
        tokens, mask = torch.empty(1, entities, policy.token_dim), torch.empty(1, entities, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        memory = encoder.read(tokens, mask)
        if isinstance(encoder, PerceiverIO):  # AlphaStar's transformer answers with its tokens
            encoder.decode(memory, tokens)
    return counter.get_total_flops()


def test_alphastar_preset__costs_what_the_paper_says() -> None:
    transformer = _flops("alphastar-transformer", 512)
    assert 3.2e9 <= transformer <= 3.3e9
    assert _flops("alphastar", 512) <= 0.93e9


def test_alphastar_preset__costs_more_in_the_plain_order_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cheapest = _flops("alphastar", 512)
    monkeypatch.setattr(attention, "cheapest_form", lambda shape, forms: "plain")
    assert _flops("alphastar", 512) > 1.2 * cheapest
