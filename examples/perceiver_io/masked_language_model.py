"""Masked language modelling on raw bytes, without a tokenizer (Perceiver IO, section 4.1).

The network reads 48 bytes of Python's own documentation, 15 % of them hidden, and is asked for the hidden ones: one
query for each, which knows its position and nothing else. Whatever it answers must have come through the latents.

Baselines, counted on the training text: the most frequent byte, the byte that most often follows the left neighbour
(bigram), and the one most often seen between both neighbours. The last two are shown true neighbours, which the network
may find hidden.

Threshold: accuracy on held-out text of at least the bigram's plus 5 points.
"""

from __future__ import annotations

import codecs
import contextlib
import io
from pydoc_data.topics import topics

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional as F
from training import Example, Result, command_line

from perceiver_rl.nn import FourierPositions, PerceiverIO, PerceiverIOConfig, PositionQueries, grid_positions

LENGTH, NUM_HIDDEN = 48, 7
VOCABULARY = 257
HIDDEN = 256
"""The token that stands for a hidden byte, after the 256 that bytes can be."""
DIM = 64


def python_text() -> Int[Tensor, " bytes"]:
    """Text that ships with Python: the Zen, and the language reference's topics behind `help()`."""
    with contextlib.redirect_stdout(io.StringIO()):  # importing `this` prints it
        import this
    parts = [codecs.decode(this.s, "rot13"), *(topics[name] for name in sorted(topics))]
    return torch.frombuffer(bytearray("\n".join(parts).encode()), dtype=torch.uint8).long()


class MaskedLanguageModel(Example):
    """Bytes and positions in, one answer for each hidden position out."""

    steps = 3000
    learning_rate = 3e-3

    def __init__(self) -> None:
        super().__init__()
        text = python_text()
        # Chunks of about 6 kB, every tenth held out: parts of all topics, and no window crosses from one to the other.
        chunks = text[: len(text) // 6400 * 6400].view(-1, 6400)
        held_out = torch.arange(len(chunks)) % 10 == 9
        self.train_chunks, self.test_chunks = chunks[~held_out], chunks[held_out]
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        # The paper learns a table of positions; Fourier features, which say who is whose neighbour, learn this sooner.
        encoding = FourierPositions((LENGTH,), num_bands=LENGTH // 2)
        self.positions = PositionQueries(grid_positions(LENGTH), encoding, DIM)  # of the inputs, a projection of their own
        self.queries = PositionQueries(grid_positions(LENGTH), encoding, DIM)
        config = PerceiverIOConfig(
            num_latents=32,
            latent_dim=DIM,
            num_cross_attend_heads=8,
            num_decoder_heads=8,
            latent_init_scale=1.0,
            output_dim=256,
        )
        self.network = PerceiverIO(config, input_dim=DIM, query_dim=DIM)

    def forward(self, text: Int[Tensor, "batch length"], hidden: Bool[Tensor, "batch length"]) -> Tensor:
        """Scores of the 256 bytes, for each hidden position in order."""
        tokens = self.embedding(text.masked_fill(hidden, HIDDEN)) + self.positions(1)
        places = hidden.nonzero()[:, 1].view(len(text), -1)  # b q; the same number in each sample
        return self.network(tokens, None, self.queries(1)[0][places])

    def loss(self, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the hidden bytes."""
        text, hidden = windows(self.train_chunks, 64, generator)
        return F.cross_entropy(self(text, hidden).flatten(0, 1), text[hidden])

    def evaluate(self, generator: torch.Generator) -> list[Result]:
        """Accuracy on hidden bytes of held-out text, and that of counting."""
        batches = [windows(self.test_chunks, 128, generator) for _ in range(16)]
        measured = [self(text, hidden).argmax(-1).flatten() == text[hidden] for text, hidden in batches]
        text, hidden = (torch.cat(parts) for parts in zip(*batches, strict=True))
        left, right = text.roll(1, dims=1)[hidden], text.roll(-1, dims=1)[hidden]  # `windows` hides neither end
        seen_left, seen, seen_right = self.train_chunks[:, :-2], self.train_chunks[:, 1:-1], self.train_chunks[:, 2:]
        nothing = torch.zeros_like
        baselines = {
            "most frequent byte": count_accuracy(nothing(seen), seen, nothing(left), text[hidden]),
            "bigram": count_accuracy(seen_left, seen, left, text[hidden]),
            "both neighbours": count_accuracy(seen_left * 256 + seen_right, seen, left * 256 + right, text[hidden]),
        }
        accuracy = torch.cat(measured).float().mean().item()
        return [Result("accuracy", accuracy, baselines, baselines["bigram"] + 0.05, higher_is_better=True)]


def count_accuracy(seen_context: Tensor, seen: Tensor, context: Tensor, truth: Tensor) -> float:
    """Accuracy of the byte that was seen most often in a context, a number below 65,536."""
    counts = (seen_context * 256 + seen).flatten().bincount(minlength=256**3)
    return (counts.view(-1, 256).argmax(dim=1)[context] == truth).float().mean().item()


def windows(
    chunks: Int[Tensor, "chunks bytes"], batch_size: int, generator: torch.Generator
) -> tuple[Int[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
    """Random windows of the text, and which of their bytes are hidden."""
    rows = torch.randint(len(chunks), (batch_size, 1), generator=generator)
    starts = torch.randint(chunks.shape[1] - LENGTH + 1, (batch_size, 1), generator=generator)
    text = chunks[rows, starts + torch.arange(LENGTH)]
    chosen = 1 + torch.rand(batch_size, LENGTH - 2, generator=generator).topk(NUM_HIDDEN).indices
    return text, torch.zeros(batch_size, LENGTH, dtype=torch.bool).scatter(1, chosen, True)


app = command_line(MaskedLanguageModel, __doc__)

if __name__ == "__main__":
    app()
