"""Perceiver IO: encode a set into latents, process the latents, decode what output queries ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.nn.attention import AttentionShape, CrossAttention, GeluApproximation, SelfAttention
from perceiver_rl.nn.masked_attention import clear_absent, require_divisible
from perceiver_rl.nn.memory import Memory
from perceiver_rl.nn.packing import Packed


@dataclass(frozen=True, kw_only=True)
class PerceiverIOConfig:
    """Size and shape of a `PerceiverIO`.

    Args:
        num_latents: Size of the latent array; the cost of processing depends on it, not on the entities.
        latent_dim: Width of the latents.
        num_blocks: How often the stack of self-attention layers is applied.
        num_self_attends_per_block: Self-attention layers in the stack.
        share_block_weights: Whether all blocks are one and the same stack, as in the paper.
        num_cross_attends: How often the latents read the entities: 1 as in Perceiver IO; k > 1 as in the
            original Perceiver, once before each of the first k blocks.
        share_cross_attend_weights: Whether all readings but the first share their weights, as in the original
            Perceiver.
        num_cross_attend_heads: Heads with which the latents read the entities.
        num_self_attend_heads: Heads with which the latents read each other.
        num_decoder_heads: Heads with which output queries read the latents.
        cross_qk_dim: Width in which latents and entities meet, all heads together; None for the width that
            `cross_attention_shape` names.
        cross_v_dim: Width of what is read there; None for the same.
        cross_attention_shape: `"q"` for the latents' width, `"kv"` for the tokens' (DeepMind's default).
        self_qk_dim: Width in which latents meet each other; None for `latent_dim`.
        self_v_dim: Width of what they read there; None for the same.
        decoder_qk_dim: Width in which output queries and latents meet; None for the width that
            `decoder_attention_shape` names.
        decoder_v_dim: Width of what is read there; None for the same.
        decoder_attention_shape: `"q"` for the queries' width, `"kv"` for the latents' (DeepMind's default).
        cross_widening_factor: Hidden width of the encoder's MLP as a multiple of `latent_dim`.
        self_widening_factor: Hidden width of the latents' MLPs as a multiple of `latent_dim`.
        decoder_widening_factor: Hidden width of the decoder's MLP as a multiple of the queries' width.
        use_encoder_query_residual: Whether the latents are added to what they read.
        use_decoder_query_residual: Whether output queries are added to what they read. The paper's default is
            not to; an actor's query carries the actor's own features, which its decision needs.
        output_dim: Width of a final projection of the answers; None for none, answers then have the queries'
            width.
        dropout: Probability of dropping attention weights and MLP outputs in training.
        gelu_approximation: `"none"` for the exact GELU, as in Hugging Face's port; `"tanh"` as in DeepMind's code.
        latent_init_scale: Standard deviation of the initial latents, a normal truncated at two of them.

    Source: Jaegle et al. 2022; repeated reading: Jaegle et al. 2021, section 3.2. Defaults of sizes are ours,
        for squads.
    """

    num_latents: int = 8
    latent_dim: int = 64
    num_blocks: int = 1
    num_self_attends_per_block: int = 1
    share_block_weights: bool = True
    num_cross_attends: int = 1
    share_cross_attend_weights: bool = True
    num_cross_attend_heads: int = 1
    num_self_attend_heads: int = 4
    num_decoder_heads: int = 1
    cross_qk_dim: int | None = None
    cross_v_dim: int | None = None
    cross_attention_shape: AttentionShape = "q"
    self_qk_dim: int | None = None
    self_v_dim: int | None = None
    decoder_qk_dim: int | None = None
    decoder_v_dim: int | None = None
    decoder_attention_shape: AttentionShape = "q"
    cross_widening_factor: int = 1
    self_widening_factor: int = 1
    decoder_widening_factor: int = 1
    use_encoder_query_residual: bool = True
    use_decoder_query_residual: bool = True
    output_dim: int | None = None
    dropout: float = 0.0
    gelu_approximation: GeluApproximation = "none"
    latent_init_scale: float = 0.02

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_latents",
            "latent_dim",
            "num_blocks",
            "num_self_attends_per_block",
            "num_cross_attends",
            "num_cross_attend_heads",
            "num_self_attend_heads",
            "num_decoder_heads",
            "cross_widening_factor",
            "self_widening_factor",
            "decoder_widening_factor",
        )
        widths = ("cross_qk_dim", "cross_v_dim", "self_qk_dim", "self_v_dim", "decoder_qk_dim", "decoder_v_dim")
        require_positive(self, *(name for name in (*widths, "output_dim") if getattr(self, name) is not None))
        require_one_of(self, "gelu_approximation", GeluApproximation)
        require_one_of(self, "cross_attention_shape", AttentionShape)
        require_one_of(self, "decoder_attention_shape", AttentionShape)
        require_probability(self, "dropout")
        if self.num_cross_attends > self.num_blocks:
            raise ValueError(
                f"num_cross_attends: got {self.num_cross_attends}, expected at most num_blocks={self.num_blocks}: the "
                "latents read the entities before a block"
            )
        # Where a width is that of tokens or queries, which are not known here, the blocks check it.
        cross_dim = self.cross_qk_dim or (self.latent_dim if self.cross_attention_shape == "q" else None)
        shared = [(width, "num_cross_attend_heads") for width in (cross_dim, self.cross_v_dim)]
        shared += [(width, "num_self_attend_heads") for width in (self.self_qk_dim or self.latent_dim, self.self_v_dim)]
        shared += [(width, "num_decoder_heads") for width in (self.decoder_qk_dim, self.decoder_v_dim)]
        for width, heads in shared:
            if width is not None:
                require_divisible(width, getattr(self, heads), heads)
        if not (math.isfinite(self.latent_init_scale) and self.latent_init_scale > 0):
            raise ValueError(f"latent_init_scale: got {self.latent_init_scale}, expected a number greater than 0")


class PerceiverIO(nn.Module):
    """A set of any size in, one answer for each output query out.

    Data flow, with b batch, n entities, l latents, q queries::

        tokens ──────encode─────► latents ──────process─────► latents ──────decode─────► answers
        [b n input_dim]           [b l latent_dim]            [b l latent_dim]     ▲     [b q query_dim]
                                                                          queries [b q query_dim]

    Cost: O(n·l) to encode, O(l²·depth) to process, O(q·l) to decode; nothing is quadratic in
    entities or queries.

    Args:
        config: Sizes.
        input_dim: Width of the tokens.
        query_dim: Width of output queries and, without a final projection, of answers.

    Raises:
        ValueError: If heads cannot share a width evenly.

    Source: Jaegle et al. 2022, figure 2. Differs in the default of `use_decoder_query_residual`.
    """

    def __init__(self, config: PerceiverIOConfig, *, input_dim: int, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.output_dim = config.output_dim or query_dim
        """Width of answers."""
        scale = config.latent_init_scale
        self.latents = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(config.num_latents, config.latent_dim), std=scale, a=-2 * scale, b=2 * scale)
        )
        num_readers = min(2, config.num_cross_attends) if config.share_cross_attend_weights else config.num_cross_attends
        self.cross_attends = nn.ModuleList(
            CrossAttention(
                config.latent_dim,
                input_dim,
                num_heads=config.num_cross_attend_heads,
                qk_dim=config.cross_qk_dim,
                v_dim=config.cross_v_dim,
                attention_shape=config.cross_attention_shape,
                widening_factor=config.cross_widening_factor,
                use_query_residual=config.use_encoder_query_residual,
                dropout=config.dropout,
                gelu_approximation=config.gelu_approximation,
                heads_setting="num_cross_attend_heads",
            )
            for _ in range(num_readers)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                SelfAttention(
                    config.latent_dim,
                    num_heads=config.num_self_attend_heads,
                    qk_dim=config.self_qk_dim,
                    v_dim=config.self_v_dim,
                    widening_factor=config.self_widening_factor,
                    dropout=config.dropout,
                    gelu_approximation=config.gelu_approximation,
                )
                for _ in range(config.num_self_attends_per_block)
            )
            for _ in range(1 if config.share_block_weights else config.num_blocks)
        )
        self.decoder = CrossAttention(
            query_dim,
            config.latent_dim,
            num_heads=config.num_decoder_heads,
            qk_dim=config.decoder_qk_dim,
            v_dim=config.decoder_v_dim,
            attention_shape=config.decoder_attention_shape,
            widening_factor=config.decoder_widening_factor,
            use_query_residual=config.use_decoder_query_residual,
            dropout=config.dropout,
            gelu_approximation=config.gelu_approximation,
            heads_setting="num_decoder_heads",
        )
        self.final_projection = nn.Linear(query_dim, config.output_dim) if config.output_dim else nn.Identity()

    def read(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None = None,
    ) -> Memory:
        """Encode and process: everything that does not depend on what will be asked.

        Args:
            tokens: One token for each slot; what stands in absent slots is never read, not even a NaN.
            entity_mask: True = present; None = all present.
        """
        tokens = clear_absent(tokens, entity_mask)
        latents = self.latents.unsqueeze(0)
        for block in range(self.config.num_blocks):
            if block < self.config.num_cross_attends:
                latents = self._cross_attend(block)(latents, tokens, entity_mask)
            latents = self.process(latents, block)
        return Memory(values=latents, mask=None)

    def read_packed(self, tokens: Packed) -> Memory:
        """`read` without arithmetic on absent slots; equal to it up to rounding.

        Args:
            tokens: The present entities' tokens.
        """
        latents = self.latents.unsqueeze(0)
        for block in range(self.config.num_blocks):
            if block < self.config.num_cross_attends:
                latents = self._cross_attend(block).read_packed(latents, tokens)
            latents = self.process(latents, block)
        return Memory(values=latents, mask=None)

    def process(
        self, latents: Float[Tensor, "batch latents latent_dim"], block: int = 0
    ) -> Float[Tensor, "batch latents latent_dim"]:
        """Let the latents read each other: one block of self-attention.

        Args:
            latents: The latents.
            block: Number of the block; only matters where blocks do not share weights.
        """
        for self_attend in self.blocks[block % len(self.blocks)]:  # type: ignore[attr-defined]
            latents = self_attend(latents)
        return latents

    def decode(
        self, memory: Memory, queries: Float[Tensor, "#batch queries query_dim"]
    ) -> Float[Tensor, "batch queries output_dim"]:
        """Answer each query from the latents; answers do not depend on what else is asked.

        Args:
            memory: What `read` made.
            queries: Queries; a batch axis of size 1 means the same queries for every sample.
        """
        return self.final_projection(self.decoder(queries, memory.values, memory.mask))

    def decode_packed(self, memory: Memory, queries: Packed) -> Packed:
        """`decode` for a number of queries that differs between samples; equal to it up to rounding."""
        return self.decoder.answer_packed(queries, memory.values).map(self.final_projection)

    def forward(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None,
        queries: Float[Tensor, "#batch queries query_dim"],
    ) -> Float[Tensor, "batch queries output_dim"]:
        """`read`, then `decode`."""
        return self.decode(self.read(tokens, entity_mask), queries)

    def _cross_attend(self, block: int) -> CrossAttention:
        """The reader before a block."""
        return self.cross_attends[min(block, len(self.cross_attends) - 1)]  # type: ignore[return-value]


def require_positive(config: object, *names: str) -> None:
    """Raise if one of these fields of a configuration is not a whole number of at least 1."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name}: got {value!r}, expected a whole number")
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")


def require_probability(config: object, name: str) -> None:
    """Raise if a field of a configuration is not in [0, 1)."""
    if not 0 <= getattr(config, name) < 1:
        raise ValueError(f"{name}: got {getattr(config, name)}, expected at least 0 and less than 1")


def require_one_of(config: object, name: str, choices: object) -> None:
    """Raise if a field of a configuration is not among the values of a `Literal`."""
    known = get_args(choices)
    if getattr(config, name) not in known:
        raise ValueError(f"{name}: got {getattr(config, name)!r}, expected one of {', '.join(map(repr, known))}")
