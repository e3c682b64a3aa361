"""Ragged batches: packed equals padded equals one by one, forward and backward, whatever is present."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceiver_rl.nn import EntityTransformer, Packing, PerceiverIO, attention, build_encoder, pick_rows
from perceiver_rl.nn.absorption import ReadForm, ReadShape
from perceiver_rl.nn.packing import LARGE
from tests.nn.conftest import ENCODERS, INPUT_DIM, QUERY_DIM

SLOTS = 7
MASKS = st.lists(st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=6)


def _plan(mask: Tensor, one_by_one: bool) -> Packing:
    if not one_by_one:
        return Packing.from_mask(mask, call_cost=0, large=math.inf)
    packing = Packing.from_mask(mask, call_cost=0, large=0, max_buckets=len(mask))
    assert len(packing.buckets) == len(mask) or not mask.any(dim=1).all()  # only samples that are not empty
    return packing


ABSORBED = pytest.mark.usefixtures("order")
PLANS = pytest.mark.parametrize("one_by_one", [False, True], ids=["in buckets", "one by one"])


@pytest.fixture(params=["plain", "absorbed"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every read takes the plain order of products, or never where there is another; which were taken.

    For widths as small as here the plain one would always be the cheapest.
    """
    taken: set[str] = set()

    def forced(shape: ReadShape, forms: Sequence[ReadForm]) -> ReadForm:
        form = forms[0] if request.param == "plain" else forms[-1]
        taken.add(form)
        return form

    monkeypatch.setattr(attention, "cheapest_form", forced)
    return taken


def _packed(
    encoder: PerceiverIO | EntityTransformer,
    tokens: Tensor,
    mask: Tensor,
    queries: Tensor,
    asked: Tensor,
    one_by_one: bool,
) -> Tensor:
    memory = encoder.read_packed(_plan(mask, one_by_one).pack(tokens))
    return encoder.decode_packed(memory, _plan(asked, one_by_one).pack(queries)).padded()


