"""Which checkpoints of a run stay: the last ones, and the best so far."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from perceiver_rl.rllib.checkpoint import Score, checkpoints_in, load_info, require_whole
from perceiver_rl.rllib.run_folder import CHECKPOINTS, RunFolder

BEST = "best"
"""In the run folder: a link to the checkpoint with the best score."""

SCORES = ("outcome/win_rate", "outcome/return")
"""By which training figure checkpoints are compared: the first one that a run has."""


def score_of(numbers: Mapping[str, float]) -> Score | None:
    """How well a policy played in training, of an iteration's numbers; None as long as no episode has ended."""
    return next((Score(tag, numbers[tag]) for tag in SCORES if tag in numbers), None)


def thin_out(folder: RunFolder, newest: Path, keep: int) -> None:
    """Point `best` at the best checkpoint, and delete old ones: all but the last `keep` and the best.

    Args:
        folder: The run's folder.
        newest: The checkpoint that was just written. Those with more steps are not touched, nor counted.
        keep: How many of the last ones stay, at least one; 0 for all.
    """
    written = checkpoints_in(folder.checkpoints)
    written = written[: written.index(newest) + 1]
    best = _best(written)
    if best is not None:
        _link(folder.path / BEST, Path(CHECKPOINTS, best.name))
    for each in written[:-keep] if keep else ():
        if each != best:
            shutil.rmtree(each)


def _best(checkpoints: list[Path]) -> Path | None:
    """The whole one with the highest score; of equals the latest."""
    scored: list[tuple[Score, int, Path]] = []
    for number, each in reversed(list(enumerate(checkpoints))):
        try:
            score = load_info(each).score
        except ValueError:
            continue
        # A run that comes to know of wins only later is not compared with its returns from before.
        if score is not None and (not scored or score.tag == scored[0][0].tag):
            scored.append((score, number, each))
    for _, _, each in sorted(scored, key=lambda each: (each[0].value, each[1]), reverse=True):
        try:
            require_whole(each)
        except ValueError:
            continue
        return each
    return None


def _link(link: Path, target: Path) -> None:
    scratch = link.with_name(f".{link.name}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target, target_is_directory=True)
    if link.is_dir() and not link.is_symlink():  # the run was copied by something that follows links
        shutil.rmtree(link)
    scratch.replace(link)
