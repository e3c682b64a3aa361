"""What holds for any set and any configuration: whichever entities are present, in whatever order, however often."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceiver_rl.nn import (
    CrossAttention,
    EncoderConfig,
    EntityTransformer,
    Packing,
    PerceiverIO,
    SelfAttention,
    build_encoder,
)
from tests.nn.conftest import ENCODERS, INPUT_DIM, QUERY_DIM

SLOTS, QUERIES = 7, 3
MASKS = st.lists(st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=4)
NOTHING, ONE_ENTITY = [[False] * SLOTS] * 2, [[slot == 2 for slot in range(SLOTS)]]


def _perceiver(**changes: object) -> Callable[[], EncoderConfig]:
    return lambda: replace(ENCODERS["perceiver"](0.0), **changes)


VARIANTS: dict[str, Callable[[], EncoderConfig]] = {
    "transformer": lambda: ENCODERS["transformer"](0.0),
    "perceiver": _perceiver(),
    "reads three times, shared": _perceiver(num_blocks=4, num_cross_attends=3),
    "reads three times, each its own": _perceiver(num_blocks=3, num_cross_attends=3, share_cross_attend_weights=False),
    "blocks of their own": _perceiver(num_blocks=3, share_block_weights=False),
    "widths given": _perceiver(
        cross_qk_dim=6, cross_v_dim=9, self_qk_dim=8, self_v_dim=20, decoder_qk_dim=4, decoder_v_dim=10
    ),
    "as wide as what is read": _perceiver(
        cross_attention_shape="kv", decoder_attention_shape="kv", num_cross_attend_heads=5, num_decoder_heads=4
    ),
    "without residuals": _perceiver(use_encoder_query_residual=False, use_decoder_query_residual=False),
    "projected": _perceiver(output_dim=11),
    "many latents": _perceiver(num_latents=40),
}

every_variant = pytest.mark.parametrize("name", VARIANTS)


@cache
def _encoder(name: str) -> PerceiverIO | EntityTransformer:
    """In float64, where equal up to rounding is nearly equal."""
    torch.manual_seed(0)
    return build_encoder(VARIANTS[name](), input_dim=INPUT_DIM, query_dim=QUERY_DIM).double()


def _set(present: list[list[bool]]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their mask, and queries."""
    torch.manual_seed(0)
    mask = torch.tensor(present)
    return torch.randn(*mask.shape, INPUT_DIM).double(), mask, torch.randn(len(mask), QUERIES, QUERY_DIM).double()


def _run(name: str, tokens: Tensor, mask: Tensor, queries: Tensor) -> list[Tensor]:
    """Answers, then gradients of tokens, queries and weights."""
    encoder = _encoder(name)
    encoder.zero_grad()
    leaves = [tokens.clone().requires_grad_(), queries.clone().requires_grad_()]
    answers = encoder(leaves[0], mask, leaves[1])
    answers.square().sum().backward()
    return [answers.detach(), *(leaf.grad for leaf in leaves), *(each.grad for each in encoder.parameters())]


@every_variant
@settings(max_examples=4)
@given(present=MASKS, order=st.permutations(range(SLOTS)))
def test_encoder__does_not_care_for_any_order(name: str, present: list[list[bool]], order: list[int]) -> None:
    tokens, mask, queries = _set(present)
    answers, tokens_grad, *gradients = _run(name, tokens, mask, queries)
    permuted, permuted_grad, *permuted_gradients = _run(name, tokens[:, order], mask[:, order], queries)
    torch.testing.assert_close(permuted, answers)
    torch.testing.assert_close(permuted_grad, tokens_grad[:, order])
    torch.testing.assert_close(permuted_gradients, gradients)


@every_variant
@settings(max_examples=4)
@given(present=MASKS, garbage=st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e30]))
@example(present=NOTHING, garbage=torch.nan)
def test_encoder__never_looks_into_absent_slots(name: str, present: list[list[bool]], garbage: float) -> None:
    tokens, mask, queries = _set(present)
    results = [_run(name, torch.where(mask.unsqueeze(-1), tokens, absent), mask, queries) for absent in (0.0, garbage)]
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
        assert clean.isfinite().all()
    assert not results[1][1][~mask].any()


@every_variant
@settings(max_examples=4)
@given(present=MASKS, places=st.lists(st.integers(0, SLOTS), min_size=1, max_size=5))
def test_encoder__does_not_care_for_padding_anywhere(name: str, present: list[list[bool]], places: list[int]) -> None:
    tokens, mask, queries = _set(present)
    padded, padded_mask = tokens, mask
    for place in places:
        slot = torch.full((len(mask), 1, INPUT_DIM), torch.nan).double()
        padded = torch.cat([padded[:, :place], slot, padded[:, place:]], dim=1)
        padded_mask = torch.cat([padded_mask[:, :place], slot[..., 0] == 0, padded_mask[:, place:]], dim=1)
    answers, _, *gradients = _run(name, tokens, mask, queries)
    padded_answers, _, *padded_gradients = _run(name, padded, padded_mask, queries)
    torch.testing.assert_close(padded_answers, answers)
    torch.testing.assert_close(padded_gradients, gradients)


