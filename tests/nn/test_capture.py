"""Attention weights on request: those that the answers were made with, and nothing left behind."""

import pytest
import torch

from perceiver_rl.nn import EntityTransformer, PerceiverIO, SelfAttention, capture_attention
from tests.nn.conftest import INPUT_DIM, QUERY_DIM, MakeEncoder


def test_capture__shows_where_present_entities_are_read(make_encoder: MakeEncoder) -> None:
    encoder: PerceiverIO | EntityTransformer = make_encoder()
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    with capture_attention(encoder) as weights:
        encoder(torch.randn(2, 4, INPUT_DIM), mask, torch.randn(2, 3, QUERY_DIM))
    first = weights["cross_attends.0" if isinstance(encoder, PerceiverIO) else "layers.0"]
    assert len(first) == 1
    assert torch.equal(first[0][0, :, :, 1], torch.zeros_like(first[0][0, :, :, 1]))
    assert torch.equal(first[0][1], torch.zeros_like(first[0][1]))  # nothing present, nothing attended to
    torch.testing.assert_close(first[0][0].sum(dim=-1), torch.ones(first[0].shape[1:3]))
    assert len(weights["decoder"]) == 1


def test_capture__lists_shared_blocks_once_for_each_time_they_ran(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    if not isinstance(encoder, PerceiverIO):
        pytest.skip("a transformer's layers run once")
    with capture_attention(encoder) as weights:
        encoder(torch.randn(2, 4, INPUT_DIM), None, torch.randn(2, 3, QUERY_DIM))
    assert [len(weights[f"blocks.0.{layer}"]) for layer in (0, 1)] == [2, 2]


def test_capture__shows_the_weights_that_were_used() -> None:
    block, inputs = SelfAttention(6, num_heads=1), torch.randn(2, 5, 6)
    with capture_attention(block) as weights:
        answers = block(inputs)
    value = block._project(inputs)[..., 12:]
    torch.testing.assert_close(answers, block._answer(inputs, weights[""][0][:, 0] @ value))


def test_capture__leaves_nothing_behind(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    with pytest.raises(RuntimeError, match="stopped"), capture_attention(encoder):
        raise RuntimeError("stopped")
    assert not any(module._forward_pre_hooks for module in encoder.modules())
