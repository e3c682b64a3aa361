from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig

from perceiver_rl.entities import EntitySchema, EntityType, Feature
from perceiver_rl.evaluation import PolicyAgent, evaluate
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib.checkpoint import MODULES, find_checkpoint, load_info, load_policy
from perceiver_rl.rllib.run_folder import RunFolder
from tests.environments import COURIERS, CourierVectorEnv

ENV = "tests.environments:make_couriers"
MODULE = MODULES / "default_policy"


@pytest.fixture(scope="module")
def trained(
    ray_local: None, make_config: Callable[..., PPOConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, np.ndarray]]:
    """A run folder with one real checkpoint, and the weights of the policy that was saved."""
    run = tmp_path_factory.mktemp("run")
    algorithm = make_config(num_envs=4, num_epochs=1).build_algo()
    try:
        algorithm.train()
        info = {"env": ENV, "env_config": {}, "config": "configs/couriers.py", "seed": 3, "seconds": 1.5}
        RunFolder(run).save_checkpoint(algorithm, 64, {**info, "schema": COURIERS.to_dict()})
        weights = algorithm.get_weights()["default_policy"]
    finally:
        algorithm.stop()
    return run, weights


@pytest.fixture
def run(trained: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> Path:
    """A copy of the run folder, to be damaged."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


@pytest.fixture
def checkpoint(run: Path) -> Path:
    """The copy's only checkpoint."""
    return run / "checkpoints" / "checkpoint_0000000064"


def copy_of(checkpoint: Path, env_steps: int) -> Path:
    """Another checkpoint of the same run."""
    return Path(shutil.copytree(checkpoint, checkpoint.with_name(f"checkpoint_{env_steps:010d}")))


def truncate(file: Path, by: int = 1) -> None:
    """Cut off a file's last bytes."""
    os.truncate(file, file.stat().st_size - by)


# -- finding ---------------------------------------------------------------------------------------------------


def test_find_checkpoint__accepts_a_run_its_checkpoints_and_one_of_them(run: Path, checkpoint: Path) -> None:
    assert find_checkpoint(run) == find_checkpoint(run / "checkpoints") == find_checkpoint(checkpoint) == checkpoint


def test_find_checkpoint__takes_the_one_with_the_most_steps(run: Path, checkpoint: Path) -> None:
    # Digits are padded to ten; beyond those, more digits are more steps.
    for steps in (9, 9_000_000_000, 10_000_000_000):
        newest = copy_of(checkpoint, steps)
    shutil.copytree(checkpoint, run / "checkpoints" / ".checkpoint_99999999999")  # still being written
    assert find_checkpoint(run) == newest
    assert find_checkpoint(checkpoint) == checkpoint


def test_find_checkpoint__passes_over_a_damaged_one_and_says_so(
    run: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = copy_of(checkpoint, 128)
    truncate(damaged / "algorithm_state.pkl")
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(run) == checkpoint
    assert "checkpoint_0000000128: truncated, algorithm_state.pkl breaks off" in caplog.text
    assert "using checkpoint_0000000064" in caplog.text


def test_find_checkpoint__says_that_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: does not exist; expected a run folder"):
        find_checkpoint(tmp_path / "nowhere")


def test_find_checkpoint__says_that_a_run_has_no_checkpoint_yet(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for path in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(ValueError, match="holds no checkpoint; expected at least one, which `train` writes"):
            find_checkpoint(path)


def test_find_checkpoint__tells_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder that was not written by `perceiver-rl train`"):
        find_checkpoint(tmp_path)


def test_find_checkpoint__tells_a_foreign_rllib_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "perceiver_rl.json").unlink()
    with pytest.raises(ValueError, match=r"got an RLlib checkpoint that was not written by `perceiver-rl train`"):
        find_checkpoint(checkpoint)


def test_find_checkpoint__tells_a_file(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"perceiver_rl.json: got a file, expected a run folder"):
        find_checkpoint(checkpoint / "perceiver_rl.json")


@pytest.mark.parametrize(
    "name",
    [
        "algorithm_state.pkl",
        "rllib_checkpoint.json",
        "learner_group/learner/state.pkl",
        f"{MODULE}/module_state.pkl",
        f"{MODULE}/class_and_ctor_args.pkl",
    ],
)
def test_find_checkpoint__names_the_missing_file(run: Path, checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(ValueError, match=rf"checkpoint_0000000064: truncated, {name} is missing"):
        find_checkpoint(run)


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
@pytest.mark.parametrize("name", ["learner_group/learner/state.pkl", f"{MODULE}/module_state.pkl"])
def test_find_checkpoint__names_the_truncated_file(run: Path, checkpoint: Path, name: str, keep: int) -> None:
    file = checkpoint / name
    os.truncate(file, keep % file.stat().st_size)
    with pytest.raises(ValueError, match=rf"checkpoint_0000000064: truncated, {name} breaks off or is damaged after"):
        find_checkpoint(run)


def test_find_checkpoint__names_the_file_with_a_damaged_length(run: Path, checkpoint: Path) -> None:
    # A pickle that says of a string that it is larger than any memory: pickletools tries to read it.
    file = checkpoint / MODULE / "module_state.pkl"
    file.write_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"a" * (file.stat().st_size - 11))
    with pytest.raises(ValueError, match=r"module_state\.pkl breaks off or is damaged after"):
        find_checkpoint(run)


def test_find_checkpoint__names_the_pickle_of_another_size(run: Path, checkpoint: Path) -> None:
    file = checkpoint / MODULE / "module_state.pkl"
    size = file.stat().st_size
    file.write_bytes(b"\x80\x04N.")  # whole, and says None
    with pytest.raises(ValueError, match=rf"module_state\.pkl has 4 bytes of {size:,}"):
        find_checkpoint(run)


# -- what is written of it --------------------------------------------------------------------------------------


def test_load_info__tells_what_was_trained(checkpoint: Path) -> None:
    info = load_info(checkpoint)
    assert (info.env, info.env_steps, info.seed, info.seconds) == (ENV, 64, 3, 1.5)
    assert (info.config, info.env_config) == ("configs/couriers.py", {})
    assert info.schema == COURIERS
    assert info.versions["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "truncated, perceiver_rl.json cannot be read"),
        ('{"format": 2, "env"', "truncated, perceiver_rl.json cannot be read"),
        ('{"format": 2, "env": "smax/3m"}', "truncated, perceiver_rl.json has no 'env_config'"),
        ('{"format": 99}', "got format 99 in perceiver_rl.json, expected 2; it was written by another version"),
        ("[]", "got format None in perceiver_rl.json, expected 2"),
    ],
)
def test_load_info__says_what_is_wrong(checkpoint: Path, content: str, message: str) -> None:
    (checkpoint / "perceiver_rl.json").write_text(content)
    with pytest.raises(ValueError, match=f"checkpoint_0000000064: {message}"):
        load_info(checkpoint)


# -- the policy --------------------------------------------------------------------------------------------------


def test_load_policy__has_the_weights_that_were_saved(checkpoint: Path, trained: tuple[Path, dict[str, np.ndarray]]) -> None:
    policy = load_policy(checkpoint, COURIERS)
    saved = {name.removeprefix("policy."): torch.tensor(array) for name, array in trained[1].items()}
    assert isinstance(policy, EntityPolicy)
    assert not policy.training
    torch.testing.assert_close(dict(policy.state_dict()), saved, rtol=0, atol=0)


def test_load_policy__plays(checkpoint: Path) -> None:
    agent = PolicyAgent(load_policy(checkpoint))
    records = [
        evaluate(agent, CourierVectorEnv(3), episodes_per_env=2, seed=1, greedy=greedy) for greedy in (True, True, False)
    ]
    assert [len(each) for each in records] == [6, 6, 6]
    assert records[0] == records[1] != records[2]


def test_load_policy__does_not_chatter(
    checkpoint: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("ray._common.deprecation")
    monkeypatch.setattr(log, "handlers", [caplog.handler])  # Ray's loggers do not propagate
    monkeypatch.setattr("ray._common.deprecation.log_once", lambda key: True)  # as in a new process
    monkeypatch.setattr(log, "level", logging.INFO)
    load_policy(checkpoint)
    assert [record.getMessage() for record in caplog.records] == []
    assert log.level == logging.INFO  # given back


COURIER, POST = COURIERS.entity_types


@pytest.mark.parametrize(
    ("schema", "difference"),
    [
        (
            replace(COURIERS, entity_types=(COURIER, EntityType("post", ("team", "height"), 5))),
            "entity type 'post', features: got team, height, trained with team, brightness",
        ),
        (
            replace(COURIERS, entity_types=(EntityType("courier", (Feature("team", 0.0, 9.0),), 4), POST)),
            r"entity type 'courier', range of a feature: got team \[0, 9\], trained with team \[-1, 1\]",
        ),
        (
            replace(COURIERS, entity_types=(COURIER, POST, EntityType("dog", ("x",), 1))),
            "entity types: got courier, post, dog, trained with courier, post",
        ),
        (replace(COURIERS, verbs=("wait", "run")), "verbs: got wait, run, trained with wait"),
        (replace(COURIERS, targeted_verbs=()), "targeted verbs: got none, trained with deliver post"),
        (replace(COURIERS, actors=("post",)), "actors: got post, trained with courier"),
        (replace(COURIERS, globals=(Feature("hour", 0.0, 24.0),)), r"globals: got hour \[0, 24\], trained with none"),
    ],
)
def test_load_policy__says_what_differs_in_the_schema(checkpoint: Path, schema: EntitySchema, difference: str) -> None:
    with pytest.raises(ValueError, match=f"trained in '{ENV}'.* is another one: {difference}. Evaluate it in"):
        load_policy(checkpoint, schema)


def test_load_policy__gives_the_same_weights_to_a_schema_with_other_numbers_of_slots(
    checkpoint: Path, trained: tuple[Path, dict[str, np.ndarray]]
) -> None:
    larger = replace(COURIERS, entity_types=(EntityType("courier", ("team",), 7), EntityType("post", POST.features, 11)))
    small, large = load_policy(checkpoint, COURIERS), load_policy(checkpoint, larger)
    assert (large.schema, large.packing) == (larger, small.packing)
    for name, weight in large.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), small.state_dict()[name].numpy())
    # The same couriers and posts in more slots get the same logits.
    environment = CourierVectorEnv(3)
    observation, _ = environment.reset(seed=0)
    few = {key: torch.tensor(array) for key, array in observation.items()}
    many = {
        "entities/courier": _widened(few["entities/courier"], (7, 1)),
        "entity_mask/courier": _widened(few["entity_mask/courier"], (7,)),
        "entities/post": _widened(few["entities/post"], (11, 2)),
        "entity_mask/post": _widened(few["entity_mask/post"], (11,)),
        "globals": few["globals"],
        "action_mask": _widened(few["action_mask"], (7, 12)),
    }
    with torch.inference_mode():
        expected, got = small(few), large(many)
    legal = few["action_mask"]
    torch.testing.assert_close(got.logits[:, :4, :6][legal], expected.logits[legal])


def _widened(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """With empty slots after those that are there."""
    wide = torch.zeros(len(array), *shape, dtype=array.dtype)
    wide[tuple(slice(size) for size in array.shape)] = array
    return wide


def test_load_policy__names_the_versions_when_the_module_cannot_be_loaded(checkpoint: Path) -> None:
    shutil.copy(checkpoint / "algorithm_state.pkl", checkpoint / MODULE / "class_and_ctor_args.pkl")
    info = json.loads((checkpoint / "perceiver_rl.json").read_text())
    with pytest.raises(
        ValueError, match=rf"module cannot be loaded .* written with .*torch {info['versions']['torch'][:4]}"
    ):
        load_policy(checkpoint)
