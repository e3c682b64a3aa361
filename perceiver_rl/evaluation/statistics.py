"""What many episodes say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from perceiver_rl.evaluation.parallel import RETURN_PER_AGENT
from perceiver_rl.evaluation.rollout import EpisodeRecord
from perceiver_rl.infos import KIND, UNITS
from perceiver_rl.provenance import provenance

Mode = Literal["greedy", "sampled"]
"""How actions are chosen: each actor's most probable option, or a draw."""

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
    return_low: float | None = None
    """Lower end of the 95 % interval of the mean return; None for one episode. The return of many agents is their sum."""
    return_high: float | None = None
    """Upper end of that interval."""
    return_per_agent_mean: float | None = None
    """Mean over episodes of the mean over agents; None for a squad."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """Mean over episodes of every other number of the last info, by its key."""
    units: dict[str, dict[str, float]] = field(default_factory=dict)
    """What became of the acting units: by their kind, the mean over units and episodes of everything that the last info
    tells of each, and under `units` how many there were; empty if it tells nothing."""
    checkpoint: str | None = None
    """Which checkpoint or bundle of the policy; None for an agent that was not trained."""
    env_steps: int | None = None
    """Environment steps that it was trained for; None for an agent that was not trained."""
    env_config: dict[str, Any] = field(default_factory=dict)
    """The environment's options."""
    commit: str | None = None
    """Commit of the code that evaluated; None outside a git checkout."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that evaluated."""

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
    from scipy.stats import binomtest  # takes two seconds to import, which training does without

    interval = binomtest(wins, episodes).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a mean, for independent values whose mean is near normal: some dozens of episodes.

    Args:
        values: At least two.
        confidence: How often intervals made so contain the true mean.

    Raises:
        ValueError: If there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"mean_interval: got {len(values)} values, expected at least two")
    from scipy.stats import t

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean - reach, mean + reach)


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
    returns = [record.total_reward for record in records]
    return_interval = mean_interval(returns) if len(returns) > 1 else None
    per_agent = [record.info[RETURN_PER_AGENT] for record in records if RETURN_PER_AGENT in record.info]
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
        return_mean=float(np.mean(returns)),
        length_mean=float(np.mean([record.length for record in records])),
        units_left_mean=float(np.mean(left)) if left else None,
        return_low=return_interval.low if return_interval else None,
        return_high=return_interval.high if return_interval else None,
        return_per_agent_mean=float(np.mean(per_agent)) if per_agent else None,
        outcomes=_outcomes(records),
        units=_by_kind(records),
        **provenance(),
    )


def _outcomes(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    """The mean of every number that infos tell, over the episodes that tell a finite one."""
    told: dict[str, list[float]] = {}
    for record in records:
        for key, value in record.info.items():
            if math.isfinite(value):
                told.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in told.items()}


def _by_kind(records: Sequence[EpisodeRecord]) -> dict[str, dict[str, float]]:
    told = [record.units for record in records if record.units]
    if not told:
        return {}
    if any(units.keys() != told[0].keys() or KIND not in units for units in told):
        raise ValueError(
            f"info {UNITS!r}: got {', '.join(told[0])} in one episode, expected {KIND!r} and the same figures in every one"
        )
    kinds = np.concatenate([units[KIND] for units in told])
    figures = {key: np.concatenate([units[key] for units in told]) for key in told[0] if key != KIND}
    for key, values in figures.items():
        if not np.isfinite(values.astype(float)).all():
            raise ValueError(f"info {UNITS!r}, {key!r}: got NaN or infinity of a unit, expected finite numbers")
    return {
        str(kind): {"units": float(np.sum(kinds == kind))}
        | {key: float(np.mean(values[kinds == kind])) for key, values in figures.items()}
        for kind in sorted(set(kinds.tolist()) - {""})
    }
