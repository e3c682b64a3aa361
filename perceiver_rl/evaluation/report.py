"""Summaries as a table on the terminal and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from perceiver_rl.evaluation.statistics import Summary

UNKNOWN = "-"


def make_table(summaries: Sequence[Summary]) -> Table:
    """A table with one row for each summary, for `rich.console.Console.print`; it fits a terminal of 80 columns.

    Where no environment says who won, the mean return has its interval in place of the win rate.
    """
    by_wins = any(each.win_rate is not None for each in summaries)
    figure = "win rate\n(95 % interval)" if by_wins else "mean return\n(95 % interval)"
    last = ("return", "length", "units\nleft") if by_wins else ("return\nper agent", "length", "units\nleft")
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("environment", "policy", "mode"):
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


def write_json(path: Path, summaries: Sequence[Summary]) -> None:
    """Write a list of records, one for each summary; the file is either whole or not there.

    Args:
        path: The file; missing folders are made.
        summaries: What to write; the keys are the fields of `Summary`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    records = [each.to_dict() for each in summaries]
    scratch.write_text(json.dumps(records, indent=2, allow_nan=False) + "\n")
    scratch.replace(path)


def _win_rate(summary: Summary) -> str:
    if summary.win_rate is None or summary.win_rate_low is None or summary.win_rate_high is None:
        return UNKNOWN
    rate, low, high = (100 * each for each in (summary.win_rate, summary.win_rate_low, summary.win_rate_high))
    return f"{rate:.1f} % ({low:.1f} to {high:.1f})"


def _return(summary: Summary) -> str:
    if summary.return_low is None or summary.return_high is None:
        return f"{summary.return_mean:.2f}"
    return f"{summary.return_mean:.2f} ({summary.return_low:.2f} to {summary.return_high:.2f})"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
