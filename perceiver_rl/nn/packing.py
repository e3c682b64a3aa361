"""Ragged batches: rows for what is present, and no arithmetic on what is not.

A padded batch `[batch, slots, dim]` whose samples have 2, 0 and 3 present entities, in slots that a mask
names, is packed into 5 rows, sample by sample::

    mask   ● · ●      rows   0 ─ sample 0, slot 0
           · · ·             1 ─ sample 0, slot 2
           ● ● ●             2 ─ sample 2, slot 0
                             3 ─ sample 2, slot 1
                             4 ─ sample 2, slot 2

Layers that treat each entity by itself (embeddings, norms, MLPs) run over the rows as they are. Attention
needs to know which rows belong together. A few large samples are taken one by one, as the parts of the rows
that they are. Others of similar counts are put side by side into *buckets*, each padded to its own longest
sample only::

    bucket of samples [2]      rows 2 3 4
    bucket of samples [0, 1]   rows 0 1
                                    – –

On CUDA attention runs over the rows themselves, by PyTorch's jagged tensors, and needs no bucket.
Few long buckets waste slots, many short ones waste calls; `Packing.from_mask` splits where that saves more
than a call costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

CALL_COST = 512
"""Slots that one more bucket must save to be worth its calls; a choice between two costs, not a limit."""

MAX_BUCKETS = 8

LARGE = 192
"""Rows of an average sample from which on a few samples are taken one by one: calls for each cost less than moving rows."""


@dataclass(frozen=True)
class Bucket:
    """Samples of similar counts."""

    samples: Int[Tensor, " samples"]
    """Which samples of the batch."""
    length: int
    """Slots of each."""
    mask: Bool[Tensor, "samples length"] | None
    """True = present; None = all present."""


@dataclass(frozen=True)
class SlotRows:
    """Rows of a packed batch that stand in some of its slots."""

    rows: Int[Tensor, " some"]
    samples: Int[Tensor, " some"]
    """Sample of each row."""
    slots: Int[Tensor, " some"]
    """Slot of each row, counted from the first of those slots."""


class Packing:
    """Where the present elements of a padded batch stand, as rows and in buckets.

    Made once from a mask and used for every tensor of that batch. Its sizes depend on data, so it is not for
    compiled or exported graphs.
    """

    def __init__(self, mask: Bool[Tensor, "batch slots"], buckets: tuple[Bucket, ...], *, moves_rows: bool) -> None:
        device, present = mask.device, mask.flatten()
        counts = mask.sum(dim=1)
        self.mask = mask
        """The padded form: True = present."""
        self.shape = tuple(mask.shape)
        """Batch and slots of the padded form."""
        self.positions = present.nonzero().squeeze(1)
        """Row → position in the padded form, both counted sample by sample."""
        self.row_at: Tensor = torch.where(present, present.cumsum(0) - 1, len(self.positions))
        """Position in the padded form → row; where nothing is present, the number of rows."""
        self.buckets = buckets
        self.offsets: Tensor = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        """First row of each sample, and the number of rows."""
        self.num_slots = sum(len(bucket.samples) * bucket.length for bucket in buckets)
        """Slots of all buckets, those without a row included: what attention is computed for."""
        self.longest = max(1, *(bucket.length for bucket in buckets))
        """Entities of the largest sample, at least 1."""
        self.shortest = int(counts.min())
        """Entities of the smallest sample."""
        self._shown: Tensor | None = None  # place in the buckets, one after another → row, or the number of rows
        if moves_rows:
            places = []
            for bucket in buckets:
                slots = torch.arange(bucket.length, device=device)
                rows = self.offsets[bucket.samples, None] + slots
                places.append(torch.where(slots < counts[bucket.samples, None], rows, len(self.positions)).flatten())
            self._shown = torch.cat(places)
            self._place = _inverse(self._shown, len(self.positions))  # row → place
            self._samples = torch.cat([bucket.samples for bucket in buckets])  # bucket by bucket
            self._sample_order = self._samples.argsort()

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "batch slots"],
        *,
        call_cost: int = CALL_COST,
        max_buckets: int = MAX_BUCKETS,
        large: int | float = LARGE,
    ) -> Packing:
        """Plan for a mask.

        Args:
            mask: True = present.
            call_cost: Slots that one more bucket must save.
            max_buckets: How many buckets at most.
            large: Rows of an average sample from which on each is a bucket by itself, on a CPU, if there are no more samples
                than buckets may be and none is empty.
        """
        if not mask.shape[0]:
            raise ValueError("mask: got a batch of no samples, expected at least one")
        counts = mask.sum(dim=1).cpu().numpy()
        if len(counts) <= max_buckets and counts.mean() >= large and counts.min() > 0 and mask.is_cpu:
            samples = torch.arange(len(counts), device=mask.device).unsqueeze(1)
            buckets = [Bucket(sample, int(count), None) for sample, count in zip(samples, counts, strict=True)]
            return cls(mask, tuple(buckets), moves_rows=False)
        order = np.argsort(-counts, kind="stable")
        buckets = []
        for first, last in pairwise(_bucket_edges(counts[order], call_cost, max_buckets)):
            of_bucket = counts[order[first:last]]
            length = max(1, int(of_bucket.max()))
            samples = torch.from_numpy(order[first:last]).to(mask.device)
            present = torch.arange(length)[None] < torch.from_numpy(of_bucket)[:, None]
            buckets.append(Bucket(samples, length, None if present.all() else present.to(mask.device)))
        return cls(mask, tuple(buckets), moves_rows=True)

    @property
    def num_rows(self) -> int:
        """Present elements."""
        return len(self.positions)

    @property
    def mean_rows(self) -> float:
        """Present elements of an average sample."""
        return self.num_rows / len(self.mask)

    def pack(self, padded: Float[Tensor, "batch slots dim"]) -> Packed:
        """Take the present elements out of a padded batch."""
        batch, slots, _ = padded.shape
        if (batch, slots) != self.shape:
            raise ValueError(
                f"pack: got a batch of {batch} samples of {slots} slots, expected {self.shape[0]} of {self.shape[1]}"
            )
        return Packed(_take(padded.flatten(0, 1), self.positions, self.row_at), self)

    def unpack(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "batch slots dim"]:
        """Put rows back to where they stood, with zeros in absent slots."""
        return _take(rows, self.row_at, self.positions, holes=True).unflatten(0, self.shape)

    def rows_of(self, slots: slice) -> SlotRows:
        """The rows that stand in some of the slots, e.g. those of one entity type."""
        slot = self.positions % self.shape[1]
        rows = ((slot >= slots.start) & (slot < slots.stop)).nonzero().squeeze(1)
        return SlotRows(rows, self.positions[rows] // self.shape[1], slot[rows] - slots.start)

    def join(self, parts: list[tuple[SlotRows, Float[Tensor, "_ dim"]]]) -> Packed:
        """Values of all rows from those of parts that together are all slots."""
        row = torch.cat([rows.rows for rows, _ in parts])
        return Packed(_take(torch.cat([values for _, values in parts]), row.argsort(), row), self)

    def spread(self, rows: Float[Tensor, "rows *dim"]) -> list[Float[Tensor, "_ _ *dim"]]:
        """Show rows bucket by bucket, with zeros in slots without a row."""
        sizes = [len(bucket.samples) * bucket.length for bucket in self.buckets]
        shown = rows if self._shown is None else _take(rows, self._shown, self._place, holes=True)
        return [
            part.unflatten(0, (len(bucket.samples), bucket.length))
            for part, bucket in zip(shown.split(sizes), self.buckets, strict=True)
        ]

    def collect(self, spread: list[Float[Tensor, "_ _ *dim"]]) -> Float[Tensor, "rows *dim"]:
        """The inverse of `spread`."""
        shown = _joined([each.flatten(0, 1) for each in spread])
        return shown if self._shown is None else _take(shown, self._place, self._shown)

    def by_bucket(self, per_sample: Shaped[Tensor, "batch *rest"]) -> list[Shaped[Tensor, "_ *rest"]]:
        """Share out to the buckets what there is for each sample."""
        if len(per_sample) != self.shape[0]:
            raise ValueError(f"packing: got {len(per_sample)} samples, expected {self.shape[0]}, as many as were packed")
        shared = per_sample if self._shown is None else _take(per_sample, self._samples, self._sample_order)
        return list(shared.split([len(bucket.samples) for bucket in self.buckets]))

    def in_sample_order(self, per_bucket: list[Shaped[Tensor, "_ *rest"]]) -> Shaped[Tensor, "batch *rest"]:
        """The inverse of `by_bucket`."""
        joined = _joined(per_bucket)
        return joined if self._shown is None else _take(joined, self._sample_order, self._samples)


@dataclass(frozen=True)
class Packed:
    """Values of the present elements of a batch, one row each, and where they belong."""

    values: Float[Tensor, "rows dim"]
    packing: Packing

    @property
    def suits_kernels(self) -> bool:
        """Whether PyTorch has variable-length attention for it: on CUDA, where no sample is empty."""
        return self.values.is_cuda and self.packing.shortest > 0

    def map(self, layer: Callable[[Tensor], Tensor]) -> Packed:
        """Apply a layer that treats each row by itself."""
        return Packed(layer(self.values), self.packing)

    def padded(self) -> Float[Tensor, "batch slots dim"]:
        """In padded form, zeros in absent slots."""
        return self.packing.unpack(self.values)


class _Take(torch.autograd.Function):
    """Rows by an index that names none twice and, if it has `holes`, may name the row past the last, which is zeros.

    Its gradient is taken in the same way, by the inverse index. Autograd's own backward of indexing adds up,
    slot by slot, for the case that one row was taken twice.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor | None, holes: bool) -> Tensor:
        ctx.num_rows = len(rows)
        ctx.save_for_backward(*((index,) if inverse is None else (index, inverse)))
        if holes:
            rows = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        index, *given = ctx.saved_tensors
        inverse = given[0] if given else _inverse(index, ctx.num_rows)
        # No row is named twice, so some rows are not named at all where there are more of them.
        return _take(gradients[0], inverse, index, holes=len(inverse) > len(index)), None, None, None


