"""The same attention in another order of products, where one side is much longer than the other.

A linear layer and an attention score are both products, and products can be regrouped. With a query `q`, an
input `x`, and the key layer `k = W x + b`::

    q · (W x + b)  =  (Wᵀ q) · x  +  q · b

The last term is the same for every input, and a softmax does not see it. So a few queries that read many
inputs (latents reading entities) need no keys: the key layer is *absorbed* into the queries, once, and the
inputs are their own keys. Values likewise: a weighted mean of `W x + b` is `W · (weighted mean of x) + b`.
Where many queries read a few inputs (actors reading latents), the query and output layers are absorbed into
keys and values in the same way.

What is computed is the same up to rounding. What it costs is not: for 32 latents of 4 heads at width 128,
each entity that is read takes 1.25 times fewer multiplications (a whole read of 512 entities about 1.2 times
fewer), and the entities' keys and values are never stored.

Source: associativity; known from the compressed keys of multi-head latent attention (DeepSeek-V2, 2024,
    section 2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_rl.nn.softmax import softmax

ReadForm = Literal["plain", "many inputs", "many queries"]

SMALL_MATRIX = 8
"""A product with one matrix for each sample takes as long as one with so many more rows in each."""


@dataclass(frozen=True)
class ReadShape:
    """Sizes of one cross-attention, from which its cost follows."""

    batch: int
    shared_queries: bool
    """Whether one array of queries serves the whole batch."""
    queries: int
    inputs: int
    query_dim: int
    input_dim: int
    qk_dim: int
    v_dim: int
    heads: int
    masked: bool = False
    """Whether some of the inputs are absent, which "many queries" cannot leave out."""


@dataclass(frozen=True)
class ReadLayers:
    """The projections of one cross-attention."""

    query: nn.Linear
    key_value: nn.Linear
    """Keys first."""
    output: nn.Linear
    """Of what was read, all heads together."""
    num_heads: int


def cheapest_form(shape: ReadShape) -> ReadForm:
    """The order of products that costs least.

    Costs are multiplications, but those of the products that absorption adds, one small matrix for each
    sample, count for more, the smaller that matrix. The factor is a fit to where the forms were seen to change
    places on a CPU (4 to 32 latents at widths 32 to 256, 8 to 256 entities, one thread and two, forward and
    backward).

    Under `torch.export` the answer is always "plain": a graph for sizes that are not known yet cannot depend
    on them.
    """
    if torch.compiler.is_exporting():
        return "plain"
    s = shape
    once = s.batch if not s.shared_queries else 1  # how often is computed what depends on queries alone
    attended = s.qk_dim + s.v_dim
    query_layer = once * s.queries * s.query_dim * s.qk_dim
    output_layer = s.batch * s.queries * s.v_dim * s.query_dim
    costs: dict[ReadForm, float] = {
        "plain": query_layer + output_layer + s.batch * s.inputs * attended * (s.input_dim + s.queries),
        "many inputs": query_layer
        + output_layer
        + once * s.queries * s.qk_dim * s.input_dim
        + s.batch * s.queries * s.v_dim * s.input_dim
        + 2 * s.batch * (s.inputs + SMALL_MATRIX) * s.heads * s.queries * s.input_dim,
        "many queries": s.batch * s.inputs * attended * (s.input_dim + s.query_dim)
        + 2 * s.batch * (s.queries + SMALL_MATRIX) * s.heads * s.inputs * s.query_dim,
    }
    if s.masked:
        del costs["many queries"]
    return min(costs, key=costs.__getitem__)


def read_many_inputs(
    layers: ReadLayers,
    queries: Float[Tensor, "#batch queries query_dim"],
    inputs: Float[Tensor, "batch inputs input_dim"],
    input_mask: Bool[Tensor, "batch inputs"] | None,
    dropout: float,
) -> Float[Tensor, "batch queries query_dim"]:
    """Attention in which inputs are their own keys and values; cheapest where they outnumber the queries.

    Args:
        layers: The projections.
        queries: Normed queries; a batch axis of 1 serves every sample.
        inputs: Normed inputs, finite everywhere.
        input_mask: True = present; None = all present.
        dropout: Probability of dropping an attention weight.
    """
    # letters: b batch, 1 or b of the queries; l queries; n inputs; h heads; k, v channels of a head; d input_dim
    num_heads, batch, qk_dim = layers.num_heads, inputs.shape[0], layers.query.out_features
    key_weight, value_weight = layers.key_value.weight.split([qk_dim, layers.output.in_features])
    value_bias = layers.key_value.bias[qk_dim:].unflatten(0, (num_heads, -1))  # h v
    query = layers.query(queries) * (qk_dim // num_heads) ** -0.5
    absorbed = torch.einsum(
        "blhk,hkd->blhd", query.unflatten(-1, (num_heads, -1)), key_weight.unflatten(0, (num_heads, -1))
    ).flatten(1, 2)  # 1|b l·h d
    shared = absorbed.expand(batch, -1, -1)
    if input_mask is None:
        weights = softmax(shared @ inputs.transpose(1, 2))  # b l·h n
    else:
        # As in `attend`: where nothing is present, everything is read, finite, and thrown away below.
        any_present = input_mask.any(dim=1)[:, None, None]
        bias = torch.where(input_mask.unsqueeze(1) | ~any_present, 0.0, -torch.inf).to(shared.dtype)
        weights = softmax(torch.baddbmm(bias, shared, inputs.transpose(1, 2)))
    weights = F.dropout(weights, dropout)
    if dropout:  # else each row of weights adds up to 1
        value_bias = weights.sum(dim=-1).unflatten(1, (-1, num_heads)).unsqueeze(-1) * value_bias  # b l h v
    mean_inputs = (weights @ inputs).unflatten(1, (-1, num_heads))  # b l h d
    values = torch.einsum("blhd,hvd->blhv", mean_inputs, value_weight.unflatten(0, (num_heads, -1))) + value_bias
    values = values.flatten(2)
    if input_mask is not None:
        values = torch.where(any_present, values, 0.0)
    return layers.output(values)


def read_many_queries(
    layers: ReadLayers,
    queries: Float[Tensor, "#batch queries query_dim"],
    inputs: Float[Tensor, "batch inputs input_dim"],
    dropout: float,
) -> Float[Tensor, "batch queries query_dim"]:
    """Attention in which query and output layers are absorbed into keys and values; for a few inputs, all present.

    Args: as of `read_many_inputs`.
    """
    # letters: b batch; q queries; l inputs; h heads; k, v channels of a head; d query_dim
    num_heads, qk_dim = layers.num_heads, layers.query.out_features
    key, value = layers.key_value(inputs).split([qk_dim, layers.output.in_features], dim=-1)
    key = key.unflatten(-1, (num_heads, -1)) * (qk_dim // num_heads) ** -0.5  # b l h k
    absorbed_key = torch.einsum("blhk,hkd->bdhl", key, layers.query.weight.unflatten(0, (num_heads, -1))).flatten(2)
    bias = torch.einsum("blhk,hk->bhl", key, layers.query.bias.unflatten(0, (num_heads, -1))).flatten(1)  # b h·l
    absorbed_value = torch.einsum(
        "blhv,dhv->bhld", value.unflatten(-1, (num_heads, -1)), layers.output.weight.unflatten(1, (num_heads, -1))
    ).flatten(1, 2)  # b h·l d
    scores = torch.baddbmm(bias.unsqueeze(1), queries.expand(inputs.shape[0], -1, -1), absorbed_key)  # b q h·l
    weights = softmax(scores.unflatten(-1, (num_heads, -1))).flatten(2)
    return torch.baddbmm(layers.output.bias, F.dropout(weights, dropout), absorbed_value)
