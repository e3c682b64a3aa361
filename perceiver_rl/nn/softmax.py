"""The softmax of torch, without its slow path for short rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SHORT = 16
"""Elements of a vector register of 512 bits. Torch takes rows with fewer than fit through scalar code on a CPU."""


def softmax(scores: Float[Tensor, "*batch options"]) -> Float[Tensor, "*batch options"]:
    """`scores.softmax(-1)`.

    Squads are small: a softmax over 8 latents or 11 units is one over short rows, which on a CPU with AVX-512 took 8 times
    as long as one over 16. So short rows are lengthened to 16 by minus infinity, which adds nothing to any sum.
    """
    return _lengthened(scores).softmax(dim=-1)[..., : scores.shape[-1]]


def log_softmax(logits: Float[Tensor, "*batch options"]) -> Float[Tensor, "*batch options"]:
    """`logits.log_softmax(-1)`; short rows as in `softmax`."""
    return _lengthened(logits).log_softmax(dim=-1)[..., : logits.shape[-1]]


def _lengthened(rows: Float[Tensor, "*batch options"]) -> Float[Tensor, "*batch more"]:
    # A compiler makes code of its own for any length; and what it makes must not depend on the length of an example.
    if torch.compiler.is_compiling() or not rows.is_cpu or rows.shape[-1] >= SHORT:
        return rows
    return F.pad(rows, (0, SHORT - rows.shape[-1]), value=-torch.inf)