@settings(max_examples=25, deadline=None)
@given(present=MASKS, data=st.data())
@pytest.mark.parametrize("name", ENCODERS)
@PLANS
def test_packed__equals_padded_and_one_by_one(
    name: str, one_by_one: bool, present: list[list[bool]], data: st.DataObject
) -> None:
    torch.manual_seed(0)
    mask = torch.tensor(present)
    row = st.lists(st.booleans(), min_size=5, max_size=5)
    asked = torch.tensor(data.draw(st.lists(row, min_size=len(mask), max_size=len(mask))))
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    tokens, queries = torch.randn(len(mask), SLOTS, INPUT_DIM), torch.randn(len(mask), 5, QUERY_DIM)
    garbage = torch.where(mask.unsqueeze(-1), tokens, torch.nan)
    packed = _packed(encoder, garbage, mask, queries, asked, one_by_one)
    padded = encoder(tokens, mask, queries)
    torch.testing.assert_close(packed[asked], padded[asked], atol=1e-5, rtol=1e-5)
    assert torch.equal(packed[~asked], torch.zeros_like(packed[~asked]))
    for sample in range(len(mask)):
        alone = encoder(tokens[sample : sample + 1, mask[sample]], None, queries[sample : sample + 1, asked[sample]])
        torch.testing.assert_close(packed[sample, asked[sample]], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
def test_packed__equals_padded_in_every_order_of_products(name: str, one_by_one: bool, order: set[str]) -> None:
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM).double()
    mask, asked = torch.rand(5, SLOTS) < 0.5, torch.rand(5, 3) < 0.6
    mask[2], asked[3] = one_by_one, one_by_one
    mask[:, 0], asked[:, 0] = mask[:, 0] | one_by_one, asked[:, 0] | one_by_one
    tokens, queries = torch.randn(5, SLOTS, INPUT_DIM).double(), torch.randn(5, 3, QUERY_DIM).double()
    packed = _packed(encoder, tokens, mask, queries, asked, one_by_one)
    if name == "perceiver":
        assert order in ({"plain"}, {"many inputs", "many queries"})
    torch.testing.assert_close(packed[asked], encoder(tokens, mask, queries)[asked])


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
@ABSORBED
def test_packed__has_the_gradients_of_padded(name: str, one_by_one: bool) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM).double()
    mask = torch.rand(5, SLOTS) < 0.5
    mask[2] = one_by_one
    asked = torch.rand(5, 3) < 0.6
    mask[:, 0], asked[:, 0] = mask[:, 0] | one_by_one, asked[:, 0] | one_by_one
    gradients = []
    for packs in (True, False):
        encoder.zero_grad()
        torch.manual_seed(1)
        tokens = torch.randn(5, SLOTS, INPUT_DIM).double().requires_grad_()
        queries = torch.randn(5, 3, QUERY_DIM).double().requires_grad_()
        answers = _packed(encoder, tokens, mask, queries, asked, one_by_one) if packs else encoder(tokens, mask, queries)
        answers[asked].square().sum().backward()
        gradients.append([tokens.grad, queries.grad, *(parameter.grad for parameter in encoder.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.equal(gradients[0][0][~mask], torch.zeros_like(gradients[0][0][~mask]))


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
@pytest.mark.parametrize("slots", [SLOTS, 0])
@ABSORBED
def test_packed__is_finite_with_nothing_present_and_nobody_asking(name: str, one_by_one: bool, slots: int) -> None:
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    nothing, everyone = torch.zeros(3, slots, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    tokens = torch.randn(3, slots, INPUT_DIM).requires_grad_()
    queries = torch.randn(3, 5, QUERY_DIM).requires_grad_()
    answers = _packed(encoder, tokens, nothing, queries, everyone, one_by_one)
    torch.testing.assert_close(answers, encoder(tokens, nothing, queries), atol=1e-6, rtol=1e-5)
    answers.square().sum().backward()
    assert not tokens.grad.any()
    assert queries.grad.isfinite().all()
    assert all(each.grad is None or each.grad.isfinite().all() for each in encoder.parameters())
    assert not _packed(encoder, tokens, nothing, queries, ~everyone, one_by_one).any()


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf])
@ABSORBED
def test_packed__keeps_garbage_in_absent_slots_out_of_gradients(name: str, one_by_one: bool, garbage: float) -> None:
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    mask, asked = torch.rand(5, SLOTS) < 0.5, torch.rand(5, 3) < 0.6
    tokens, queries = torch.randn(5, SLOTS, INPUT_DIM), torch.randn(5, 3, QUERY_DIM)
    gradients = []
    for absent in (0.0, garbage):
        encoder.zero_grad()
        leaves = [
            torch.where(present.unsqueeze(-1), values, absent).requires_grad_()
            for present, values in ((mask, tokens), (asked, queries))
        ]
        _packed(encoder, leaves[0], mask, leaves[1], asked, one_by_one).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves] + [parameter.grad for parameter in encoder.parameters()])
    for clean, dirty in zip(*gradients, strict=True):
        assert torch.equal(clean, dirty)
        assert clean.isfinite().all()


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
@ABSORBED
def test_packed__runs_under_bfloat16_autocast(name: str, one_by_one: bool) -> None:
    encoder = build_encoder(ENCODERS[name](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    mask, asked = torch.rand(5, SLOTS) < 0.5, torch.rand(5, 3) < 0.6
    mask[2], asked[3] = one_by_one, one_by_one
    mask[:, 0], asked[:, 0] = mask[:, 0] | one_by_one, asked[:, 0] | one_by_one
    inputs = torch.randn(5, SLOTS, INPUT_DIM), mask, torch.randn(5, 3, QUERY_DIM)
    with torch.autocast("cpu", torch.bfloat16):
        answers = _packed(encoder, *inputs, asked, one_by_one)
    answers.float().square().sum().backward()
    torch.testing.assert_close(answers.float(), _packed(encoder, *inputs, asked, one_by_one), atol=0.05, rtol=0.05)
    for path, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path


@pytest.mark.parametrize("name", ENCODERS)
@PLANS
def test_packed__drops_out_in_training_only(name: str, one_by_one: bool) -> None:
    encoder = build_encoder(ENCODERS[name](0.5), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    mask, asked = torch.rand(5, SLOTS) < 0.7, torch.ones(5, 3, dtype=torch.bool)
    inputs = torch.randn(5, SLOTS, INPUT_DIM), mask, torch.randn(5, 3, QUERY_DIM), asked, one_by_one
    assert not torch.equal(_packed(encoder.train(), *inputs), _packed(encoder, *inputs))
    assert torch.equal(_packed(encoder.eval(), *inputs), _packed(encoder, *inputs))


@given(present=MASKS, call_cost=st.integers(0, 30), max_buckets=st.integers(1, 4))
def test_packing__plans_buckets_that_hold_every_sample_once(
    present: list[list[bool]], call_cost: int, max_buckets: int
) -> None:
    mask = torch.tensor(present)
    counts = mask.sum(dim=1)
    packing = Packing.from_mask(mask, call_cost=call_cost, max_buckets=max_buckets)
    assert torch.cat([bucket.samples for bucket in packing.buckets]).sort().values.tolist() == list(range(len(mask)))
    for bucket in packing.buckets:
        assert bucket.length == max(1, int(counts[bucket.samples].max()))
        shown = torch.ones(len(bucket.samples), bucket.length) if bucket.mask is None else bucket.mask
        assert torch.equal(shown.sum(dim=1).long(), counts[bucket.samples])
        assert bucket.mask is None or not bucket.mask.all()
    assert len(packing.buckets) <= max_buckets
    assert packing.num_rows == int(counts.sum())
    assert packing.num_slots == sum(len(bucket.samples) * bucket.length for bucket in packing.buckets)
    # Each bucket more than one saves more than its call costs; samples with nothing present keep a slot all the same.
    saved = len(mask) * max(1, int(counts.max())) - packing.num_slots + int((counts == 0).sum())
    assert saved >= (call_cost + 1) * (len(packing.buckets) - 1)


@given(present=MASKS)
@PLANS
def test_packing__collects_what_it_spread_and_orders_samples(present: list[list[bool]], one_by_one: bool) -> None:
    mask = torch.tensor(present)
    packing = _plan(mask, one_by_one)
    rows = torch.randn(packing.num_rows, 3).double().requires_grad_()
    spread = packing.spread(rows)
    for values, bucket in zip(spread, packing.buckets, strict=True):
        for shown, sample in zip(values, bucket.samples, strict=True):
            count, first = int(mask[sample].sum()), int(packing.offsets[sample])
            assert torch.equal(shown[:count], rows[first : first + count])
    assert torch.equal(packing.collect(spread), rows)
    sum((values * 2).sum() for values in spread).backward()
    assert torch.equal(rows.grad, torch.full_like(rows, 2.0))  # once for each row, however often it is shown
    numbers = torch.arange(len(mask))
    shared = packing.by_bucket(numbers)
    for numbers_of, bucket in zip(shared, packing.buckets, strict=True):
        assert torch.equal(numbers_of, bucket.samples)
    assert torch.equal(packing.in_sample_order(shared), numbers)


@given(present=MASKS)
@PLANS
def test_packing__gives_back_what_it_took(present: list[list[bool]], one_by_one: bool) -> None:
    mask = torch.tensor(present)
    packing = _plan(mask, one_by_one)
    padded = torch.randn(*mask.shape, 3)
    packed = packing.pack(padded)
    assert packed.values.shape == (int(mask.sum()), 3)
    assert torch.equal(packed.padded(), torch.where(mask.unsqueeze(-1), padded, 0.0))
    assert torch.equal(packing.collect(packing.spread(packed.values)), packed.values)
    assert packing.num_slots <= len(mask) * max(1, int(mask.sum(dim=1).max()))


def test_packing__joins_rows_of_parts_of_the_slots() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    packing = Packing.from_mask(mask)
    values = torch.arange(6.0).view(2, 3, 1)
    parts = [packing.rows_of(span) for span in (slice(1, 3), slice(0, 1))]
    assert parts[0].samples.tolist() == [0, 1, 1]
    assert parts[0].slots.tolist() == [1, 0, 1]
    joined = packing.join([(parts[0], values[:, 1:][parts[0].samples, parts[0].slots]), (parts[1], values[:1, 0])])
    assert torch.equal(joined.values, packing.pack(values).values)


def test_packing__takes_a_few_large_samples_one_by_one() -> None:
    mask = torch.arange(6) < torch.tensor([[2], [6], [1], [3]])  # 3 on average
    alone = Packing.from_mask(mask, large=3)
    assert [bucket.samples.tolist() for bucket in alone.buckets] == [[0], [1], [2], [3]]
    assert [bucket.length for bucket in alone.buckets] == [2, 6, 1, 3]
    assert alone.num_slots == alone.num_rows  # nothing is padded
    others = {"large": 3.5}, {"large": 3, "max_buckets": 3}
    assert all(len(Packing.from_mask(mask, call_cost=100, **other).buckets) == 1 for other in others)
    mask[2] = False  # empty
    assert len(Packing.from_mask(mask, large=1, call_cost=100).buckets) == 1


@pytest.mark.parametrize(("rows", "buckets"), [(LARGE, 3), (LARGE - 1, 1)])
def test_packing__knows_what_is_large(rows: int, buckets: int) -> None:
    mask = torch.arange(2 * LARGE) < torch.tensor([[rows - 9], [rows], [rows + 9]])
    assert len(Packing.from_mask(mask).buckets) == buckets


def test_packing__puts_samples_of_equal_counts_into_one_bucket_without_a_mask() -> None:
    packing = Packing.from_mask(torch.tensor([[True, False, True], [False, True, True]]), call_cost=0)
    (bucket,) = packing.buckets
    assert (bucket.length, bucket.mask) == (2, None)


@pytest.mark.parametrize(("call_cost", "max_buckets", "lengths"), [(0, 8, [6, 2]), (8, 8, [6]), (7, 8, [6, 2]), (0, 1, [6])])
def test_packing__cuts_where_it_saves_more_than_a_call(call_cost: int, max_buckets: int, lengths: list[int]) -> None:
    mask = torch.arange(6) < torch.tensor([[2], [6], [2]])  # a cut saves 2 × 4 slots
    packing = Packing.from_mask(mask, call_cost=call_cost, max_buckets=max_buckets)
    assert [bucket.length for bucket in packing.buckets] == lengths


def test_packing__wants_the_batch_that_it_was_made_for() -> None:
    packing = Packing.from_mask(torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^pack: got a batch of 2 samples of 4 slots, expected 2 of 3$"):
        packing.pack(torch.zeros(2, 4, 5))


def test_packed__wants_queries_of_as_many_samples_as_there_are_memories() -> None:
    encoder = build_encoder(ENCODERS["perceiver"](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    memory = encoder.read(torch.randn(5, SLOTS, INPUT_DIM))
    queries = Packing.from_mask(torch.ones(3, 2, dtype=torch.bool)).pack(torch.randn(3, 2, QUERY_DIM))
    with pytest.raises(ValueError, match=r"^packing: got 5 samples, expected 3, as many as were packed$"):
        encoder.decode_packed(memory, queries)


def test_pick_rows__wants_rows_that_are_there() -> None:
    with pytest.raises(IndexError):
        pick_rows(torch.randn(4, 2), torch.arange(5))


def test_packing__knows_its_shortest_and_longest_sample() -> None:
    packing = Packing.from_mask(torch.tensor([[True, True, False], [True, False, False]]))
    assert (packing.shortest, packing.longest) == (1, 2)


def test_packing__wants_a_sample() -> None:
    with pytest.raises(ValueError, match="got a batch of no samples"):
        Packing.from_mask(torch.zeros(0, 3, dtype=torch.bool))
