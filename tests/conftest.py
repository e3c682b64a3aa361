"""What every test may rely on: one thread a library, no telemetry, repeatable properties, a local Ray."""

import os
from pathlib import Path

# Before torch, JAX or Ray is imported: they read these once. One thread each, because the suite runs one
# process a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Every process that plays SMAX compiles it, for ten seconds a map: once for all of them, and for the next run of the tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# A worker that asks for no GPU keeps its view of the GPUs; Ray warns about the change of that default
# otherwise.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from collections.abc import Iterator

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# `ci` finds the same examples every time, so that a red run is red again; HYPOTHESIS_PROFILE=explore looks
# for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=20, database=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


LONGEST = ("test_cli.py", "test_cli_multi_agent.py", "test_cli_offline.py", "test_onnx.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: of two processes neither is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from one torch seed, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Run a local Ray of two CPUs for the tests that ask for it, one for each pytest process."""
    import ray

    # address="local": never join a cluster that happens to run on this machine.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
