"""Another order of products, the same function: outputs, gradients, dropout, and what it costs."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from perceiver_rl.nn import CrossAttention, attention
from perceiver_rl.nn.absorption import ReadForm, ReadShape, cheapest_form

BATCH, QUERIES, INPUTS = 3, 5, 11


def _shape(**changes: int) -> ReadShape:
    sizes = {"batch": 4, "queries": 32, "inputs": 512, "query_dim": 128, "input_dim": 128, "qk_dim": 128, "v_dim": 128}
    return ReadShape(**(sizes | {"heads": 4, "shared_queries": True} | changes))


def _force(form: ReadForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cheapest_form", lambda shape: form)


def _run(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Outputs, and gradients of inputs and weights."""
    block.zero_grad()
    leaves = [queries.clone().requires_grad_(), inputs.clone().requires_grad_()]
    output = block(*leaves, mask)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves), *(parameter.grad for parameter in block.parameters())]


@pytest.mark.parametrize("shared", [True, False], ids=["shared queries", "queries for each sample"])
@pytest.mark.parametrize(("form", "masked"), [("many inputs", True), ("many inputs", False), ("many queries", False)])
def test_forms__compute_the_same(form: ReadForm, masked: bool, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = CrossAttention(12, 10, num_heads=2, qk_dim=6, v_dim=8).double()
    queries = torch.randn(1 if shared else BATCH, QUERIES, 12).double()
    mask = torch.tensor([[True] * INPUTS, [True, False] * 5 + [False], [False] * INPUTS]) if masked else None
    inputs = torch.randn(BATCH, INPUTS, 10).double()
    _force("plain", monkeypatch)
    expected = _run(block, queries, inputs, mask)
    _force(form, monkeypatch)
    torch.testing.assert_close(_run(block, queries, inputs, mask), expected)


@pytest.mark.parametrize("form", ["plain", "many inputs", "many queries"])
def test_forms__drop_attention_weights_alike(form: ReadForm, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = CrossAttention(4, 4, num_heads=2, dropout=0.5).double()
    queries, inputs = torch.randn(1, 3, 4).double(), torch.randn(1, 5, 4).double().expand(4096, -1, -1)
    _force("plain", monkeypatch)
    whole = block.eval()._read(queries, inputs[:1])
    _force(form, monkeypatch)
    draws = block.train()._read(queries, inputs)
    assert (draws.std(dim=0) > 1e-2).all()  # something is dropped
    torch.testing.assert_close(draws.mean(dim=0), whole[0], atol=0.05, rtol=0.0)  # and what is kept makes up for it


def test_cheapest_form__absorbs_where_one_side_is_longer() -> None:
    assert cheapest_form(_shape(queries=32, inputs=512)) == "many inputs"
    assert cheapest_form(_shape(queries=512, inputs=32, shared_queries=False)) == "many queries"
    assert cheapest_form(_shape(queries=32, inputs=32)) == "plain"
    assert cheapest_form(_shape(queries=512, inputs=512, heads=8)) == "plain"


@pytest.mark.parametrize("queries", [8, 32, 256])
@pytest.mark.parametrize("inputs", [1, 11, 64, 512])
@pytest.mark.parametrize("heads", [1, 4])
def test_cheapest_form__never_multiplies_more_than_plain_attention(
    queries: int, inputs: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):  # where every product is counted; fused attention on a CPU is not
        block = CrossAttention(64, 64, num_heads=heads)
        arguments = torch.randn(1, queries, 64), torch.randn(2, inputs, 64)
    counts = []
    for form in (None, "plain"):
        if form:
            _force(form, monkeypatch)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            block._read(*arguments)
        counts.append(counter.get_total_flops())
    assert counts[0] <= counts[1]
