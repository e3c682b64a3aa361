"""What counts as memory that grows."""

import pytest

from benchmarks.soak import growth


def _rows(megabytes: list[float]) -> list[dict[str, float]]:
    return [{"minute": k + 1.0, "env_steps": 100.0 * k, "driver": mb} for k, mb in enumerate(megabytes)]


def test_growth__is_that_of_the_last_third() -> None:
    flat = [100.0 + 50 * min(k, 10) / 10 for k in range(30)]
    assert growth(_rows(flat)) == {"driver": pytest.approx(0.0, abs=1e-9)}
    leaking = [100.0 + k for k in range(30)]
    assert growth(_rows(leaking))["driver"] == pytest.approx(9 / 120)
