"""Attention against a naive loop and against torch's own layers; masks; empty sets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_rl.nn import MLP, CrossAttention, SelfAttention, attend
from perceiver_rl.nn.masked_attention import clear_absent, merge_heads, split_heads

BATCH, HEADS, QUERIES, ENTITIES, QK_DIM, V_DIM = 2, 3, 5, 7, 4, 11


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    query = torch.randn(BATCH, HEADS, QUERIES, QK_DIM, dtype=dtype)
    key = torch.randn(BATCH, HEADS, ENTITIES, QK_DIM, dtype=dtype)
    value = torch.randn(BATCH, HEADS, ENTITIES, V_DIM, dtype=dtype)
    return query, key, value


def _naive_attend(query: Tensor, key: Tensor, value: Tensor, entity_mask: Tensor) -> Tensor:
    """One query at a time, over a list of what is present."""
    answers = torch.zeros(BATCH, HEADS, QUERIES, V_DIM, dtype=query.dtype)
    for b in range(BATCH):
        present = [n for n in range(ENTITIES) if entity_mask[b, n]]
        for h in range(HEADS):
            for q in range(QUERIES):
                weights = [math.exp(query[b, h, q] @ key[b, h, n] / math.sqrt(QK_DIM)) for n in present]
                for weight, n in zip(weights, present, strict=True):
                    answers[b, h, q] += weight / sum(weights) * value[b, h, n]
    return answers


# -- attend --------------------------------------------------------------------------------------------------


@settings(max_examples=15)  # a naive loop is slow
@given(st.lists(st.lists(st.booleans(), min_size=ENTITIES, max_size=ENTITIES), min_size=BATCH, max_size=BATCH))
def test_attend__equals_a_naive_loop(mask: list[list[bool]]) -> None:
    torch.manual_seed(0)
    query, key, value = _inputs(torch.float64)
    entity_mask = torch.tensor(mask)
    torch.testing.assert_close(attend(query, key, value, entity_mask), _naive_attend(query, key, value, entity_mask))


def test_attend__reads_everything_without_a_mask() -> None:
    query, key, value = _inputs()
    everything = torch.ones(BATCH, ENTITIES, dtype=torch.bool)
    torch.testing.assert_close(attend(query, key, value), attend(query, key, value, everything))


def test_attend__gives_zeros_when_nothing_is_present() -> None:
    entity_mask = torch.tensor([[False] * ENTITIES, [True] * ENTITIES])
    attended = attend(*_inputs(), entity_mask)
    assert torch.equal(attended[0], torch.zeros(HEADS, QUERIES, V_DIM))
    assert (attended[1] != 0).all()


def test_attend__gives_zeros_whatever_the_kernel_makes_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels differ by device and version: some give NaN there, some the mean of what is absent."""
    kernel = F.scaled_dot_product_attention

    def careless(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float) -> Tensor:
        return kernel(query, key, value, attn_mask=torch.where(attn_mask, 0.0, -1e9), dropout_p=dropout_p)

    entity_mask = torch.tensor([[False] * ENTITIES, [True] * ENTITIES])
    inputs = _inputs()
    expected = attend(*inputs, entity_mask)
    monkeypatch.setattr(F, "scaled_dot_product_attention", careless)
    torch.testing.assert_close(attend(*inputs, entity_mask), expected)


def test_attend__has_zero_gradient_where_nothing_is_present() -> None:
    inputs = [each.requires_grad_() for each in _inputs()]
    entity_mask = torch.tensor([[False] * ENTITIES, [True, False] + [True] * (ENTITIES - 2)])
    attend(*inputs, entity_mask).square().sum().backward()
    query, key, value = (each.grad for each in inputs)
    for gradient in (query, key, value):
        assert gradient is not None
        assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))
        assert gradient[1].isfinite().all()
        assert gradient[1].any()
    for gradient in (key, value):  # the one absent slot of the second sample
        assert torch.equal(gradient[1, :, 1], torch.zeros_like(gradient[1, :, 1]))


def test_attend__does_not_underflow_for_logits_of_any_size() -> None:
    query, key, value = _inputs()
    entity_mask = torch.tensor([[False, True] + [False] * (ENTITIES - 2)] * BATCH)
    attended = attend(query, -1e4 * key, value, entity_mask)
    torch.testing.assert_close(attended, value[:, :, 1:2].expand_as(attended))


# -- clear_absent, heads -------------------------------------------------------------------------------------


