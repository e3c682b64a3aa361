"""Several questions about one set: a query for each task, one network for all (Perceiver IO, section 4.1).

A set holds 8 to 16 objects of two kinds at random places. The set is read once; four queries ask: how many are of the
first kind, which kind is in the majority, how near to the centre does an object come, and how far apart are the top and
the bottom one. Adding a task adds one query and one linear layer.

Baselines: the best constant answer to each question, from training samples: the median, or the more frequent class.

Threshold: mean absolute errors of at most 0.4 times the constants', and the majority right in at least 95 %.
Counting is the hardest: attention takes means, and a mean does not know how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from training import Example, Result, command_line

from perceiver_rl.nn import FourierPositions, PerceiverIO, PerceiverIOConfig, QueryArray, TaskQueries

MIN_OBJECTS, MAX_OBJECTS = 8, 16
DIM = 64
SCALES = {"count": 2.0, "majority": 1.0, "nearest": 0.1, "extent": 0.3}
"""The tasks, and what stands for 1 in their answers, so that no task's loss drowns another's."""


class MultiTask(Example):
    """A set of objects in, an answer to each question out."""

    steps = 2000

    def __init__(self) -> None:
        super().__init__()
        self.positions = FourierPositions((16, 16), num_bands=8)
        token_dim = self.positions.dim + 2
        self.queries = QueryArray(DIM, {"task": TaskQueries(tuple(SCALES), DIM)})
        config = PerceiverIOConfig(
            num_latents=16,
            latent_dim=DIM,
            num_blocks=2,
            num_cross_attends=2,
            num_cross_attend_heads=4,
            num_decoder_heads=4,
            latent_init_scale=1.0,
        )
        self.network = PerceiverIO(config, input_dim=token_dim, query_dim=DIM)
        self.heads = nn.ModuleDict({task: nn.Linear(DIM, 1) for task in SCALES})

    def forward(self, objects: Float[Tensor, "batch objects 4"], mask: Bool[Tensor, "batch objects"]) -> dict[str, Tensor]:
        """The answer to each question, in its own unit; for the majority a logit."""
        tokens = torch.cat([self.positions(objects[..., :2]), objects[..., 2:]], dim=-1)
        asked = self.queries(len(objects))
        answers = asked.split(self.network(tokens, mask, asked.values))
        return {task: self.heads[task](answers[f"task.{task}"]).flatten() * scale for task, scale in SCALES.items()}

    def loss(self, generator: torch.Generator) -> Tensor:
        """The tasks' losses, added: absolute errors in units of the scales, and the majority's cross-entropy."""
        objects, mask, truth = object_sets(64, generator)
        answers = self(objects, mask)
        losses = [
            F.binary_cross_entropy_with_logits(answers[task], truth[task])
            if task == "majority"
            else F.l1_loss(answers[task], truth[task]) / scale
            for task, scale in SCALES.items()
        ]
        return torch.stack(losses).sum()

    def evaluate(self, generator: torch.Generator) -> list[Result]:
        """Errors on new sets, and those of constant answers."""
        objects, mask, truth = object_sets(4096, generator)
        seen = object_sets(4096, torch.Generator().manual_seed(0))[2]
        answers = self(objects, mask)
        results = []
        for task in SCALES:
            constant = seen[task].median()
            if task == "majority":
                right = ((answers[task] > 0) == truth[task].bool()).float().mean().item()
                baseline = (truth[task] == constant).float().mean().item()
                results.append(Result("majority, accuracy", right, {"constant": baseline}, 0.95, higher_is_better=True))
            else:
                baseline = (constant - truth[task]).abs().mean().item()
                error = F.l1_loss(answers[task], truth[task]).item()
                results.append(Result(f"{task}, absolute error", error, {"constant": baseline}, 0.4 * baseline))
        return results


def object_sets(
    batch_size: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch objects 4"], Bool[Tensor, "batch objects"], Mapping[str, Float[Tensor, " batch"]]]:
    """Objects (two coordinates, two kinds one-hot), which are present, and the true answers."""
    places = torch.rand(batch_size, MAX_OBJECTS, 2, generator=generator) * 2 - 1
    share = torch.rand(batch_size, 1, generator=generator)
    first = torch.rand(batch_size, MAX_OBJECTS, generator=generator) < share
    counts = torch.randint(MIN_OBJECTS, MAX_OBJECTS + 1, (batch_size, 1), generator=generator)
    mask = torch.arange(MAX_OBJECTS) < counts
    kinds = torch.stack([first, ~first], dim=-1).float()
    num_first = (first & mask).sum(dim=1)
    down = places[..., 0]
    truth = {
        "count": num_first.float(),
        "majority": (2 * num_first > counts[:, 0]).float(),
        "nearest": places.norm(dim=-1).masked_fill(~mask, torch.inf).amin(dim=1),
        "extent": down.masked_fill(~mask, -torch.inf).amax(dim=1) - down.masked_fill(~mask, torch.inf).amin(dim=1),
    }
    return torch.cat([places, kinds], dim=-1), mask, truth


app = command_line(MultiTask, __doc__)

if __name__ == "__main__":
    app()
