"""Classification of a set: one learned query, one answer (Perceiver IO, section 3.2).

A sample is 24 to 48 points drawn from the outline of one of six shapes, anywhere, of any size, turned by any angle,
with noise. The points come in no order and on no grid; absent slots are masked. Which shape it is lies in how the points
stand to each other, not in where any of them is.

Baseline: logistic regression on the mean of the points' position encodings, the very tokens that the network reads,
fitted to 4096 samples. Pooling before relating loses what matters.

Threshold: accuracy on new samples of at least 0.85.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from training import Example, Result, command_line

from perceiver_rl.nn import FourierPositions, LearnedQueries, PerceiverIO, PerceiverIOConfig

SHAPES = {
    "circle": [(math.cos(a * math.pi / 16), math.sin(a * math.pi / 16)) for a in range(33)],
    "triangle": [(math.cos(a * math.tau / 3), math.sin(a * math.tau / 3)) for a in (0, 1, 2, 0)],
    "square": [(1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1)],
    "cross": [(1, 0), (-1, 0), (0, 0), (0, 1), (0, -1)],
    "corner": [(1, -1), (-1, -1), (-1, 1)],
    "line": [(-1, 0), (1, 0)],
}
"""Outlines as polylines through these points; all are brought to one spread before they are scaled and turned."""
MAX_POINTS, MIN_POINTS = 48, 24
DIM = 64


class Classification(Example):
    """A set of points in, scores of the shapes out."""

    steps = 1500

    def __init__(self) -> None:
        super().__init__()
        self.positions = FourierPositions((16, 16), num_bands=8)
        self.query = LearnedQueries(1, DIM)
        config = PerceiverIOConfig(
            num_latents=16,
            latent_dim=DIM,
            num_blocks=2,
            num_cross_attends=2,
            num_self_attends_per_block=1,
            num_cross_attend_heads=4,
            latent_init_scale=1.0,
            output_dim=len(SHAPES),
        )
        self.network = PerceiverIO(config, input_dim=self.positions.dim, query_dim=DIM)

    def forward(self, points: Float[Tensor, "batch points 2"], mask: Bool[Tensor, "batch points"]) -> Tensor:
        """Scores of the shapes."""
        return self.network(self.positions(points), mask, self.query(len(points)))[:, 0]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the shape."""
        points, mask, label = point_sets(64, generator)
        return F.cross_entropy(self(points, mask), label)

    def evaluate(self, generator: torch.Generator) -> list[Result]:
        """Accuracy on new sets, and that of a linear classifier of their mean token."""
        points, mask, label = point_sets(2048, generator)
        measured = (self(points, mask).argmax(-1) == label).float().mean().item()
        baselines = {"chance": 1 / len(SHAPES), "linear, mean token": self.linear_accuracy(points, mask, label)}
        return [Result("accuracy", measured, baselines, 0.85, higher_is_better=True)]

    def linear_accuracy(self, points: Tensor, mask: Tensor, label: Tensor) -> float:
        """Accuracy of a logistic regression on the mean token, fitted to samples of its own."""

        def mean_tokens(points: Tensor, mask: Tensor) -> Tensor:
            return (self.positions(points) * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)

        train_points, train_mask, train_label = point_sets(4096, torch.Generator().manual_seed(0))
        inputs = mean_tokens(train_points, train_mask)
        with torch.enable_grad():
            weight = torch.zeros(inputs.shape[1], len(SHAPES), requires_grad=True)
            bias = torch.zeros(len(SHAPES), requires_grad=True)
            optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(inputs @ weight + bias, train_label) + 1e-4 * weight.square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)
        return ((mean_tokens(points, mask) @ weight + bias).argmax(-1) == label).float().mean().item()


def point_sets(
    batch_size: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch points 2"], Bool[Tensor, "batch points"], Int[Tensor, " batch"]]:
    """Points in [-1, 1], about; which of them are present; the number of their shape."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(batch_size, *shape, generator=generator)

    along = uniform(MAX_POINTS)
    drawn = torch.stack([outline_points(corners, along) for corners in SHAPES.values()])  # shapes b points 2
    label = torch.randint(len(SHAPES), (batch_size,), generator=generator)
    points = drawn[label, torch.arange(batch_size)]
    angle = uniform(low=0.0, high=math.tau)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).view(-1, 2, 2)
    points = points @ turn * uniform(1, 1, low=0.25, high=0.45) + uniform(1, 2, low=-0.3, high=0.3)
    points = points + 0.02 * torch.randn(points.shape, generator=generator)
    counts = torch.randint(MIN_POINTS, MAX_POINTS + 1, (batch_size, 1), generator=generator)
    return points, torch.arange(MAX_POINTS) < counts, label


def outline_points(corners: list[tuple[float, float]], along: Float[Tensor, "batch points"]) -> Tensor:
    """Points of an outline, centred and of unit spread, at fractions of its length."""
    line = torch.tensor(corners, dtype=torch.float32)
    ends = F.pad((line[1:] - line[:-1]).norm(dim=-1).cumsum(0), (1, 0))

    def at(fraction: Tensor) -> Tensor:
        place = fraction * ends[-1]
        piece = torch.searchsorted(ends, place, right=True).clamp(1, len(ends) - 1)
        part = (place - ends[piece - 1]) / (ends[piece] - ends[piece - 1])
        return torch.lerp(line[piece - 1], line[piece], part.unsqueeze(-1))

    everywhere = at(torch.linspace(0, 1, 1001)[:-1] + 5e-4)
    return (at(along) - everywhere.mean(dim=0)) / everywhere.var(dim=0).sum().sqrt()


app = command_line(Classification, __doc__)

if __name__ == "__main__":
    app()
