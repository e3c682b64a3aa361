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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.nn.masked_attention import attend, merge_heads, split_heads
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
    queries: int | float
    """Of each sample; a mean where they differ in number."""
    inputs: int | float
    """Likewise."""
    query_dim: int
    input_dim: int
    qk_dim: int
    v_dim: int
    heads: int


@dataclass(frozen=True)
class ReadLayers:
    """The projections of one cross-attention."""

    query: nn.Linear
    key_value: nn.Linear
    """Keys first."""
    output: nn.Linear
    """Of what was read, all heads together."""
    num_heads: int
    dropout: float = 0.0
    """Probability of dropping an attention weight; only "plain" has it."""

    @property
    def widths(self) -> list[int]:
        """Of keys and of values, all heads together."""
        return [self.query.out_features, self.output.in_features]


@runtime_checkable
class Read(Protocol):
    """An order of the products of one cross-attention, in four steps.

    `project_queries` and `finish` treat each query by itself, so rows of a packed batch will do. `project_inputs`
    treats each input by itself, but that of "many queries" wants a batch.
    """

    def project_queries(self, queries: Float[Tensor, "*rows query_dim"]) -> Float[Tensor, "*rows *projected"]:
        """What of normed queries meets the inputs."""
        ...

    def project_inputs(self, inputs: Float[Tensor, "*rows input_dim"]) -> tuple[Float[Tensor, "..."], ...]:
        """What of normed inputs, finite everywhere, meets the queries."""
        ...

    def attend(
        self,
        queries: Float[Tensor, "#batch queries *projected"],
        inputs: tuple[Float[Tensor, "batch ..."], ...],
        input_mask: Bool[Tensor, "batch inputs"] | None,
    ) -> Float[Tensor, "batch queries *attended"]:
        """What projected queries read from projected inputs."""
        ...

    def finish(
        self, attended: Float[Tensor, "*rows *attended"], input_mask: Bool[Tensor, "batch inputs"] | None
    ) -> Float[Tensor, "*rows query_dim"]:
        """The answers; `input_mask` says which inputs were there to be read, None that each sample had one."""
        ...


def cheapest_form(shape: ReadShape, forms: Sequence[ReadForm]) -> ReadForm:
    """The order of products that costs least.

    Costs are multiplications, but those of the products that absorption adds, one small matrix for each
    sample, count for more, the smaller that matrix. The factor is a fit to where the forms were seen to change
    places on a CPU (4 to 32 latents at widths 32 to 256, 8 to 256 entities, one thread and two, forward and
    backward).

    Under `torch.export` the answer is always "plain": a graph for sizes that are not known yet cannot depend
    on them.

    Args:
        shape: Sizes.
        forms: Those that will do: "many queries" leaves out no absent input, "many inputs" wants to know of samples
            without any.
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
    cheapest = forms[0]
    for form in forms[1:]:  # and no `min`, which torch.compile cannot follow where sizes are symbols
        if costs[form] < costs[cheapest]:
            cheapest = form
    return cheapest


class PlainRead:
    """Queries, keys and values as the layers make them."""

    def __init__(self, layers: ReadLayers) -> None:
        self.layers = layers

    def project_queries(self, queries: Float[Tensor, "*rows query_dim"]) -> Float[Tensor, "*rows qk_dim"]:
        """The query layer."""
        return self.layers.query(queries)

    def project_inputs(self, inputs: Float[Tensor, "*rows input_dim"]) -> tuple[Float[Tensor, "*rows key_value_dim"]]:
        """Keys and values side by side."""
        return (self.layers.key_value(inputs),)

    def attend(
        self,
        queries: Float[Tensor, "#batch queries qk_dim"],
        inputs: tuple[Float[Tensor, "batch inputs key_value_dim"], ...],
        input_mask: Bool[Tensor, "batch inputs"] | None,
    ) -> Float[Tensor, "batch queries v_dim"]:
        """A mean of values."""
        (key_value,), num_heads = inputs, self.layers.num_heads
        query = split_heads(queries, num_heads).expand(key_value.shape[0], -1, -1, -1)
        key, value = (split_heads(each, num_heads) for each in key_value.split(self.layers.widths, dim=-1))
        return merge_heads(attend(query, key, value, input_mask, self.layers.dropout))

    def finish(
        self, attended: Float[Tensor, "*rows v_dim"], input_mask: Bool[Tensor, "batch inputs"] | None
    ) -> Float[Tensor, "*rows query_dim"]:
        """The output layer; where nothing is present `attend` has seen to it."""
        return self.layers.output(attended)


class ManyInputsRead:
    """Key and value layers absorbed: inputs are their own keys and values; cheapest where they outnumber the queries."""

    # letters: b batch, or 1; l queries; n inputs; h heads; k, v channels of a head; d input_dim

    def __init__(self, layers: ReadLayers) -> None:
        self.layers = layers
        key, value = layers.key_value.weight.split(layers.widths)
        self.key = key.unflatten(0, (layers.num_heads, -1))  # h k d
        self.value = value.unflatten(0, (layers.num_heads, -1))  # h v d

    def project_queries(self, queries: Float[Tensor, "*rows query_dim"]) -> Float[Tensor, "*rows heads input_dim"]:
        """Queries of each head, in the inputs' own channels."""
        num_heads, qk_dim, _ = self.key.shape
        query = (self.layers.query(queries) * qk_dim**-0.5).unflatten(-1, (num_heads, -1))
        return torch.einsum("...hk,hkd->...hd", query, self.key)

    def project_inputs(self, inputs: Float[Tensor, "*rows input_dim"]) -> tuple[Float[Tensor, "*rows input_dim"]]:
        """As they are."""
        return (inputs,)

    def attend(
        self,
        queries: Float[Tensor, "#batch queries heads input_dim"],
        inputs: tuple[Float[Tensor, "batch inputs input_dim"], ...],
        input_mask: Bool[Tensor, "batch inputs"] | None,
    ) -> Float[Tensor, "batch queries heads input_dim"]:
        """For each head a mean of inputs; anything finite where none is present."""
        (read,) = inputs
        absorbed = queries.flatten(1, 2).expand(read.shape[0], -1, -1)  # b l·h d
        if input_mask is None:
            scores = absorbed @ read.transpose(1, 2)  # b l·h n
        else:
            # As in `attend`: where nothing is present, everything is read, finite, and thrown away later.
            any_present = input_mask.any(dim=1)[:, None, None]
            bias = torch.where(input_mask.unsqueeze(1) | ~any_present, 0.0, -torch.inf).to(absorbed.dtype)
            scores = torch.baddbmm(bias, absorbed, read.transpose(1, 2))
        return (softmax(scores) @ read).unflatten(1, queries.shape[1:3])

    def finish(
        self, attended: Float[Tensor, "*rows heads input_dim"], input_mask: Bool[Tensor, "batch inputs"] | None
    ) -> Float[Tensor, "*rows query_dim"]:
        """Value and output layers; zeros are read where nothing is present."""
        num_heads, qk_dim, _ = self.key.shape
        bias = self.layers.key_value.bias[num_heads * qk_dim :].unflatten(0, (num_heads, -1))  # h v
        values = (torch.einsum("...hd,hvd->...hv", attended, self.value) + bias).flatten(-2)
        if input_mask is not None:
            values = torch.where(input_mask.any(dim=1)[:, None, None], values, 0.0)
        return self.layers.output(values)


