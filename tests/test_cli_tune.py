"""`perceiver-rl tune` as a user has it: a search is begun, killed, gone on with; other commands read its trials."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perceiver_rl.cli import app
from tests.test_cli import COMMAND, CONFIG, ROOT, command, foreground, progress, refused

STEPS, EVERY = 6_144, 1_024
SEARCH = [
    *("tune", CONFIG, "--samples", "3", "--steps", str(STEPS), "--report-every", str(EVERY), "--metric", "outcome/return"),
    *("--set", "env_runners.num_env_runners=0", "--set", "env_runners.num_envs_per_env_runner=32"),
    *("--set", "training.train_batch_size_per_learner=512", "--set", "training.gamma=0.5"),
]


def kill_when_trial_has(number: int, iterations: int, out: Path, *arguments: str) -> None:
    """Begin a search, and kill its process (SIGKILL) when a trial has had some iterations."""
    run = out / "trials" / f"{number:05d}"
    with foreground(*SEARCH, *arguments, "--out", str(out)) as process:
        until = time.monotonic() + 200
        while not (run.exists() and len(progress(run)) >= iterations):
            assert process.poll() is None, "the search ended by itself"
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()


def go_on(out: Path) -> str:
    """Resume a search to its end; what it says. On busy cores several trials' starts alone take minutes."""
    arguments = [COMMAND, "tune", CONFIG, "--out", str(out), "--resume"]
    resumed = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert resumed.returncode == 0, resumed.stderr
    return resumed.stderr


def no_hole_nor_double(records: list[dict[str, Any]]) -> bool:
    steps = [record["env_steps"] for record in records]
    return all(after - before == 512 for before, after in pairwise([0, *steps]))


@pytest.mark.slow
def test_killed_search__goes_on(tmp_path: Path) -> None:
    out = tmp_path / "search"
    # Trial 1, which is interrupted, does not learn: what is best can be repeated to the digit.
    kill_when_trial_has(1, 4, out, "--param", "training.lr=choice:1e-9,3e-3", "--grace", str(3 * EVERY))
    first = progress(out / "trials" / "00000")
    assert first[-1]["env_steps"] == STEPS
    told = go_on(out)
    assert progress(out / "trials" / "00000") == first, "what had ended is not done again"
    report = json.loads((out / "report.json").read_text())
    assert {trial["ended"] for trial in report["trials"]} <= {"finished", "stopped early"}
    for number in range(3):
        assert no_hole_nor_double(progress(out / "trials" / f"{number:05d}"))
    assert f"Best:       trial {report['best']}, " in told
    # What the report says to do can be done, and a trial is a run like any other.
    (line,) = re.findall(r"^perceiver-rl (train .*)$", (out / "report.md").read_text(), re.MULTILINE)
    again = command(*shlex.split(line)[:-1], str(tmp_path / "again"), "--no-pictures")
    assert again.returncode == 0, again.stderr
    best = out / "trials" / f"{report['best']:05d}"
    assert progress(tmp_path / "again")[-1]["outcome/return"] == progress(best)[-1]["outcome/return"]
    evaluated = CliRunner().invoke(app, ["evaluate", str(best), "--episodes", "24"])
    assert evaluated.exit_code == 0, evaluated.output
    # Once more there is nothing to do.
    go_on(out)
    assert json.loads((out / "report.json").read_text())["trials"] == report["trials"]


@pytest.mark.slow
def test_killed_population__goes_on(tmp_path: Path) -> None:
    out = tmp_path / "search"
    population = ("--scheduler", "pbt", "--samples", "2", "--report-every", str(2 * EVERY))
    kill_when_trial_has(1, 5, out, "--param", "training.lr=loguniform:1e-9:3e-3", *population)
    go_on(out)
    report = json.loads((out / "report.json").read_text())
    assert [trial["ended"] for trial in report["trials"]] == ["finished"] * 2
    for number in range(2):
        assert no_hole_nor_double(progress(out / "trials" / f"{number:05d}"))


def test_tune__says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ["--out", str(tmp_path / "search")]
    assert "--param: got none, expected at least one" in refused(["tune", CONFIG, *out], monkeypatch)
    assert "--resume: expected --out OUT" in refused(["tune", CONFIG, "--resume"], monkeypatch)
    assert "got no search.json" in refused(["tune", CONFIG, *out, "--resume"], monkeypatch)
    assert not (tmp_path / "search").exists()


def test_help__says_how_to_name_what_is_searched() -> None:
    told = subprocess.run([COMMAND, "tune", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for words in ("loguniform", "logint", "--resume", "asha", "pbt"):
        assert words in told
