"""Seeds that do not overlap: every use of randomness gets a stream of its own."""

from __future__ import annotations

import numpy as np

TRAINING, EVALUATION, AGENT, COLLECTION, ORDER = range(5)
"""What a stream is for; the first word of its seed."""


def stream_seed(purpose: int, *words: int) -> int:
    """A seed for one stream, unrelated to those of other words.

    A vector environment gives its sub-environment `i` the seed `seed + i`. Seeds that users choose lie side by side, so
    used as they are, runs of seeds 0 and 1 would share all but one of their environments, and an evaluation of seed 0
    would play what training saw.

    Args:
        purpose: One of `TRAINING`, `EVALUATION`, `AGENT`, `COLLECTION` (of episodes) and `ORDER` (of steps in training).
        words: What tells the stream from others of that purpose, each at least 0, e.g. the user's seed.

    Source: numpy's `SeedSequence`, which spreads words over all seeds.
    """
    return int(np.random.SeedSequence((purpose, *words)).generate_state(1)[0] >> 1)  # gymnasium and torch take 31 bits
