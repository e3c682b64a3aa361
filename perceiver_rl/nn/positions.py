"""Position encodings: Fourier features and trainable tables, for grids and for units at continuous coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def grid_positions(*sizes: int) -> Float[Tensor, "positions axes"]:
    """Coordinates of every cell of a grid, each axis from -1 to 1, the last axis counting fastest.

    Args:
        sizes: Cells along each axis: a sequence's length, an image's height and width, a video's frames,
            height and width.

    Raises:
        ValueError: If there is no axis, or one without a cell.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"grid_positions: got sizes {sizes}, expected at least one axis and one cell along each")
    axes = [torch.linspace(-1, 1, size) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def relative_positions(
    positions: Float[Tensor, "batch entities axes"], reference: Float[Tensor, "batch axes"], scale: float = 1.0
) -> Float[Tensor, "batch entities axes"]:
    """Where entities stand as seen from one of them.

    Args:
        positions: Coordinates.
        reference: Coordinates of the entity that looks, in the same unit.
        scale: Distance that becomes 1, e.g. a sight range.
    """
    return (positions - reference.unsqueeze(1)) / scale


class FourierPositions(nn.Module):
    """Sines and cosines of coordinates at evenly spaced frequencies; nothing is learned.

    Args:
        max_resolution: For each axis, cells that shall be told apart at most: the highest frequency is half of
            it, which is a grid's Nyquist frequency.
        num_bands: Frequencies for each axis, evenly spaced from 1 to the highest.
        include_positions: Whether the coordinates themselves come first.
        sine_only: Whether cosines are left out.

    Raises:
        ValueError: If there is no axis, no band, or a resolution below 2.

    Source: Jaegle et al. 2022, appendix D; the order (positions, sines, cosines, each axis by axis) is that of
        DeepMind's and Hugging Face's code.
    """

    frequencies: Tensor

    def __init__(
        self,
        max_resolution: Sequence[float | int],
        num_bands: int = 64,
        include_positions: bool = True,
        sine_only: bool = False,
    ) -> None:
        super().__init__()
        if not max_resolution or min(max_resolution) < 2:
            raise ValueError(f"max_resolution: got {tuple(max_resolution)}, expected a number of at least 2 for each axis")
        if num_bands < 1:
            raise ValueError(f"num_bands: got {num_bands}, expected at least 1")
        self.include_positions = include_positions
        self.sine_only = sine_only
        frequencies = torch.stack([torch.linspace(1.0, each / 2, num_bands) for each in max_resolution])
        # Not saved with the weights: it follows from the arguments.
        self.register_buffer("frequencies", frequencies, persistent=False)  # axes bands
        self.dim = frequencies.numel() * (1 if sine_only else 2) + len(max_resolution) * include_positions
        """Width of an encoded position."""

    def forward(self, positions: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch dim"]:
        """Encode.

        Args:
            positions: Coordinates, [-1, 1] on each axis; values outside are encoded, too, and repeat every 2 at
                the lowest frequency.
        """
        angles = math.pi * (positions.unsqueeze(-1) * self.frequencies).flatten(-2)
        parts = [positions] * self.include_positions + [angles.sin()] + [angles.cos()] * (not self.sine_only)
        return torch.cat(parts, dim=-1)


class TrainablePositions(nn.Module):
    """A learned vector for each of a fixed number of positions.

    Args:
        num_positions: How many.
        dim: Width.
        init_scale: Standard deviation of the initial normal distribution, truncated at two of them.

    Source: Jaegle et al. 2022, appendix D: trained position encodings of language and label inputs.
    """

    def __init__(self, num_positions: int, dim: int, init_scale: float = 0.02) -> None:
        super().__init__()
        self.dim = dim
        table = torch.empty(num_positions, dim)
        self.table = nn.Parameter(nn.init.trunc_normal_(table, std=init_scale, a=-2 * init_scale, b=2 * init_scale))

    def forward(self) -> Float[Tensor, "positions dim"]:
        """The table."""
        return self.table
