"""Does memory stay flat in a long run? Trains for a while, and writes down what each process takes.

    python -m benchmarks.soak --minutes 45 --out benchmarks/results/soak --plot docs/images/soak.png

Driver, env runner and learner, each a process of its own, train SMAX 2s3z by `perceiver-rl train` until time is up.
Resident memory is read every few seconds and kept as the median of each minute.
"""

from __future__ import annotations

import csv
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console

from benchmarks.progress import PROGRESS, read_progress
from perceiver_rl.provenance import provenance

ROLES = {
    "ray::VectorEnvRunner": "env runner",
    "ray::_WrappedExecutable": "learner",
    "multiprocessing.spawn": "painter",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
    "ray::DashboardAgent": "dashboard agent",
    "ray::RuntimeEnvAgent": "runtime env agent",
    "dashboard.py": "dashboard",
    "log_monitor.py": "log monitor",
    "_private/monitor.py": "autoscaler monitor",
}
"""What a process's command line says → what it is; the driver is the process that was started. Left out are Ray's idle
workers, which come and go, and Python's resource tracker."""
BEGINNING = 4
"""Words of the command line that are read: what follows may name other processes."""

READ_EVERY_S = 5.0
MINUTE_S = 60.0
MAX_GROWTH = 0.01
"""Of a process's memory, over the last third of the run."""

END_WITHIN_S = 300.0

console = Console()


def main(
    out: Annotated[Path, typer.Option(help="Folder for memory.csv.", metavar="FOLDER", show_default=False)],
    minutes: Annotated[float, typer.Option(help="How long to train.", min=3.0)] = 45.0,
    config: Annotated[str, typer.Option(help="Training config.")] = "configs/smax_2s3z_ppo.py",
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 0,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.", metavar="FILE")] = None,
) -> None:
    """Train, watch memory, and fail if a process's resident memory grows by more than 1 % in the last third."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            *(str(Path(sys.executable).with_name("perceiver-rl")), "train", config, "--out", str(run), "--seed", str(seed)),
            *("--steps", str(10**9), "--env-runners", "1", "--set", "learners.num_learners=1"),
        ]
        trainer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            rows = _watch(psutil.Process(trainer.pid), run, minutes)
            out.mkdir(parents=True, exist_ok=True)
            _write(out / "memory.csv", rows)
            if plot is not None:
                _plot(plot, rows)
        finally:
            _end(trainer)
    grown = growth(rows)
    console.print(f"{rows[-1]['env_steps']:,.0f} steps in {rows[-1]['minute']:.0f} minutes, commit {provenance()['commit']}")
    for role, share in grown.items():
        last = rows[-1][role]
        console.print(f"{role}: {last:,.1f} MB at the end, {100 * share:+.2f} % in the last third")
    if any(share > MAX_GROWTH for share in grown.values()):
        raise typer.Exit(1)


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each process, by how much a line through the last third rises over it, as a share of where it begins."""
    last_third = rows[2 * len(rows) // 3 :]
    at = np.array([row["minute"] for row in last_third])
    grown = {}
    for role in rows[-1]:
        if role not in ("minute", "env_steps"):
            slope, begin = np.polyfit(at - at[0], [row[role] for row in last_third], 1)
            grown[role] = float(slope * (at[-1] - at[0]) / begin)
    return grown


def _end(trainer: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, and by force if that takes too long."""
    trainer.send_signal(signal.SIGINT)
    try:
        trainer.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        trainer.kill()


def _watch(trainer: psutil.Process, run: Path, minutes: float) -> list[dict[str, float]]:
    """One row a minute: minutes since training began, steps done, and megabytes of each process."""
    while not (run / PROGRESS).is_file():
        if not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError("the run ended before its first iteration; train with the same config to see why")
        time.sleep(1.0)
    rows: list[dict[str, float]] = []
    began = time.monotonic()
    while len(rows) < math.floor(minutes):
        readings: dict[str, list[float]] = defaultdict(list)
        while time.monotonic() - began < MINUTE_S * (len(rows) + 1):
            for role, megabytes in _memory(trainer).items():
                readings[role].append(megabytes)
            time.sleep(READ_EVERY_S)
        steps = read_progress(run)[-1]["env_steps"]
        memory = {role: round(median(megabytes), 1) for role, megabytes in readings.items()}
        rows.append({"minute": len(rows) + 1.0, "env_steps": steps} | memory)
        console.print(", ".join(f"{name} {number:,.1f}" for name, number in rows[-1].items()))
    return rows


def _memory(trainer: psutil.Process) -> dict[str, float]:
    """Resident megabytes by role."""
    found = {"driver": trainer.memory_info().rss / 1e6}
    for process in trainer.children(recursive=True):
        try:
            name = " ".join(process.cmdline()[:BEGINNING])
            role = next((role for says, role in ROLES.items() if says in name), None)
            if role is not None:
                found[role] = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


def _write(file: Path, rows: list[dict[str, float]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def _plot(file: Path, rows: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 3.6))
    colours = [matplotlib.colormaps["tab20"](index) for index in (*range(0, 20, 2), *range(1, 20, 2))]
    axis.set_prop_cycle(color=colours)
    for role in rows[-1]:
        if role not in ("minute", "env_steps"):
            axis.plot([row["minute"] for row in rows], [row.get(role, math.nan) for row in rows], label=role)
    axis.axvspan(rows[2 * len(rows) // 3]["minute"], rows[-1]["minute"], color="#000000", alpha=0.05)
    axis.set(xlabel="minutes of training", ylabel="resident memory, MB", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8, loc=(1.01, 0.0))
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    typer.run(main)
