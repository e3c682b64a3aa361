"""The interface that entity encoders share, and the one place that chooses between them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from perceiver_rl.nn.memory import Memory
from perceiver_rl.nn.packing import Packed
from perceiver_rl.nn.perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_rl.nn.transformer import EntityTransformer, EntityTransformerConfig

EncoderConfig = PerceiverIOConfig | EntityTransformerConfig
"""What `build_encoder` builds from."""


@runtime_checkable  # signatures are checked at run time under pytest
class EntityEncoder(Protocol):
    """Reads a set once, then answers any number of queries about it."""

    output_dim: int
    """Width of answers."""

    def read(
        self,
        tokens: Float[Tensor, "batch entities input_dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None = None,
    ) -> Memory:
        """Encode the present entities."""
        ...

    def decode(
        self, memory: Memory, queries: Float[Tensor, "#batch queries query_dim"]
    ) -> Float[Tensor, "batch queries output_dim"]:
        """Answer each query."""
        ...

    def read_packed(self, tokens: Packed) -> Memory:
        """`read` without arithmetic on absent slots."""
        ...

    def decode_packed(self, memory: Memory, queries: Packed) -> Packed:
        """`decode` for a number of queries that differs between samples."""
        ...


def build_encoder(config: EncoderConfig, *, input_dim: int, query_dim: int) -> PerceiverIO | EntityTransformer:
    """The encoder that a configuration describes.

    Args:
        config: A `PerceiverIOConfig` or an `EntityTransformerConfig`.
        input_dim: Width of the tokens.
        query_dim: Width of output queries and answers.
    """
    if isinstance(config, PerceiverIOConfig):
        return PerceiverIO(config, input_dim=input_dim, query_dim=query_dim)
    return EntityTransformer(config, input_dim=input_dim, query_dim=query_dim)
