"""The painter's process, with a checkpoint of a fresh policy; nothing here trains."""

import json
import multiprocessing
import pickle
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.presets import preset
from perceiver_rl.configuration import to_mapping
from perceiver_rl.provenance import provenance
from perceiver_rl.rllib.checkpoint import MODULES, REQUIRED_FILES
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY, PerceiverRLModule
from perceiver_rl.rllib.run_folder import CHECKPOINT_INFO, FORMAT
from perceiver_rl.tensorboard.painter import FOLDER, Painter, Studio
from tests.environments import COURIERS

ENV = "tests.environments:make_couriers"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints: the module as RLlib saves it; of what else RLlib saves, nothing is read here."""
    run = tmp_path_factory.mktemp("runs") / "couriers"
    for env_steps in (64, 128):
        checkpoint = run / "checkpoints" / f"checkpoint_{env_steps:010d}"
        module = PerceiverRLModule(
            observation_space=COURIERS.observation_space,
            action_space=COURIERS.action_space,
            model_config={MODEL_CONFIG_KEY: to_mapping(preset("tiny"))},
        )
        module.save_to_path(checkpoint / MODULES / "default_policy")
        for name in REQUIRED_FILES:
            (checkpoint / name).write_bytes(pickle.dumps({}))
        info = {"env": ENV, "env_config": {}, "config": "configs/couriers.py", "seed": 3, "seconds": 1.5}
        record = {"format": FORMAT, "env_steps": env_steps, **info, **provenance(), "schema": COURIERS.to_dict()}
        (checkpoint / CHECKPOINT_INFO).write_text(json.dumps(record))
    return run


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())


def steps_of_images(run: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(run / FOLDER))
    events.Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def test_painter__draws_in_another_process_and_is_waited_for(run: Path) -> None:
    said: list[str] = []
    with Painter(run, ENV, {}, seed=3, say=said.append) as painter:
        for checkpoint in checkpoints(run):
            painter.paint(checkpoint)
    assert painter.count == 2
    assert painter.seconds > 0
    tags = {"actions/by_verb", "attention/units_to_units", "attention/units_to_latents", "attention/latents_to_units"}
    assert steps_of_images(run) == {tag: [64, 128] for tag in tags}
    assert said == ["no field and no video, since courier has no position"], "once, not for each checkpoint"
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_painter__says_what_fails_and_lets_training_go_on(run: Path) -> None:
    said: list[str] = []
    with Painter(run, "tests.nowhere:make", {}, seed=3, say=said.append) as painter:
        for checkpoint in checkpoints(run):
            painter.paint(checkpoint)
    assert painter.count == 0
    (words,) = said
    assert words.startswith("none of a checkpoint, and training goes on (ValueError: 'tests.nowhere:make': got no module")


@pytest.mark.slow
def test_painter__goes_on_without_its_process(run: Path) -> None:
    said: list[str] = []
    with Painter(run, ENV, {}, seed=3, say=said.append) as painter:
        for process in multiprocessing.active_children():
            process.kill()
        for checkpoint in checkpoints(run):
            painter.paint(checkpoint)
    assert painter.count == 0
    assert "BrokenProcessPool" in said[0]


@pytest.mark.slow
def test_painter__ends_at_once_where_training_fails(run: Path) -> None:
    painter = Painter(run, ENV, {}, seed=3, say=print)

    def train() -> None:
        with painter:
            painter.paint(checkpoints(run)[0])
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        train()
    assert painter.count == 0
    assert multiprocessing.active_children() == []


def test_studio__takes_back_what_an_interrupted_run_wrote_from_there_on(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for order in (checkpoints(run), checkpoints(run)[1:]):  # the second run goes on from the first checkpoint
        studio = Studio(folder, ENV, {}, seed=3)
        for checkpoint in order:
            studio.paint(checkpoint)
    assert set(map(tuple, steps_of_images(folder).values())) == {(64, 128)}


def test_studio__plays_the_first_environment_of_a_mixture(run: Path, tmp_path: Path) -> None:
    mixture = "tests.environments:make_couriers+tests.environments:make_faulty_couriers"
    studio = Studio(tmp_path, mixture, {}, seed=3)
    studio.warm_up()
    assert studio.paint(checkpoints(run)[0]).left_out is not None
    assert "actions/by_verb" in steps_of_images(tmp_path)
