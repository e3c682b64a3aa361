from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import pictures
from benchmarks.pictures import Meter, Pair, pairs_of, table
from perceiver_rl.rllib.recorder import Progress


class Clock:
    """Time passes where training or drawing is said to take some."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[Path] = []
        self.drawn: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def paint(self, checkpoint: Path) -> None:
        self.waiting.append(checkpoint)

    def finish(self) -> None:
        self.drawn += [each.name for each in self.waiting]
        self.now += 1.5 * len(self.waiting)
        self.waiting = []


def test_meter__draws_in_every_second_interval_in_turned_order_and_times_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock()
    monkeypatch.setattr(pictures, "time", clock)
    meter = Meter(clock, pairs=2)
    for number in range(5):
        clock.now += 30 if number == 0 else 10  # processes start and compile in the first
        meter.on_progress(Progress(1000 * (number + 1), 5000, 0.0, 0.0, {}))
        meter.on_checkpoint(Path(str(number)))
    assert [drawn for drawn, _ in meter.measured] == [True, False, False, True]
    assert [seconds for _, seconds in meter.measured] == pytest.approx([11.5, 10, 10, 11.5])
    assert clock.drawn == ["0", "0", "3"], "the first one to have all compiled"
    for pair in pairs_of(meter.measured, interval=1000):
        assert (pair.extra, pair.share) == (pytest.approx(1.5), pytest.approx(1.5 / 1000))


def test_table__has_means_with_intervals_over_pairs() -> None:
    pairs = [Pair(0.55, 0.5, 20_000), Pair(0.58, 0.5, 20_000), Pair(0.52, 0.5, 20_000)]
    *_, first, second, third, last = table(pairs).splitlines()
    assert first == "| 1 | 0.550 | 0.500 | 1.00 | 2.00 % |"
    assert (second.split()[1], third.split()[1]) == ("2", "3")
    assert last == "| mean | 0.550 | 0.500 | 1.00 (-0.49 to 2.49) | 2.00 % (-0.98 to 4.98) |"
