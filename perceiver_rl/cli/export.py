"""`perceiver-rl export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perceiver_rl.cli.console import clear_errors, say


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder (its newest checkpoint is taken) or one checkpoint folder in it.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    policy: Annotated[
        str | None, typer.Option(metavar="MODULE_ID", help="Which policy, where several were trained.")
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option("--onnx/--no-onnx", help="Write policy.onnx, too; it needs the packages of the extra 'export'."),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
) -> None:
    """Write a checkpoint's policy as a bundle, which others can load without Ray, without pickle and without trust.

    [bold]Examples[/bold]

    perceiver-rl export runs/2s3z bundles/2s3z

    perceiver-rl evaluate bundles/2s3z --against heuristic,random
    """
    with clear_errors():
        from perceiver_rl.rllib.export import export_checkpoint

        exported = export_checkpoint(checkpoint, folder, module=policy, onnx=onnx, force=force)
    say(f"Bundle:     {folder}, policy {exported.policy} of {exported.checkpoint}")
    if exported.evaluation_left_out:
        say(f"Left out:   {exported.evaluation_left_out}")
    say(f"Evaluate:   perceiver-rl evaluate {folder}")
