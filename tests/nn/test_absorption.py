"""Another order of products, the same function: outputs, gradients, dropout, and what it costs."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from perceiver_rl.nn import CrossAttention, attention
from perceiver_rl.nn.absorption import ReadForm, ReadShape, cheapest_form

BATCH, QUERIES, INPUTS = 3, 5, 11
ALL: tuple[ReadForm, ...] = ("plain", "many inputs", "many queries")


def _shape(**changes: int) -> ReadShape:
    sizes = {"batch": 4, "queries": 32, "inputs": 512, "query_dim": 128, "input_dim": 128, "qk_dim": 128, "v_dim": 128}
    return ReadShape(**(sizes | {"heads": 4, "shared_queries": True} | changes))


def _force(form: ReadForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cheapest_form", lambda shape, forms: form if form in forms else "plain")


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


@pytest.mark.parametrize(("queries", "inputs"), [(1, 64), (64, 1), (3, 5)])
def test_read__drops_attention_weights_whatever_is_cheapest(queries: int, inputs: int) -> None:
    torch.manual_seed(0)
    block = CrossAttention(4, 4, num_heads=2, dropout=0.5).double()
    arguments = torch.randn(1, queries, 4).double(), torch.randn(1, inputs, 4).double().expand(4096, -1, -1)
    whole = block.eval()._read(*arguments)
    draws = block.train()._read(*arguments)
    assert (draws.std(dim=0) > 1e-3).all()  # something is dropped
    torch.testing.assert_close(draws.mean(dim=0), whole[0], atol=0.05, rtol=0.0)  # and what is kept makes up for it


@pytest.mark.parametrize("form", ["many inputs", "many queries"])
def test_forms__compute_the_same_under_autocast(form: ReadForm, monkeypatch: pytest.MonkeyPatch) -> None:
    block = CrossAttention(12, 10, num_heads=2)
    queries, inputs = torch.randn(1, QUERIES, 12), torch.randn(BATCH, INPUTS, 10)
    _force("plain", monkeypatch)
    expected = _run(block, queries, inputs, None)
    _force(form, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        assert block._read(queries, inputs).dtype is torch.bfloat16
        found = _run(block, queries, inputs, None)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=0.03 * float(theirs.abs().max()), rtol=0.05)


def test_cheapest_form__is_plain_for_a_graph_of_unknown_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cheapest_form(_shape(queries=32, inputs=512), ALL) != "plain"
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert cheapest_form(_shape(queries=32, inputs=512), ALL) == "plain"


@pytest.mark.parametrize("sizes", [{"inputs": 0}, {"queries": 0}, {"batch": 0}])
def test_cheapest_form__knows_an_answer_where_there_is_nothing(sizes: dict[str, int]) -> None:
    assert cheapest_form(_shape(**sizes), ALL) in ALL


def test_cheapest_form__absorbs_where_one_side_is_longer() -> None:
    assert cheapest_form(_shape(queries=32, inputs=512), ALL) == "many inputs"
    assert cheapest_form(_shape(queries=512, inputs=32, shared_queries=False), ALL) == "many queries"
    assert cheapest_form(_shape(queries=512, inputs=32, shared_queries=False), ("plain", "many inputs")) == "plain"
    assert cheapest_form(_shape(queries=32, inputs=32), ALL) == "plain"
    assert cheapest_form(_shape(queries=512, inputs=512, heads=8), ALL) == "plain"


def test_cheapest_form__is_plain_for_a_small_squad() -> None:
    width = dict.fromkeys(("query_dim", "input_dim", "qk_dim", "v_dim"), 64)
    assert cheapest_form(_shape(batch=512, queries=8, inputs=11, **width), ALL) == "plain"
    assert cheapest_form(_shape(batch=512, queries=8, inputs=64, **width), ALL) == "many inputs"


def _flops(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block._read(queries, inputs, mask)
    return counter.get_total_flops()


@pytest.mark.parametrize("shared", [True, False], ids=["shared queries", "queries for each sample"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize(("query_dim", "input_dim"), [(64, 64), (32, 128), (128, 32)])
def test_cheapest_form__never_multiplies_more_than_plain_attention(
    query_dim: int, input_dim: int, heads: int, masked: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, forms = 4, set()

    def chosen(shape: ReadShape, among: Sequence[ReadForm]) -> ReadForm:
        forms.add(cheapest_form(shape, among))
        return cheapest_form(shape, among)

    for queries in (1, 8, 32, 256):
        for inputs in (1, 11, 64, 512):
            with torch.device("meta"):  # where every product is counted; fused attention on a CPU is not
                block = CrossAttention(query_dim, input_dim, num_heads=heads)
                arguments = torch.empty(1 if shared else batch, queries, query_dim), torch.empty(batch, inputs, input_dim)
                mask = torch.empty(batch, inputs, dtype=torch.bool) if masked else None
            monkeypatch.setattr(attention, "cheapest_form", chosen)
            cheapest = _flops(block, *arguments, mask)
            _force("plain", monkeypatch)
            assert cheapest <= _flops(block, *arguments, mask), (queries, inputs)
    assert len(forms) > 1


def test_many_inputs__saves_a_sixth_of_the_products_of_512_entities(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        block = CrossAttention(128, 128, num_heads=4)
        arguments = torch.empty(1, 32, 128), torch.empty(64, 512, 128), None
    cheapest = _flops(block, *arguments)
    _force("plain", monkeypatch)
    assert _flops(block, *arguments) / cheapest == pytest.approx(1.2, abs=0.02)
