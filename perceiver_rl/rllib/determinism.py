"""What a seed need not cost."""

from __future__ import annotations

import torch


def leave_memory_unfilled() -> None:
    """Do without the NaN that torch writes into all memory it allocates while its algorithms are deterministic.

    RLlib makes them so in every process of a run that has a seed. The NaN is for finding programs that read what
    nobody wrote; this library does not, and its results are the same without.

    Source: PyTorch's documentation of `torch.utils.deterministic.fill_uninitialized_memory`.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
