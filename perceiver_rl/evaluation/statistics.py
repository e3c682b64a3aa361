"""What many episodes say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from perceiver_rl.evaluation.rollout import EpisodeRecord

Mode = Literal["greedy", "sampled"]

CONFIDENCE = 0.95

UNITS_LEFT = "allies_left"
"""Key of the info that tells how many of the squad are left."""


@dataclass(frozen=True)
class Interval:
    """A range around an estimate."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a policy did in an environment; the record of `perceiver-rl evaluate --json`, field by field."""

    env: str
    policy: str
    mode: Mode
    control: str
    """What a decision may see: a `centralized` policy is not comparable with decentralized baselines."""
    seed: int
    episodes: int
    win_rate: float | None
    """None if the environment says nothing of winning."""
    win_rate_low: float | None
    """Lower end of the 95 % Wilson interval."""
    win_rate_high: float | None
    """Upper end of the 95 % Wilson interval."""
    return_mean: float
    length_mean: float
    units_left_mean: float | None
    """None if the environment does not tell `allies_left`."""

    def to_dict(self) -> dict[str, Any]:
        """The record as a plain dictionary, for JSON."""
        return asdict(self)


def wilson_interval(wins: int, episodes: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a win rate, which stays inside [0, 1] and is right for few episodes too.

    Args:
        wins: Episodes won.
        episodes: Episodes played.
        confidence: How often intervals made so contain the true rate.

    Raises:
        ValueError: If nothing was played, or more was won than played.

    Source: Wilson 1927, without continuity correction, by `scipy.stats`.
    """
    if not 0 <= wins <= episodes or episodes < 1:
        raise ValueError(
            f"wilson_interval: got {wins} wins in {episodes} episodes, expected at least one episode and "
            "no more wins than episodes"
        )
    interval = binomtest(wins, episodes).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def summarize(records: Sequence[EpisodeRecord], *, env: str, policy: str, mode: Mode, seed: int, control: str) -> Summary:
    """Sum up what `evaluate` gave back.

    Args:
        records: The episodes, at least one.
        env: Name of the environment.
        policy: Name of the policy.
        mode: How it chose.
        seed: The evaluation's seed.
        control: What its decisions could see.

    Raises:
        ValueError: If there are no records, or only some of them tell whether they were won.
    """
    if not records:
        raise ValueError(f"summary of {policy} in {env}: got no episodes, expected at least one")
    told = [record.won for record in records if record.won is not None]
    if told and len(told) != len(records):
        raise ValueError(
            f"summary of {policy} in {env}: got info 'won' at the end of {len(told)} of {len(records)} episodes, "
            "expected it of all or of none; let the environment tell won = False too"
        )
    interval = wilson_interval(sum(told), len(told)) if told else None
    left = [record.info[UNITS_LEFT] for record in records if UNITS_LEFT in record.info]
    return Summary(
        env=env,
        policy=policy,
        mode=mode,
        control=control,
        seed=seed,
        episodes=len(records),
        win_rate=sum(told) / len(told) if told else None,
        win_rate_low=interval.low if interval else None,
        win_rate_high=interval.high if interval else None,
        return_mean=float(np.mean([record.total_reward for record in records])),
        length_mean=float(np.mean([record.length for record in records])),
        units_left_mean=float(np.mean(left)) if left else None,
    )