class ManyQueriesRead:
    """Query and output layers absorbed into keys and values; for a few inputs, all present."""

    # letters: b batch; q queries; l inputs; h heads; k, v channels of a head; d query_dim

    def __init__(self, layers: ReadLayers) -> None:
        self.layers = layers

    def project_queries(self, queries: Float[Tensor, "*rows query_dim"]) -> Float[Tensor, "*rows query_dim"]:
        """As they are."""
        return queries

    def project_inputs(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of each head in the queries' own channels, and a bias of scores.

        Returns:
            Keys `[batch, query_dim, heads·inputs]`, what the query layer's bias adds to a score
            `[batch, 1, heads·inputs]`, and values `[batch, heads·inputs, query_dim]`.
        """
        layers, num_heads = self.layers, self.layers.num_heads
        key, value = (part.unflatten(-1, (num_heads, -1)) for part in layers.key_value(inputs).split(layers.widths, dim=-1))
        key = key * key.shape[-1] ** -0.5  # b l h k
        absorbed_key = torch.einsum("blhk,hkd->bdhl", key, layers.query.weight.unflatten(0, (num_heads, -1))).flatten(2)
        bias = torch.einsum("blhk,hk->bhl", key, layers.query.bias.unflatten(0, (num_heads, -1))).flatten(1)
        absorbed_value = torch.einsum("blhv,dhv->bhld", value, layers.output.weight.unflatten(1, (num_heads, -1)))
        return absorbed_key, bias.unsqueeze(1), absorbed_value.flatten(1, 2)

    def attend(
        self,
        queries: Float[Tensor, "#batch queries query_dim"],
        inputs: tuple[Tensor, ...],
        input_mask: Bool[Tensor, "batch inputs"] | None,
    ) -> Float[Tensor, "batch queries query_dim"]:
        """The answers."""
        assert input_mask is None, "some inputs are absent, which this order cannot leave out"
        key, bias, value = inputs
        scores = torch.baddbmm(bias, queries.expand(key.shape[0], -1, -1), key)  # b q h·l
        weights = softmax(scores.unflatten(-1, (self.layers.num_heads, -1))).flatten(2)
        return torch.baddbmm(self.layers.output.bias, weights, value)

    def finish(
        self, attended: Float[Tensor, "*rows query_dim"], input_mask: Bool[Tensor, "batch inputs"] | None
    ) -> Float[Tensor, "*rows query_dim"]:
        """They are finished."""
        return attended


READS: dict[ReadForm, Callable[[ReadLayers], Read]] = {
    "plain": PlainRead,
    "many inputs": ManyInputsRead,
    "many queries": ManyQueriesRead,
}
