"""Algorithms of RLlib that are stopped at the end of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


@contextmanager
def running(config: AlgorithmConfig) -> Iterator[Algorithm]:
    """The algorithm of a config; its actors are stopped at the end, whatever happens."""
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()
