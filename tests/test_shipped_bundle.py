"""The policy in the repository plays as it says, by the commands of the README."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from perceiver_rl.bundle import load_policy
from perceiver_rl.cli import app
from perceiver_rl.replay import read_page

BUNDLE = Path(__file__).parent.parent / "agents/bundles/smax_2s3z"


def command(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


def test_bundle__is_small_and_tells_where_it_comes_from() -> None:
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 1_000_000
    loaded = load_policy(BUNDLE)
    assert loaded.provenance.env == "smax/2s3z"
    assert loaded.provenance.commit is not None
    assert not loaded.provenance.commit.endswith("-dirty")
    greedy = next(each for each in loaded.evaluation if each["mode"] == "greedy")
    assert greedy["episodes"] == 512


def test_evaluate__keeps_json_and_csv_apart(tmp_path: Path) -> None:
    file = str(tmp_path / "e.json")
    result = CliRunner().invoke(app, ["evaluate", str(BUNDLE), "--json", file, "--csv", file])
    assert result.exit_code == 2
    assert "got the file of --json, expected another one" in result.output


def test_evaluate__finds_what_the_bundle_says_and_writes_json_and_csv(tmp_path: Path) -> None:
    files = ("--json", str(tmp_path / "e.json"), "--csv", str(tmp_path / "e.csv"))
    command("evaluate", str(BUNDLE), "--episodes", "64", "--seed", "1", "--against", "random", *files)
    greedy, _, random = json.loads((tmp_path / "e.json").read_text())
    told = load_policy(BUNDLE).evaluation[0]["win_rate"]
    assert greedy["win_rate_low"] <= told <= greedy["win_rate_high"], "an interval of another seed covers it"
    assert random["win_rate"] == 0.0
    assert set(greedy["units"]) == {"stalker", "zealot"}
    assert greedy["checkpoint"] == "smax_2s3z"
    rows = list(csv.DictReader((tmp_path / "e.csv").read_text().splitlines()))
    assert float(rows[0]["units/stalker/kills"]) == pytest.approx(greedy["units"]["stalker"]["kills"])


def test_replay__of_the_bundle_makes_a_page_and_a_film_and_leaves_the_bundle_alone(tmp_path: Path) -> None:
    before = sorted(BUNDLE.iterdir())
    page, film = tmp_path / "replay.html", tmp_path / "battle.gif"
    command("replay", str(BUNDLE), "--episodes", "1", "--out", str(page), "--film", str(film))
    (episode,) = read_page(page.read_text()).episodes
    assert episode.won
    with Image.open(film) as frames:
        assert getattr(frames, "n_frames", 1) > 10
    assert sorted(BUNDLE.iterdir()) == before
