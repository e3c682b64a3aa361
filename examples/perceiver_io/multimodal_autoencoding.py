"""Video, sound and a label through one latent array (Perceiver IO, section 4.3).

A clip is a shape that flies across 6 frames of 16 × 16 pixels, a tone of 64 samples that is the higher the faster it
flies, and the name of the shape: 1,604 numbers, which must pass through 8 latents of 32. Queries for pixels, samples
and label know where they ask, and of which modality: narrower ones are padded by a learned vector. Training asks for a
sixth of the pixels; the whole video is decoded in chunks afterwards. The label is hidden in half of the training clips
and in all that are measured, so that reconstructing it means to recognise the shape.

Baselines: the mean video, the mean sound, guessing a label.

Threshold: 4 dB (PSNR) above the mean video, a fifth of the mean sound's squared error, 90 % of the labels right.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from training import Example, Result, command_line

from perceiver_rl.nn import (
    FourierPositions,
    LearnedQueries,
    PerceiverIO,
    PerceiverIOConfig,
    PositionQueries,
    QueryArray,
    decode_in_chunks,
    grid_positions,
)

FRAMES, SIZE, SAMPLES = 6, 16, 64
PIXELS = FRAMES * SIZE * SIZE
SHAPES = ("disc", "square", "horizontal bar", "vertical bar")
PATCH, SOUND_PATCH = 4, 8
TOKEN_DIM, DIM = 80, 64


class MultimodalAutoencoding(Example):
    """Clips in, the same clips out, by way of a few latents."""

    steps = 1300

    def __init__(self) -> None:
        super().__init__()
        video, sound = FourierPositions((FRAMES, SIZE, SIZE), num_bands=8), FourierPositions((SAMPLES,), num_bands=16)
        blocks = grid_positions(FRAMES, SIZE // PATCH, SIZE // PATCH)
        self.register_buffer("video_positions", video(blocks), persistent=False)
        self.register_buffer("sound_positions", sound(grid_positions(SAMPLES // SOUND_PATCH)), persistent=False)
        widths = {"video": PATCH**2 + video.dim, "sound": SOUND_PATCH + sound.dim, "label": len(SHAPES)}
        self.padding = nn.ParameterDict({name: torch.randn(TOKEN_DIM - width) * 0.02 for name, width in widths.items()})
        self.queries = QueryArray(
            DIM,
            {
                "video": PositionQueries(grid_positions(FRAMES, SIZE, SIZE), video),
                "sound": PositionQueries(grid_positions(SAMPLES), sound),
                "label": LearnedQueries(1, 32),
            },
        )
        config = PerceiverIOConfig(
            num_latents=8,
            latent_dim=32,
            num_self_attends_per_block=3,
            num_cross_attend_heads=4,
            num_decoder_heads=4,
            decoder_qk_dim=64,
            decoder_widening_factor=4,
            latent_init_scale=1.0,
        )
        self.network = PerceiverIO(config, input_dim=TOKEN_DIM, query_dim=DIM)
        answers = {"video": 1, "sound": 1, "label": len(SHAPES)}
        self.heads = nn.ModuleDict({name: nn.Linear(DIM, width) for name, width in answers.items()})

    def tokens(self, video: Tensor, sound: Tensor, label: Tensor, label_hidden: Tensor) -> Float[Tensor, "batch tokens dim"]:
        """Patches of all modalities in one array, padded to one width by a learned vector each."""
        blocks = video.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).transpose(3, 4).flatten(4).flatten(1, 3)
        sounds = sound.unflatten(1, (-1, SOUND_PATCH))
        one_hot = F.one_hot(label, len(SHAPES)) * ~label_hidden.unsqueeze(1)
        parts = {
            "video": torch.cat([blocks, self.video_positions.expand(len(video), -1, -1)], dim=-1),
            "sound": torch.cat([sounds, self.sound_positions.expand(len(video), -1, -1)], dim=-1),
            "label": one_hot.float().unsqueeze(1),
        }
        padding = {name: self.padding[name].expand(*part.shape[:2], -1) for name, part in parts.items()}
        return torch.cat([torch.cat([part, padding[name]], dim=-1) for name, part in parts.items()], dim=1)

    def loss(self, generator: torch.Generator) -> Tensor:
        """Squared errors, weighted by what the modalities vary, and the label's cross-entropy."""
        video, sound, label = clips(32, generator)
        hidden = torch.rand(len(label), generator=generator) < 0.5
        asked = torch.randperm(PIXELS, generator=generator)[: PIXELS // 6]
        queries = self.queries(1, video=asked)
        answers = queries.split(self.network(self.tokens(video, sound, label, hidden), None, queries.values))
        read = {name: head(answers[name]).squeeze(-1) for name, head in self.heads.items()}
        video_loss = F.mse_loss(read["video"], video.flatten(1)[:, asked]) / 0.05
        return video_loss + F.mse_loss(read["sound"], sound) / 0.5 + 0.3 * F.cross_entropy(read["label"][:, 0], label)

    def evaluate(self, generator: torch.Generator) -> list[Result]:
        """Errors on new clips whose label is hidden, and those of the means."""
        video, sound, label = clips(512, generator)
        mean_video, mean_sound, _ = (part.float().mean(dim=0) for part in clips(2048, torch.Generator().manual_seed(0)))
        memory = self.network.read(self.tokens(video, sound, label, torch.ones(len(label), dtype=torch.bool)))

        def pixel_queries(rows: Int[Tensor, " some"]) -> Tensor:
            queries = self.queries(1, video=rows)
            return queries.split(queries.values)["video"]

        chunks = decode_in_chunks(partial(self.network.decode, memory), pixel_queries, PIXELS, chunk_size=256)
        read_video = torch.cat([self.heads["video"](chunk) for chunk in chunks], dim=1).view_as(video)
        rest = self.queries(1, video=torch.arange(0))  # no pixel
        answers = rest.split(self.network.decode(memory, rest.values))
        psnr = -10 * F.mse_loss(read_video, video).log10().item()
        mean_psnr = -10 * F.mse_loss(mean_video.expand_as(video), video).log10().item()
        sound_error = F.mse_loss(self.heads["sound"](answers["sound"]).squeeze(-1), sound).item()
        mean_error = F.mse_loss(mean_sound.expand_as(sound), sound).item()
        right = (self.heads["label"](answers["label"])[:, 0].argmax(-1) == label).float().mean().item()
        return [
            Result("video, PSNR in dB", psnr, {"mean video": mean_psnr}, mean_psnr + 4, higher_is_better=True),
            Result("sound, squared error", sound_error, {"mean sound": mean_error}, 0.2 * mean_error),
            Result("label, accuracy", right, {"chance": 1 / len(SHAPES)}, 0.9, higher_is_better=True),
        ]


def clips(
    batch_size: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch frames height width"], Float[Tensor, "batch samples"], Int[Tensor, " batch"]]:
    """Videos from 0 to 1, sounds from -1 to 1, numbers of shapes."""
    label = torch.randint(len(SHAPES), (batch_size,), generator=generator)
    speed, turn, x, y = torch.rand(4, batch_size, 1, 1, 1, generator=generator).unbind()
    time = torch.linspace(-0.5, 0.5, FRAMES).view(1, FRAMES, 1, 1)
    row, column = grid_positions(SIZE, SIZE).unflatten(0, (SIZE, SIZE)).unbind(-1)
    down = row - (y - 0.5 + time * speed * (turn * math.tau).sin())
    across = column - (x - 0.5 + time * speed * (turn * math.tau).cos())
    bar = torch.maximum(down.abs() / 2, across.abs() * 2)
    other_bar = torch.maximum(down.abs() * 2, across.abs() / 2)
    outlines = torch.stack([(down**2 + across**2).sqrt(), torch.maximum(down.abs(), across.abs()), other_bar, bar])
    video = torch.sigmoid(20 * (0.35 - outlines[label, torch.arange(batch_size)]))  # soft edges
    cycles = 2 + 4 * speed.view(-1, 1)
    return video, torch.sin(math.tau * cycles * torch.linspace(0, 1, SAMPLES)), label


app = command_line(MultimodalAutoencoding, __doc__)

if __name__ == "__main__":
    app()
