"""One figure for several runs on several environments: interquartile mean and bootstrap intervals over runs.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021. There each run is
on one task, and runs are drawn anew for each. Here one run is evaluated in every environment, and its figures stand or fall
together; so whole runs are drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.evaluation.statistics import CONFIDENCE, Interval, Mode

REPEATS = 10_000
"""Resamples of a bootstrap interval."""

MIN_RUNS = 5
"""Runs for an interval: of two or three, a percentile interval is hardly more than the lowest and the highest of them."""

METRICS = ("win_rate", "return_mean")
"""Fields of a record that can be summed up."""

ALIKE = ("control", "seed", "episodes", "env_config")
"""Fields of a record in which runs that are summed up must agree, environment by environment."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval; None of fewer than `MIN_RUNS` runs."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Aggregate:
    """How runs of one kind did, over all their environments."""

    name: str
    mode: Mode
    runs: int
    envs: tuple[str, ...]
    mean: Estimate
    iqm: Estimate
    """Mean of the middle half of all figures (one for each run and environment), which few outliers do not move."""


def aggregate(name: str, evaluations: Sequence[Sequence[dict[str, Any]]], mode: Mode, metric: str = "win_rate") -> Aggregate:
    """Sum up the evaluations of several runs that differ in nothing but their seed.

    Args:
        name: What they are called.
        evaluations: Of each run the records of `perceiver-rl evaluate --json`; the policy of the first record is the run's,
            and what else stands beside it is left out.
        mode: Which records.
        metric: One of `METRICS`.

    Raises:
        ValueError: If there are no runs, one is there twice, a run has no such record, a record has no such figure, or runs
            were evaluated in different environments or differ in one of `ALIKE`; a record that does not tell its
            `env_config`, as those of old do not, is like no other than such.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: got {metric!r}, expected one of {', '.join(METRICS)}")
    if not evaluations:
        raise ValueError(f"aggregate of {name}: got no evaluations, expected at least one")
    rows = [_own(name, records, mode, metric) for records in evaluations]
    envs = tuple(rows[0])
    for place, records in enumerate(evaluations):
        if records in evaluations[:place]:
            raise ValueError(f"aggregate of {name}: got the same evaluation twice, expected one of each run")
    for row in rows:
        if set(row) != set(envs):
            raise ValueError(
                f"aggregate of {name}: got one run in {', '.join(envs)} and another in {', '.join(row)}, expected the same "
                "environments of all"
            )
    for env in envs:
        _require_alike(f"aggregate of {name} in {env}", [row[env] for row in rows])
    scores = np.array([[float(row[env][metric]) for env in envs] for row in rows])
    return Aggregate(name, mode, len(rows), envs, _estimate(scores, _mean), _estimate(scores, interquartile_mean))


def interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without the lowest and the highest quarter: of `n` figures, ⌊n / 4⌋ at each end."""
    from scipy.stats import trim_mean  # takes two seconds to import, which training does without

    return np.asarray(trim_mean(scores, 0.25, axis=-1))


def bootstrap(scores: NDArray[np.float64], statistic: Any, *, repeats: int = REPEATS, seed: int = 0) -> Interval:
    """Percentile interval of a statistic: whole runs are drawn anew, with replacement.

    Args:
        scores: Figures `[runs, environments]`, of at least two runs.
        statistic: Function of `[repeats, runs * environments]` to `[repeats]`.
        repeats: How often to draw.
        seed: Of the draws.

    Raises:
        ValueError: If there is one run only.
    """
    runs = len(scores)
    if runs < 2:
        raise ValueError(f"bootstrap: got {runs} run, expected at least two: one tells nothing of the spread")
    drawn = np.random.default_rng(seed).integers(runs, size=(repeats, runs))
    resampled = scores[drawn].reshape(repeats, -1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(statistic(resampled), [tail, 100 - tail])
    return Interval(float(low), float(high))


def read_evaluation(path: Path) -> list[dict[str, Any]]:
    """The records that `perceiver-rl evaluate --json` wrote.

    Raises:
        ValueError: If it is not such a file; where a record is wrong, the message tells which, and the field.
    """
    expected = "expected a file of `perceiver-rl evaluate --json`"
    if path.is_dir():
        path = path / "evaluation.json"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file, {expected}")
    try:
        records = json.loads(path.read_text())
    except ValueError as error:  # of JSON, of UTF-8, or of a number with thousands of digits
        raise ValueError(f"{path}: got what is no JSON ({error}), {expected}") from error
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path}: got no list of records, {expected}")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"{path}, record {number}: got {str(record)[:40]}, {expected}")
        for field, (fits, wanted) in FIELDS.items():
            if field not in record and field != "env_config":
                raise ValueError(f"{path}, record {number}: got no {field}, {expected}")
            if not fits(record.get(field)):
                raise ValueError(f"{path}, record {number}, {field}: got {str(record[field])[:40]!r}, expected {wanted}")
    return records


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "env": (_is_text, "a name"),
    "policy": (_is_text, "a name"),
    "mode": (lambda value: value in get_args(Mode), f"one of {', '.join(get_args(Mode))}"),
    "control": (_is_text, "a name"),
    "seed": (_is_count, "an integer of at least 0"),
    "episodes": (lambda value: _is_count(value) and value > 0, "an integer of at least 1"),
    "env_config": (lambda value: value is None or isinstance(value, dict), "a mapping"),
    "win_rate": (lambda value: value is None or (_is_finite(value) and 0 <= value <= 1), "a number from 0 to 1, or null"),
    "return_mean": (_is_finite, "a finite number"),
}
"""What `aggregate` takes from a record: by field what it must be, and how to say that. Old records have no `env_config`."""


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(scores.mean(axis=-1))


def _estimate(scores: NDArray[np.float64], statistic: Any) -> Estimate:
    interval = bootstrap(scores, statistic) if len(scores) >= MIN_RUNS else None
    return Estimate(float(statistic(scores.reshape(-1))), interval)


def _own(name: str, records: Sequence[dict[str, Any]], mode: Mode, metric: str) -> dict[str, dict[str, Any]]:
    """By environment the record of the run's own policy, which `evaluate` writes first for each."""
    own: dict[str, dict[str, Any]] = {}
    for each in records:
        if each["policy"] == records[0]["policy"] and each["mode"] == mode:
            own.setdefault(each["env"], each)
    if not own:
        raise ValueError(
            f"aggregate of {name}: got no {mode} record of {records[0]['policy']!r}, expected one; evaluate again"
        )
    if missing := [env for env, each in own.items() if each[metric] is None]:
        raise ValueError(
            f"aggregate of {name}: got no {metric} in {', '.join(missing)}, which tells none; try --metric {METRICS[1]}"
        )
    return own


def _require_alike(where: str, records: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError if runs' records of one environment differ in a field of `ALIKE`, and tell all in which they do."""
    differences: list[str] = []
    for field in ALIKE:
        told = list(dict.fromkeys(str(each.get(field, "untold")) for each in records))
        if len(told) > 1:
            differences.append(f"{field} ({' and '.join(told)})")
    if differences:
        raise ValueError(
            f"{where}: got evaluations that differ in {', '.join(differences)}, expected the same of all runs; evaluate "
            "them alike, or sum them up under different names"
        )
