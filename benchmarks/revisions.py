"""Training speed of several checkouts of this repository, in turn: is a change faster?

    git worktree add /tmp/before v0.1.0
    python -m benchmarks.revisions /tmp/before .

Each checkout trains SMAX 2s3z with its own config in a process of its own. They take turns, one PPO iteration at a time, so
that a change of the machine's speed meets all of them; whoever is not at its turn waits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

WORKER = """
import sys, time
from configs.smax_2s3z_ppo import make_config
algorithm = make_config().debugging(seed=0).build_algo()
print("ready", file=sys.stderr, flush=True)
steps = 0
for _ in sys.stdin:
    began = time.perf_counter()
    result = algorithm.train()
    seconds, before, steps = time.perf_counter() - began, steps, result["num_env_steps_sampled_lifetime"]
    print("took", seconds, steps - before, file=sys.stderr, flush=True)
algorithm.stop()
"""


def main(
    checkouts: Annotated[list[Path], typer.Argument(help="Folders, the first of which the others are compared with.")],
    iterations: Annotated[int, typer.Option(help="Timed iterations of each.", min=1)] = 20,
) -> None:
    """Print environment steps a second of each checkout, medians, and the median ratio to the first, turn by turn."""
    workers = [_start(checkout.resolve()) for checkout in checkouts]
    for worker in workers:
        _next(worker, "ready")
    for worker in workers * 2:  # the first compile
        _turn(worker)
    rates: list[list[float]] = [[] for _ in workers]
    for number in range(iterations):
        print(f"\riteration {number + 1} of {iterations}", end="", file=sys.stderr, flush=True)
        for worker, values in zip(workers, rates, strict=True):
            values.append(_turn(worker))
    print(file=sys.stderr)
    for worker in workers:
        worker.communicate()
    print("| checkout | env steps / s | of the first |\n|---|---|---|")
    for checkout, values in zip(checkouts, rates, strict=True):
        ratio = median(value / first for value, first in zip(values, rates[0], strict=True))
        print(f"| {checkout} | {median(values):,.0f} | {ratio:.2f} |")


def _start(checkout: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _turn(worker: subprocess.Popen[str]) -> float:
    """Let it train one iteration; steps a second."""
    assert worker.stdin is not None
    print(file=worker.stdin, flush=True)
    seconds, steps = _next(worker, "took").split()
    return float(steps) / float(seconds)


def _next(worker: subprocess.Popen[str], word: str) -> str:
    """The rest of the next line that begins with the word.

    Raises:
        RuntimeError: If the process ends before that; with what it said last.
    """
    assert worker.stderr is not None
    said = []
    for line in worker.stderr:
        said.append(line)
        if line.startswith(word):
            return line.removeprefix(word)
    raise RuntimeError("a checkout's training ended early:\n" + "".join(said[-30:]))


if __name__ == "__main__":
    typer.run(main)
