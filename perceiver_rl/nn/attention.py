"""The blocks of encoders: cross-attention, self-attention, and the MLP behind both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_rl.nn.absorption import READS, PlainRead, Read, ReadForm, ReadLayers, ReadShape, cheapest_form
from perceiver_rl.nn.masked_attention import (
    Extent,
    attend,
    attend_jagged,
    attention_weights,
    merge_heads,
    require_divisible,
    split_heads,
)
from perceiver_rl.nn.packing import Packed

GeluApproximation = Literal["none", "tanh"]
"""GELU by the error function as in Hugging Face's port, or by tanh as in DeepMind's code."""

AttentionShape = Literal["q", "kv"]
"""Whose width the attended channels take where none is given: the queries', or that of what is read."""


class MLP(nn.Module):
    """Two linear layers with a GELU between them, behind a layer norm; the residual is added by the caller.

    Args:
        dim: Width in and out.
        widening_factor: Hidden width as a multiple of `dim`.
        dropout: Probability of dropping an output.
        gelu_approximation: `"none"` for the exact GELU, or `"tanh"`.
    """

    def __init__(
        self,
        dim: int,
        widening_factor: int = 1,
        dropout: float = 0.0,
        gelu_approximation: GeluApproximation = "none",
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dense1 = nn.Linear(dim, widening_factor * dim)
        self.dense2 = nn.Linear(widening_factor * dim, dim)
        self.dropout = dropout
        self.gelu_approximation = gelu_approximation

    def forward(self, inputs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Same shape as the input."""
        hidden = F.gelu(self.dense1(self.norm(inputs)), approximate=self.gelu_approximation)
        return F.dropout(self.dense2(hidden), self.dropout, self.training)


class CrossAttention(nn.Module):
    """A block in which queries read inputs: `x = q + attend(norm(q), norm(inputs))`, then `x + mlp(x)`.

    What it computes does not depend on how: `perceiver_rl.nn.absorption` has two orders of the same products
    that cost less where one side is much longer than the other, and each call takes the cheapest.

    Args:
        query_dim: Width of queries and of the output.
        input_dim: Width of what is read.
        num_heads: Heads.
        qk_dim: Width in which queries and keys meet, all heads together; None for `query_dim` or `input_dim`,
            as `attention_shape` says.
        v_dim: Width of the values, all heads together; None for `qk_dim`.
        attention_shape: `"q"` for the queries' width, `"kv"` for the inputs'.
        widening_factor: Hidden width of the MLP as a multiple of `query_dim`.
        use_query_residual: Whether the query itself is added to what it read.
        dropout: Probability of dropping attention weights and MLP outputs in training.
        gelu_approximation: As in `MLP`.
        heads_setting: What `num_heads` is called where the user sets it, for messages.

    Raises:
        ValueError: If the heads cannot share `qk_dim` or `v_dim` evenly.

    Source: Jaegle et al. 2022, appendix E, equations of the attention module; pre-norm, biases everywhere.
    """

    def __init__(
        self,
        query_dim: int,
        input_dim: int,
        *,
        num_heads: int = 1,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        attention_shape: AttentionShape = "q",
        widening_factor: int = 1,
        use_query_residual: bool = True,
        dropout: float = 0.0,
        gelu_approximation: GeluApproximation = "none",
        heads_setting: str = "num_heads",
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or (query_dim if attention_shape == "q" else input_dim)
        v_dim = v_dim or qk_dim
        require_divisible(qk_dim, num_heads, heads_setting)
        require_divisible(v_dim, num_heads, heads_setting)
        self.num_heads = num_heads
        self.widths = [qk_dim, v_dim]  # of keys and values
        self.use_query_residual = use_query_residual
        self.dropout = dropout
        self.query_norm = nn.LayerNorm(query_dim)
        self.input_norm = nn.LayerNorm(input_dim)
        self.query = nn.Linear(query_dim, qk_dim)
        self.key_value = nn.Linear(input_dim, qk_dim + v_dim)
        self.output = nn.Linear(v_dim, query_dim)
        self.mlp = MLP(query_dim, widening_factor, dropout, gelu_approximation)

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_dim"],
        inputs: Float[Tensor, "batch inputs input_dim"],
        input_mask: Bool[Tensor, "batch inputs"] | None = None,
    ) -> Float[Tensor, "batch queries query_dim"]:
        """Let the queries read.

        Args:
            queries: Queries. A batch axis of size 1 means the same queries for every sample; what depends on
                them alone is then computed once.
            inputs: What is read; finite everywhere.
            input_mask: True = present; None = all present.
        """
        return self._answer(queries, self._read(self.query_norm(queries), self.input_norm(inputs), input_mask))

    def read_packed(
        self, queries: Float[Tensor, "#batch queries query_dim"], inputs: Packed
    ) -> Float[Tensor, "batch queries query_dim"]:
        """`forward` for inputs whose number differs between samples."""
        packing = inputs.packing
        if inputs.suits_kernels:
            return self._answer(queries, self._read_jagged(queries, inputs))
        read = self._order_of_products(
            len(queries) == 1, packing.shape[0], queries.shape[1], packing.mean_rows, ("plain", "many inputs")
        )
        asked = read.project_queries(self.query_norm(queries))
        asked_of = [asked] * len(packing.buckets) if len(asked) == 1 else packing.by_bucket(asked)
        (rows,) = read.project_inputs(self.input_norm(inputs.values))
        attended = [
            read.attend(asked, (rows,), bucket.mask)
            for asked, rows, bucket in zip(asked_of, packing.spread(rows), packing.buckets, strict=True)
        ]
        finished = read.finish(packing.in_sample_order(attended), None if packing.shortest else packing.mask)
        return self._answer(queries, finished)

    def answer_packed(
        self,
        queries: Packed,
        inputs: Float[Tensor, "batch inputs input_dim"],
        input_mask: Bool[Tensor, "batch inputs"] | None = None,
    ) -> Packed:
        """`forward` for queries whose number differs between samples."""
        packing = queries.packing
        forms: tuple[ReadForm, ...] = ("plain", "many queries") if input_mask is None else ("plain",)
        read = self._order_of_products(False, len(inputs), packing.mean_rows, inputs.shape[1], forms)
        rows = packing.spread(read.project_queries(self.query_norm(queries.values)))
        read_of = zip(*(packing.by_bucket(part) for part in read.project_inputs(self.input_norm(inputs))), strict=True)
        masks = [None] * len(rows) if input_mask is None else packing.by_bucket(input_mask)
        attended = [read.attend(*each) for each in zip(rows, read_of, masks, strict=True)]
        return Packed(self._answer(queries.values, read.finish(packing.collect(attended), None)), packing)

    def _read(
        self,
        queries: Float[Tensor, "#batch queries query_dim"],
        inputs: Float[Tensor, "batch inputs input_dim"],
        input_mask: Bool[Tensor, "batch inputs"] | None = None,
    ) -> Float[Tensor, "batch queries query_dim"]:
        """The middle of `forward`: what normed queries read from normed inputs, before residual and MLP."""
        forms: tuple[ReadForm, ...] = (
            ("plain", "many inputs", "many queries") if input_mask is None else ("plain", "many inputs")
        )
        read = self._order_of_products(queries.shape[0] == 1, inputs.shape[0], queries.shape[1], inputs.shape[1], forms)
        attended = read.attend(read.project_queries(queries), read.project_inputs(inputs), input_mask)
        return read.finish(attended, input_mask)

    def _order_of_products(
        self, shared_queries: bool, batch: int, queries: int | float, inputs: int | float, forms: Sequence[ReadForm]
    ) -> Read:
        """The cheapest of some, for so many samples, and queries and inputs of each."""
        dropout = self.dropout if self.training else 0.0
        layers = ReadLayers(self.query, self.key_value, self.output, self.num_heads, dropout)
        # On a GPU the other orders were never timed, and they would give up its fused kernels.
        if dropout or self.query.weight.is_cuda:
            return PlainRead(layers)
        shape = ReadShape(
            batch=batch,
            shared_queries=shared_queries,
            queries=queries,
            inputs=inputs,
            query_dim=self.query.in_features,
            input_dim=self.key_value.in_features,
            qk_dim=self.widths[0],
            v_dim=self.widths[1],
            heads=self.num_heads,
        )
        return READS[cheapest_form(shape, forms)](layers)

    def _read_jagged(
        self, queries: Float[Tensor, "#batch queries query_dim"], inputs: Packed
    ) -> Float[Tensor, "batch queries query_dim"]:
        """What queries read from packed inputs, without buckets."""
        packing, (_, length, _) = inputs.packing, queries.shape
        batch = packing.shape[0]
        query = self.query(self.query_norm(queries)).expand(batch, -1, -1).unflatten(-1, (self.num_heads, -1)).flatten(0, 1)
        key, value = self.key_value(self.input_norm(inputs.values)).split(self.widths, dim=-1)
        attended = attend_jagged(
            query,
            key.unflatten(-1, (self.num_heads, -1)),
            value.unflatten(-1, (self.num_heads, -1)),
            Extent(torch.arange(0, (batch + 1) * length, length, device=query.device), length, length),
            Extent(packing.offsets, packing.shortest, packing.longest),
            self.dropout if self.training else 0.0,
        )
        return self.output(attended.flatten(1)).unflatten(0, (batch, length))

    def _answer(
        self, queries: Float[Tensor, "#*batch query_dim"], read: Float[Tensor, "*batch query_dim"]
    ) -> Float[Tensor, "*batch query_dim"]:
        """The end of `forward`: residual and MLP, for each query by itself."""
        if self.use_query_residual:
            read = read + queries
        return read + self.mlp(read)

    def weights(
        self,
        queries: Float[Tensor, "#batch queries query_dim"],
        inputs: Float[Tensor, "batch inputs input_dim"],
        input_mask: Bool[Tensor, "batch inputs"] | None = None,
    ) -> Float[Tensor, "batch heads queries inputs"]:
        """What each query attends to, for the arguments of `forward`."""
        query, key, _ = self._project(self.query_norm(queries), self.input_norm(inputs))
        return attention_weights(query, key, input_mask)

    def _project(self, queries: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of normed arguments, each `[batch, heads, …, dim]`."""
        query = split_heads(self.query(queries), self.num_heads).expand(inputs.shape[0], -1, -1, -1)
        key, value = self.key_value(inputs).split(self.widths, dim=-1)
        return query, split_heads(key, self.num_heads), split_heads(value, self.num_heads)


class SelfAttention(nn.Module):
    """A block in which the elements of a set read each other: `x = x + attend(norm(x))`, then `x + mlp(x)`.

    Args:
        dim: Width in and out.
        num_heads: Heads.
        qk_dim: Width in which queries and keys meet, all heads together; None for `dim`.
        v_dim: Width of the values, all heads together; None for `qk_dim`.
        widening_factor: Hidden width of the MLP as a multiple of `dim`.
        dropout: Probability of dropping attention weights and MLP outputs in training.
        gelu_approximation: As in `MLP`.

    Raises:
        ValueError: If the heads cannot share `qk_dim` or `v_dim` evenly.

    Source: as `CrossAttention`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        widening_factor: int = 1,
        dropout: float = 0.0,
        gelu_approximation: GeluApproximation = "none",
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or dim
        v_dim = v_dim or qk_dim
        require_divisible(qk_dim, num_heads)
        require_divisible(v_dim, num_heads)
        self.num_heads = num_heads
        self.widths = [qk_dim, qk_dim, v_dim]  # of queries, keys and values
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 2 * qk_dim + v_dim)
        self.output = nn.Linear(v_dim, dim)
        self.mlp = MLP(dim, widening_factor, dropout, gelu_approximation)

    def forward(
        self,
        inputs: Float[Tensor, "batch entities dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None = None,
    ) -> Float[Tensor, "batch entities dim"]:
        """Same shape as the input; absent slots are read by nobody, what they become means nothing."""
        return self._answer(inputs, self._read(self._project(inputs), entity_mask))

    def forward_packed(self, inputs: Packed) -> Packed:
        """`forward` for sets of different sizes."""
        packing = inputs.packing
        if inputs.suits_kernels:
            return Packed(self._answer(inputs.values, self._read_jagged(inputs)), packing)
        rows = packing.spread(self._project(inputs.values))
        read = [self._read(of_bucket, bucket.mask) for of_bucket, bucket in zip(rows, packing.buckets, strict=True)]
        return Packed(self._answer(inputs.values, packing.collect(read)), packing)

    def weights(
        self,
        inputs: Float[Tensor, "batch entities dim"],
        entity_mask: Bool[Tensor, "batch entities"] | None = None,
    ) -> Float[Tensor, "batch heads entities entities"]:
        """What each element attends to, for the arguments of `forward`."""
        query, key, _ = self._split(self._project(inputs))
        return attention_weights(query, key, entity_mask)

    def _project(self, inputs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch projected"]:
        """Query, key and value side by side."""
        return self.query_key_value(self.norm(inputs))

    def _split(self, projected: Float[Tensor, "batch entities projected"]) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each `[batch, heads, entities, dim]`."""
        query, key, value = projected.split(self.widths, dim=-1)
        return split_heads(query, self.num_heads), split_heads(key, self.num_heads), split_heads(value, self.num_heads)

    def _read(
        self, projected: Float[Tensor, "batch entities projected"], entity_mask: Bool[Tensor, "batch entities"] | None
    ) -> Float[Tensor, "batch entities v_dim"]:
        """What each element reads from the others."""
        return merge_heads(attend(*self._split(projected), entity_mask, self.dropout if self.training else 0.0))

    def _read_jagged(self, inputs: Packed) -> Float[Tensor, "rows v_dim"]:
        """What packed elements read from those of their own sample, without buckets."""
        projected = self._project(inputs.values).split(self.widths, dim=-1)
        query, key, value = (each.unflatten(-1, (self.num_heads, -1)) for each in projected)
        extent = Extent(inputs.packing.offsets, inputs.packing.shortest, inputs.packing.longest)
        return attend_jagged(query, key, value, extent, extent, self.dropout if self.training else 0.0).flatten(1)

    def _answer(
        self, inputs: Float[Tensor, "*batch dim"], read: Float[Tensor, "*batch v_dim"]
    ) -> Float[Tensor, "*batch dim"]:
        """The end of `forward`, for each element by itself."""
        inputs = inputs + self.output(read)
        return inputs + self.mlp(inputs)
