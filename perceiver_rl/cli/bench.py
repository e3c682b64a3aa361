"""`perceiver-rl bench encoder`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from perceiver_rl.cli.console import clear_errors, console
from perceiver_rl.display import ProgressDisplay

ENCODER_BENCHMARK = "benchmarks.encoder:run"
"""What `bench encoder` runs: the checkout's `benchmarks` folder."""


def bench_encoder(
    entities: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the set, separated by commas.", show_default="16,64,256,512,1024,4096,8192; quick: 64,512"
        ),
    ] = None,
    fills: Annotated[
        str | None,
        typer.Option(
            help="Shares of slots with an entity in them, separated by commas.", show_default="0.1,0.25,0.5,1; quick: 0.25,1"
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option(help="Slots of a batch: many small sets or few large ones. Quick: at most 4096.", min=1)
    ] = 8192,
    latents: Annotated[int, typer.Option(help="Latents of every Perceiver.", min=1)] = 32,
    repeats: Annotated[int, typer.Option(help="Timed repeats; all implementations take turns in each.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Torch threads.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and masks.")] = 0,
    device: Annotated[str, typer.Option(help="Torch device, e.g. cuda.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and smaller batches: less than a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every measurement.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw entities against time.")] = None,
) -> None:
    """Time the Perceiver IO encoder, padded and packed, beside transformers and other Perceivers of the same size.

    Width 128, 3 layers, 4 heads; forward, and forward and backward; medians over repeats, and peak memory.
    Without --entities or --quick also how time and memory grow with entities and with queries, up to 16,384; all of it takes
    about 20 minutes on a core, most of them for transformers.

    [bold]Examples[/bold]

    perceiver-rl bench encoder --quick

    perceiver-rl bench encoder --json encoder.json --plot encoder.png
    """
    with clear_errors():
        from perceiver_rl.environments import load

        # Torch's profiler, which measures memory, would say on stderr whenever it starts; it reads this when it is imported.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        run = load(ENCODER_BENCHMARK)
        growth = entities is None and not quick
        entities = entities or ("64,512" if quick else "16,64,256,512,1024,4096,8192")
        fills = fills or ("0.25,1" if quick else "0.1,0.25,0.5,1")
        sizes = [_number(each, "--entities", int) for each in entities.split(",")]
        shares = [_number(each, "--fills", float) for each in fills.split(",")]
        if min(sizes) < 1 or not all(0 < share <= 1 for share in shares):
            raise ValueError("bench encoder: expected --entities of at least 1 and --fills above 0 and up to 1")
    with clear_errors(), ProgressDisplay(console, "batches") as display:
        run(
            entities=sizes,
            fills=shares,
            repeats=repeats,
            threads=threads,
            seed=seed,
            device=device,
            slots=min(slots, 4096) if quick else slots,
            latents=latents,
            growth=growth,
            json_file=json_file,
            plot_file=plot_file,
            on_case=partial(display.show, words="bench encoder"),
        )


def _number(text: str, option: str, kind: type[int] | type[float]) -> int | float:
    """One number of a list, or a message that says which option was wrong."""
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{option}: got {text!r}, expected numbers separated by commas") from error
