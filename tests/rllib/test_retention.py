"""Which checkpoints stay, on checkpoints that are whole but hold nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from ray.rllib.algorithms.algorithm import Algorithm

from perceiver_rl.rllib.checkpoint import MODULE_FILES, MODULES, REQUIRED_FILES, find_checkpoint, load_info
from perceiver_rl.rllib.retention import score_of, thin_out
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from tests.environments import COURIERS

SETTINGS = RunSettings("tests.courier_config:make_config", env=None, seed=0, total_env_steps=1_000)
INFO = {"env": "x", "env_config": {}, "config": "x", "seed": 0, "seconds": 1.0, "schemas": {"p": COURIERS.to_dict()}}


class HollowAlgorithm(Algorithm):
    """Saves every file that a checkpoint must have, with nothing in it."""

    def __init__(self) -> None:
        pass

    def save_to_path(self, path: Path) -> None:
        for name in (*REQUIRED_FILES, *(MODULES / "p" / each for each in MODULE_FILES)):
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"{}" if file.suffix == ".json" else pickle.dumps({}))


def run_with(path: Path, scores: list[float | None], keep: int, tag: str = "outcome/return") -> RunFolder:
    """A run that wrote one checkpoint for each score, at 1, 2, 3, … steps."""
    folder = RunFolder(path)
    folder.create(SETTINGS)
    for steps, value in enumerate(scores, start=1):
        score = None if value is None else {"tag": tag, "value": value}
        newest = folder.save_checkpoint(HollowAlgorithm(), steps, INFO | {"score": score})
        thin_out(folder, newest, keep)
    return folder


def steps_in(folder: RunFolder) -> list[int]:
    return sorted(load_info(path).env_steps for path in folder.checkpoints.iterdir())


@pytest.mark.parametrize(
    ("scores", "keep", "stay", "best"),
    [
        ([0.1, 0.9, 0.3, 0.2, 0.5], 2, [2, 4, 5], 2),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2, [4, 5], 5),
        ([0.5, 0.1, 0.5, 0.1, 0.1], 1, [3, 5], 3),
        ([-0.5, None, -0.7, -0.9, -0.8], 1, [1, 5], 1),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 0, [1, 2, 3, 4, 5], 1),
    ],
    ids=["best is old", "best is new", "of equals the latest", "one without episodes", "all"],
)
def test_thin_out__keeps_the_last_ones_and_the_best(
    scores: list[float | None], keep: int, stay: list[int], best: int, tmp_path: Path
) -> None:
    folder = run_with(tmp_path, scores, keep)
    assert steps_in(folder) == stay
    assert load_info(find_checkpoint(tmp_path / "best")).env_steps == best


def test_thin_out__names_none_as_best_before_an_episode_has_ended(tmp_path: Path) -> None:
    assert steps_in(run_with(tmp_path, [None, None, None], keep=2)) == [2, 3]
    assert not (tmp_path / "best").exists()


def test_thin_out__compares_no_win_rate_with_a_return(tmp_path: Path) -> None:
    folder = run_with(tmp_path, [20.0, 30.0], keep=1)
    score = {"tag": "outcome/win_rate", "value": 0.25}
    thin_out(folder, folder.save_checkpoint(HollowAlgorithm(), 3, INFO | {"score": score}), keep=1)
    assert steps_in(folder) == [3]
    assert load_info(find_checkpoint(tmp_path / "best")).env_steps == 3


def test_thin_out__takes_no_damaged_one_as_best(tmp_path: Path) -> None:
    folder = run_with(tmp_path, [0.2, 0.9], keep=0)
    os.truncate(folder.checkpoints / "checkpoint_0000000002" / "algorithm_state.pkl", 1)
    thin_out(folder, folder.save_checkpoint(HollowAlgorithm(), 3, INFO), keep=0)
    assert load_info(find_checkpoint(tmp_path / "best")).env_steps == 1


def test_thin_out__counts_none_beyond_the_one_just_written(tmp_path: Path) -> None:
    # Those beyond are damaged: the run went on from one before them.
    folder = run_with(tmp_path, [0.2, 0.3], keep=0)
    beyond = folder.save_checkpoint(HollowAlgorithm(), 9, INFO)
    (beyond / "algorithm_state.pkl").unlink()
    thin_out(folder, folder.save_checkpoint(HollowAlgorithm(), 3, INFO), keep=1)
    assert steps_in(folder) == [2, 3, 9]
    assert load_info(find_checkpoint(folder.path)).env_steps == 3


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"outcome/return": 3.0, "outcome/win_rate": 0.5}, ("outcome/win_rate", 0.5)),
        ({"outcome/return": 3.0, "policy/kl": 0.1}, ("outcome/return", 3.0)),
        ({"policy/kl": 0.1}, None),
    ],
)
def test_score__is_the_win_rate_or_the_return(numbers: dict[str, float], expected: tuple[str, float] | None) -> None:
    score = score_of(numbers)
    assert (score and (score.tag, score.value)) == expected


@pytest.mark.parametrize(
    "name", ["learner_group/learner/rl_module/p/module_state.pkl", "rllib_checkpoint.json", "extra/x.bin"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_find_checkpoint__knows_every_file_and_its_size(name: str, damage: str, tmp_path: Path) -> None:
    class Larger(HollowAlgorithm):
        def save_to_path(self, path: Path) -> None:
            super().save_to_path(path)
            (path / "extra").mkdir()
            (path / "extra" / "x.bin").write_bytes(b"xxx")

    folder = run_with(tmp_path, [0.2], keep=0)
    file = folder.save_checkpoint(Larger(), 5, INFO) / name
    file.unlink() if damage == "missing" else os.truncate(file, 1)
    assert load_info(find_checkpoint(tmp_path)).env_steps == 1