def _take(rows: Tensor, index: Tensor, inverse: Tensor | None = None, *, holes: bool = False) -> Tensor:
    return _Take.apply(rows, index, inverse, holes)  # type: ignore[no-untyped-call]


def pick_rows(rows: Float[Tensor, "rows *rest"], positions: Int[Tensor, " some"]) -> Float[Tensor, "some *rest"]:
    """Some rows, none of them twice: `rows[positions]`, whose gradient is put back without adding up."""
    return _take(rows, positions)


def _inverse(index: Int[Tensor, " some"], num_rows: int) -> Int[Tensor, " rows"]:
    """Row → where an index names it, or the index's length where it does not."""
    inverse = torch.full((num_rows + 1,), len(index), device=index.device)
    inverse[index] = torch.arange(len(index), device=index.device)
    return inverse[:num_rows]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _bucket_edges(counts: np.ndarray, call_cost: int, max_buckets: int) -> list[int]:
    """Split counts, sorted downwards, where it saves most, while it saves more than a call costs."""
    edges = [0, len(counts)]
    while len(edges) <= max_buckets:
        saving, at = 0, 0
        for first, last in pairwise(edges):
            # A split at m pads what comes after it to counts[m] instead of counts[first].
            savings = (last - np.arange(first, last)) * (counts[first] - counts[first:last])
            best = int(savings.argmax())
            if savings[best] > saving:
                saving, at = int(savings[best]), first + best
        if saving <= call_cost:
            break
        edges = sorted([*edges, at])
    return edges
