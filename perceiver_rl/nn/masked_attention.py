"""Attention over sets with absent slots: the functions in which queries, keys, values and masks meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from perceiver_rl.nn.softmax import SHORT, softmax


def attend(
    query: Float[Tensor, "batch heads queries qk_dim"],
    key: Float[Tensor, "batch heads entities qk_dim"],
    value: Float[Tensor, "batch heads entities v_dim"],
    entity_mask: Bool[Tensor, "batch entities"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads queries v_dim"]:
    """Scaled dot-product attention that never reads an absent slot.

    Args:
        query: Queries, one head each.
        key: Keys; must be finite, also in absent slots (`clear_absent` sees to that).
        value: Values; must be finite, likewise.
        entity_mask: True = present; None = all present.
        dropout: Probability of dropping an attention weight.

    Returns:
        For each query the weighted mean of the present values. Where nothing is present, exact zeros: a
        softmax over nothing would be NaN or, with a large negative bias instead of a mask, the mean of what
        is absent.

    Source: Jaegle et al. 2022, appendix E; zeros for empty rows as in DeepMind's `attend`. Hugging Face's
        implementation returns the mean of the absent values there.
    """
    if query.is_cpu and not torch.compiler.is_compiling() and key.shape[2] <= SHORT:
        # PyTorch's kernel pays off on longer sets only: of 8 to 16 it took up to twice the time.
        return F.dropout(attention_weights(query, key, entity_mask), dropout) @ value
    if entity_mask is None:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    mask = entity_mask[:, None, None, :]
    any_present = mask.any(dim=-1, keepdim=True)
    # A row with nothing present reads everything, and is thrown away after that: a kernel that made NaN of it
    # would pass the NaN on to the values' gradients, where a zero gradient does not stop it.
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | ~any_present, dropout_p=dropout)
    return torch.where(any_present, attended, 0.0)


@dataclass(frozen=True)
class Extent:
    """Where the rows of each sample are, of samples whose rows follow one another."""

    offsets: Int[Tensor, " offsets"]
    """First row of each sample, and the number of rows."""
    shortest: int
    """Rows of the smallest sample. PyTorch's variable-length kernels take no sample without any."""
    longest: int
    """Rows of the largest."""


def attend_jagged(
    query: Float[Tensor, "query_rows heads qk_dim"],
    key: Float[Tensor, "rows heads qk_dim"],
    value: Float[Tensor, "rows heads v_dim"],
    query_extent: Extent,
    extent: Extent,
    dropout: float = 0.0,
) -> Float[Tensor, "query_rows heads v_dim"]:
    """`attend` for samples of different sizes whose rows follow one another, without a slot for what is absent.

    PyTorch runs its variable-length kernels for it where a device has some, which is why CUDA takes this way.

    Args:
        query: Queries of all samples, one head each.
        key: Keys of all samples.
        value: Values of all samples.
        query_extent: Where each sample's queries are.
        extent: Where each sample's keys and values are.
        dropout: Probability of dropping an attention weight.
    """

    def jagged(rows: Tensor, extent: Extent) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged(
            rows.contiguous(), extent.offsets, min_seqlen=extent.shortest, max_seqlen=extent.longest
        )
        return nested.transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        jagged(query, query_extent), jagged(key, extent), jagged(value, extent), dropout_p=dropout
    )
    rows: Tensor = attended.transpose(1, 2).values()
    counts = extent.offsets.diff().repeat_interleave(query_extent.offsets.diff())
    return torch.where(counts[:, None, None] > 0, rows, 0.0)  # as in `attend`: nothing present, nothing read


def attention_weights(
    query: Float[Tensor, "batch heads queries qk_dim"],
    key: Float[Tensor, "batch heads entities qk_dim"],
    entity_mask: Bool[Tensor, "batch entities"] | None = None,
) -> Float[Tensor, "batch heads queries entities"]:
    """The weights by which `attend` takes its mean: rows add up to 1, or are zeros where nothing is present.

    Over long sets for looking at, not for computing with: there `attend` never stores them.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if entity_mask is None:
        return softmax(scores)
    mask = entity_mask[:, None, None, :]
    return torch.where(mask, softmax(torch.where(mask, scores, torch.finfo(scores.dtype).min)), 0.0)


def clear_absent(
    tokens: Float[Tensor, "batch entities dim"], entity_mask: Bool[Tensor, "batch entities"] | None
) -> Float[Tensor, "batch entities dim"]:
    """Put zeros in absent slots.

    Done once, on the way in: a NaN times a weight of 0 would still be NaN, also in gradients.
    """
    return tokens if entity_mask is None else torch.where(entity_mask.unsqueeze(-1), tokens, 0.0)


def split_heads(
    tokens: Float[Tensor, "batch entities dim"], num_heads: int
) -> Float[Tensor, "batch {num_heads} entities dim//{num_heads}"]:
    """Bring the heads, which lie side by side in the channels, to an axis of their own."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(
    heads: Float[Tensor, "batch heads entities head_dim"],
) -> Float[Tensor, "batch entities heads*head_dim"]:
    """The inverse of `split_heads`."""
    return heads.transpose(1, 2).flatten(2)


def require_divisible(dim: int, num_heads: int, name: str = "num_heads") -> None:
    """Raise if the channels cannot be shared out to the heads evenly; `name` is what the user set."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"{name}: got {num_heads}, expected a divisor of the width {dim}")
