from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from perceiver_rl.evaluation import Summary, make_table, write_json
from perceiver_rl.evaluation.report import make_units_table, write_csv

GREEDY = Summary(
    env="smax/2s3z",
    policy="perceiver",
    mode="greedy",
    control="centralized",
    seed=0,
    episodes=1024,
    win_rate=0.953,
    win_rate_low=0.938,
    win_rate_high=0.964,
    return_mean=1.912,
    length_mean=33.34,
    units_left_mean=3.1,
)
SAMPLED = replace(GREEDY, mode="sampled", win_rate=0.5)
NO_WINS = replace(GREEDY, env="mpe/spread", win_rate=None, win_rate_low=None, win_rate_high=None, units_left_mean=None)


def printed(summaries: list[Summary], width: int = 80) -> list[str]:
    """The table's lines, runs of spaces as one."""
    output = StringIO()
    Console(width=width, file=output).print(make_table(summaries))
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def test_make_table__shows_a_summary_in_one_line_of_80_columns() -> None:
    rows = printed([GREEDY, SAMPLED])
    assert "smax/2s3z perceiver greedy 1,024 95.3 % (93.8 to 96.4) 1.91 33.3 3.10" in rows
    assert "smax/2s3z perceiver sampled 1,024 50.0 % (93.8 to 96.4) 1.91 33.3 3.10" in rows


def test_make_table__marks_what_is_unknown() -> None:
    assert "mpe/spread perceiver greedy 1,024 - 1.91 33.3 -" in printed([NO_WINS, GREEDY])


def test_make_table__shows_the_returns_interval_where_nobody_wins() -> None:
    team = replace(NO_WINS, return_low=1.8, return_high=2.0, return_per_agent_mean=0.48)
    rows = printed([team, NO_WINS])
    assert "mpe/spread perceiver greedy 1,024 1.91 (1.80 to 2.00) 0.48 33.3 -" in rows
    assert "mpe/spread perceiver greedy 1,024 1.91 - 33.3 -" in rows
    assert not any("win rate" in row for row in rows)


def test_make_table__shows_names_with_brackets_as_they_are() -> None:
    (row,) = (line for line in printed([replace(GREEDY, policy="a[b]")]) if line.startswith("smax"))
    assert row.split()[1] == "a[b]"


def test_write_json__is_a_list_with_one_record_for_each_summary(tmp_path: Path) -> None:
    file = tmp_path / "new" / "evaluation.json"
    write_json(file, [SAMPLED])
    write_json(file, [GREEDY, NO_WINS])  # replaces the first
    records = json.loads(file.read_text())
    assert [Summary(**record) for record in records] == [GREEDY, NO_WINS]
    assert records[1]["win_rate"] is None
    assert [each.name for each in file.parent.iterdir()] == ["evaluation.json"]


def test_write_csv__has_a_column_for_each_nested_figure_and_empty_cells_for_none(tmp_path: Path) -> None:
    squad = replace(GREEDY, outcomes={"damage_dealt": 4.5}, units={"zealot": {"units": 3.0, "kills": 0.5}})
    write_csv(tmp_path / "new" / "table.csv", [squad, NO_WINS])
    rows = list(csv.DictReader((tmp_path / "new" / "table.csv").read_text().splitlines()))
    assert [row["env"] for row in rows] == ["smax/2s3z", "mpe/spread"]
    assert (rows[0]["win_rate"], rows[1]["win_rate"]) == ("0.953", "")
    assert (rows[0]["outcomes/damage_dealt"], rows[0]["units/zealot/kills"]) == ("4.5", "0.5")
    assert (rows[1]["outcomes/damage_dealt"], rows[1]["units/zealot/kills"]) == ("", "")


def test_make_units_table__has_a_row_for_each_kind() -> None:
    units = {"stalker": {"units": 2048.0, "kills": 1.25}, "zealot": {"units": 3072.0, "kills": 0.5, "survived": 0.75}}
    output = StringIO()
    Console(width=80, file=output).print(make_units_table([replace(GREEDY, units=units), SAMPLED]))
    rows = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    assert "smax/2s3z perceiver greedy stalker 2,048 1.25 -" in rows
    assert "smax/2s3z perceiver greedy zealot 3,072 0.50 0.75" in rows
    assert not any("sampled" in row for row in rows)
