"""Output query arrays: what is asked of an encoded set."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LearnedQueries(nn.Module):
    """The same learned queries for every sample, e.g. one for the value.

    Args:
        num_queries: How many.
        dim: Their width.
        init_scale: Standard deviation of their initial normal distribution.
    """

    def __init__(self, num_queries: int, dim: int, init_scale: float = 0.02) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * init_scale)

    def forward(self, batch_size: int) -> Float[Tensor, "batch queries dim"]:
        """The queries, repeated for each sample."""
        return self.queries.expand(batch_size, -1, -1)


class EntityQueries(nn.Module):
    """One query for each entity, made from its token, e.g. one for each unit that must act.

    Args:
        input_dim: Width of the tokens.
        dim: Width of the queries.

    Source: Jaegle et al. 2022, appendix B: StarCraft II queries are the entities' own features.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(input_dim, dim)

    def forward(self, tokens: Float[Tensor, "batch entities input_dim"]) -> Float[Tensor, "batch entities dim"]:
        """One query for each token."""
        return self.projection(tokens)
