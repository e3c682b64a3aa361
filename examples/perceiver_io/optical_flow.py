"""Dense optical flow: a query for each pixel, made of what stands there (Perceiver IO, section 4.2).

Two frames show one random texture before and after a motion: a shift, a turn, a zoom and a shear, so that each pixel
moves on its own. A token is a pixel's 5 × 5 surroundings in both frames, side by side, and its position; the network
has no other notion of an image, no cost volume, no warping. Queries are the tokens themselves, as in the paper.

Baselines: no motion, the mean motion of training samples, and a step of Lucas and Kanade's method: least squares on the
brightness gradients of 5 × 5 pixels.

Threshold: end-point error, the distance between true and predicted motion in pixels, at most that of the last.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from training import Example, Result, command_line

from perceiver_rl.nn import EntityQueries, FourierPositions, PerceiverIO, PerceiverIOConfig, grid_positions

SIZE, PATCH = 16, 5
DIM = 64
NUM_WAVES = 12
MAX_SHIFT, MAX_GRADIENT = 2.0, 0.1


class OpticalFlow(Example):
    """Two frames in, a motion for each pixel out."""

    steps = 1500

    def __init__(self) -> None:
        super().__init__()
        self.positions = FourierPositions((SIZE, SIZE), num_bands=8)
        token_dim = 2 * PATCH**2 + self.positions.dim
        self.queries = EntityQueries(token_dim, DIM)
        config = PerceiverIOConfig(
            num_latents=16,
            latent_dim=DIM,
            num_self_attends_per_block=2,
            num_cross_attend_heads=4,
            num_decoder_heads=4,
            decoder_widening_factor=4,
            latent_init_scale=1.0,
            output_dim=2,
        )
        self.network = PerceiverIO(config, input_dim=token_dim, query_dim=DIM)

    def forward(self, frames: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch pixels 2"]:
        """The motion of each pixel."""
        patches = F.unfold(frames, PATCH, padding=PATCH // 2).transpose(1, 2)  # b pixels 2·25; beyond the edge: zeros
        positions = self.positions(grid_positions(SIZE, SIZE)).expand(len(frames), -1, -1)
        tokens = torch.cat([patches, positions], dim=-1)
        return self.network(tokens, None, self.queries(len(frames), tokens))

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean end-point error."""
        frames, flow = image_pairs(16, generator)
        return end_point_error(self(frames), flow)

    def evaluate(self, generator: torch.Generator) -> list[Result]:
        """End-point error on new textures and motions, and that of constant answers."""
        mean_flow = image_pairs(1024, torch.Generator().manual_seed(0))[1].mean(dim=0)
        batches = [image_pairs(64, generator) for _ in range(8)]
        flow = torch.cat([flow for _, flow in batches])
        frames = torch.cat([frames for frames, _ in batches])
        measured = torch.stack([end_point_error(self(frames), flow) for frames, flow in batches]).mean().item()
        baselines = {
            "no motion": end_point_error(torch.zeros_like(flow), flow).item(),
            "mean motion": end_point_error(mean_flow.expand_as(flow), flow).item(),
            "Lucas-Kanade": end_point_error(lucas_kanade(frames), flow).item(),
        }
        return [Result("end-point error, pixels", measured, baselines, baselines["Lucas-Kanade"])]


def end_point_error(predicted: Tensor, flow: Tensor) -> Tensor:
    """Mean length of the difference, in pixels; the epsilon keeps the gradient finite at zero."""
    return ((predicted - flow).square().sum(dim=-1) + 1e-12).sqrt().mean()


def lucas_kanade(frames: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch pixels 2"]:
    """The motion that best explains how brightness changed around each pixel, to first order."""
    gradients = torch.stack(torch.gradient(frames.mean(dim=1), dim=(1, 2)), dim=1)
    change = frames[:, 1:] - frames[:, :1]

    def sums(products: Tensor) -> Tensor:  # b products height width → b pixels products
        return F.avg_pool2d(products, PATCH, stride=1, padding=PATCH // 2).flatten(2).transpose(1, 2)

    squares = sums((gradients.unsqueeze(1) * gradients.unsqueeze(2)).flatten(1, 2)).unflatten(-1, (2, 2))
    return torch.linalg.solve(squares + 1e-3 * torch.eye(2), -sums(gradients * change))


def image_pairs(
    batch_size: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch 2 height width"], Float[Tensor, "batch pixels 2"]]:
    """Frames, and the motion from the first to the second at each pixel of the first.

    A texture is a sum of waves, which has a value everywhere: the second frame is computed where each of its pixels
    came from, exactly, and nothing is interpolated.
    """

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch_size, *shape, generator=generator)

    pixels = grid_positions(SIZE, SIZE) * (SIZE - 1) / 2  # from the centre, in pixels
    shift = uniform(1, 2, low=-MAX_SHIFT, high=MAX_SHIFT)
    gradient = uniform(2, 2, low=-MAX_GRADIENT, high=MAX_GRADIENT)
    flow = shift + pixels @ gradient
    sources = (pixels - shift) @ torch.linalg.inv(torch.eye(2) + gradient)

    wavelength = uniform(NUM_WAVES, low=5.0, high=16.0)
    direction = uniform(NUM_WAVES, low=0.0, high=2 * math.pi)
    phase = uniform(NUM_WAVES, low=0.0, high=2 * math.pi)
    amplitude = torch.randn(batch_size, NUM_WAVES, generator=generator) * (2 / NUM_WAVES) ** 0.5
    waves = 2 * math.pi / wavelength * torch.stack([direction.cos(), direction.sin()])  # 2 b waves

    def texture(places: Tensor) -> Tensor:
        angles = torch.einsum("bpa,abw->bpw", places, waves) + phase.unsqueeze(1)
        return torch.einsum("bpw,bw->bp", angles.cos(), amplitude).unflatten(1, (SIZE, SIZE))

    return torch.stack([texture(pixels.expand(batch_size, -1, -1)), texture(sources)], dim=1), flow


app = command_line(OpticalFlow, __doc__)

if __name__ == "__main__":
    app()
