"""A run's folder: provenance without git, progress without NaN, checkpoints that replace damaged ones."""

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ray.rllib.algorithms.algorithm import Algorithm

import perceiver_rl
from perceiver_rl.provenance import _commit, provenance
from perceiver_rl.rllib.recorder import Progress
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings, run_of
from perceiver_rl.rllib.training import _require_finite, build_config, prepare

SETTINGS = RunSettings("tests.courier_config:make_config", env=None, seed=0, total_env_steps=1_000)


class FakeAlgorithm(Algorithm):
    """Saves one file, and is nothing else."""

    def __init__(self) -> None:
        pass

    def save_to_path(self, path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text("whole")


@pytest.fixture
def _ask_git_anew() -> Iterator[None]:
    _commit.cache_clear()
    yield
    _commit.cache_clear()


@pytest.mark.usefixtures("_ask_git_anew")
def test_provenance__does_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert provenance()["commit"] is None
    assert "torch" in provenance()["versions"]


@pytest.mark.usefixtures("_ask_git_anew")
def test_provenance__names_the_commit_that_was_there_first(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(perceiver_rl.__file__).parents[1]
    commits = iter(["aaa", "bbb"])
    monkeypatch.setattr(shutil, "which", lambda name: name)
    answers = {"rev-parse": lambda: str(root), "describe": lambda: next(commits)}
    monkeypatch.setattr("perceiver_rl.provenance._git", lambda root, verb, *arguments: answers[verb]())
    assert provenance()["commit"] == "aaa"
    assert provenance()["commit"] == "aaa", "the code that runs is still the first one's"


def test_resumed_run__keeps_as_many_checkpoints_unless_told_otherwise(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    asked = replace(SETTINGS, overrides=("training.lr=0.1",), checkpoint_every=50, keep_checkpoints=0)
    prepare(asked, folder)
    begun = json.loads((tmp_path / "run.json").read_text())
    assert prepare(folder.settings(), folder, resume=True).settings == asked
    assert json.loads((tmp_path / "run.json").read_text()) == begun
    prepare(replace(folder.settings(), keep_checkpoints=3), folder, resume=True)
    assert folder.settings() == replace(asked, keep_checkpoints=3)
    assert json.loads((tmp_path / "run.json").read_text()) == begun | {"keep_checkpoints": 3}


def test_settings__of_a_run_from_before_checkpoints_had_any_are_the_usual_ones(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(SETTINGS)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["checkpoint_every"], record["keep_checkpoints"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert folder.settings() == SETTINGS


def test_save_checkpoint__replaces_a_damaged_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(SETTINGS)
    algorithm = FakeAlgorithm()
    path = folder.save_checkpoint(algorithm, 7, {})
    (path / "weights").write_text("torn")
    assert folder.save_checkpoint(algorithm, 7, {}) == path
    assert (path / "weights").read_text() == "whole"
    assert [each.name for each in folder.checkpoints.iterdir()] == ["checkpoint_0000000007"]


class FailingAlgorithm(Algorithm):
    """Saves one file of several, and then the disk is full."""

    def __init__(self) -> None:
        pass

    def save_to_path(self, path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text("who")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_save_checkpoint__leaves_nothing_of_one_that_the_disk_does_not_take(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(SETTINGS)
    path = folder.save_checkpoint(FakeAlgorithm(), 7, {})
    with pytest.raises(OSError, match="No space left"):
        folder.save_checkpoint(FailingAlgorithm(), 8, {})
    assert list(folder.checkpoints.iterdir()) == [path]
    assert (path / "weights").read_text() == "whole"


def test_save_checkpoint__sweeps_up_what_a_killed_run_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(SETTINGS)
    (folder.checkpoints / ".checkpoint_0000000005").mkdir()
    path = folder.save_checkpoint(FakeAlgorithm(), 7, {})
    assert list(folder.checkpoints.iterdir()) == [path]


@pytest.mark.parametrize("torn", ['{"env_steps": 30, "sec', '{"env_steps": 3', "3", "{}", "\x00\x00"])
def test_cut_progress__drops_what_lies_ahead_and_a_line_that_breaks_off(
    torn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    for steps in (10, 20, 30):
        folder.append_progress({"env_steps": steps})
    log = tmp_path / "progress.jsonl"
    log.write_text(log.read_text() + torn)
    folder.cut_progress(20)
    assert log.read_text() == '{"env_steps": 10}\n{"env_steps": 20}\n'
    assert "progress.jsonl, line 4" in caplog.text
    folder.append_progress({"env_steps": 30})
    assert len(log.read_text().splitlines()) == 3


def test_progress__is_told_but_for_a_line_that_breaks_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.progress() == []
    assert folder.numbers_at(20) == {}
    for steps in (10, 20, 30):
        folder.append_progress({"env_steps": steps, "seconds": 1.0, "outcome/return": steps / 10})
    log = tmp_path / "progress.jsonl"
    log.write_text(log.read_text() + '{"env_steps": 4')
    assert [record["env_steps"] for record in folder.progress()] == [10, 20, 30]
    assert folder.numbers_at(20) == {"outcome/return": 2.0}
    assert folder.numbers_at(25) == {}


def test_run_of__is_the_checkpoint_itself_once_it_was_copied_elsewhere(tmp_path: Path) -> None:
    assert run_of(tmp_path / "run" / "checkpoints" / "checkpoint_1") == tmp_path / "run"
    assert run_of(tmp_path / "copied") == tmp_path / "copied"


def test_progress__refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).append_progress({"env_steps": 1, "policy/kl": float("nan")})


def test_training__stops_when_it_diverges() -> None:
    progress = Progress(5_000, 9_000, 1.0, 1.0, {"policy/loss": float("nan"), "value/loss": 1.0})
    with pytest.raises(RuntimeError, match=r"diverged after 5,000 environment steps: policy/loss got NaN"):
        _require_finite(progress)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (('learners.learner_config_dict={"ration": "joint"}',), r"unknown key 'ration' \(did you mean 'ratio'\?\)"),
        (('learners.learner_config_dict={"ratio": "joit"}',), r"got 'joit', expected one of 'per_actor', 'joint'"),
        (("training.use_critic=False",), "training.use_critic: got False"),
        (("environment.env_config={1: {2, 3}}",), r"environment\.env_config: .*not JSON serializable"),
        (("training.num_epochs=2.5",), r"got 2\.5 \(float\), expected int"),
    ],
)
def test_build_config__finds_mistakes_before_ray_starts(overrides: tuple[str, ...], message: str) -> None:
    settings = RunSettings(SETTINGS.config, env=None, seed=0, total_env_steps=1_000, overrides=overrides)
    with pytest.raises(ValueError, match=message):
        build_config(settings)
