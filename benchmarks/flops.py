"""What sparse sets cost by multiplications alone: the packed encoder beside Hugging Face's and beside itself, padded.

    python -m benchmarks.flops

The same sizes and batches as `perceiver-rl bench encoder`, forward. What is measured there cannot fall below this.
"""

from __future__ import annotations

import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.encoder import Case, make_batch
from benchmarks.rivals import Batch, Rival, build_rivals

ENTITIES = (16, 64, 256, 512, 1024, 4096, 8192)
FILLS = (0.5, 0.25)
SLOTS = 8192
LATENTS = 32


def main(seed: int = 0) -> None:
    """Print a table."""
    torch.manual_seed(seed)
    rivals = {rival.name: rival for rival in build_rivals(LATENTS, "cpu")[0]}
    for rival in rivals.values():
        rival.module.requires_grad_(False)  # the counter follows modules by their gradients
    print("| filled | packed, of | " + " | ".join(f"{n:,}" for n in ENTITIES) + " |")
    print("|---" * (2 + len(ENTITIES)) + "|")
    for fill in FILLS:
        batches = [make_batch(Case(n, fill, n, SLOTS // n), seed, "cpu") for n in ENTITIES]
        for other in ("huggingface", "perceiver-rl"):
            ratios = [_flops(rivals["perceiver-rl-packed"], batch) / _flops(rivals[other], batch) for batch in batches]
            print(f"| {fill:g} | {other} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


def _flops(rival: Rival, batch: Batch) -> int:
    # The counter does not know the fused attention of a CPU, and would count it as nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        rival.run(*batch)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    typer.run(main)
