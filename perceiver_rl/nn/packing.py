"""Ragged batches: rows for what is present, and no arithmetic on what is not.

A padded batch `[batch, slots, dim]` whose samples have 2, 0 and 3 present entities, in slots that a mask
names, is packed into 5 rows, sample by sample::

    mask   ● · ●      rows   0 ─ sample 0, slot 0
           · · ·             1 ─ sample 0, slot 2
           ● ● ●             2 ─ sample 2, slot 0
                             3 ─ sample 2, slot 1
                             4 ─ sample 2, slot 2

Layers that treat each entity by itself (embeddings, norms, MLPs) run over the rows as they are. Attention
needs to know which rows belong together: samples of similar counts are put side by side into *buckets*, each
padded to its own longest sample only::

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
from jaxtyping import Bool, Float, Int
from torch import Tensor

CALL_COST = 512
"""Slots that one more bucket must save to be worth its calls; a choice between two costs, not a limit."""

MAX_BUCKETS = 8


@dataclass(frozen=True)
class Bucket:
    """Samples of similar counts."""

    samples: Int[Tensor, " samples"]
    """Which samples of the batch."""
    length: int
    """Slots of each, at least 1."""
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

    def __init__(
        self, mask: Bool[Tensor, "batch slots"], positions: Int[Tensor, " rows"], buckets: tuple[Bucket, ...]
    ) -> None:
        device = mask.device
        self.mask = mask
        """The padded form: True = present."""
        self.shape = tuple(mask.shape)
        """Batch and slots of the padded form."""
        self.positions = positions
        """Row → position in the padded form, both counted sample by sample."""
        self.buckets = buckets
        counts = mask.sum(dim=1)
        first_row = counts.cumsum(0) - counts
        # Where a bucket has a slot without a row, it shows row 0, whose values there nobody reads.
        shown, valid = [], []
        for bucket in buckets:
            slots = torch.arange(bucket.length, device=device)
            present = slots < counts[bucket.samples, None]
            shown.append(torch.where(present, first_row[bucket.samples, None] + slots, 0).flatten())
            valid.append(present.flatten())
        self._shown: Tensor = torch.cat(shown)
        self._valid: Tensor = torch.cat(valid)
        self._place = torch.empty_like(positions)  # row → place in the buckets, one after another
        self._place[self._shown[self._valid]] = self._valid.nonzero().squeeze(1)
        self.sample_order: Tensor = torch.cat([bucket.samples for bucket in buckets]).argsort()
        """Sample → place in the buckets, one after another."""
        self.offsets: Tensor = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        """First row of each sample, and the number of rows."""
        self.longest = max(bucket.length for bucket in buckets)
        """Entities of the largest sample, at least 1."""
        self.shortest = int(counts.min())
        """Entities of the smallest sample."""

    @classmethod
    def from_mask(
        cls, mask: Bool[Tensor, "batch slots"], *, call_cost: int = CALL_COST, max_buckets: int = MAX_BUCKETS
    ) -> Packing:
        """Plan for a mask.

        Args:
            mask: True = present.
            call_cost: Slots that one more bucket must save.
            max_buckets: How many buckets at most.
        """
        if not mask.shape[0]:
            raise ValueError("mask: got a batch of no samples, expected at least one")
        counts = mask.sum(dim=1).cpu().numpy()
        order = np.argsort(-counts, kind="stable")
        edges = _bucket_edges(counts[order], call_cost, max_buckets)
        buckets = []
        for first, last in pairwise(edges):
            of_bucket = counts[order[first:last]]
            length = max(1, int(of_bucket.max()))
            samples = torch.from_numpy(order[first:last]).to(mask.device)
            present = torch.arange(length)[None] < torch.from_numpy(of_bucket)[:, None]
            buckets.append(Bucket(samples, length, None if present.all() else present.to(mask.device)))
        return cls(mask, mask.flatten().nonzero().squeeze(1), tuple(buckets))

    @property
    def num_rows(self) -> int:
        """Present elements."""
        return len(self.positions)

    @property
    def num_slots(self) -> int:
        """Slots of all buckets, those without a row included: what attention is computed for."""
        return len(self._shown)

    def pack(self, padded: Float[Tensor, "batch slots dim"]) -> Packed:
        """Take the present elements out of a padded batch."""
        batch, slots, _ = padded.shape
        if (batch, slots) != self.shape:
            raise ValueError(
                f"pack: got a batch of {batch} samples of {slots} slots, expected {self.shape[0]} of {self.shape[1]}"
            )
        return Packed(pick_rows(padded.flatten(0, 1), self.positions), self)

    def unpack(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "batch slots dim"]:
        """Put rows back to where they stood, with zeros in absent slots."""
        return _place(rows, self.positions, self.shape[0] * self.shape[1]).unflatten(0, self.shape)

    def rows_of(self, slots: slice) -> SlotRows:
        """The rows that stand in some of the slots, e.g. those of one entity type."""
        slot = self.positions % self.shape[1]
        rows = ((slot >= slots.start) & (slot < slots.stop)).nonzero().squeeze(1)
        return SlotRows(rows, self.positions[rows] // self.shape[1], slot[rows] - slots.start)

    def join(self, parts: list[tuple[SlotRows, Float[Tensor, "_ dim"]]]) -> Packed:
        """Values of all rows from those of parts that together are all slots."""
        order = torch.cat([rows.rows for rows, _ in parts]).argsort()
        return Packed(pick_rows(torch.cat([values for _, values in parts]), order), self)

    def spread(self, rows: Float[Tensor, "rows dim"]) -> list[Float[Tensor, "_ _ dim"]]:
        """Show rows bucket by bucket; slots without a row hold any row's values, and pass no gradient on."""
        shown = _show(rows, self._shown, self._place)
        sizes = [len(bucket.samples) * bucket.length for bucket in self.buckets]
        return [
            part.unflatten(0, (-1, bucket.length)) for part, bucket in zip(shown.split(sizes), self.buckets, strict=True)
        ]

    def collect(self, spread: list[Float[Tensor, "_ _ dim"]]) -> Float[Tensor, "rows dim"]:
        """The inverse of `spread`."""
        return pick_rows(torch.cat([each.flatten(0, 1) for each in spread]), self._place)

    def in_sample_order(self, per_bucket: list[Float[Tensor, "_ *rest"]]) -> Float[Tensor, "batch *rest"]:
        """Join what was computed for the samples of each bucket, in the batch's order."""
        if len(per_bucket) == 1:
            return per_bucket[0][self.sample_order]
        return torch.cat(per_bucket)[self.sample_order]


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


