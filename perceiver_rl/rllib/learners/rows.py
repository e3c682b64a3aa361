"""Rows of a train batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tree
from torch import Tensor


def take_rows(columns: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """The given rows of every column of a module's batch; a column may be a nested structure of tensors.

    Args:
        columns: The module's batch.
        rows: Indices, in any order.

    Raises:
        ValueError: If a column holds anything but tensors.
    """
    return {name: _take(name, column, rows) for name, column in columns.items()}


def _take(name: str, column: Any, rows: Tensor) -> Any:
    others = {type(leaf).__name__ for leaf in tree.flatten(column) if not isinstance(leaf, Tensor)}
    if others:
        raise ValueError(
            f"train batch, column {name!r}: got {', '.join(sorted(others))}, expected tensors only; the batch is filtered "
            "and permuted, and what is not a tensor would stay behind"
        )
    return tree.map_structure(lambda leaf: leaf[rows], column)
