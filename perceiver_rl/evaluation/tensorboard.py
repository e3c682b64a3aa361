"""Summaries as TensorBoard scalars beside a training run's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.evaluation.statistics import Summary

SCALARS = {
    "win_rate": "win_rate",
    "win_rate_low": "win_rate_low",
    "win_rate_high": "win_rate_high",
    "return": "return_mean",
    "return_per_agent": "return_per_agent_mean",
    "episode_length": "length_mean",
    "units_left": "units_left_mean",
}
"""Last part of the tag → field of `Summary`."""


def log_summaries(run: Path, summaries: Sequence[Summary], env_steps: int) -> None:
    """Write one policy's summaries as `evaluation/<mode>/<scalar>`, so that checkpoints make a curve.

    They go to `RUN/evaluation/<environment>`, a TensorBoard run of its own: TensorBoard reads the newest event
    file of a folder only, so a file in the training's folder would hide what a running training still logs.

    Args:
        run: The training run's folder.
        summaries: Of one policy, at most one for each environment and mode.
        env_steps: How long the policy was trained; the scalars' step.

    Raises:
        ValueError: If two summaries are of one environment and mode: their points could not be told apart.
    """
    places = [(each.env, each.mode) for each in summaries]
    if len(set(places)) < len(places):
        raise ValueError(
            f"summaries for TensorBoard: got {', '.join(f'{mode} in {env}' for env, mode in places)}, expected "
            "at most one for each environment and mode; log one policy a call"
        )
    for summary in summaries:
        with SummaryWriter(str(run / "evaluation" / _folder_name(summary.env))) as writer:
            for scalar, field in SCALARS.items():
                value = getattr(summary, field)
                if value is not None:
                    writer.add_scalar(f"evaluation/{summary.mode}/{scalar}", value, env_steps)


def _folder_name(env: str) -> str:
    return re.sub(r"[^\w.-]+", "_", env)
