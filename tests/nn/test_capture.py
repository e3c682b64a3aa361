"""Attention weights on request: those that the answers were made with, and nothing left behind."""

import pytest
import torch
from torch import Tensor

from perceiver_rl.nn import (
    CrossAttention,
    EntityTransformer,
    PerceiverIO,
    PerceiverIOConfig,
    SelfAttention,
    attention,
    capture_attention,
)
from perceiver_rl.nn.absorption import ReadForm
from perceiver_rl.nn.capture import is_capturing
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


def test_capture__lists_readers_that_share_weights_once_for_each_reading() -> None:
    config = PerceiverIOConfig(num_blocks=4, num_cross_attends=3)
    encoder = PerceiverIO(config, input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    with capture_attention(encoder) as weights:
        encoder.read(torch.randn(2, 4, INPUT_DIM))
    runs = {name: len(each) for name, each in weights.items()}
    assert runs == {"cross_attends.0": 1, "cross_attends.1": 2, "blocks.0.0": 4}


MASK = torch.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])


def test_capture__shows_the_weights_that_self_attention_used() -> None:
    block, inputs = SelfAttention(12, num_heads=3, v_dim=6), torch.randn(3, 5, 12)
    with capture_attention(block) as weights:
        answers = block(inputs, MASK)
    value = block._project(inputs)[..., 24:].unflatten(-1, (3, 2)).transpose(1, 2)
    read = (weights[""][0] @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(answers, block._answer(inputs, read))


@pytest.mark.parametrize("form", ["plain", "many inputs", "many queries"])
@pytest.mark.parametrize("mask", [MASK, None], ids=["masked", "all present"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared queries", "queries for each sample"])
def test_capture__shows_the_weights_that_cross_attention_used(
    form: ReadForm, mask: Tensor | None, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "cheapest_form", lambda shape, forms: form if form in forms else "plain")
    block, inputs = CrossAttention(12, 10, num_heads=3, v_dim=6), torch.randn(3, 5, 10)
    queries = torch.randn(1 if shared else 3, 4, 12)
    with capture_attention(block) as weights:
        answers = block(queries, inputs, mask)
    value = block.key_value(block.input_norm(inputs))[..., 12:].unflatten(-1, (3, 2)).transpose(1, 2)
    read = block.output((weights[""][0] @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(answers, block._answer(queries, read))


def test_capture__changes_no_answer_and_keeps_no_graph(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    inputs = torch.randn(2, 4, INPUT_DIM), None, torch.randn(2, 3, QUERY_DIM)
    with capture_attention(encoder) as weights:
        answers = encoder(*inputs)
    assert torch.equal(answers, encoder(*inputs))
    assert weights
    assert not any(each.requires_grad for runs in weights.values() for each in runs)


def test_capture__ends_with_its_block(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    inputs = torch.randn(2, 4, INPUT_DIM), None, torch.randn(2, 3, QUERY_DIM)
    with capture_attention(encoder) as weights:
        assert not weights  # nothing ran
        encoder(*inputs)
    runs = {name: len(each) for name, each in weights.items()}
    assert runs
    encoder(*inputs)
    assert {name: len(each) for name, each in weights.items()} == runs


def test_capture__leaves_nothing_behind(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    with pytest.raises(RuntimeError, match="stopped"), capture_attention(encoder):
        raise RuntimeError("stopped")
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_capture__sees_a_mask_given_by_name() -> None:
    block, inputs = SelfAttention(12, num_heads=3), torch.randn(3, 5, 12)
    with capture_attention(block) as weights:
        block(inputs, entity_mask=MASK)
    assert not weights[""][0][~MASK[:, None, None].expand(3, 3, 5, 5)].any()


def test_capturing__lasts_as_long_as_the_outermost_capture(make_encoder: MakeEncoder) -> None:
    assert not is_capturing()
    with capture_attention(make_encoder()):
        with capture_attention(make_encoder()):
            pass
        assert is_capturing()
    assert not is_capturing()
