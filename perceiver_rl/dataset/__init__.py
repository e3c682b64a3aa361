"""Recorded episodes on disk: written by `perceiver-rl collect`, read by offline training; without Ray and without pickle."""

from perceiver_rl.dataset.description import DatasetDescription, Origin, read_description
from perceiver_rl.dataset.episode import Episode
from perceiver_rl.dataset.reader import Steps, read_episodes, read_steps
from perceiver_rl.dataset.writer import DatasetWriter

__all__ = [
    "DatasetDescription",
    "DatasetWriter",
    "Episode",
    "Origin",
    "Steps",
    "read_description",
    "read_episodes",
    "read_steps",
]
