"""What an encoder hands to a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """The encoded set that output queries read from: latents of a Perceiver, tokens of a transformer."""

    values: Float[Tensor, "batch slots dim"]
    mask: Bool[Tensor, "batch slots"] | None
    """True = present; None = all present, as latents always are."""
