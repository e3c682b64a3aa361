"""From a checkpoint to a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_rl.bundle.format import Provenance
from perceiver_rl.bundle.save import require_free, save_bundle
from perceiver_rl.rllib.checkpoint import find_checkpoint, load_info, load_policy
from perceiver_rl.rllib.run_folder import CHECKPOINT_INFO, run_of

EVALUATION = "evaluation.json"
"""Where a run folder keeps what `perceiver-rl evaluate --json` said, if it was told to."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    checkpoint: str
    """Name of the checkpoint."""
    policy: str
    """Module id of the policy."""
    evaluation_left_out: str | None
    """Why the run's evaluation is not in the bundle, if there is one."""


def export_checkpoint(path: Path, folder: Path, *, module: str | None, onnx: bool, force: bool) -> Exported:
    """Write a checkpoint's policy as a bundle.

    The checkpoint is RLlib's, a pickle: export only what you would run. The bundle is safe to hand on.

    Args:
        path: A run folder, or one checkpoint.
        folder: The bundle's folder.
        module: Which policy, where several were trained; None for the only one.
        onnx: Whether to write the ONNX file, too.
        force: Whether a bundle that is there already may be replaced.

    Raises:
        ValueError: If there is no whole checkpoint or no such policy, or the bundle cannot be written.
        ImportError: If a package that ONNX needs is not installed.
    """
    require_free(folder, force=force)
    checkpoint = find_checkpoint(path)
    info = load_info(checkpoint)
    if module is None and len(info.schemas) > 1:
        raise ValueError(
            f"checkpoint {checkpoint}: got {len(info.schemas)} policies, of which a bundle holds one; name it by --policy, "
            f"one of {', '.join(info.schemas)}"
        )
    policy_id = info.module_or_only_one(module)
    policy = load_policy(checkpoint, module=policy_id)
    records, left_out = _evaluation(checkpoint)
    provenance = Provenance(
        env=info.env,
        env_config=info.env_config,
        config=info.config,
        seed=info.seed,
        env_steps=info.env_steps,
        seconds=info.seconds,
        commit=info.commit,
        versions=info.versions,
        policy=policy_id,
        agents=info.agents,
    )
    save_bundle(folder, policy, provenance, evaluation=records, onnx=onnx, force=force)
    return Exported(checkpoint.name, policy_id, left_out)


def _evaluation(checkpoint: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The run's evaluation, if it can be one of this checkpoint: of the newest, and made after it."""
    run = run_of(checkpoint)
    file = run / EVALUATION
    if not file.is_file():
        return [], None
    if run != checkpoint.resolve() and find_checkpoint(run).name != checkpoint.name:
        return [], f"{file}: it is of the run's newest checkpoint, not of {checkpoint.name}"
    if file.stat().st_mtime < (checkpoint / CHECKPOINT_INFO).stat().st_mtime:
        return [], f"{file}: it is older than {checkpoint.name}; evaluate again"
    try:
        records = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); evaluate again, or delete it") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{file}: expected a list of records as `perceiver-rl evaluate --json` writes; delete it")
    return records, None
