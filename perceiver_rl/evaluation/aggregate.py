"""One figure for several runs on several environments: interquartile mean and stratified bootstrap intervals.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from perceiver_rl.evaluation.statistics import CONFIDENCE, Interval, Mode

REPEATS = 10_000
"""Resamples of a bootstrap interval."""

METRICS = ("win_rate", "return_mean")
"""Fields of a record that can be summed up."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval, which one run alone cannot have."""

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
    for row in rows:
        if set(row) != set(envs):
            raise ValueError(
                f"aggregate of {name}: got one run in {', '.join(envs)} and another in {', '.join(row)}, expected the same "
                "environments of all"
            )
    scores = np.array([[row[env] for env in envs] for row in rows])
    return Aggregate(name, mode, len(rows), envs, _estimate(scores, _mean), _estimate(scores, interquartile_mean))


def interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without the lowest and the highest quarter."""
    return np.asarray(trim_mean(scores, 0.25, axis=-1))


def bootstrap(scores: NDArray[np.float64], statistic: Any, *, repeats: int = REPEATS, seed: int = 0) -> Interval:
    """Percentile interval of a statistic: in each environment runs are drawn anew, with replacement.

    Args:
        scores: Figures `[runs, environments]`, of at least two runs.
        statistic: Function of `[repeats, runs * environments]` to `[repeats]`.
        repeats: How often to draw.
        seed: Of the draws.

    Raises:
        ValueError: If there is one run only.
    """
    runs, envs = scores.shape
    if runs < 2:
        raise ValueError(f"bootstrap: got {runs} run, expected at least two: one tells nothing of the spread")
    drawn = np.random.default_rng(seed).integers(runs, size=(repeats, runs, envs))
    resampled = scores[drawn, np.arange(envs)].reshape(repeats, -1)
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
    if not isinstance(records, list) or not records or not all(isinstance(each, dict) for each in records):
        raise ValueError(f"{path}: got no list of records, {expected}")
    return records


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(scores.mean(axis=-1))


def _estimate(scores: NDArray[np.float64], statistic: Any) -> Estimate:
    interval = bootstrap(scores, statistic) if len(scores) > 1 else None
    return Estimate(float(statistic(scores.reshape(-1))), interval)


def _scores(name: str, records: Sequence[dict[str, Any]], mode: Mode, metric: str) -> dict[str, float]:
    """A run's figure by environment."""
    own = [each for each in records if each["policy"] == records[0]["policy"] and each["mode"] == mode]
    scores = {each["env"]: each.get(metric) for each in own}
    missing = [env for env, score in scores.items() if score is None]
    if not scores or missing:
        where = f" in {', '.join(missing)}" if missing else f" of mode {mode}"
        raise ValueError(f"aggregate of {name}: got no {metric}{where}; try --metric {METRICS[1]}, or evaluate again")
    return {env: float(score) for env, score in scores.items() if score is not None}
