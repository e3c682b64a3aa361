"""A user's project trains on a cluster of Ray nodes, all processes of this machine; nodes are lost, and others come."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from perceiver_rl.rllib.parcel import CHECKOUT as IMPORTABLE
from tests.rllib.nodes import Nodes, wait_until

CHECKOUT = Path(__file__).parents[2]
END_S = 900.0
"""Far more than any of this takes on an idle machine; on a busy one processes of Ray take minutes to start."""

GAME = '''
"""Couriers that tell from which process of a cluster they are played, and by which code."""

import os
from pathlib import Path

import perceiver_rl
import ray
from environments import CourierVectorEnv


def make_game(num_envs, trace):
    if ray.is_initialized() and (context := ray.get_runtime_context()).get_actor_id():
        with open(trace, "a") as file:
            print(context.get_node_id(), os.getpid(), perceiver_rl.__file__, __file__, file=file)
    return CourierVectorEnv(num_envs)
'''

CONFIG = """
from pathlib import Path

from perceiver_rl.rllib import register_env
from tests import courier_config


def make_config(total_env_steps=1_000_000):
    config = courier_config.make_config(total_env_steps).env_runners(rollout_fragment_length="auto")
    return config.environment(register_env("game:make_game"), env_config={"trace": TRACE})
"""


@dataclass(frozen=True)
class Player:
    """An env runner that came to be."""

    node: str
    pid: int
    library: str
    game: str


@dataclass(frozen=True)
class Training:
    """A driver at work."""

    process: subprocess.Popen[bytes]
    words: Path
    """Where its words go."""

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is so, as long as the driver lives."""

        def ended() -> bool:
            return self.process.poll() is not None

        wait_until(lambda: true() or ended(), END_S, what)
        assert true(), f"{what}: the driver ended before\n{self.words.read_text()}"

    def end(self, expected: int) -> None:
        """Wait for its end."""
        assert self.process.wait(END_S) == expected, self.words.read_text()


class Project:
    """A user's folder: an environment and a config, and no other code of ours than the environment's.

    Args:
        folder: Where.
        checkout: Whether it is a checkout of ours, too, so that nothing of ours lies elsewhere.
    """

    def __init__(self, folder: Path, *, checkout: bool = False) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.trace = folder / "trace"
        self.run = self.folder / "run"
        shutil.copy(CHECKOUT / "tests" / "environments.py", self.folder)
        (self.folder / "game.py").write_text(GAME)
        (self.folder / "config.py").write_text(CONFIG.replace("TRACE", repr(str(self.trace))))
        self.library = self.folder if checkout else CHECKOUT
        if checkout:
            shutil.copy(CHECKOUT / "pyproject.toml", self.folder)
            for name in (*IMPORTABLE, "tests"):
                shutil.copytree(CHECKOUT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def players(self) -> list[Player]:
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [Player(node, int(pid), library, game) for node, pid, library, game in map(str.split, lines)]

    def num_nodes(self) -> int:
        """Nodes that ever played."""
        return len({player.node for player in self.players()})

    def progress(self) -> list[dict[str, float]]:
        log = self.run / "progress.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @contextmanager
    def training(self, nodes: Nodes, *arguments: str) -> Iterator[Training]:
        """The command at work, as given in a shell of the project."""
        command = [sys.executable, "-c", "from perceiver_rl.cli import main; main()", "train", "config.py"]
        command += ["--out", "run", "--no-pictures", *arguments]
        # The driver finds the library, config and all; nodes find what travels.
        environment = {**nodes.environment, "PYTHONPATH": str(self.library), "RAY_BACKEND_LOG_LEVEL": "fatal"}
        words = self.folder.parent / "words"
        with words.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stderr=file,
                stdout=file,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        try:
            yield Training(process, words)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    running = Nodes(tmp_path)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("checkout", [False, True], ids=["library elsewhere", "in a checkout"])
def test_cluster_of_one_node__trains_with_the_code_that_travelled(checkout: bool, nodes: Nodes, tmp_path: Path) -> None:
    project = Project(tmp_path, checkout=checkout)
    nodes.start_head(num_cpus=1)
    nodes.wait_until_up()
    with project.training(nodes, "--address", nodes.address, "--steps", "600") as training:
        training.end(expected=0)
    assert project.progress()[-1]["env_steps"] >= 600
    (player,) = project.players()
    assert player.pid != training.process.pid
    assert "runtime_resources" in player.library
    assert "runtime_resources" in player.game
    assert (project.run / "checkpoints").is_dir()


@pytest.mark.slow
def test_node_that_dies__leaves_a_training_that_goes_on_and_takes_up_the_next(nodes: Nodes, project: Project) -> None:
    nodes.start_head(num_cpus=1)
    nodes.wait_until_up()
    second = nodes.start(num_cpus=1)
    with project.training(nodes, "--address", nodes.address, "--env-runners", "2") as training:
        training.until(lambda: project.num_nodes() == 2 and len(project.progress()) > 3, "both nodes sample")
        nodes.kill(second)
        before = len(project.progress())
        training.until(lambda: len(project.progress()) > before + 20, "twenty iterations without the second node")
        assert len(project.players()) == 2  # there is no room for the lost one
        nodes.start(num_cpus=1)
        training.until(lambda: project.num_nodes() == 3, "the third node samples")
        before = len(project.progress())
        training.until(lambda: len(project.progress()) > before + 3, "iterations with the third node")
        training.process.send_signal(signal.SIGINT)
        training.end(expected=130)
    steps = [record["env_steps"] for record in project.progress()]
    assert steps == sorted(set(steps))
    assert list((project.run / "checkpoints").glob("checkpoint_*"))


@pytest.mark.slow
def test_training__says_what_room_it_waits_for_and_takes_it_when_it_comes(nodes: Nodes, project: Project) -> None:
    nodes.start_head(num_cpus=1)
    nodes.wait_until_up()
    waits = "Waiting for room in the cluster: this run takes 2 CPU in 2 processes; free on 1 node: 1 of 1 CPU"
    with project.training(nodes, "--address", nodes.address, "--env-runners", "2", "--steps", "600") as training:
        training.until(lambda: waits in training.words.read_text(), "it says that it waits")
        nodes.start(num_cpus=1)
        training.end(expected=0)
    assert project.num_nodes() == 2


@pytest.mark.slow
def test_client__trains_from_outside(nodes: Nodes, project: Project) -> None:
    nodes.start_head(num_cpus=1)
    nodes.wait_until_up()
    with project.training(nodes, "--address", nodes.client_address, "--steps", "600") as training:
        training.end(expected=0)
    assert "runtime_resources" in project.players()[0].game
