"""Perceiver IO: encode a set into latents, process the latents, decode what output queries ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.nn.attention import CrossAttention, GeluApproximation, SelfAttention, clear_absent, require_divisible
from perceiver_rl.nn.memory import Memory


@dataclass(frozen=True, kw_only=True)
class PerceiverIOConfig:
    """Size and shape of a `PerceiverIO`.

    Args:
        num_latents: Size of the latent array; the cost of processing depends on it, not on the entities.
        latent_dim: Width of the latents.
        num_blocks: How often the stack of self-attention layers is applied, with the same weights.
        num_self_attends_per_block: Self-attention layers in the stack.
        num_cross_attend_heads: Heads with which the latents read the entities.
        num_self_attend_heads: Heads with which the latents read each other.
        num_decoder_heads: Heads with which output queries read the latents.
        cross_widening_factor: Hidden width of the encoder's MLP as a multiple of `latent_dim`.
        self_widening_factor: Hidden width of the latents' MLPs as a multiple of `latent_dim`.
        decoder_widening_factor: Hidden width of the decoder's MLP as a multiple of the queries' width.
        use_encoder_query_residual: Whether the latents are added to what they read.
        use_decoder_query_residual: Whether output queries are added to what they read. The paper's default is
            not to; an actor's query carries the actor's own features, which its decision needs.
        dropout: Probability of dropping attention weights and MLP outputs in training.
        gelu_approximation: `"none"` for the exact GELU, as in Hugging Face's port; `"tanh"` as in DeepMind's code.
        latent_init_scale: Standard deviation of the initial latents, a normal truncated at two of them.

    Source: Jaegle et al. 2022; defaults of sizes are ours, for squads.
    """

    num_latents: int = 8
    latent_dim: int = 64
    num_blocks: int = 1
    num_self_attends_per_block: int = 1
    num_cross_attend_heads: int = 1
    num_self_attend_heads: int = 4
    num_decoder_heads: int = 1
    cross_widening_factor: int = 1
    self_widening_factor: int = 1
    decoder_widening_factor: int = 1
    use_encoder_query_residual: bool = True
    use_decoder_query_residual: bool = True
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
            "num_cross_attend_heads",
            "num_self_attend_heads",
            "num_decoder_heads",
            "cross_widening_factor",
            "self_widening_factor",
            "decoder_widening_factor",
        )
        require_probability(self, "dropout")
        require_gelu(self, "gelu_approximation")
        require_divisible(self.latent_dim, self.num_cross_attend_heads, "num_cross_attend_heads")
        require_divisible(self.latent_dim, self.num_self_attend_heads, "num_self_attend_heads")
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
        query_dim: Width of output queries and answers.

    Source: Jaegle et al. 2022, figure 2. Differs in the default of `use_decoder_query_residual`.
    """

    def __init__(self, config: PerceiverIOConfig, *, input_dim: int, query_dim: int) -> None:
        super().__init__()
        require_divisible(query_dim, config.num_decoder_heads, "num_decoder_heads")
        self.config = config
        scale = config.latent_init_scale
        self.latents = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(config.num_latents, config.latent_dim), std=scale, a=-2 * scale, b=2 * scale)
        )
        self.cross_attend = CrossAttention(
            config.latent_dim,
            input_dim,
            num_heads=config.num_cross_attend_heads,
            widening_factor=config.cross_widening_factor,
            use_query_residual=config.use_encoder_query_residual,
            dropout=config.dropout,
            gelu_approximation=config.gelu_approximation,
        )
        self.self_attends = nn.ModuleList(
            SelfAttention(
                config.latent_dim,
                num_heads=config.num_self_attend_heads,
                widening_factor=config.self_widening_factor,
                dropout=config.dropout,
                gelu_approximation=config.gelu_approximation,
            )
            for _ in range(config.num_self_attends_per_block)
        )
        self.decoder = CrossAttention(
            query_dim,
            config.latent_dim,
            num_heads=config.num_decoder_heads,
            widening_factor=config.decoder_widening_factor,
            use_query_residual=config.use_decoder_query_residual,
            dropout=config.dropout,
            gelu_approximation=config.gelu_approximation,
        )

    def encode(
        self, tokens: Float[Tensor, "batch entities input_dim"], entity_mask: Bool[Tensor, "batch entities"]
    ) -> Float[Tensor, "batch latents latent_dim"]:
        """Let the latents read the present entities.

        Args:
            tokens: One token for each slot; what stands in absent slots is never read, not even a NaN.
            entity_mask: True = present.
        """
        return self.cross_attend(self.latents.unsqueeze(0), clear_absent(tokens, entity_mask), entity_mask)

    def process(self, latents: Float[Tensor, "batch latents latent_dim"]) -> Float[Tensor, "batch latents latent_dim"]:
        """Let the latents read each other."""
        for _ in range(self.config.num_blocks):
            for self_attend in self.self_attends:
                latents = self_attend(latents)
        return latents

    def read(self, tokens: Float[Tensor, "batch entities input_dim"], entity_mask: Bool[Tensor, "batch entities"]) -> Memory:
        """Encode and process: everything that does not depend on what will be asked."""
        return Memory(values=self.process(self.encode(tokens, entity_mask)), mask=None)

    def decode(
        self, memory: Memory, queries: Float[Tensor, "batch queries query_dim"]
    ) -> Float[Tensor, "batch queries query_dim"]:
        """Answer each query from the latents; answers do not depend on what else is asked."""
        return self.decoder(queries, memory.values, memory.mask)

    def forward(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"],
        queries: Float[Tensor, "batch queries query_dim"],
    ) -> Float[Tensor, "batch queries query_dim"]:
        """`read`, then `decode`."""
        return self.decode(self.read(tokens, entity_mask), queries)


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


def require_gelu(config: object, name: str) -> None:
    """Raise if a field of a configuration names no form of the GELU."""
    known = get_args(GeluApproximation)
    if getattr(config, name) not in known:
        raise ValueError(f"{name}: got {getattr(config, name)!r}, expected one of {', '.join(map(repr, known))}")
