"""Searches as they run: bad trials are stopped, the worst copies the best, mistakes are told before Ray starts."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perceiver_rl.rllib.tuning import SearchFolder, SearchResult, SearchSettings, TrialRecord, prepare_search, run_search
from perceiver_rl.rllib.tuning.search import _scheduler, _Watch

TOTAL, EVERY = 4_096, 1_024
TURN = 2_048
"""Between exchanges of PBT: long enough for what learns to be the better one."""
SETTINGS = SearchSettings(
    config="tests/courier_config.py",
    env=None,
    seed=0,
    total_env_steps=TOTAL,
    overrides=(
        "env_runners.num_env_runners=0",
        "env_runners.num_envs_per_env_runner=32",
        "training.train_batch_size_per_learner=512",
        "training.gamma=0.5",
        "training.num_epochs=4",
    ),
    parameters=("training.lr=choice:3e-3,1e-9",),
    samples=4,
    scheduler="asha",
    metric="outcome/return",
    mode="max",
    report_every=EVERY,
    grace=2 * EVERY,
)
GOOD, BAD, WILD = {"training.lr": 3e-3}, {"training.lr": 1e-9}, {"training.lr": 1e30}
"""One learns, one stays as it was begun, one diverges."""


def search(
    settings: SearchSettings, path: Path, plan: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> SearchResult:
    """Run a search over given points."""
    monkeypatch.setattr("perceiver_rl.rllib.tuning.search.draw", lambda parameters, samples, seed: plan)
    return run_search(prepare_search(replace(settings, samples=len(plan)), SearchFolder(path)), concurrent=1)


def by_number(result: SearchResult) -> list[TrialRecord]:
    return sorted(result.trials, key=lambda trial: trial.number)


def test_asha__stops_bad_trials_early_and_lets_good_ones_finish(
    tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = search(SETTINGS, tmp_path, [GOOD, BAD, GOOD, WILD], monkeypatch)
    first, bad, again, wild = by_number(result)
    assert not result.interrupted
    assert [trial.ended.value for trial in by_number(result)] == ["finished", "stopped early", "finished", "failed"]
    assert first.env_steps == again.env_steps == TOTAL
    assert bad.env_steps == SETTINGS.grace, "at the first decision"
    # A trial's process is the one before's, and its run is its own: the same parameters and seed give the same figures.
    assert first.scores == again.scores
    assert result.trials[0].parameters == GOOD
    assert json.loads((tmp_path / "report.json").read_text())["best"] in (0, 2)
    run = json.loads((tmp_path / "trials" / "00002" / "run.json").read_text())
    assert run["overrides"] == [*SETTINGS.overrides, "training.lr=0.003"]
    assert wild.error is not None
    assert "training diverged" in wild.error
    assert "- trial 3: TrainingError: training diverged" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_pbt__lets_the_worst_copy_the_best_and_change(
    tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(
        SETTINGS,
        scheduler="pbt",
        total_env_steps=2 * TURN,
        report_every=TURN,
        parameters=("training.lr=loguniform:1e-9:1e-2",),
    )
    good, bad = by_number(search(settings, tmp_path, [GOOD, BAD], monkeypatch))
    assert [trial.ended.value for trial in (good, bad)] == ["finished"] * 2
    assert [trial.env_steps for trial in (good, bad)] == [settings.total_env_steps] * 2
    assert good.history == [{"env_steps": 0, "trial": 0, "parameters": GOOD}], "nobody was better"
    began, changed = bad.history[:2]
    assert (began["trial"], began["parameters"]) == (0, GOOD), "its weights are the best one's"
    assert changed["trial"] == 1
    assert changed["env_steps"] in range(TURN, settings.total_env_steps, TURN)
    assert changed["parameters"] != GOOD
    assert 1e-9 <= changed["parameters"]["training.lr"] <= 1e-2
    # The optimizer's state came along, its learning rate did not.
    lines = [json.loads(line) for line in (Path(bad.folder) / "progress.jsonl").read_text().splitlines()]
    steps = [line["env_steps"] for line in lines]
    assert steps == sorted(set(steps)), "neither a hole nor a double"
    rate = {line["env_steps"]: line["optimizer/learning_rate"] for line in lines}
    assert rate[settings.total_env_steps] == pytest.approx(bad.parameters["training.lr"])
    assert rate[512] == pytest.approx(1e-9)


def test_what_asha_knows__outlives_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune restores trials alone; a bad trial must not get through because the search was killed in between."""

    class Trial:
        def __init__(self, number: int) -> None:
            self.trial_id = f"abc_{number:05d}"

    prepared = prepare_search(SETTINGS, SearchFolder(tmp_path))
    outcomes = {}
    for restored in (True, False):
        before, after = (_Watch(prepared, _scheduler(prepared), lambda progress: None) for _ in range(2))
        for watch in (before, after):
            watch._scheduler.set_search_properties("score", "max")
        before._scheduler.on_trial_add(None, Trial(0))
        before._scheduler.on_trial_result(None, Trial(0), {"env_steps": SETTINGS.grace, "score": 1.0})
        if restored:
            after.set_state(pickle.loads(pickle.dumps(before.get_state())))
        after._scheduler.on_trial_add(None, Trial(1))
        outcomes[restored] = after._scheduler.on_trial_result(None, Trial(1), {"env_steps": SETTINGS.grace, "score": 0.5})
    assert outcomes == {True: "STOP", False: "CONTINUE"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": ("training.lrr=uniform:0:1",)}, r"--set training\.lrr: unknown key 'lrr' \(did you mean 'lr'\?\)"),
        ({"parameters": ("model.perceiver.latents=int:1:8",)}, r"unknown key 'latents' \(did you mean 'num_latents'\?\)"),
        (
            {"parameters": ("training.minibatch_size=uniform:1:2",)},
            r"--set training\.minibatch_size: got 1\.\d+ \(float\), expected int",
        ),
        ({"parameters": ("training.num_epochs=int:1:8",)}, r"got the same setting as --set training\.num_epochs"),
        ({"parameters": ("training.lr.5=uniform:0:1",)}, r"--set training\.lr\.5: got '5', expected a place in"),
        ({"parameters": ("training.lr=loguniform:0:1",)}, r"expected one above 0"),
        ({"metric": "win_rate"}, r"--metric win_rate: expected a TensorBoard tag such as outcome/win_rate"),
        ({"metric": "outcom/win_rate"}, r"group 'outcom' \(did you mean 'outcome'\?\)"),
        ({"report_every": TOTAL + 1}, r"--report-every: got 4,097, expected at most --steps 4,096"),
        ({"grace": TOTAL + 1}, r"--grace: got 4,097, expected at most --steps 4,096"),
        ({"scheduler": "pbt", "samples": 1}, r"--samples: got 1, expected at least 2 for --scheduler pbt"),
        (
            {"scheduler": "pbt", "parameters": ("model.token_dim=choice:16,32",)},
            r"--param model\.token_dim: got a setting of model or environment under --scheduler pbt",
        ),
        ({"config": "tests/courier_bc_config.py", "overrides": ()}, r"got one that learns from recorded episodes"),
        ({"env": "tests.nowhere:make"}, r"got no module 'tests\.nowhere'"),
    ],
)
def test_prepare__says_what_is_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_search(replace(SETTINGS, **changes), SearchFolder(tmp_path))
    assert not (tmp_path / "search.json").exists()


def test_prepare__does_not_write_over_a_search(tmp_path: Path) -> None:
    prepare_search(SETTINGS, SearchFolder(tmp_path))
    settings, plan = SearchFolder(tmp_path).read()
    assert settings == SETTINGS
    assert sorted(point["training.lr"] for point in plan) == [1e-9, 1e-9, 3e-3, 3e-3]
    with pytest.raises(ValueError, match=r"holds a search already; go on with it by --resume"):
        prepare_search(SETTINGS, SearchFolder(tmp_path))


def test_prepare__says_which_file_of_a_search_is_damaged(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    prepare_search(SETTINGS, folder)
    assert not prepare_search(SETTINGS, folder, resume=True).resume, "killed before Ray Tune began"
    folder.tune.mkdir()
    (folder.tune / "experiment_state-1.json").write_text('{"trial_data": [')
    with pytest.raises(ValueError, match=r"Ray Tune's state experiment_state-1\.json breaks off"):
        prepare_search(SETTINGS, folder, resume=True)
