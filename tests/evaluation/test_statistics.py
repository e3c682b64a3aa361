from __future__ import annotations

import math

import numpy as np
import pytest

from perceiver_rl.evaluation import EpisodeRecord, Summary, summarize, wilson_interval
from perceiver_rl.evaluation.parallel import RETURN_PER_AGENT
from perceiver_rl.evaluation.statistics import mean_interval
from perceiver_rl.provenance import provenance

RECORDS = [
    EpisodeRecord(2.0, 10, True, {"allies_left": 3.0}),
    EpisodeRecord(1.0, 20, True, {"allies_left": 2.0}),
    EpisodeRecord(0.5, 60, False, {"allies_left": 0.0}),
]


def summary_of(records: list[EpisodeRecord]) -> Summary:
    return summarize(records, env="smax/2s3z", policy="tiny", mode="greedy", seed=7, control="centralized")


@pytest.mark.parametrize(
    ("wins", "episodes", "low", "high"),
    [
        # Published: Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval__agrees_with_published_values(wins: int, episodes: int, low: float, high: float) -> None:
    interval = wilson_interval(wins, episodes)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval__solves_its_defining_equation() -> None:
    # The ends are the rates from which 9 of 13 is just z standard deviations away.
    interval = wilson_interval(9, 13)
    for rate in (interval.low, interval.high):
        assert abs(9 / 13 - rate) == pytest.approx(1.959964 * math.sqrt(rate * (1 - rate) / 13), rel=1e-5)


@pytest.mark.parametrize(("wins", "episodes"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval__refuses_impossible_counts(wins: int, episodes: int) -> None:
    with pytest.raises(ValueError, match=f"got {wins} wins in {episodes} episodes, expected"):
        wilson_interval(wins, episodes)


def test_summarize__has_exactly_the_fields_of_the_record() -> None:
    assert summary_of(RECORDS).to_dict() == {
        "env": "smax/2s3z",
        "policy": "tiny",
        "mode": "greedy",
        "control": "centralized",
        "seed": 7,
        "episodes": 3,
        "win_rate": pytest.approx(2 / 3),
        "win_rate_low": pytest.approx(wilson_interval(2, 3).low),
        "win_rate_high": pytest.approx(wilson_interval(2, 3).high),
        "return_mean": pytest.approx(3.5 / 3),
        "length_mean": 30.0,
        "units_left_mean": pytest.approx(5 / 3),
        "return_low": pytest.approx(mean_interval([record.total_reward for record in RECORDS]).low),
        "return_high": pytest.approx(mean_interval([record.total_reward for record in RECORDS]).high),
        "return_per_agent_mean": None,
        "outcomes": {"allies_left": pytest.approx(5 / 3)},
        "units": {},
        "checkpoint": None,
        "env_steps": None,
        "env_config": {},
        **provenance(),
    }


def test_summarize__leaves_out_numbers_that_are_none() -> None:
    infos = [{"time_to_kill": math.nan, "pace": 1.0}, {"time_to_kill": 4.0, "pace": 2.0}, {"never": math.inf}]
    summary = summary_of([EpisodeRecord(1.0, 2, True, info) for info in infos])
    assert summary.outcomes == {"pace": 1.5, "time_to_kill": 4.0}


def test_summarize__averages_units_by_their_kind() -> None:
    first = {"kind": np.array(["zealot", "stalker"]), "kills": np.array([2.0, 1.0]), "survived": np.array([True, False])}
    second = {"kind": np.array(["zealot", "zealot"]), "kills": np.array([0.0, 1.0]), "survived": np.array([False, False])}
    records = [EpisodeRecord(1.0, 2, True, {}, units) for units in (first, second)]
    assert summary_of([*records, EpisodeRecord(1.0, 2, True)]).units == {
        "stalker": {"units": 1.0, "kills": 1.0, "survived": 0.0},
        "zealot": {"units": 3.0, "kills": 1.0, "survived": pytest.approx(1 / 3)},
    }
    empty = {**first, "kind": np.array(["zealot", ""])}
    assert list(summary_of([EpisodeRecord(1.0, 2, True, {}, empty)]).units) == ["zealot"]
    with pytest.raises(ValueError, match=r"info 'units', 'kills': got NaN or infinity of a unit, expected finite numbers"):
        summary_of([EpisodeRecord(1.0, 2, True, {}, {**first, "kills": np.array([np.nan, 1.0])})])
    with pytest.raises(ValueError, match="info 'units': got kills in one episode, expected 'kind' and the same figures"):
        summary_of([EpisodeRecord(1.0, 2, True, {}, {"kills": np.ones(2)})])


def test_mean_interval__is_students() -> None:
    # Student's own table: 4.303 standard errors with two degrees of freedom; here the error is 1 / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert interval.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    with pytest.raises(ValueError, match="got 1 values, expected at least two"):
        mean_interval([1.0])


def test_summarize__knows_no_interval_of_one_episode() -> None:
    summary = summary_of([EpisodeRecord(1.0, 2, None)])
    assert summary.return_low is summary.return_high is None


def test_summarize__tells_what_each_of_many_agents_got() -> None:
    records = [EpisodeRecord(6.0, 9, None, {RETURN_PER_AGENT: 2.0}), EpisodeRecord(1.0, 9, None, {RETURN_PER_AGENT: 0.5})]
    summary = summary_of(records)
    assert (summary.return_mean, summary.return_per_agent_mean) == (3.5, 1.25)


def test_summarize__has_no_win_rate_where_the_environment_tells_none() -> None:
    summary = summary_of([EpisodeRecord(1.0, 2, None), EpisodeRecord(2.0, 4, None)])
    assert summary.win_rate is summary.win_rate_low is summary.win_rate_high is None
    assert summary.units_left_mean is None
    assert summary.return_mean == 1.5


def test_summarize__refuses_episodes_of_which_only_some_tell_whether_they_were_won() -> None:
    with pytest.raises(ValueError, match=r"tiny in smax/2s3z: got info 'won' at the end of 3 of 4 episodes, expected"):
        summary_of([*RECORDS, EpisodeRecord(1.0, 2, None)])


def test_summarize__refuses_no_episodes() -> None:
    with pytest.raises(ValueError, match="got no episodes, expected at least one"):
        summary_of([])
