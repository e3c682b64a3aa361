"""Summaries as tables on the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from perceiver_rl.evaluation.aggregation import Aggregate, Estimate
from perceiver_rl.evaluation.statistics import Summary
from perceiver_rl.whole_file import write_whole

UNKNOWN = "-"


def make_table(summaries: Sequence[Summary]) -> Table:
    """A table with one row for each summary, for `rich.console.Console.print`; it fits a terminal of 80 columns.

    Where no environment says who won, the mean return has its interval in place of the win rate.
    """
    by_wins = any(each.win_rate is not None for each in summaries)
    figure = "win rate\n(95 % interval)" if by_wins else "mean return\n(95 % interval)"
    last = ("return", "length", "units\nleft") if by_wins else ("return\nper agent", "length", "units\nleft")
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("env", "policy", "mode"):
        table.add_column(name, overflow="fold")
    for name in ("episodes", figure, *last):
        table.add_column(name, justify="right", no_wrap=True)
    for each in summaries:
        table.add_row(
            escape(each.env),
            escape(each.policy),
            each.mode,
            f"{each.episodes:,}",
            _win_rate(each) if by_wins else _return(each),
            f"{each.return_mean:.2f}" if by_wins else _number(each.return_per_agent_mean),
            f"{each.length_mean:.1f}",
            _number(each.units_left_mean),
        )
    return table


def make_units_table(summaries: Sequence[Summary]) -> Table:
    """What became of the acting units: a row for each kind in each summary, with the mean of what is told of them."""
    figures = list({key: None for each in summaries for of_kind in each.units.values() for key in of_kind})
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("env", "policy", "mode", "unit"):
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for each in summaries:
        for kind, values in each.units.items():
            cells = [f"{values[key]:,.0f}" if key == "units" else _number(values.get(key)) for key in figures]
            table.add_row(escape(each.env), escape(each.policy), each.mode, escape(kind), *cells)
    return table


def make_aggregate_table(aggregates: Sequence[Aggregate], metric: str) -> Table:
    """A row for each kind of run: mean and interquartile mean over runs and environments, with bootstrap intervals."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, caption=f"{metric}, 95 % bootstrap intervals over runs")
    for name in ("runs of", "mode"):
        table.add_column(name, overflow="fold")
    for name in ("runs", "environ-\nments", "mean", "interquartile mean"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in aggregates:
        figures = (_estimate(each.mean), _estimate(each.iqm))
        table.add_row(escape(each.name), each.mode, str(each.runs), str(len(each.envs)), *figures)
    return table


def write_json(path: Path, summaries: Sequence[Summary]) -> None:
    """Write a list of records, one for each summary; the file is either whole or not there.

    Args:
        path: The file; missing folders are made.
        summaries: What to write; the keys are the fields of `Summary`.
    """
    records = [each.to_dict() for each in summaries]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(records, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, summaries: Sequence[Summary]) -> None:
    """Write the same records as CSV: nested fields become columns such as `units/zealot/kills`, and None an empty cell.

    Args:
        path: The file; missing folders are made.
        summaries: What to write.
    """
    rows = [dict(_flat(each.to_dict())) for each in summaries]
    text = StringIO()
    writer = csv.DictWriter(text, list({key: None for row in rows for key in row}), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _win_rate(summary: Summary) -> str:
    if summary.win_rate is None or summary.win_rate_low is None or summary.win_rate_high is None:
        return UNKNOWN
    rate, low, high = (100 * each for each in (summary.win_rate, summary.win_rate_low, summary.win_rate_high))
    return f"{rate:.1f} % ({low:.1f} to {high:.1f})"


def _return(summary: Summary) -> str:
    if summary.return_low is None or summary.return_high is None:
        return f"{summary.return_mean:.2f}"
    return f"{summary.return_mean:.2f} ({summary.return_low:.2f} to {summary.return_high:.2f})"


def _estimate(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.interval.low:.3f} to {estimate.interval.high:.3f})"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
