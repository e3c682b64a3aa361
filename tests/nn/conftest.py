"""Both encoders behind their common interface: a property of one is a property of the other."""

from collections.abc import Callable

import pytest

from perceiver_rl.nn import (
    EncoderConfig,
    EntityTransformer,
    EntityTransformerConfig,
    PerceiverIO,
    PerceiverIOConfig,
    build_encoder,
    masked_attention,
)
from perceiver_rl.nn.softmax import SHORT

# Sizes that no two axes share, so that a swapped axis fails.
INPUT_DIM = 5
QUERY_DIM = 14

MakeEncoder = Callable[[float], PerceiverIO | EntityTransformer]

ENCODERS: dict[str, Callable[[float], EncoderConfig]] = {
    "perceiver": lambda dropout: PerceiverIOConfig(
        num_latents=3,
        latent_dim=12,
        num_blocks=2,
        num_self_attends_per_block=2,
        num_cross_attend_heads=3,
        num_self_attend_heads=4,
        num_decoder_heads=2,
        dropout=dropout,
        # As large as trained ones, so that what the latents read is not lost in what they are.
        latent_init_scale=1.0,
    ),
    "transformer": lambda dropout: EntityTransformerConfig(
        num_layers=2, model_dim=12, num_heads=3, head_dim=8, num_decoder_heads=2, dropout=dropout
    ),
}


@pytest.fixture(params=[0, SHORT], ids=["torch's kernel", "products"], autouse=True)
def way_to_attend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets in tests are short, and would never come to the kernel for longer ones."""
    monkeypatch.setattr(masked_attention, "SHORT", request.param)


@pytest.fixture(params=ENCODERS)
def make_encoder(request: pytest.FixtureRequest) -> MakeEncoder:
    """Build the encoder with that dropout."""
    return lambda dropout=0.0: build_encoder(ENCODERS[request.param](dropout), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
