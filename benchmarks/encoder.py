"""`perceiver-rl bench encoder`: time and memory of our encoders beside others', in one run, in turn."""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rivals import WIDTH, Batch, Rival, build_rivals

MAX_PAIRS, MAX_PAIRS_SPARSE = 2**26, 2**23
"""Pairs of entities in a batch up to which transformers are run, where all slots are filled and where some are not."""

DENSE = 0.25
"""Fill beside which a batch of as many entities without an empty slot is measured."""

SERIES_BATCH = 4
SCALING = (512, 1024, 2048, 4096, 8192, 16_384)

Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")


@dataclass(frozen=True)
class Case:
    """One batch that every implementation gets."""

    entities: int
    fill: float
    queries: int
    batch_size: int
    series: Literal["slots", "asked", "dense", "entities", "queries"] = "slots"
    """What it is for: equal slots, a few queries of many entities, as many entities as a sparse case but no empty slot,
    growth with entities, growth with queries."""


@dataclass(frozen=True)
class Record:
    """One measurement."""

    implementation: str
    entities: int
    fill: float
    queries: int
    # `pass` is a keyword; the JSON has it under that name
    passes: Pass
    median_ms: float
    peak_mb: float
    batch_size: int
    latents: int
    series: str


def plan(entities: Sequence[int], fills: Sequence[float], slots: int, growth: bool = False) -> list[Case]:
    """The cases of a run.

    Args:
        entities: Sizes of the set.
        fills: Shares of slots with an entity in them.
        slots: Slots of a batch: many small sets or few large ones.
        growth: Whether to measure how time and memory grow up to 16,384 entities, and as many queries, too.
    """
    cases = []
    for n in entities:
        batch_size = max(1, slots // n)
        for fill in fills:
            cases.append(Case(n, fill, n, batch_size))
            if fill == DENSE:  # next to each other, since a machine's speed drifts
                cases.append(Case(round(fill * n), 1.0, round(fill * n), batch_size, "dense"))
    if 512 in entities:
        cases.append(Case(512, 1.0, 32, slots // 512, "asked"))
    if growth:
        cases += [Case(n, 1.0, 32, SERIES_BATCH, "entities") for n in SCALING]
        cases += [Case(512, 1.0, n, SERIES_BATCH, "queries") for n in SCALING]
    return cases


def make_batch(case: Case, seed: int, device: str) -> Batch:
    """Tokens, mask (None where every slot is filled) and queries; each slot is filled with probability `fill`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(case.batch_size, case.entities, WIDTH, generator=generator)
    queries = torch.randn(case.batch_size, case.queries, WIDTH, generator=generator)
    mask = None
    if case.fill < 1:
        mask = torch.rand(case.batch_size, case.entities, generator=generator) < case.fill
        mask[~mask.any(dim=1), 0] = True  # Hugging Face's and torch's have no answer for an empty set
    return tokens.to(device), None if mask is None else mask.to(device), queries.to(device)


def measure(
    rivals: list[Rival],
    cases: list[Case],
    *,
    latents: int,
    repeats: int,
    seed: int,
    device: str,
    on_case: Callable[[int], None],
) -> tuple[list[Record], list[str]]:
    """Time every rival on every case, in turn within each repeat, so that a busy moment meets all.

    Returns:
        Records, and a line for each rival that was left out of a case.
    """
    records, left_out = [], []
    for number, case in enumerate(cases):
        batch = make_batch(case, seed, device)
        running = []
        for rival in rivals:
            if rival.takes(batch) is None:
                left_out.append(f"{rival.name} where nothing is absent, or queries are no entities: it has nothing to pack")
                continue
            most = MAX_PAIRS if case.fill == 1 else MAX_PAIRS_SPARSE
            if rival.quadratic and (case.series != "slots" or case.batch_size * case.entities**2 > most):
                slots = case.series == "slots"
                where = f"{case.entities} entities, fill {case.fill:g}" if slots else f"series {case.series!r}"
                left_out.append(f"{rival.name} at {where}: quadratic cost")
                continue
            running.append(rival)
        _compare(running, batch)
        taken = {rival.name: rival.takes(batch) or batch for rival in running}
        for passes in PASSES:
            seconds: dict[str, list[float]] = {rival.name: [] for rival in running}
            for repeat in range(repeats + 1):  # the first warms up
                for rival in running:
                    elapsed = _run(rival, taken[rival.name], passes, device)
                    if repeat:
                        seconds[rival.name].append(elapsed)
            for rival in running:
                median = 1e3 * statistics.median(seconds[rival.name])
                rival.module.zero_grad(set_to_none=True)  # else what a pass frees of them hides what it takes
                peak = peak_megabytes(partial(_run, rival, taken[rival.name], passes, device), device)
                sizes = (case.entities, case.fill, case.queries)
                records.append(Record(rival.name, *sizes, passes, median, peak, case.batch_size, latents, case.series))
        on_case(number + 1)
    return records, left_out


def _compare(rivals: list[Rival], batch: Batch) -> None:
    """Those with our weights must give our outputs; a benchmark of different functions compares nothing."""
    same = [rival for rival in rivals if rival.name in ("perceiver-rl", "huggingface") or rival.module is rivals[0].module]
    _, mask, queries = batch
    asked = mask if mask is not None and mask.shape[1] == queries.shape[1] else slice(None)
    answers = []
    for rival in same:
        with torch.no_grad():
            output = rival.run(*(rival.takes(batch) or batch))
        answers.append(output if rival.takes_rows else output[asked])
    for rival, answer in zip(same, answers, strict=True):
        torch.testing.assert_close(answer, answers[0], atol=1e-4, rtol=1e-4, msg=f"{rival.name} differs")


def _run(rival: Rival, batch: Batch, passes: Pass, device: str) -> float:
    """Seconds of one pass."""
    tokens, mask, queries = batch
    train = passes == "forward_backward"
    if train:
        tokens, queries = tokens.detach().requires_grad_(), queries.detach().requires_grad_()
        rival.module.zero_grad(set_to_none=True)
    _synchronize(device)
    start = time.perf_counter()
    with torch.set_grad_enabled(train):
        answers = rival.run(tokens, mask, queries)
    if train:
        answers.sum().backward()
    _synchronize(device)
    return time.perf_counter() - start


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Most memory in use at one time during a call, above what was in use before it, in units of 10^6 bytes."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    in_use = np.cumsum([each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())])
    return float(max(in_use.max(initial=0), 0)) / 1e6


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def processor() -> str:
    """Name of this machine's processor, as far as it tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a straight line through logarithms: 1 where values grow as sizes do."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(records: list[Record], passes: Pass) -> Table:
    """Milliseconds of ours, and of others as multiples of them."""
    names = list(dict.fromkeys(record.implementation for record in records))
    result = Table("entities", "fill", "queries", "batch", *names, title=f"{passes}: ms, and times perceiver-rl's")
    cases: dict[tuple[float, ...], dict[str, float]] = {}
    for each in records:
        if each.passes == passes and each.series in ("slots", "asked", "dense"):
            key = (each.entities, each.fill, each.queries, each.batch_size)
            cases.setdefault(key, {})[each.implementation] = each.median_ms
    for key, by_name in cases.items():
        ours = by_name["perceiver-rl"]
        cells = [f"{by_name[name]:.1f} ({by_name[name] / ours:.2f})" if name in by_name else "-" for name in names]
        result.add_row(*(f"{number:g}" for number in key), *cells)
    return result


def write_json(path: Path, records: list[Record], context: dict[str, object]) -> None:
    """A list with one object for each measurement."""
    rows = [
        {("pass" if key == "passes" else key): value for key, value in asdict(each).items()} | context for each in records
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def plot(path: Path, records: list[Record]) -> None:
    """Entities against time at full sets, one line for each implementation, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, passes in zip(axes, PASSES, strict=True):
        chosen = [each for each in records if each.passes == passes and each.series == "slots" and each.fill == 1]
        for name in dict.fromkeys(each.implementation for each in chosen):
            line = [each for each in chosen if each.implementation == name]
            per_set = [each.median_ms / each.batch_size for each in line]
            axis.loglog([each.entities for each in line], per_set, marker="o", markersize=3, label=name)
        axis.set(title=passes.replace("_", " + "), xlabel="entities")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms for one set")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def run(
    *,
    entities: Sequence[int],
    fills: Sequence[float],
    repeats: int,
    threads: int,
    seed: int,
    device: str,
    slots: int,
    latents: int,
    growth: bool,
    json_file: Path | None,
    plot_file: Path | None,
    on_case: Callable[[int, int], None],
) -> None:
    """Measure, print tables, and write what was asked for."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device: got {device!r}, expected cpu; torch finds no CUDA device")
    for file in (json_file, plot_file):
        if file is not None:  # else it would fail after everything was measured
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rivals, missing = build_rivals(latents, device)
    cases = plan(entities, fills, slots, growth)
    records, left_out = measure(
        rivals,
        cases,
        latents=latents,
        repeats=repeats,
        seed=seed,
        device=device,
        on_case=lambda done: on_case(done, len(cases)),
    )
    console = Console(width=150)
    for passes in PASSES:
        console.print(table(records, passes))
        for series in ("entities", "queries"):
            line = [r for r in records if r.passes == passes and r.series == series and r.implementation == "perceiver-rl"]
            if line:
                sizes = [getattr(each, series) for each in line]
                time_slope = slope(sizes, [each.median_ms for each in line])
                memory_slope = slope(sizes, [each.peak_mb for each in line])
                console.print(f"{passes}, growth with {series}: time ^{time_slope:.2f}, memory ^{memory_slope:.2f}")
    for line in dict.fromkeys([*missing, *left_out]):
        console.print(f"left out: {line}", highlight=False, markup=False)
    if json_file is not None:
        context = {"threads": threads, "seed": seed, "device": device, "processor": processor(), "torch": torch.__version__}
        write_json(json_file, records, context)
    if plot_file is not None:
        plot(plot_file, records)
    assert all(math.isfinite(each.median_ms) for each in records)