def test_clear_absent__stops_nan_in_values_and_gradients() -> None:
    tokens = torch.full((2, 3, 5), torch.nan)
    tokens[:, 1] = 2.0
    weight = torch.ones(5, requires_grad=True)
    cleared = clear_absent(tokens, torch.tensor([[False, True, False]] * 2))
    (cleared @ weight).sum().backward()
    assert torch.equal(cleared[:, 0], torch.zeros(2, 5))
    assert torch.equal(weight.grad, torch.full((5,), 4.0))


def test_merge_heads__is_the_inverse_of_split_heads() -> None:
    tokens = torch.randn(2, 7, 15)
    heads = split_heads(tokens, 3)
    assert heads.shape == (2, 3, 7, 5)
    assert torch.equal(heads[:, 1], tokens[..., 5:10])  # a head's channels lie side by side
    assert torch.equal(merge_heads(heads), tokens)


# -- blocks against torch's own layers -----------------------------------------------------------------------


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


@pytest.mark.parametrize("use_query_residual", [True, False])
def test_cross_attention__equals_torchs_multihead_attention(use_query_residual: bool) -> None:
    block = CrossAttention(12, 10, num_heads=3, widening_factor=2, use_query_residual=use_query_residual).double()
    theirs = nn.MultiheadAttention(12, 3, kdim=10, vdim=10, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(block.query.weight)
        theirs.k_proj_weight.copy_(block.key_value.weight[:12])
        theirs.v_proj_weight.copy_(block.key_value.weight[12:])
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
        theirs.out_proj.weight.copy_(block.output.weight)
        theirs.out_proj.bias.copy_(block.output.bias)
        block.input_norm.weight.normal_()  # norms that do something
        block.query_norm.bias.normal_()
    queries, inputs = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 10).double()
    entity_mask = torch.rand(2, 7) < 0.6
    entity_mask[:, 0] = True
    normed = block.input_norm(inputs)
    read, _ = theirs(block.query_norm(queries), normed, normed, key_padding_mask=~entity_mask)
    if use_query_residual:
        read = read + queries
    expected = read + block.mlp(read)
    torch.testing.assert_close(block(queries, inputs, entity_mask), expected)


def test_self_attention__equals_torchs_encoder_layer() -> None:
    block = SelfAttention(12, num_heads=3, widening_factor=2).double()
    theirs = nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.query_key_value.weight)
        theirs.self_attn.in_proj_bias.copy_(block.query_key_value.bias)
    _copy(block.output, theirs.self_attn.out_proj)
    _copy(block.mlp.dense1, theirs.linear1)
    _copy(block.mlp.dense2, theirs.linear2)
    inputs = torch.randn(2, 7, 12).double()
    entity_mask = torch.tensor([[True] * 5 + [False] * 2, [False, True] + [True] * 5])
    expected = theirs(inputs, src_key_padding_mask=~entity_mask)
    torch.testing.assert_close(block(inputs, entity_mask)[entity_mask], expected[entity_mask])


def test_mlp__norms_widens_and_narrows() -> None:
    mlp = MLP(5, widening_factor=3)
    inputs = torch.randn(2, 7, 5)
    hidden = F.layer_norm(inputs, (5,)) @ mlp.dense1.weight.T + mlp.dense1.bias
    assert hidden.shape == (2, 7, 15)
    torch.testing.assert_close(mlp(inputs), F.gelu(hidden) @ mlp.dense2.weight.T + mlp.dense2.bias)


def test_cross_attention__takes_one_set_of_queries_for_the_whole_batch() -> None:
    block = CrossAttention(6, 5, num_heads=2)
    queries, inputs = torch.randn(1, 3, 6), torch.randn(4, 7, 5)
    torch.testing.assert_close(block(queries, inputs), block(queries.expand(4, -1, -1), inputs))


def test_cross_attention__gives_the_query_where_nothing_is_present() -> None:
    block = CrossAttention(6, 5, num_heads=2)
    with torch.no_grad():
        block.output.bias.zero_()
    queries = torch.randn(4, 3, 6)
    answers = block(queries, torch.randn(4, 7, 5), torch.zeros(4, 7, dtype=torch.bool))
    torch.testing.assert_close(answers, queries + block.mlp(queries))


@pytest.mark.parametrize(
    "build",
    [lambda: CrossAttention(10, 4, num_heads=3), lambda: SelfAttention(10, num_heads=3)],
    ids=["cross", "self"],
)
def test_attention_blocks__say_which_heads_do_not_divide_which_width(build: object) -> None:
    with pytest.raises(ValueError, match="num_heads: got 3, expected a divisor of the width 10"):
        build()  # type: ignore[operator]
