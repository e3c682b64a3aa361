"""Pictures of a run's checkpoints, drawn in a process of its own while training goes on."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.entities import ACTION_MASK, schema_of
from perceiver_rl.environments import make_vector_env, sigint_blocked, terminate_workers
from perceiver_rl.mixture import members_of
from perceiver_rl.replay import record
from perceiver_rl.tensorboard.pictures import draw_pictures

FOLDER = "pictures"
"""In the run folder: a TensorBoard run of its own, which another process than the training's can write."""

MAX_STEPS = 200
"""Of a longer episode that much is played."""

_NICENESS = 19
"""The painter takes what processor time training leaves; Ray's env runners have 15."""


@dataclass(frozen=True)
class Painted:
    """What became of one checkpoint."""

    seconds: float
    """Of loading, playing, drawing and writing."""
    left_out: str | None
    """Why some pictures are missing; None if none are."""


class Studio:
    """Plays one greedy episode with a checkpoint's policy and writes its pictures to `RUN/pictures`.

    Every checkpoint begins the same episode, so that the pictures of a run can be compared.

    Args:
        run: The run's folder.
        env: Name or import string of its environment; of a mixture the first one is played.
        env_config: The environment's options.
        seed: Seed of the episode.

    Raises:
        ValueError, ImportError: If the environment cannot be made.
    """

    def __init__(self, run: Path, env: str, env_config: Mapping[str, Any], seed: int) -> None:
        self._run = run
        self._env_name = members_of(env)[0]
        self._env = make_vector_env(self._env_name, 1, **env_config)
        self._seed = seed
        self._writer: SummaryWriter | None = None

    def warm_up(self) -> None:
        """Let an environment that compiles itself do so before it is needed; the first two steps of SMAX do."""
        observation, _ = self._env.reset(seed=self._seed)
        for _ in range(2):
            observation, *_ = self._env.step(observation[ACTION_MASK].argmax(axis=-1))

    def paint(self, checkpoint: Path) -> Painted:
        """Write the pictures of one checkpoint.

        Raises:
            ValueError: If the checkpoint cannot be loaded, or does not fit the environment.
        """
        from perceiver_rl.rllib.checkpoint import load_info, load_policy  # Ray takes seconds to import

        began = time.perf_counter()
        env_steps = load_info(checkpoint).env_steps
        policy = load_policy(checkpoint, schema_of(self._env.single_observation_space))
        recording = record(
            policy,
            self._env,
            env_name=self._env_name,
            policy_name=f"{self._run.name}, {env_steps:,} steps",
            seed=self._seed,
            greedy=True,
            max_steps=MAX_STEPS,
        )
        pictures = draw_pictures(recording)
        if self._writer is None:  # what an earlier, interrupted part of the run wrote from here on is taken back
            self._writer = SummaryWriter(str(self._run / FOLDER), purge_step=env_steps)
        pictures.write(self._writer, env_steps)
        seconds = time.perf_counter() - began
        self._writer.add_scalar("time/pictures_s", seconds, env_steps)
        self._writer.flush()
        return Painted(seconds, pictures.left_out)


class Painter:
    """Runs a `Studio` in a process of its own, so that training does not wait and stays free of what environments import.

    A checkpoint that comes while another is being drawn waits until that is done; of several, the newest. An error is said
    and training goes on. Leaving the context waits for what is being drawn; leaving it by an exception does not.

    Args:
        run: The run's folder.
        env: Name or import string of its environment.
        env_config: The environment's options, as JSON can hold them.
        seed: Seed of the episode.
        say: Told of what was left out and of what failed, each once.
    """

    def __init__(self, run: Path, env: str, env_config: Mapping[str, Any], *, seed: int, say: Callable[[str], None]) -> None:
        self.count = 0
        """Checkpoints that were drawn."""
        self.seconds = 0.0
        """What that took in the other process."""
        self.waited = 0.0
        """Seconds for which training waited, or the command at its end."""
        self._studio = (str(run.resolve()), env, json.dumps(dict(env_config)), seed)
        self._say = say
        self._said: set[str] = set()
        self._drawing: Future[Painted] | None = None
        self._next: Path | None = None

    def __enter__(self) -> Painter:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_process)
        with sigint_blocked():  # a Ctrl-C is the training's affair
            self._ready = self._pool.submit(_warm_up, *self._studio)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        except KeyboardInterrupt:
            kind = KeyboardInterrupt
            raise
        finally:
            if kind is not None:
                terminate_workers(self._pool)
            self._pool.shutdown(cancel_futures=True)

    def paint(self, checkpoint: Path) -> None:
        """Ask for a checkpoint's pictures, and do not wait for them."""
        with self._counting():
            self._ask(checkpoint)

    def finish(self) -> None:
        """Wait until everything that was asked for is drawn."""
        with self._counting():
            while self._drawing is not None:
                self._collect(self._drawing)

    def _ask(self, checkpoint: Path) -> None:
        if self._drawing is not None and self._drawing.done():
            self._collect(self._drawing)
        if self._drawing is not None:
            self._next = checkpoint
            return
        try:
            self._drawing = self._pool.submit(_paint, str(checkpoint.resolve()), *self._studio)
        except BrokenExecutor as error:  # somebody killed the process
            self._say_error(error)

    def _collect(self, drawing: Future[Painted]) -> None:
        """Take in what was drawn, and begin what waited for it."""
        error = self._ready.exception() or drawing.exception()
        if error is not None:
            self._say_error(error)
        else:
            painted = drawing.result()
            self.count += 1
            self.seconds += painted.seconds
            if painted.left_out:
                self._say_once(painted.left_out)
        self._drawing = None
        if self._next is not None:
            waiting, self._next = self._next, None
            self._ask(waiting)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - began

    def _say_error(self, error: BaseException) -> None:
        self._say_once(f"none of a checkpoint, and training goes on ({type(error).__name__}: {error})")

    def _say_once(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self._say(words)


def _begin_process() -> None:
    """Take the back seat, and end with the training's process even where that is killed."""
    os.nice(_NICENESS)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is called in a pool's process

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@functools.cache
def _studio(run: str, env: str, env_config: str, seed: int) -> Studio:
    return Studio(Path(run), env, json.loads(env_config), seed)


def _warm_up(run: str, env: str, env_config: str, seed: int) -> None:
    _studio(run, env, env_config, seed).warm_up()


def _paint(checkpoint: str, run: str, env: str, env_config: str, seed: int) -> Painted:
    return _studio(run, env, env_config, seed).paint(Path(checkpoint))
