"""A training run's driver in a process that tests can kill."""

from __future__ import annotations

import os
from pathlib import Path

from perceiver_rl.rllib.recorder import PreparedRun
from perceiver_rl.rllib.recovery import find_resume_point
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.training import build_config, train
from tests.environments import COURIERS

TOTAL = 200_000
CHECKPOINT_EVERY = 1_500
KEEP = 3
STOP = "stop"
"""A file in the run folder that asks for an orderly end, as Ctrl-C does."""


def drive(run: str, address: str) -> None:
    """Begin or go on with a run on couriers in a Ray that runs already."""
    folder = RunFolder(Path(run))
    os.chdir(folder.path.parent)  # the current folder travels to the Ray, and this one is empty
    settings = RunSettings(
        "tests.courier_config:make_config",
        env=None,
        seed=0,
        total_env_steps=TOTAL,
        overrides=("env_runners.num_env_runners=0",),
        checkpoint_every=CHECKPOINT_EVERY,
        keep_checkpoints=KEEP,
    )
    if not folder.exists:
        folder.create(settings)
    asked = folder.settings()
    prepared = PreparedRun(asked, folder, build_config(asked), {"default_policy": COURIERS}, {}, find_resume_point(folder))
    train(prepared, address=address, stop=lambda: (folder.path / STOP).exists())
