"""The encoder against Hugging Face's port of DeepMind's code: the same weights give the same outputs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from perceiver_rl.nn import CrossAttention, PerceiverIO, PerceiverIOConfig, SelfAttention, attention
from perceiver_rl.nn.absorption import ReadForm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="pip install 'perceiver-rl[bench]'")
    modeling = pytest.importorskip("transformers.models.perceiver.modeling_perceiver")

BATCH, ENTITIES, QUERIES = 3, 11, 7


@dataclass(frozen=True)
class Case:
    """One configuration, in our words."""

    config: PerceiverIOConfig
    input_dim: int = 10
    query_dim: int = 14
    masked: bool = True


def _config(**changes: object) -> PerceiverIOConfig:
    return PerceiverIOConfig(
        **({"num_latents": 5, "latent_dim": 12, "num_self_attend_heads": 3, "latent_init_scale": 1.0} | changes)
    )


CASES = {
    "plain": Case(_config()),
    "without a mask": Case(_config(), masked=False),
    "heads": Case(_config(num_cross_attend_heads=4, num_self_attend_heads=6, num_decoder_heads=7)),
    "blocks": Case(_config(num_blocks=3, num_self_attends_per_block=2)),
    "widening": Case(_config(cross_widening_factor=4, self_widening_factor=3, decoder_widening_factor=2)),
    "without residual in the encoder": Case(_config(use_encoder_query_residual=False)),
    "without residual in the decoder": Case(_config(use_decoder_query_residual=False)),
    "attention as wide as what is read": Case(
        _config(cross_attention_shape="kv", decoder_attention_shape="kv", num_cross_attend_heads=2, num_decoder_heads=3)
    ),
    "widths of the attention given": Case(
        _config(cross_qk_dim=8, cross_v_dim=16, self_qk_dim=6, self_v_dim=12, decoder_qk_dim=4, decoder_v_dim=6)
    ),
    "final projection": Case(_config(output_dim=9)),
    "one latent": Case(_config(num_latents=1)),
    "latents wider than tokens": Case(
        _config(latent_dim=48, num_cross_attend_heads=4, num_self_attend_heads=8), input_dim=6
    ),
    "tokens wider than latents": Case(_config(num_cross_attend_heads=3), input_dim=40, query_dim=40),
    "everything": Case(
        _config(
            num_blocks=2,
            num_self_attends_per_block=3,
            num_cross_attend_heads=4,
            num_decoder_heads=2,
            cross_qk_dim=16,
            self_widening_factor=2,
            use_encoder_query_residual=False,
            use_decoder_query_residual=False,
            output_dim=5,
        )
    ),
}


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as they take it: the lowest number is added to the scores of what is absent."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]


class HuggingFace(nn.Module):
    """Their latents, encoder and decoder, called directly."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        ours = case.config
        theirs = transformers.PerceiverConfig(
            num_latents=ours.num_latents,
            d_latents=ours.latent_dim,
            num_blocks=ours.num_blocks,
            num_self_attends_per_block=ours.num_self_attends_per_block,
            num_cross_attention_heads=ours.num_cross_attend_heads,
            num_self_attention_heads=ours.num_self_attend_heads,
            cross_attention_shape_for_attention=ours.cross_attention_shape,
            cross_attention_widening_factor=ours.cross_widening_factor,
            self_attention_widening_factor=ours.self_widening_factor,
            use_query_residual=ours.use_encoder_query_residual,
        )
        # Their `qk_channels` and `v_channels` are one setting for both kinds of attention; built one by one they differ.
        self.encoder = modeling.PerceiverEncoder(theirs, kv_dim=case.input_dim)
        self.encoder.cross_attention = modeling.PerceiverLayer(
            theirs,
            is_cross_attention=True,
            qk_channels=ours.cross_qk_dim,
            v_channels=ours.cross_v_dim,
            num_heads=ours.num_cross_attend_heads,
            q_dim=ours.latent_dim,
            kv_dim=case.input_dim,
            widening_factor=ours.cross_widening_factor,
            use_query_residual=ours.use_encoder_query_residual,
        )
        self.encoder.self_attends = nn.ModuleList(
            modeling.PerceiverLayer(
                theirs,
                is_cross_attention=False,
                qk_channels=ours.self_qk_dim,
                v_channels=ours.self_v_dim,
                num_heads=ours.num_self_attend_heads,
                q_dim=ours.latent_dim,
                kv_dim=ours.latent_dim,
                widening_factor=ours.self_widening_factor,
            )
            for _ in range(ours.num_self_attends_per_block)
        )
        for layer in self.encoder.self_attends if ours.self_v_dim else ():
            # Their self-attention answers in the values' width and adds the input to it, which only fits if both are one.
            assert layer.attention.output.dense.out_features == ours.latent_dim
        theirs.cross_attention_shape_for_attention = ours.decoder_attention_shape
        self.decoder = modeling.PerceiverBasicDecoder(
            theirs,
            output_num_channels=ours.output_dim or case.query_dim,
            position_encoding_type="none",
            num_heads=ours.num_decoder_heads,
            num_channels=case.query_dim,
            qk_channels=ours.decoder_qk_dim,
            v_channels=ours.decoder_v_dim,
            widening_factor=ours.decoder_widening_factor,
            use_query_residual=ours.use_decoder_query_residual,
            final_project=ours.output_dim is not None,
        )

    def forward(self, latents: Tensor, tokens: Tensor, mask: Tensor | None, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Processed latents, and answers."""
        added = None if mask is None else _added(mask, tokens.dtype)
        encoded = self.encoder(latents.expand(len(tokens), -1, -1), inputs=tokens, inputs_mask=added).last_hidden_state
        return encoded, self.decoder(queries, encoded).logits


def _copy_layer(theirs: nn.Module, ours: CrossAttention | SelfAttention) -> None:
    """Weights of one of their layers into one of our blocks."""
    attention, output = theirs.attention.self, theirs.attention.output.dense
    if isinstance(ours, CrossAttention):
        norms = [
            (ours.query_norm, attention.layernorm1),
            (ours.input_norm, attention.layernorm2),
            (ours.query, attention.query),
        ]
        joined, parts = ours.key_value, [attention.key, attention.value]
    else:
        norms = [(ours.norm, attention.layernorm1)]
        joined, parts = ours.query_key_value, [attention.query, attention.key, attention.value]
    joined.weight.copy_(torch.cat([part.weight for part in parts]))
    joined.bias.copy_(torch.cat([part.bias for part in parts]))
    rest = [(ours.output, output), (ours.mlp.norm, theirs.layernorm), (ours.mlp.dense1, theirs.mlp.dense1)]
    for mine, other in [*norms, *rest, (ours.mlp.dense2, theirs.mlp.dense2)]:
        mine.load_state_dict(other.state_dict())


def _pair(case: Case) -> tuple[PerceiverIO, HuggingFace]:
    torch.manual_seed(0)
    ours = PerceiverIO(case.config, input_dim=case.input_dim, query_dim=case.query_dim).eval()
    theirs = HuggingFace(case).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms and biases that do something
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
        _copy_layer(theirs.encoder.cross_attention, ours.cross_attends[0])
        for mine, other in zip(ours.blocks[0], theirs.encoder.self_attends, strict=True):
            _copy_layer(other, mine)
        _copy_layer(theirs.decoder.decoding_cross_attention, ours.decoder)
        if case.config.output_dim:
            ours.final_projection.load_state_dict(theirs.decoder.final_layer.state_dict())
    return ours, theirs


def _require_equal(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """Latents and answers of the same weights for the same inputs."""
    ours, theirs = (module.to(dtype) for module in _pair(case))
    tokens = torch.randn(BATCH, ENTITIES, case.input_dim, dtype=dtype)
    queries = torch.randn(BATCH, QUERIES, case.query_dim, dtype=dtype)
    mask = None
    if case.masked:
        mask = torch.rand(BATCH, ENTITIES) < 0.5
        mask[:, 0] = True
    latents, answers = theirs(ours.latents, tokens, mask, queries)
    memory = ours.read(tokens, mask)
    torch.testing.assert_close(memory.values, latents, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(ours.decode(memory, queries), answers, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"])
@torch.no_grad()
def test_perceiver__equals_hugging_faces(name: str, dtype: torch.dtype, tolerance: float) -> None:
    _require_equal(CASES[name], dtype, tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["plain", "many inputs", "many queries"])
@torch.no_grad()
def test_perceiver__equals_hugging_faces_in_every_order_of_products(
    name: str, form: ReadForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "cheapest_form", lambda shape, forms: form if form in forms else "plain")
    _require_equal(CASES[name], torch.float64, 1e-12)


@torch.no_grad()
def test_perceiver__reads_zeros_where_hugging_faces_reads_the_mean_of_what_is_absent() -> None:
    case = Case(_config())
    ours, theirs = _pair(case)
    block, latents = ours.cross_attends[0], ours.latents.expand(BATCH, -1, -1)
    tokens, nothing = torch.randn(BATCH, ENTITIES, case.input_dim), torch.zeros(BATCH, ENTITIES, dtype=torch.bool)
    (answered, *_) = theirs.encoder.cross_attention(latents, inputs=tokens, inputs_mask=_added(nothing, tokens.dtype))

    def answer(values: Tensor) -> Tensor:
        """What becomes of the latents when these are the values that they read."""
        read = latents + block.output(values)
        return read + block.mlp(read)

    values = block.key_value(block.input_norm(tokens))[..., block.widths[0] :]
    torch.testing.assert_close(answered, answer(values.mean(dim=1, keepdim=True)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block(latents, tokens, nothing), answer(torch.zeros_like(values[:, :1])))
    assert not torch.allclose(block(latents, tokens, nothing), answered, atol=0.1)
