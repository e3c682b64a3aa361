"""SMAX environments, compiled once for all tests of this folder: a compile takes seconds, a step
microseconds."""

from collections.abc import Callable
from functools import cache

import pytest

from envs.smax import SmaxEnv, SmaxVectorEnv

NUM_ENVS = 3


@pytest.fixture(scope="session")
def smax() -> Callable[[str], SmaxVectorEnv]:
    """Three battles on a map of that name. Tests share them, so each begins with `reset(seed=…)`."""
    return cache(lambda map_name: SmaxVectorEnv(map_name, NUM_ENVS))


@pytest.fixture(scope="session")
def smax_single() -> SmaxEnv:
    """One battle on 2s3z."""
    return SmaxEnv("2s3z")
