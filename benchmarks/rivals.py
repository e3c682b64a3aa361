"""Encoders of the same size, ours and others', behind one signature: `(tokens, mask, queries) -> answers`.

Width 128 in and out, 3 layers of self-attention, 4 heads, MLPs as wide as the model, and as many latents wherever there are
some. Where weights are the same in kind they are the same in value, and outputs are compared before anything is timed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_rl.nn import (
    CrossAttention,
    EntityTransformer,
    EntityTransformerConfig,
    Packed,
    Packing,
    PerceiverIO,
    PerceiverIOConfig,
    SelfAttention,
)

WIDTH, DEPTH, HEADS = 128, 3, 4

Batch = tuple[Tensor, Tensor | None, Tensor]
"""Tokens, mask and queries."""

Run = Callable[[Tensor, Tensor | None, Tensor], Tensor]


@dataclass(frozen=True)
class Rival:
    """One implementation."""

    name: str
    module: nn.Module
    run: Run
    quadratic: bool = False
    """Whether its cost grows with the square of the entities."""
    packs: bool = False
    """Whether it runs on present entities alone, so that it needs some to be absent."""
    takes_rows: bool = False
    """Whether tokens, queries and answers are rows, one for each present entity, instead of padded batches."""

    def takes(self, batch: Batch) -> Batch | None:
        """A padded batch in the form that it runs on; None if it does not run on this one."""
        tokens, mask, queries = batch
        if mask is None:  # packing needs something to leave out
            return None if self.packs else batch
        if not self.takes_rows:
            return batch
        return (tokens[mask], mask, queries[mask]) if queries.shape[1] == mask.shape[1] else None


def build_rivals(num_latents: int, device: str) -> tuple[list[Rival], list[str]]:
    """All implementations that are installed, and a line for each that is not.

    Args:
        num_latents: Size of every latent array.
        device: Where they run.
    """
    rivals, missing = _ours(num_latents), []
    perceiver = rivals[0].module
    assert isinstance(perceiver, PerceiverIO)
    rivals.append(_torch_transformer())
    for package, build in (("transformers", _hugging_face), ("perceiver_pytorch", _perceiver_pytorch)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rivals.append(build(perceiver))
        except ImportError:
            missing.append(f"{package} is not installed: pip install 'perceiver-rl[bench]'")
    for rival in rivals:
        rival.module.to(device).eval()
    return rivals, missing


def _ours(num_latents: int) -> list[Rival]:
    heads = {"num_cross_attend_heads": HEADS, "num_self_attend_heads": HEADS, "num_decoder_heads": HEADS}
    config = PerceiverIOConfig(num_latents=num_latents, latent_dim=WIDTH, num_self_attends_per_block=DEPTH, **heads)
    perceiver = PerceiverIO(config, input_dim=WIDTH, query_dim=WIDTH)
    sizes = {"model_dim": WIDTH, "head_dim": WIDTH // HEADS, "num_heads": HEADS, "num_decoder_heads": HEADS}
    transformer = EntityTransformer(
        EntityTransformerConfig(num_layers=DEPTH, widening_factor=1, **sizes), input_dim=WIDTH, query_dim=WIDTH
    )

    def packed(tokens: Tensor, mask: Tensor | None, queries: Tensor) -> Tensor:
        assert mask is not None
        packing = Packing.from_mask(mask)
        memory = perceiver.read_packed(packing.pack(tokens))
        if queries.shape[1] != mask.shape[1]:  # queries of their own, all asked
            return perceiver.decode(memory, queries)
        return perceiver.decode_packed(memory, packing.pack(queries)).padded()

    def rows(tokens: Tensor, mask: Tensor | None, queries: Tensor) -> Tensor:
        assert mask is not None
        packing = Packing.from_mask(mask)
        return perceiver.decode_packed(perceiver.read_packed(Packed(tokens, packing)), Packed(queries, packing)).values

    return [
        Rival("perceiver-rl", perceiver, perceiver),
        Rival("perceiver-rl-packed", perceiver, packed, packs=True),
        Rival("perceiver-rl-rows", perceiver, rows, packs=True, takes_rows=True),
        Rival("perceiver-rl-transformer", transformer, transformer, quadratic=True),
    ]


def _torch_transformer() -> Rival:
    """Post-norm, which its fast path of inference needs; answers are the entities' own tokens, so it has no decoder.

    With a mask that path skips padding only where it stands right of all entities, so they are moved there and back, inside
    what is timed. Without a mask, or with gradients, there is nothing to move.
    """
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, WIDTH, dropout=0.0, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, DEPTH)

    def run(tokens: Tensor, mask: Tensor | None, queries: Tensor) -> Tensor:
        if mask is None or torch.is_grad_enabled():
            return encoder(tokens, src_key_padding_mask=None if mask is None else ~mask)
        order = (~mask).byte().argsort(dim=1, stable=True)  # present ones first
        places = order.unsqueeze(-1).expand_as(tokens)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*nested tensors is in prototype")
            moved = encoder(tokens.gather(1, places), src_key_padding_mask=~mask.gather(1, order))
        return torch.empty_like(moved).scatter_(1, places, moved)

    return Rival("torch-transformer", encoder, run, quadratic=True)


class _HuggingFace(nn.Module):
    """Their encoder and decoder, with our weights."""

    def __init__(self, ours: PerceiverIO) -> None:
        super().__init__()
        transformers = importlib.import_module("transformers")
        modeling = importlib.import_module("transformers.models.perceiver.modeling_perceiver")
        config = transformers.PerceiverConfig(
            num_latents=ours.config.num_latents,
            d_latents=WIDTH,
            num_blocks=1,
            num_self_attends_per_block=DEPTH,
            num_self_attention_heads=HEADS,
            num_cross_attention_heads=HEADS,
            self_attention_widening_factor=1,
            cross_attention_widening_factor=1,
        )
        self.encoder = modeling.PerceiverEncoder(config, kv_dim=WIDTH)
        self.decoder = modeling.PerceiverBasicDecoder(
            config,
            output_num_channels=WIDTH,
            position_encoding_type="none",
            num_heads=HEADS,
            num_channels=WIDTH,
            widening_factor=1,
            use_query_residual=True,
            final_project=False,
        )
        self.latents = nn.Parameter(ours.latents.detach().clone())
        with torch.no_grad():
            _copy(ours.cross_attends[0], self.encoder.cross_attention)
            for mine, other in zip(ours.blocks[0], self.encoder.self_attends, strict=True):
                _copy(mine, other)
            _copy(ours.decoder, self.decoder.decoding_cross_attention)

    def forward(self, tokens: Tensor, mask: Tensor | None, queries: Tensor) -> Tensor:
        added = None if mask is None else torch.where(mask, 0.0, torch.finfo(tokens.dtype).min)[:, None, None, :]
        latents = self.encoder(self.latents.expand(len(tokens), -1, -1), inputs=tokens, inputs_mask=added)
        return self.decoder(queries, latents.last_hidden_state).logits


def _hugging_face(ours: PerceiverIO) -> Rival:
    module = _HuggingFace(ours)
    return Rival("huggingface", module, module)


def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Weights of one of our blocks into one of Hugging Face's layers."""
    attention = theirs.attention.self
    if isinstance(ours, CrossAttention):
        pairs = [
            (ours.query_norm, attention.layernorm1),
            (ours.input_norm, attention.layernorm2),
            (ours.query, attention.query),
        ]
        joined, parts = ours.key_value, [attention.key, attention.value]
    else:
        assert isinstance(ours, SelfAttention)
        pairs = [(ours.norm, attention.layernorm1)]
        joined, parts = ours.query_key_value, [attention.query, attention.key, attention.value]
    for part, weight, bias in zip(parts, joined.weight.chunk(len(parts)), joined.bias.chunk(len(parts)), strict=True):
        part.weight.copy_(weight)
        part.bias.copy_(bias)
    mlp = [(ours.mlp.norm, theirs.layernorm), (ours.mlp.dense1, theirs.mlp.dense1), (ours.mlp.dense2, theirs.mlp.dense2)]
    for mine, other in [*pairs, *mlp, (ours.output, theirs.attention.output.dense)]:
        other.load_state_dict(mine.state_dict())


def _perceiver_pytorch(ours: PerceiverIO) -> Rival:
    """Lucidrains' Perceiver IO. Its MLPs are four times as wide and gated; here they are as wide as the model, and gated."""
    theirs = importlib.import_module("perceiver_pytorch.perceiver_io")
    module = theirs.PerceiverIO(
        depth=DEPTH,
        dim=WIDTH,
        queries_dim=WIDTH,
        num_latents=ours.config.num_latents,
        latent_dim=WIDTH,
        cross_heads=HEADS,
        latent_heads=HEADS,
        cross_dim_head=WIDTH // HEADS,
        latent_dim_head=WIDTH // HEADS,
        decoder_ff=True,
    )
    # Two of its files have a class of this name, and both are in use.
    wide = [(each, name) for each in module.modules() for name, child in each.named_children() if _is_mlp(child)]
    for parent, name in wide:
        setattr(parent, name, type(getattr(parent, name))(WIDTH, mult=1))

    def run(tokens: Tensor, mask: Tensor | None, queries: Tensor) -> Tensor:
        return module(tokens, mask=mask, queries=queries)

    return Rival("perceiver-pytorch", module, run)


def _is_mlp(module: nn.Module) -> bool:
    return type(module).__name__ == "FeedForward"