# Gathers whose backward pass is a gather, too. Autograd's own backward of indexing adds up, slot by slot, for
# the case that one row was taken twice; here none is.


class _Pick(torch.autograd.Function):
    """Take some rows, none twice."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.num_rows = len(rows)
        return rows.index_select(0, positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        return _place(gradients[0], positions, ctx.num_rows), None


class _Place(torch.autograd.Function):
    """Put each row into a place of its own among zeros: the transpose of `_Pick`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(positions)
        return rows.new_zeros(num_rows, *rows.shape[1:]).index_copy_(0, positions, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        return pick_rows(gradients[0], positions), None, None


class _Show(torch.autograd.Function):
    """Show each row in its place, and any row in places that belong to none; those pass no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shown: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        if not len(rows):
            return rows.new_zeros(len(shown), *rows.shape[1:])
        return rows.index_select(0, shown)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return pick_rows(gradients[0], place), None, None


def pick_rows(rows: Float[Tensor, "rows *rest"], positions: Int[Tensor, " some"]) -> Float[Tensor, "some *rest"]:
    """Some rows, none of them twice: `rows[positions]`, whose gradient is put back without adding up."""
    return _Pick.apply(rows, positions)  # type: ignore[no-untyped-call]


def _place(rows: Tensor, positions: Tensor, num_rows: int) -> Tensor:
    return _Place.apply(rows, positions, num_rows)  # type: ignore[no-untyped-call]


def _show(rows: Tensor, shown: Tensor, place: Tensor) -> Tensor:
    return _Show.apply(rows, shown, place)  # type: ignore[no-untyped-call]


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
