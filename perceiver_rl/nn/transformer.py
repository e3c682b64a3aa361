"""The entity transformer that Perceiver IO replaces, behind the same interface."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.nn.attention import CrossAttention, GeluApproximation, SelfAttention
from perceiver_rl.nn.masked_attention import clear_absent
from perceiver_rl.nn.memory import Memory
from perceiver_rl.nn.packing import Packed
from perceiver_rl.nn.perceiver_io import require_one_of, require_positive, require_probability


@dataclass(frozen=True, kw_only=True)
class EntityTransformerConfig:
    """Size of an `EntityTransformer`.

    Args:
        num_layers: Self-attention layers over the entities.
        model_dim: Width of the entities' tokens inside.
        num_heads: Heads of each layer.
        head_dim: Width of each head. AlphaStar's two heads of 128 at width 256 is `model_dim / num_heads`.
        widening_factor: Hidden width of the MLPs as a multiple of `model_dim`.
        num_decoder_heads: Heads with which output queries read the entities.
        decoder_widening_factor: Hidden width of the decoder's MLP as a multiple of the queries' width.
        use_decoder_query_residual: Whether output queries are added to what they read.
        dropout: Probability of dropping attention weights and MLP outputs in training.
        gelu_approximation: `"none"` for the exact GELU, or `"tanh"`.

    Source: Vinyals et al. 2019, supplementary data, entity encoder: 3 layers, 2 heads of 128, width
        256, MLP 1024.
    """

    num_layers: int = 3
    model_dim: int = 64
    num_heads: int = 2
    head_dim: int = 32
    widening_factor: int = 4
    num_decoder_heads: int = 1
    decoder_widening_factor: int = 1
    use_decoder_query_residual: bool = True
    dropout: float = 0.0
    gelu_approximation: GeluApproximation = "none"

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_layers",
            "model_dim",
            "num_heads",
            "head_dim",
            "widening_factor",
            "num_decoder_heads",
            "decoder_widening_factor",
        )
        require_probability(self, "dropout")
        require_one_of(self, "gelu_approximation", GeluApproximation)


class EntityTransformer(nn.Module):
    """Every entity reads every other, layer by layer; output queries then read the entities.

    AlphaStar takes each entity's answer from its own token. Here queries read the tokens through the same
    decoder as a Perceiver's latents, so that both encoders serve the same queries, also those that belong to
    no entity (the value).

    Cost: O(n²·depth) to encode, O(q·n) to decode.

    Args:
        config: Sizes.
        input_dim: Width of the tokens.
        query_dim: Width of output queries and answers.

    Source: Vinyals et al. 2019, entity encoder. Pre-norm here, as in this whole package; post-norm there.
    """

    def __init__(self, config: EntityTransformerConfig, *, input_dim: int, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.output_dim = query_dim
        """Width of answers."""
        self.input = nn.Linear(input_dim, config.model_dim)
        self.layers = nn.ModuleList(
            SelfAttention(
                config.model_dim,
                num_heads=config.num_heads,
                qk_dim=config.num_heads * config.head_dim,
                widening_factor=config.widening_factor,
                dropout=config.dropout,
                gelu_approximation=config.gelu_approximation,
            )
            for _ in range(config.num_layers)
        )
        self.decoder = CrossAttention(
            query_dim,
            config.model_dim,
            num_heads=config.num_decoder_heads,
            widening_factor=config.decoder_widening_factor,
            use_query_residual=config.use_decoder_query_residual,
            dropout=config.dropout,
            gelu_approximation=config.gelu_approximation,
            heads_setting="num_decoder_heads",
        )

    def read(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None = None,
    ) -> Memory:
        """Let the present entities read each other.

        Args:
            tokens: One token for each slot; what stands in absent slots is never read, not even a NaN.
            entity_mask: True = present; None = all present.
        """
        hidden = self.input(clear_absent(tokens, entity_mask))
        for layer in self.layers:
            hidden = layer(hidden, entity_mask)
        return Memory(values=hidden, mask=entity_mask)

    def read_packed(self, tokens: Packed) -> Memory:
        """`read` without arithmetic on absent slots; equal to it, in present ones, up to rounding."""
        hidden = tokens.map(self.input)
        for layer in self.layers:
            hidden = layer.forward_packed(hidden)  # type: ignore[operator]  # nn.ModuleList knows no element type
        return Memory(values=hidden.padded(), mask=hidden.packing.mask)

    def decode(
        self, memory: Memory, queries: Float[Tensor, "#batch queries query_dim"]
    ) -> Float[Tensor, "batch queries query_dim"]:
        """Answer each query from the present entities; answers do not depend on what else is asked."""
        return self.decoder(queries, memory.values, memory.mask)

    def decode_packed(self, memory: Memory, queries: Packed) -> Packed:
        """`decode` for a number of queries that differs between samples; equal to it up to rounding."""
        return self.decoder.answer_packed(queries, memory.values, memory.mask)

    def forward(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None,
        queries: Float[Tensor, "#batch queries query_dim"],
    ) -> Float[Tensor, "batch queries query_dim"]:
        """`read`, then `decode`."""
        return self.decode(self.read(tokens, entity_mask), queries)
