"""Write a bundle: whole, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from perceiver_rl import __version__
from perceiver_rl.bundle.format import (
    FILES,
    ONNX_FILE,
    POLICY_FILE,
    WEIGHTS_FILE,
    BundleRecord,
    Provenance,
    require_bounded,
)
from perceiver_rl.bundle.load import load_policy
from perceiver_rl.bundle.onnx import require_exportable, write_onnx
from perceiver_rl.bundle.weights import sha256_of, write_weights
from perceiver_rl.policy.entity_policy import EntityPolicy

PACKAGES = ("torch", "safetensors", "numpy")


def save_bundle(
    path: str | Path,
    policy: EntityPolicy,
    provenance: Provenance,
    *,
    evaluation: Sequence[dict[str, Any]] = (),
    onnx: bool = True,
    force: bool = False,
) -> None:
    """Write a policy as a bundle, which `load_policy` loads.

    Everything is written into a folder beside, loaded again as a check, and renamed.

    Args:
        path: The bundle's folder; missing parents are made.
        policy: What to write.
        provenance: Where it comes from.
        evaluation: Records of `perceiver-rl evaluate --json`.
        onnx: Whether to write the ONNX file, too; it needs `pip install 'perceiver-rl[export]'`.
        force: Whether a bundle that is there already may be replaced.

    Raises:
        ValueError: If there is something already, the policy is no plain `EntityPolicy`, is beyond a bundle's limits or has
            weights that are not finite, or it cannot be written as ONNX.
        ImportError: If a package that ONNX needs is not installed.
    """
    path = Path(path)
    require_free(path, force=force)
    require_bounded(policy.schema, policy.config)
    if type(policy) is not EntityPolicy or policy.extra_queries:
        raise ValueError(
            f"policy: got a {type(policy).__name__} with extra queries {', '.join(policy.extra_queries) or 'none'}, "
            "expected a plain EntityPolicy: a bundle has no code, so it cannot say how to build another one"
        )
    if onnx:
        require_exportable(policy)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        _write(scratch, policy, provenance, evaluation, onnx)
        load_policy(scratch)
        _put_in_place(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_free(path: Path, *, force: bool) -> None:
    """Raise if a bundle must not be written there; `force` replaces a bundle, but nothing else.

    Raises:
        ValueError: What is there, and what to do.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not {each.name for each in path.iterdir()} <= FILES:
        raise ValueError(
            f"bundle {path}: there is something that is not a bundle, or more than a bundle, which is never replaced; "
            "choose another folder"
        )
    if not force:
        raise ValueError(f"bundle {path}: there is one already; choose another folder, or replace it by --force")


def _write(
    folder: Path, policy: EntityPolicy, provenance: Provenance, evaluation: Sequence[dict[str, Any]], onnx: bool
) -> None:
    record = BundleRecord(
        schema=policy.schema,
        config=policy.config,
        provenance=provenance,
        evaluation=tuple(evaluation),
        versions={"perceiver-rl": __version__} | {package: version(package) for package in PACKAGES},
        weights_sha256="",
    ).to_dict()
    write_weights(folder / WEIGHTS_FILE, policy, record)
    record["weights_sha256"] = sha256_of(folder / WEIGHTS_FILE)
    (folder / POLICY_FILE).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    if onnx:
        write_onnx(folder / ONNX_FILE, policy)


def _put_in_place(scratch: Path, path: Path) -> None:
    """Rename the finished folder; one that it replaces is removed last."""
    old = path.with_name(f".{path.name}.old")
    if path.exists() and any(path.iterdir()):
        # What an export left here that was killed is only thrown away while there is another bundle.
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
    scratch.replace(path)
    shutil.rmtree(old, ignore_errors=True)
