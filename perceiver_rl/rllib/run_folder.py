"""A training run's folder: what the run was asked to do, how it went, and its checkpoints.

::

    RUN/run.json                       what was asked for: config, environment, seed, overrides, versions, commit
    RUN/progress.jsonl                 one line an iteration: steps, seconds and every logged number
    RUN/events.out.tfevents.*          the same for TensorBoard
    RUN/checkpoints/checkpoint_…/      RLlib's checkpoint, named by environment steps, and perceiver_rl.json beside it
    RUN/best                           link to the checkpoint that played best in training
    RUN/recovery.pkl                   where the last iteration left the run, for `--resume`

Whatever replaces something is written beside it and renamed, so that a killed run leaves the old or the new, never a part.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from perceiver_rl.provenance import provenance
from perceiver_rl.whole_file import write_whole

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CHECKPOINT_INFO = "perceiver_rl.json"
FORMAT = 2


@dataclass(frozen=True)
class RunSettings:
    """What a run was asked to do; the same settings give the same run, chance included as far as the seed governs it.

    Args:
        config: Path or import string of the training config.
        env: Environment in place of the config's own; None to keep that.
        seed: Seed of weights, environments and minibatches.
        total_env_steps: Length of the run in environment steps.
        overrides: `--set` assignments, in order.
        checkpoint_every: Environment steps between checkpoints.
        keep_checkpoints: How many of the last checkpoints stay, beside the best one so far; 0 for all.
    """

    config: str
    env: str | None
    seed: int
    total_env_steps: int
    overrides: tuple[str, ...] = ()
    checkpoint_every: int = 100_000
    keep_checkpoints: int = 10


class RunFolder:
    """Reads and writes a run's folder.

    Args:
        path: The folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self._log = path / "progress.jsonl"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run got as far as its first checkpoint, whole or not."""
        return any(self.checkpoints.glob("checkpoint_*"))

    def create(self, settings: RunSettings) -> None:
        """Begin a run.

        Raises:
            ValueError: If there is a run already.
        """
        if self.exists:
            raise ValueError(
                f"run folder {self.path}: holds a run already; go on with it by --resume, choose another --out, or delete it"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        _write_json(self.path / "run.json", {"format": FORMAT, **asdict(settings), **provenance()})

    def settings(self) -> RunSettings:
        """What the run was asked to do.

        Raises:
            ValueError: If there is no run here.
        """
        if not self.exists:
            raise ValueError(f"run folder {self.path}: got no run.json, expected the folder of a run begun by `train`")
        record = json.loads((self.path / "run.json").read_text())
        return RunSettings(
            config=record["config"],
            env=record["env"],
            seed=record["seed"],
            total_env_steps=record["total_env_steps"],
            overrides=tuple(record["overrides"]),
            **{name: record[name] for name in ("checkpoint_every", "keep_checkpoints") if name in record},  # not in old runs
        )

    def change_checkpoints(self, settings: RunSettings) -> None:
        """Have a run go on with other settings of its checkpoints; what else was asked for, and by which commit, stays."""
        record = json.loads((self.path / "run.json").read_text())
        changed = {"checkpoint_every": settings.checkpoint_every, "keep_checkpoints": settings.keep_checkpoints}
        if record != record | changed:
            _write_json(self.path / "run.json", record | changed)

    def save_checkpoint(self, algorithm: Algorithm, env_steps: int, info: dict[str, Any]) -> Path:
        """Write a checkpoint beside its place and rename it, so that a checkpoint is either whole or not there.

        Args:
            algorithm: What is saved.
            env_steps: Environment steps sampled so far; names the checkpoint.
            info: What a reader must know before loading: environment, schema, seconds trained.

        Raises:
            OSError: If it cannot be written; what was written of it is removed.
        """
        for stale in self.checkpoints.glob(".checkpoint_*"):  # of a run that was killed
            shutil.rmtree(stale)
        target = self.checkpoints / f"checkpoint_{env_steps:010d}"
        scratch = self.checkpoints / f".{target.name}"
        try:
            algorithm.save_to_path(scratch.resolve())
            sizes = {str(file.relative_to(scratch)): file.stat().st_size for file in scratch.rglob("*") if file.is_file()}
            record = {"format": FORMAT, "env_steps": env_steps, **info, **provenance(), "files": sizes}
            _write_json(scratch / CHECKPOINT_INFO, record)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)  # a full disk needs the room
            raise
        shutil.rmtree(target, ignore_errors=True)  # there is one already where a run passes a damaged checkpoint again
        scratch.replace(target)
        return target

    def append_progress(self, record: dict[str, int | float]) -> None:
        """Add one iteration's numbers."""
        with self._log.open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def progress(self) -> list[dict[str, int | float]]:
        """What was added, in the order of time; a line that breaks off is left out."""
        return [record for _, record in self._progress_lines() if record is not None]

    def numbers_at(self, env_steps: int) -> dict[str, float]:
        """One iteration's numbers by TensorBoard tag; none if there was no iteration that ended there."""
        there = next((record for record in reversed(self.progress()) if record["env_steps"] == env_steps), {})
        return {tag: value for tag, value in there.items() if tag not in ("env_steps", "seconds")}

    def cut_progress(self, env_steps: int) -> None:
        """Drop the iterations after `env_steps`: a resumed run goes on from its checkpoint, and repeats them."""
        if not self._log.exists():
            return
        kept = []
        for number, (line, record) in enumerate(self._progress_lines(), start=1):
            if record is None:
                what = "passed over: %s, line %d, got %r, expected a record; it breaks off"
                logger.warning(what, self._log, number, line[:40])
            elif record["env_steps"] <= env_steps:
                kept.append(line)
        write_whole(self._log, "".join(line + "\n" for line in kept))

    def _progress_lines(self) -> Iterator[tuple[str, dict[str, int | float] | None]]:
        """Each line and what it says; None for one that breaks off: the run was killed, or the disk full, in mid-line."""
        for line in self._log.read_text(errors="replace").splitlines() if self._log.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield line, record if isinstance(record, dict) and "env_steps" in record else None


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in; the checkpoint itself if it was copied elsewhere."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint


def _write_json(path: Path, record: dict[str, Any]) -> None:
    write_whole(path, json.dumps(record, indent=2) + "\n")
