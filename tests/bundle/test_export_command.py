"""From a checkpoint to a bundle and to an evaluation, as a user has it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from typer.testing import CliRunner, Result

from agents.presets import preset
from perceiver_rl.bundle import load_policy, save_bundle
from perceiver_rl.cli import app
from perceiver_rl.configuration import to_mapping
from perceiver_rl.provenance import provenance
from perceiver_rl.rllib.checkpoint import MODULES, REQUIRED_FILES
from perceiver_rl.rllib.checkpoint import load_policy as load_checkpoint
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY, PerceiverRLModule
from perceiver_rl.rllib.run_folder import CHECKPOINT_INFO, FORMAT
from tests.bundle.conftest import PROVENANCE, change_json, make_policy
from tests.environments import COURIERS

ENV = "tests.environments:make_couriers"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one checkpoint: the module as RLlib saves it; of what else RLlib saves, nothing is read here."""
    run = tmp_path_factory.mktemp("run") / "couriers"
    checkpoint = run / "checkpoints" / "checkpoint_0000000064"
    module = PerceiverRLModule(
        observation_space=COURIERS.observation_space,
        action_space=COURIERS.action_space,
        model_config={MODEL_CONFIG_KEY: to_mapping(preset("tiny"))},
    )
    module.save_to_path(checkpoint / MODULES / "default_policy")
    for name in REQUIRED_FILES:
        (checkpoint / name).write_bytes(pickle.dumps({}))
    info = {"env": ENV, "env_config": {}, "config": "configs/couriers.py", "seed": 3, "seconds": 1.5, "env_steps": 64}
    record = {"format": FORMAT, **info, **provenance(), "schema": COURIERS.to_dict()}
    (checkpoint / CHECKPOINT_INFO).write_text(json.dumps(record))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "couriers"))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_export__writes_the_policy_its_origin_and_its_evaluation(run: Path, tmp_path: Path) -> None:
    (run / "evaluation.json").write_text(json.dumps([{"policy": "couriers", "win_rate": None, "return_mean": 1.25}]))
    done = command("export", run, tmp_path / "bundle", "--no-onnx")
    assert done.exit_code == 0, done.stderr
    loaded = load_policy(tmp_path / "bundle")
    origin = loaded.provenance
    assert (origin.env, origin.config, origin.seed, origin.env_steps) == (ENV, "configs/couriers.py", 3, 64)
    assert (origin.seconds, origin.policy, origin.versions["torch"]) == (1.5, "default_policy", torch.__version__)
    assert loaded.evaluation == ({"policy": "couriers", "win_rate": None, "return_mean": 1.25},)
    expected = load_checkpoint(run / "checkpoints" / "checkpoint_0000000064").state_dict()
    torch.testing.assert_close(dict(loaded.policy.state_dict()), dict(expected), rtol=0, atol=0)

    again = command("export", run, tmp_path / "bundle", "--no-onnx")
    assert again.exit_code == 2
    assert "there is one already; choose another folder, or replace it by --force" in again.stderr
    assert command("export", run, tmp_path / "bundle", "--no-onnx", "--force").exit_code == 0


def test_export__leaves_out_an_evaluation_of_another_checkpoint(run: Path, tmp_path: Path) -> None:
    file = run / "evaluation.json"
    file.write_text(json.dumps([{"win_rate": 1.0}]))
    os.utime(file, (0, 0))
    done = command("export", run, tmp_path / "bundle", "--no-onnx")
    assert "it is older than checkpoint_0000000064; evaluate again" in done.stderr
    assert load_policy(tmp_path / "bundle").evaluation == ()
    os.utime(file)
    checkpoint = run / "checkpoints" / "checkpoint_0000000064"
    shutil.copytree(checkpoint, checkpoint.with_name("checkpoint_0000000128"))
    done = command("export", checkpoint, tmp_path / "other", "--no-onnx")
    assert "it is of the run's newest checkpoint, not of checkpoint_0000000064" in done.stderr
    assert load_policy(tmp_path / "other").evaluation == ()


def test_export__lists_the_policies_where_there_are_several(run: Path, tmp_path: Path) -> None:
    info = run / "checkpoints" / "checkpoint_0000000064" / "perceiver_rl.json"
    record = json.loads(info.read_text())
    modules = info.parent / "learner_group" / "learner" / "rl_module"
    shutil.copytree(modules / "default_policy", modules / "other")
    record["schemas"] = {"default_policy": record["schema"], "other": record["schema"]}
    record["agents"] = {"a": "default_policy", "b": "other"}
    info.write_text(json.dumps(record))
    ambiguous = command("export", run, tmp_path / "bundle", "--no-onnx")
    assert ambiguous.exit_code == 2
    assert (
        "got 2 policies, of which a bundle holds one; name it by --policy, one of default_policy, other" in ambiguous.stderr
    )
    unknown = command("export", run, tmp_path / "bundle", "--no-onnx", "--policy", "cook")
    assert "got policy 'cook', expected one of default_policy, other" in unknown.stderr
    assert command("export", run, tmp_path / "bundle", "--no-onnx", "--policy", "other").exit_code == 0
    assert load_policy(tmp_path / "bundle").provenance.policy == "other"
    alone = command("evaluate", tmp_path / "bundle", "--env", ENV)
    assert alone.exit_code == 2
    assert "holds the policy 'other' alone, but its environment needs default_policy, too" in alone.stderr


