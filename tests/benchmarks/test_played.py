"""Checkpoints are played with one after the other, and their win rates written down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import played
from tests.benchmarks.test_collect import call
from tests.environments import COURIERS

WINS = {"checkpoint_0000000100": 0.25, "checkpoint_0000000200": 0.75}
NO_WINS = dict.fromkeys(WINS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints, of what is written beside RLlib's files."""
    for name in WINS:
        steps = int(name.partition("_")[2])
        record = {"format": 2, "env": "x", "env_config": {}, "env_steps": steps, "seconds": steps / 10, "seed": 0}
        record |= {"config": "x", "versions": {}, "commit": None, "schema": COURIERS.to_dict()}
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "perceiver_rl.json").write_text(json.dumps(record))
    return tmp_path


class Plays:
    """Stands in for environments: greedy actions win always, sampled ones as often as is said of a checkpoint.

    Args:
        wins: Rate by checkpoint.
        monkeypatch: Puts this in place of the evaluation.
    """

    def __init__(self, wins: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.wins = wins
        self.asked: list[tuple[int, int]] = []
        self.open = 0
        monkeypatch.setattr(played, "find_trained", lambda checkpoint, env: checkpoint)
        monkeypatch.setattr(played, "contests_of", self.contests_of)
        monkeypatch.setattr(played, "closing_all", self.closing_all)

    def contests_of(self, checkpoint: Path, against: tuple[str, ...], episodes: int) -> list[Any]:
        rates = {"greedy": 1.0, "sampled": self.wins[checkpoint.name]}
        return [
            SimpleNamespace(mode=mode, play=lambda *how, rate=rate: self.play(rate, *how)) for mode, rate in rates.items()
        ]

    def play(self, rate: float, episodes: int, seed: int, on_episode: Any) -> Any:
        self.asked.append((episodes, seed))
        on_episode(episodes, episodes)
        return SimpleNamespace(win_rate=rate, env="x")

    @contextmanager
    def closing_all(self, contests: list[Any]) -> Iterator[None]:
        self.open += 1
        yield
        self.open -= 1


def test_played__has_a_record_of_each_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plays = Plays(WINS, monkeypatch)
    result = call(played.main, str(run), "--episodes", "40", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in (run / "played.jsonl").read_text().splitlines()] == [
        {"env_steps": 100, "seconds": 10.0, "outcome/win_rate": 0.25},
        {"env_steps": 200, "seconds": 20.0, "outcome/win_rate": 0.75},
    ]
    assert plays.asked == [(40, 3)] * 2
    assert plays.open == 0


def test_played__says_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Plays(NO_WINS, monkeypatch)
    for folder, message in ((run, "got no wins or losses from x"), (run / "checkpoints", "got no checkpoints")):
        result = call(played.main, str(folder))
        assert result.exit_code == 2
        assert message in re.sub(r"[\s│]+", " ", result.output)
    assert not (run / "played.jsonl").exists()
