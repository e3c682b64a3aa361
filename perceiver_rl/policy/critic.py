"""A value of its own eyes: reads everything that is observed, also what no actor sees."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from perceiver_rl.entities import EntitySchema
from perceiver_rl.nn import EncoderConfig, LearnedQueries, QueryArray, build_encoder
from perceiver_rl.policy.embedding import EntityEmbedding
from perceiver_rl.policy.readout import answer, embedded


class CentralCritic(nn.Module):
    """The value of the whole state, by a network that shares nothing with the actors'.

    It is used in training only, so it may read what actors must not: entities that none of them sees, and privileged ones.

    Args:
        schema: What there is to read.
        encoder: Kind and sizes of its encoder.
        dim: Width of tokens and of the value query.
        packing: As of `EntityPolicyConfig`.

    Source: the central value of MAPPO (Yu et al. 2022); AlphaStar's baselines read the opponent's units (Vinyals et al.
        2019).
    """

    def __init__(self, schema: EntitySchema, encoder: EncoderConfig, dim: int, packing: bool) -> None:
        super().__init__()
        self.packing = packing
        self.embedding = EntityEmbedding(schema, dim)
        self.encoder = build_encoder(encoder, input_dim=dim, query_dim=dim)
        self.queries = QueryArray(dim, {"value": LearnedQueries(1, dim)})
        self.head = value_head(self.encoder.output_dim)

    def forward(self, observation: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        """One value a sample."""
        source = embedded(self.embedding, observation)
        answers = answer(self.encoder, self.queries, source, {}, packing=self.packing)
        return self.head(answers["value"]).flatten()


def value_head(dim: int) -> nn.Sequential:
    """From the value query's answer to the value."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
