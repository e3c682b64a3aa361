"""What every entity encoder must keep: no order, nothing read from absent slots, independent queries."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceiver_rl.nn import EntityTransformer, Memory, PerceiverIO, PerceiverIOConfig, build_encoder
from tests.nn.conftest import ENCODERS, INPUT_DIM, QUERY_DIM, MakeEncoder

BATCH, ENTITIES, QUERIES = 3, 11, 7


def _tokens() -> Tensor:
    return torch.randn(BATCH, ENTITIES, INPUT_DIM)


def _queries(count: int = QUERIES) -> Tensor:
    return torch.randn(BATCH, count, QUERY_DIM)


def _mask() -> Tensor:
    """Some present in each sample, but for the last one, which is empty."""
    mask = torch.rand(BATCH, ENTITIES) < 0.5
    mask[:, 0], mask[:, 1] = True, False
    mask[-1] = False
    return mask


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    return gradients


def _answers(encoder: PerceiverIO | EntityTransformer, tokens: Tensor, mask: Tensor, queries: Tensor) -> Tensor:
    """Through the interface that encoders share."""
    return encoder.decode(encoder.read(tokens, mask), queries)


def test_build_encoder__builds_what_the_configuration_describes() -> None:
    for name, kind in (("perceiver", PerceiverIO), ("transformer", EntityTransformer)):
        config = ENCODERS[name](0.0)
        encoder = build_encoder(config, input_dim=INPUT_DIM, query_dim=QUERY_DIM)
        assert type(encoder) is kind
        assert encoder.config is config


def test_encoder__answers_each_query_in_the_queries_width(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    answers = _answers(encoder, _tokens(), _mask(), _queries())
    assert answers.shape == (BATCH, QUERIES, QUERY_DIM)
    assert _answers(encoder, _tokens(), _mask(), _queries(0)).shape == (BATCH, 0, QUERY_DIM)


def test_encoder__calls_read_and_decode(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    assert torch.equal(encoder(tokens, mask, queries), _answers(encoder, tokens, mask, queries))


def test_encoder__does_not_care_for_the_order_of_entities(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    order = torch.randperm(ENTITIES)
    torch.testing.assert_close(
        _answers(encoder, tokens[:, order], mask[:, order], queries),
        _answers(encoder, tokens, mask, queries),
        atol=1e-6,
        rtol=1e-5,
    )


def test_encoder__reads_what_is_present(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    changed = tokens.clone()
    changed[:, 0, 0] += 1.0  # one channel: a norm takes away what all have in common
    difference = _answers(encoder, changed, mask, queries) - _answers(encoder, tokens, mask, queries)
    present = mask[:, 0]
    assert (difference[present].abs().amax(dim=(1, 2)) > 1e-3).all()
    assert not difference[~present].any()


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_encoder__ignores_garbage_in_absent_slots_bitwise(garbage: float, make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    results = []
    for absent in (0.0, garbage):
        inputs = torch.where(mask.unsqueeze(-1), tokens, absent).requires_grad_()
        answers = _answers(encoder, inputs, mask, queries)
        answers.square().sum().backward()
        results.append((answers, inputs.grad, _gradients(encoder)))
    (answers, inputs_grad, gradients), (answers2, inputs_grad2, gradients2) = results
    assert torch.equal(answers, answers2)
    assert torch.equal(inputs_grad, inputs_grad2)
    assert not inputs_grad[~mask].any()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients2[name]), name
        assert gradient.isfinite().all(), name


def test_encoder__gives_the_same_with_more_padding(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    padded = torch.cat([tokens, torch.randn(BATCH, 13, INPUT_DIM)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(BATCH, 13, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        _answers(encoder, padded, padded_mask, queries),
        _answers(encoder, tokens, mask, queries),
        atol=1e-6,
        rtol=0.0,
    )


def test_encoder__is_finite_with_nothing_present(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    nothing = torch.zeros(BATCH, ENTITIES, dtype=torch.bool)
    answers = _answers(encoder, _tokens(), nothing, _queries())
    answers.square().sum().backward()
    assert answers.isfinite().all()
    for name, gradient in _gradients(encoder).items():
        assert gradient.isfinite().all(), name


def test_encoder__works_without_a_single_slot(make_encoder: MakeEncoder) -> None:
    encoder, queries = make_encoder(), _queries()
    answers = _answers(encoder, _tokens()[:, :0], _mask()[:, :0], queries)
    absent = _answers(encoder, _tokens(), torch.zeros(BATCH, ENTITIES, dtype=torch.bool), queries)
    torch.testing.assert_close(answers, absent)


def test_encoder__has_gradient_in_every_parameter(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    _answers(encoder, _tokens(), _mask(), _queries()).square().sum().backward()
    for name, gradient in _gradients(encoder).items():
        assert gradient.any(), name


def test_encoder__gives_a_batch_what_it_gives_one_by_one(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(), _tokens(), _mask(), _queries()
    alone = [_answers(encoder, tokens[b : b + 1], mask[b : b + 1], queries[b : b + 1]) for b in range(BATCH)]
    torch.testing.assert_close(torch.cat(alone), _answers(encoder, tokens, mask, queries), atol=1e-6, rtol=1e-5)


@settings(max_examples=15)
@given(st.lists(st.integers(0, QUERIES - 1), min_size=1, max_size=2 * QUERIES))
def test_encoder__answers_a_query_whatever_else_is_asked(asked: list[int]) -> None:
    for config in ENCODERS.values():
        torch.manual_seed(0)
        encoder = build_encoder(config(0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
        memory, queries = encoder.read(_tokens(), _mask()), _queries()
        torch.testing.assert_close(
            encoder.decode(memory, queries[:, asked]),
            encoder.decode(memory, queries)[:, asked],
            atol=1e-6,
            rtol=1e-5,
        )


def test_encoder__is_deterministic_in_evaluation_only(make_encoder: MakeEncoder) -> None:
    encoder, tokens, mask, queries = make_encoder(0.5), _tokens(), _mask(), _queries()
    first, second = (_answers(encoder.train(), tokens, mask, queries) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (_answers(encoder.eval(), tokens, mask, queries) for _ in range(2))
    assert torch.equal(first, second)


def test_encoder__has_the_right_gradient(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder().double()
    tokens = torch.randn(2, 3, INPUT_DIM, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(2, 2, QUERY_DIM, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda t, q: _answers(encoder, t, mask, q), (tokens, queries), fast_mode=True)


# -- what is particular to a Perceiver -----------------------------------------------------------------------


def _perceiver(**changes: int) -> PerceiverIO:
    config = replace(ENCODERS["perceiver"](0.0), **changes)
    return PerceiverIO(config, input_dim=INPUT_DIM, query_dim=QUERY_DIM)


def test_perceiver__has_a_memory_whose_size_does_not_depend_on_the_entities() -> None:
    for entities in (1, 5, 64):
        mask = torch.ones(BATCH, entities, dtype=torch.bool)
        memory = _perceiver().read(torch.randn(BATCH, entities, INPUT_DIM), mask)
        assert isinstance(memory, Memory)
        assert memory.values.shape == (BATCH, 3, 12)
        assert memory.mask is None


def test_perceiver__leaves_its_latents_alone_when_entities_change_places() -> None:
    encoder, tokens, mask = _perceiver(), _tokens(), _mask()
    order = torch.randperm(ENTITIES)
    torch.testing.assert_close(
        encoder.read(tokens[:, order], mask[:, order]).values,
        encoder.read(tokens, mask).values,
        atol=1e-6,
        rtol=1e-5,
    )


def _num_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_perceiver__shares_weights_between_blocks() -> None:
    once, thrice = _perceiver(num_blocks=1), _perceiver(num_blocks=3)
    assert _num_weights(once) == _num_weights(thrice)
    thrice.load_state_dict(once.state_dict())
    tokens, mask = _tokens(), _mask()
    expected = once.process(once.process(once.read(tokens, mask).values))
    torch.testing.assert_close(thrice.read(tokens, mask).values, expected)


def test_perceiver__has_blocks_of_their_own_when_asked() -> None:
    own = _perceiver(num_blocks=3, share_block_weights=False)
    assert _num_weights(own) == _num_weights(_perceiver(num_blocks=1)) + 2 * _num_weights(own.blocks[0])
    latents = torch.randn(BATCH, 3, 12)
    assert not torch.allclose(own.process(latents, 0), own.process(latents, 2))


@pytest.mark.parametrize(("share", "readers"), [(True, 2), (False, 3)])
def test_perceiver__reads_again_before_each_of_the_first_blocks(share: bool, readers: int) -> None:
    encoder = _perceiver(num_blocks=4, num_cross_attends=3, share_cross_attend_weights=share)
    assert len(encoder.cross_attends) == readers  # the first reader is its own, as in the original Perceiver
    tokens, mask = _tokens(), _mask()
    latents = encoder.latents.unsqueeze(0)
    cleared = torch.where(mask.unsqueeze(-1), tokens, 0.0)
    for reader in (0, 1, min(2, readers - 1)):
        latents = encoder.process(encoder.cross_attends[reader](latents, cleared, mask))
    torch.testing.assert_close(encoder.read(tokens, mask).values, encoder.process(latents))


def test_perceiver__projects_answers_when_asked() -> None:
    encoder = _perceiver(output_dim=23)
    answers = encoder(_tokens(), _mask(), _queries())
    assert answers.shape == (BATCH, QUERIES, 23)
    assert encoder.output_dim == 23
    assert _perceiver().output_dim == QUERY_DIM


def test_perceiver__reads_everything_without_a_mask() -> None:
    encoder, tokens = _perceiver(), _tokens()
    everything = torch.ones(BATCH, ENTITIES, dtype=torch.bool)
    torch.testing.assert_close(encoder.read(tokens).values, encoder.read(tokens, everything).values)


def test_perceiver__starts_with_latents_within_two_standard_deviations() -> None:
    config = PerceiverIOConfig(num_latents=64, latent_dim=64, latent_init_scale=0.5)
    latents = PerceiverIO(config, input_dim=INPUT_DIM, query_dim=QUERY_DIM).latents
    assert latents.abs().max() <= 1.0
    assert 0.4 < latents.std() < 0.5  # a normal that is cut at two deviations has 0.88 of its deviation


# -- what is particular to the transformer -------------------------------------------------------------------


def test_transformer__changes_places_with_its_entities() -> None:
    encoder = build_encoder(ENCODERS["transformer"](0.0), input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    tokens, mask, order = _tokens(), _mask(), torch.randperm(ENTITIES)
    memory, permuted = encoder.read(tokens, mask), encoder.read(tokens[:, order], mask[:, order])
    assert memory.mask is mask
    torch.testing.assert_close(permuted.values, memory.values[:, order], atol=1e-6, rtol=1e-5)


def test_transformer__equals_torchs_own() -> None:
    config = replace(ENCODERS["transformer"](0.0), head_dim=4)  # torch knows no other width than 12 / 3
    encoder = EntityTransformer(config, input_dim=INPUT_DIM, query_dim=QUERY_DIM)
    layer = nn.TransformerEncoderLayer(12, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    with torch.no_grad():
        for ours, torchs in zip(encoder.layers, theirs.layers, strict=True):
            torchs.self_attn.in_proj_weight.copy_(ours.query_key_value.weight)
            torchs.self_attn.in_proj_bias.copy_(ours.query_key_value.bias)
            torchs.self_attn.out_proj.load_state_dict(ours.output.state_dict())
            torchs.linear1.load_state_dict(ours.mlp.dense1.state_dict())
            torchs.linear2.load_state_dict(ours.mlp.dense2.state_dict())
    tokens, mask = _tokens(), _mask()
    expected = theirs(encoder.input(tokens), src_key_padding_mask=~mask)
    torch.testing.assert_close(encoder.read(tokens, mask).values[mask], expected[mask])
