"""What TensorBoard costs training: intervals with and without its pictures, in turn, within one run; and what scalars took.

    python -m benchmarks.pictures

The run's checkpoints end the intervals. At every second one pictures are asked for, and the interval that follows ends when
they are drawn, too; so on one core it is longer by all that they take, and on two by what training feels of it. The two
intervals of a pair are neighbours, in turned order in every second pair: a machine or a policy that becomes slower or faster
meanwhile does so for both. The first interval, in which processes start and compile, is not counted; pictures of its
checkpoint are drawn before the second begins. Wants cores without other work: `taskset -c 1` for one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any
from unittest import mock

import typer

from perceiver_rl.evaluation.statistics import mean_interval
from perceiver_rl.rllib.recorder import Progress, Recorder
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.training import prepare, train
from perceiver_rl.tensorboard import Painter

DEFAULT_INTERVAL = 100_000
"""Environment steps between checkpoints where `perceiver-rl train` is told nothing else: what the share is of."""


@dataclass(frozen=True)
class Pair:
    """Two neighbouring intervals: seconds of training for 1,000 environment steps of each, and how long both are."""

    drawn: float
    plain: float
    interval: int

    @property
    def extra(self) -> float:
        """Seconds that one checkpoint's pictures cost."""
        return (self.drawn - self.plain) * self.interval / 1000

    @property
    def share(self) -> float:
        """Of training's time, where pictures are drawn every `DEFAULT_INTERVAL` steps."""
        return self.extra / (self.plain * DEFAULT_INTERVAL / 1000)


class Meter:
    """Told of progress and of checkpoints by a training run, has pictures drawn at some of them and takes the time.

    Args:
        painter: Draws.
        pairs: How many pairs of intervals.
    """

    def __init__(self, painter: Painter, pairs: int) -> None:
        self._painter = painter
        self._order = [drawn for pair in range(pairs) for drawn in ((True, False) if pair % 2 == 0 else (False, True))]
        self.measured: list[tuple[bool, float]] = []
        """Of each interval whether pictures were drawn in it, and its seconds for 1,000 environment steps."""
        self._begun: tuple[float, int] | None = None
        self._env_steps = 0
        self.seconds = 0.0
        """Of training so far."""

    def on_progress(self, progress: Progress) -> None:
        """Take in how far training is."""
        self._env_steps, self.seconds = progress.env_steps, progress.seconds

    def on_checkpoint(self, checkpoint: Path) -> None:
        """End an interval and begin the next."""
        if self._begun is None:
            self._painter.paint(checkpoint)
        self._painter.finish()
        now = time.perf_counter()
        if self._begun is not None:
            began, steps = self._begun
            drawn = self._order[len(self.measured)]
            self.measured.append((drawn, 1000 * (now - began) / (self._env_steps - steps)))
            typer.echo(f"{len(self.measured)}/{len(self._order)} {self.measured[-1]}", err=True)
        self._begun = (time.perf_counter(), self._env_steps)
        if len(self.measured) < len(self._order) and self._order[len(self.measured)]:
            self._painter.paint(checkpoint)


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same, and notes how long each call took."""

    def calling(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        seconds.append(time.perf_counter() - began)
        return result

    return calling


def pairs_of(measured: Sequence[tuple[bool, float]], interval: int) -> list[Pair]:
    """Neighbouring intervals as pairs.

    Args:
        measured: As of `Meter`.
        interval: Environment steps of each.
    """
    both = [dict(measured[first : first + 2]) for first in range(0, len(measured), 2)]
    return [Pair(each[True], each[False], interval) for each in both]


def table(pairs: Sequence[Pair]) -> str:
    """Markdown: a row for each pair, and means with Student's 95 % intervals over pairs below."""
    lines = ["| pair | s per 1,000 steps, drawn | plain | s per checkpoint | share at the default interval |"]
    lines.append("|---|---|---|---|---|")
    for number, each in enumerate(pairs, 1):
        lines.append(f"| {number} | {each.drawn:.3f} | {each.plain:.3f} | {each.extra:.2f} | {100 * each.share:.2f} % |")
    extra, share = [each.extra for each in pairs], [100 * each.share for each in pairs]
    of_extra, of_share = mean_interval(extra), mean_interval(share)
    cells = (
        f"{mean(each.drawn for each in pairs):.3f}",
        f"{mean(each.plain for each in pairs):.3f}",
        f"{mean(extra):.2f} ({of_extra.low:.2f} to {of_extra.high:.2f})",
        f"{mean(share):.2f} % ({of_share.low:.2f} to {of_share.high:.2f})",
    )
    return "\n".join([*lines, f"| mean | {' | '.join(cells)} |"])


def main(
    config: Annotated[str, typer.Argument(help="Config file.")] = "configs/smax_2s3z_ppo.py",
    interval: Annotated[int, typer.Option(help="Environment steps of each interval.", min=1)] = 25_000,
    pairs: Annotated[int, typer.Option(help="Intervals with pictures, and as many without.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(config, None, seed, interval * (2 * pairs + 1), checkpoint_every=interval)
        run = prepare(settings, RunFolder(Path(folder) / "run"))
        env = run.config.env
        with Painter(run.folder.path, env, run.config.env_config, seed=seed, say=typer.echo) as painter:
            meter = Meter(painter, pairs)
            logging: list[float] = []
            with mock.patch.object(Recorder, "log", timed(Recorder.log, logging)):
                train(run, on_progress=meter.on_progress, on_checkpoint=meter.on_checkpoint)
        if painter.count != pairs + 1:
            raise RuntimeError(f"pictures: got those of {painter.count} checkpoints, expected of {pairs + 1}")
    print(table(pairs_of(meter.measured, interval)))
    print(
        f"\nscalars and histograms: {1000 * median(logging):.1f} ms an iteration (median of {len(logging)}), "
        f"{100 * sum(logging) / meter.seconds:.2f} % of training"
    )


if __name__ == "__main__":
    typer.run(main)
