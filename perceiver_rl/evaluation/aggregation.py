"""One figure for several runs on several environments: interquartile mean and bootstrap intervals over runs.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021. There each run is
on one task, and runs are drawn anew for each. Here one run is evaluated in every environment, and its figures stand or fall
together; so whole runs are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.evaluation.statistics import CONFIDENCE, Interval, Mode

REPEATS = 10_000
"""Resamples of a bootstrap interval."""

MIN_RUNS = 5
"""Runs for an interval: of two or three, a percentile interval is hardly more than the lowest and the highest of them."""

METRICS = ("win_rate", "return_mean")
"""Fields of a record that can be summed up."""


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
        ValueError: If there are no runs, a run has no such record, a record has no such figure, or runs were evaluated in
            different environments.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: got {metric!r}, expected one of {', '.join(METRICS)}")
    if not evaluations:
        raise ValueError(f"aggregate of {name}: got no evaluations, expected at least one")
    rows = [_scores(name, records, mode, metric) for records in evaluations]
    envs = tuple(rows[0])
    for place, records in enumerate(evaluations):
        if records in evaluations[:place]:
            raise ValueError(f"aggregate of {name}: got the same evaluation twice, expected one of each run")
    controls = sorted({each["control"] for records in evaluations for each in _own(records, mode)})
    if len(controls) > 1:
        raise ValueError(f"aggregate of {name}: got {' and '.join(controls)} control, which are not comparable")
    for row in rows:
        if set(row) != set(envs):
            raise ValueError(
                f"aggregate of {name}: got one run in {', '.join(envs)} and another in {', '.join(row)}, expected the same "
                "environments of all"
            )
    scores = np.array([[row[env] for env in envs] for row in rows])
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
        ValueError: If it is not such a file.
    """
    expected = "expected a file of `perceiver-rl evaluate --json`"
    if path.is_dir():
        path = path / "evaluation.json"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file, {expected}")
    try:
        records = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: got what is no JSON ({error}), {expected}") from error
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path}: got no list of records, {expected}")
    for record in records:
        if not isinstance(record, dict) or not {"env", "policy", "mode", "control", *METRICS} <= record.keys():
            raise ValueError(f"{path}: got a record without env, policy, mode, control or a figure, {expected}")
    return records


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(scores.mean(axis=-1))


def _estimate(scores: NDArray[np.float64], statistic: Any) -> Estimate:
    interval = bootstrap(scores, statistic) if len(scores) >= MIN_RUNS else None
    return Estimate(float(statistic(scores.reshape(-1))), interval)


def _own(records: Sequence[dict[str, Any]], mode: Mode) -> list[dict[str, Any]]:
    """Records of the run's own policy, which `evaluate` writes first for each environment."""
    own: dict[str, dict[str, Any]] = {}
    for each in records:
        if each["policy"] == records[0]["policy"] and each["mode"] == mode:
            own.setdefault(each["env"], each)
    return list(own.values())


def _scores(name: str, records: Sequence[dict[str, Any]], mode: Mode, metric: str) -> dict[str, float]:
    """A run's figure by environment."""
    own = _own(records, mode)
    if not own:
        raise ValueError(
            f"aggregate of {name}: got no {mode} record of {records[0]['policy']!r}, expected one; evaluate again"
        )
    if missing := [each["env"] for each in own if each[metric] is None]:
        raise ValueError(
            f"aggregate of {name}: got no {metric} in {', '.join(missing)}, which tells none; try --metric {METRICS[1]}"
        )
    return {each["env"]: float(each[metric]) for each in own}