def test_evaluate__plays_a_bundle_as_its_checkpoint_and_beside_it(run: Path, tmp_path: Path) -> None:
    bundle, rows = tmp_path / "bundle", []
    assert command("export", run, bundle, "--no-onnx").exit_code == 0
    before = sorted(bundle.iterdir())
    for number, subject in enumerate((run, bundle)):
        file = tmp_path / f"{number}.json"
        settings = ("--env", ENV, "--episodes", 12, "--json", file, "--no-tensorboard")
        done = command("evaluate", subject, *settings, "--against", f"random,{bundle}")
        assert done.exit_code == 0, done.stderr
        rows.append(json.loads(file.read_text()))
    of_run, of_bundle = rows
    names = [(row["policy"], row["mode"]) for row in of_bundle]
    both = [("greedy"), ("sampled")]
    assert names == [*(("bundle", mode) for mode in both), ("random", "sampled"), *((str(bundle), mode) for mode in both)]
    for mine, theirs in zip(of_bundle[:2], of_run[:2], strict=True):
        assert (mine["checkpoint"], theirs["checkpoint"]) == ("bundle", "couriers/checkpoint_0000000064")
        assert {**mine, "policy": "", "checkpoint": ""} == {**theirs, "policy": "", "checkpoint": ""}
    for mine, beside in zip(of_bundle[:2], of_bundle[3:], strict=True):
        assert {**mine, "policy": ""} == {**beside, "policy": ""}
    assert sorted(bundle.iterdir()) == before, "an evaluation writes nothing into a bundle"


def test_evaluate__logs_a_bundle_where_it_is_told_to_and_nowhere_else(run: Path, tmp_path: Path) -> None:
    bundle, log = tmp_path / "bundle", tmp_path / "new" / "log"
    assert command("export", run, bundle, "--no-onnx").exit_code == 0
    before = sorted(bundle.iterdir())
    evaluate = ("evaluate", bundle, "--env", ENV, "--episodes", 12)
    silent = command(*evaluate)
    assert "Curves:" not in silent.stderr
    done = command(*evaluate, "--tensorboard", log)
    assert f"Curves:     tensorboard --logdir {log}" in done.stderr
    assert sorted(bundle.iterdir()) == before
    (folder,) = (log / "evaluation").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [each.step for each in events.Scalars("evaluation/greedy/return")] == [64]
    assert {"evaluation/settings/text_summary", "evaluation/schema/text_summary"} <= set(events.Tags()["tensors"])
    assert metadata.SESSION_START_INFO_TAG in events.PluginTagToContent("hparams")

    into_it = command(*evaluate, "--tensorboard", bundle)
    assert (into_it.exit_code, sorted(bundle.iterdir())) == (2, before)
    assert "got a place in a bundle, expected another folder" in into_it.stderr
    both = command(*evaluate, "--tensorboard", log, "--no-tensorboard")
    assert both.exit_code == 2
    assert "got --tensorboard and --no-tensorboard, expected one of them at most" in both.stderr


def test_evaluate__logs_a_checkpoint_beside_its_training_or_where_it_is_told_to(run: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", run, "--env", ENV, "--episodes", 12)
    command(*evaluate, "--tensorboard", tmp_path / "log")
    assert not (run / "evaluation").exists()
    command(*evaluate, "--no-tensorboard")
    assert not (run / "evaluation").exists()
    command(*evaluate)
    (folder,) = (run / "evaluation").iterdir()
    assert folder.name in {each.name for each in (tmp_path / "log" / "evaluation").iterdir()}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "evaluation/schema/text_summary" in events.Tags()["tensors"]
    with pytest.raises(KeyError, match="hparams"):  # the training's row is there already
        events.PluginTagToContent("hparams")


def test_evaluate__runs_no_code_because_a_bundle_says_so(tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    origin = replace(PROVENANCE, env="pathlib:Path.touch", env_config={"self": str(exploded)})
    save_bundle(tmp_path / "bundle", make_policy(COURIERS), origin, onnx=False)
    done = command("evaluate", tmp_path / "bundle")
    assert done.exit_code == 2
    assert "a bundle does not decide which code is run; if you trust that code, give it yourself: --env" in done.stderr
    assert not exploded.exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"walls": 10**6}, "got the environment's option walls='1000000', expected a plain value, no number beyond"),
        ({"a": 900, "b": 900.5, "c": 900}, "got options of the environment that add up to 2,700.5, expected at most 2,000"),
        ({"walls": [1]}, "got the environment's option walls='[1]'"),
        ({"render_mode": "human"}, "and none of env, name, num_envs, render_mode"),
        ({"num_envs": 3}, "and none of env, name, num_envs, render_mode"),
        ({"env": "a:b"}, "and none of env, name, num_envs, render_mode"),
    ],
)
def test_evaluate__takes_plain_options_from_a_bundle_alone(option: dict[str, object], message: str, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", make_policy(COURIERS), replace(PROVENANCE, env_config=option), onnx=False)
    done = command("evaluate", tmp_path / "bundle", "--env", ENV)
    assert done.exit_code == 2
    assert message in done.stderr


def test_evaluate__says_what_differs_in_another_environment(tmp_path: Path) -> None:
    schema = replace(COURIERS, verbs=("wait", "run"))
    save_bundle(tmp_path / "bundle", make_policy(schema), PROVENANCE, onnx=False)
    change = {"env_config": {}}
    change_json(tmp_path / "bundle", lambda record: record["provenance"].update(change))
    done = command("evaluate", tmp_path / "bundle", "--env", ENV)
    assert done.exit_code == 2
    assert (
        "trained in 'smax/2s3z': the environment's schema is another one: verbs: got wait, trained with wait, run"
        in done.stderr
    )


def test_command__says_what_is_wrong_with_a_damaged_bundle(bundle: Path) -> None:
    (bundle / "policy.json").write_text("{")
    done = subprocess.run(
        [Path(sys.executable).parent / "perceiver-rl", "evaluate", bundle], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"bundle {bundle}: policy.json: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
