"""A training run's folder: what the run was asked to do, how it went, and its checkpoints.

::

    RUN/run.json                       what was asked for: config, environment, seed, overrides, versions, commit
    RUN/progress.jsonl                 one line an iteration: steps, seconds and every logged number
    RUN/events.out.tfevents.*          the same for TensorBoard
    RUN/checkpoints/checkpoint_…/      RLlib's checkpoint, named by environment steps, and perceiver_rl.json beside it
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from perceiver_rl.provenance import provenance

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
    """

    config: str
    env: str | None
    seed: int
    total_env_steps: int
    overrides: tuple[str, ...] = ()


class RunFolder:
    """Reads and writes a run's folder.

    Args:
        path: The folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS

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
        )

    def save_checkpoint(self, algorithm: Algorithm, env_steps: int, info: dict[str, Any]) -> Path:
        """Write a checkpoint beside its place and rename it, so that a checkpoint is either whole or not there.

        Args:
            algorithm: What is saved.
            env_steps: Environment steps sampled so far; names the checkpoint.
            info: What a reader must know before loading: environment, schema, seconds trained.
        """
        target = self.checkpoints / f"checkpoint_{env_steps:010d}"
        scratch = self.checkpoints / f".{target.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        algorithm.save_to_path(scratch.resolve())
        _write_json(scratch / CHECKPOINT_INFO, {"format": FORMAT, "env_steps": env_steps, **info, **provenance()})
        # There is one already where a finished run was resumed, or a run passes a damaged checkpoint again.
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
        return target

    def append_progress(self, record: dict[str, int | float]) -> None:
        """Add one iteration's numbers."""
        with (self.path / "progress.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def cut_progress(self, env_steps: int) -> None:
        """Drop the iterations after `env_steps`: a resumed run goes on from its checkpoint, and repeats them."""
        log = self.path / "progress.jsonl"
        if log.exists():
            kept = [line for line in log.read_text().splitlines() if json.loads(line)["env_steps"] <= env_steps]
            log.write_text("".join(line + "\n" for line in kept))


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in; the checkpoint itself if it was copied elsewhere."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")
