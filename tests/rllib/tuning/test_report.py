"""The report of a search: who was best, how to do it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perceiver_rl.rllib.tuning.report import Ended, best_of, make_table, read_trials, train_command, write_report
from perceiver_rl.rllib.tuning.settings import SearchFolder, SearchSettings

SETTINGS = SearchSettings(
    config="configs/my ppo.py",
    env="smax/3m",
    seed=7,
    total_env_steps=1_000,
    overrides=("training.gamma=0.9",),
    parameters=("training.lr=loguniform:1e-4:1e-2", "model.encoder=choice:perceiver,transformer"),
    samples=6,
    scheduler="asha",
    metric="outcome/win_rate",
    mode="max",
    report_every=100,
    grace=100,
)
# By number: learning rate, scores at each hundredth step. The higher the rate, the slower at first and the better at last.
CURVES = {
    0: (0.01, [0.1, 0.2, 0.3]),
    1: (0.02, [0.09, 0.21, 0.35]),
    2: (0.03, [0.08]),
    3: (0.04, [0.07, 0.4, 0.5]),
    4: (0.05, [0.06, 0.45, 0.6]),
}


def write_trial(folder: SearchFolder, number: int, scores: list[float], history: list[dict[str, Any]]) -> None:
    path = folder.trial(number)
    path.mkdir(parents=True)
    lines = [{"env_steps": 100 * (i + 1), "seconds": 2.5 * (i + 1), SETTINGS.metric: each} for i, each in enumerate(scores)]
    (path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "history.json").write_text(json.dumps(history))


@pytest.fixture
def search(tmp_path: Path) -> tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]]:
    """Six trials: two of them finished, one failed, one not begun."""
    folder = SearchFolder(tmp_path)
    plan = [{"training.lr": rate, "model.encoder": "perceiver"} for rate, _ in CURVES.values()]
    plan.append({"training.lr": 0.06, "model.encoder": "transformer"})
    for number, (_, scores) in CURVES.items():
        write_trial(folder, number, scores, [{"env_steps": 0, "trial": number, "parameters": plan[number]}])
    (folder.trial(2) / "error.txt").write_text("TrainingError: training diverged\n")
    ended = {0: Ended.FINISHED, 1: Ended.FINISHED, 2: Ended.FAILED, 3: Ended.EARLY}
    return folder, plan, ended


def test_trials__are_read_best_first(search: tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]]) -> None:
    folder, plan, ended = search
    trials = read_trials(SETTINGS, folder, plan, ended)
    assert [trial.number for trial in trials] == [4, 3, 1, 0, 2, 5]
    assert [trial.ended.value for trial in trials] == [
        "not finished",
        "stopped early",
        "finished",
        "finished",
        "failed",
        "not finished",
    ]
    assert (trials[0].env_steps, trials[0].seconds, trials[0].score) == (300, 7.5, 0.6)
    assert (trials[-1].env_steps, trials[-1].score, trials[-1].parameters["training.lr"]) == (0, None, 0.06)
    smallest = read_trials(replace(SETTINGS, mode="min"), folder, plan, ended)
    assert [trial.number for trial in smallest] == [2, 0, 1, 3, 4, 5]


def test_trials__are_read_up_to_a_line_that_breaks_off(
    search: tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]],
) -> None:
    folder, plan, ended = search
    log = folder.trial(2) / "progress.jsonl"
    log.write_text(log.read_text() + '{"env_steps": 200, "sec')
    trial = next(trial for trial in read_trials(SETTINGS, folder, plan, ended) if trial.number == 2)
    assert (trial.env_steps, trial.score) == (100, 0.08)


def test_best__is_one_that_finished_if_any_did(search: tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]]) -> None:
    folder, plan, ended = search
    best = best_of(read_trials(SETTINGS, folder, plan, ended))
    assert best is not None
    assert best.number == 1
    best = best_of(read_trials(SETTINGS, folder, plan, {2: Ended.FAILED}))
    assert best is not None
    assert best.number == 4
    assert best_of(read_trials(replace(SETTINGS, metric="value/loss"), folder, plan, ended)) is None


def test_report__says_how_to_do_it_again(search: tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]]) -> None:
    folder, plan, ended = search
    trials = read_trials(SETTINGS, folder, plan, ended)
    write_report(SETTINGS, folder, trials)
    text = (folder.path / "report.md").read_text()
    assert "## Best: trial 1, outcome/win_rate 0.35" in text
    command = train_command(SETTINGS, trials[2], "runs/best")
    assert command in text
    assert shlex.split(command) == [
        *("perceiver-rl", "train", "configs/my ppo.py", "--env", "smax/3m", "--seed", "7", "--steps", "1000"),
        *(
            "--set",
            "training.gamma=0.9",
            "--set",
            "training.lr=0.02",
            "--set",
            "model.encoder=perceiver",
            "--out",
            "runs/best",
        ),
    ]
    assert "| 3 | 0.04 | perceiver | 0.5 | 300 | 8 | stopped early |" in text
    assert "- trial 2: TrainingError: training diverged" in text
    assert "2 finished, 1 stopped early, 1 failed, 2 not finished" in text
    record = json.loads((folder.path / "report.json").read_text())
    assert record["best"] == 1
    assert [trial["ended"] for trial in record["trials"]][:2] == ["not finished", "stopped early"]
    assert make_table(SETTINGS, trials).row_count == 6


def test_report__tells_what_pbt_changed(search: tuple[SearchFolder, list[dict[str, Any]], dict[int, Ended]]) -> None:
    folder, plan, ended = search
    changed = {"training.lr": 0.5, "model.encoder": "perceiver"}
    history = [
        {"env_steps": 0, "trial": 0, "parameters": plan[0]},
        {"env_steps": 200, "trial": 1, "parameters": changed},
    ]
    (folder.trial(1) / "history.json").write_text(json.dumps(history))
    write_report(SETTINGS, folder, read_trials(SETTINGS, folder, plan, ended))
    text = (folder.path / "report.md").read_text()
    assert "| 0 | 0 | 0.01 | perceiver |\n| 200 | 1 | 0.5 | perceiver |" in text
    assert "training.lr=0.5" in text