@every_variant
@settings(max_examples=4)
@given(present=MASKS)
@example(present=NOTHING)
@example(present=ONE_ENTITY)
def test_encoder__answers_as_if_only_present_entities_had_been_given(name: str, present: list[list[bool]]) -> None:
    tokens, mask, queries = _set(present)
    answers = _encoder(name)(tokens, mask, queries)
    for b in range(len(mask)):
        alone = _encoder(name)(tokens[b : b + 1, mask[b]], None, queries[b : b + 1])
        torch.testing.assert_close(answers[b : b + 1], alone)


@every_variant
@settings(max_examples=4)
@given(present=MASKS, copies=st.integers(2, 4))
def test_encoder__takes_a_set_for_the_same_when_every_entity_is_there_several_times(
    name: str, present: list[list[bool]], copies: int
) -> None:
    # A softmax takes means: what is there twice for each entity weighs what it weighed before.
    tokens, mask, queries = _set(present)
    repeated = _encoder(name)(tokens.repeat(1, copies, 1), mask.repeat(1, copies), queries)
    torch.testing.assert_close(repeated, _encoder(name)(tokens, mask, queries))


@every_variant
def test_encoder__weighs_an_entity_that_is_there_twice_alone(name: str) -> None:
    tokens, _mask, queries = _set([[True] * SLOTS])
    twice = torch.cat([tokens, tokens[:, :1]], dim=1)
    difference = _encoder(name)(twice, None, queries) - _encoder(name)(tokens, None, queries)
    assert difference.abs().amax() > 1e-4


@every_variant
def test_encoder__hears_each_present_entity(name: str) -> None:
    tokens, mask, queries = _set([[True, False, True, True, False, True, True]])
    _, tokens_grad, *_ = _run(name, tokens, mask, queries)
    assert torch.equal(tokens_grad.abs().amax(dim=-1) > 1e-6, mask)


@every_variant
def test_encoder__has_finite_gradient_in_queries_keys_and_values_of_every_layer(name: str) -> None:
    tokens, mask, queries = _set([[True] * SLOTS, [True, True] + [False] * 5, [False] * SLOTS])
    _run(name, tokens, mask, queries)
    for path, parameter in _encoder(name).named_parameters():
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path
    for path, block in _encoder(name).named_modules():
        # One matrix holds what queries, keys and values are made by; each must learn.
        if isinstance(block, SelfAttention):
            parts = block.query_key_value.weight.grad.tensor_split([block.widths[0], 2 * block.widths[0]])
        elif isinstance(block, CrossAttention):
            parts = block.key_value.weight.grad.tensor_split([block.widths[0]])
        else:
            continue
        assert all(part.any(dim=1).all() for part in parts), path


@every_variant
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_encoder__has_the_right_gradient_in_every_variant(name: str, packed: bool) -> None:
    tokens, mask, queries = _set([[True, False, True], [False] * 3, [True] * 3])
    encoder, asked = _encoder(name), torch.tensor([[True, False, True], [True] * 3, [False] * 3])

    def answers(tokens: Tensor, queries: Tensor) -> Tensor:
        if not packed:
            return encoder(tokens, mask, queries)
        memory = encoder.read_packed(Packing.from_mask(mask, call_cost=0).pack(tokens))
        return encoder.decode_packed(memory, Packing.from_mask(asked, call_cost=0).pack(queries)).values

    assert torch.autograd.gradcheck(answers, (tokens.requires_grad_(), queries.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "transformer"])
@settings(max_examples=4)
@given(present=MASKS, asked=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=4, max_size=4))
@example(present=NOTHING, asked=[[False] * QUERIES] * 4)
def test_perceiver__computes_packed_what_it_computes_padded(
    name: str, present: list[list[bool]], asked: list[list[bool]]
) -> None:
    tokens, mask, queries = _set(present)
    asked_mask, encoder = torch.tensor(asked)[: len(mask)], _encoder(name)
    memory = encoder.read_packed(Packing.from_mask(mask, call_cost=0).pack(tokens))
    torch.testing.assert_close(memory.values, encoder.read(tokens, mask).values, atol=1e-10, rtol=1e-10)
    packed = encoder.decode_packed(memory, Packing.from_mask(asked_mask, call_cost=0).pack(queries))
    torch.testing.assert_close(packed.values, encoder(tokens, mask, queries)[asked_mask], atol=1e-10, rtol=1e-10)
