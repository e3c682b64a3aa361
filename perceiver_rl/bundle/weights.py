"""The weights of a bundle: a safetensors file, compared with what the policy needs before anything is allocated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from perceiver_rl.bundle.format import WEIGHTS_FILE
from perceiver_rl.bundle.strict_json import digest
from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of safetensors → names of torch, for messages; others keep theirs."""

EXPORT_AGAIN = "export the policy again, or get a whole copy"


def write_weights(path: Path, policy: EntityPolicy, record: Mapping[str, Any]) -> None:
    """Write a policy's weights, and in their header the digests of what the policy is built from.

    Args:
        path: The file.
        policy: Whose weights.
        record: What `policy.json` will say; `schema` and `config` are read.

    Raises:
        ValueError: If a weight is not float32, or not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"tensor {name!r}: got {_name_of(tensor.dtype)}, expected float32; call policy.float() first")
        _require_finite(name, tensor)
    # Not by save_file, whose files are for their owner's eyes alone, while the rest of a bundle is as the umask says.
    path.write_bytes(save(tensors, metadata={part: digest(record[part]) for part in ("schema", "config")}))


def read_weights(
    path: Path, schema: EntitySchema, config: EntityPolicyConfig, record: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Read a policy's weights, if they are all that the policy needs and nothing else.

    The header is read first. Only when every name, shape and dtype in it is what the policy needs, which is found out by
    building it without memory (on torch's meta device), and the file is the one that `policy.json` was written with, tensors
    are made.

    Args:
        path: The file.
        schema: What the policy sees and does.
        config: Its sizes.
        record: All of `policy.json`, as it stands there.

    Raises:
        ValueError: What is wrong; the caller says with which bundle.
    """
    try:
        with safe_open(path, framework="pt") as file:
            _require_same_policy(file.metadata() or {}, record)
            # Names of safe_open alone: get_slice shows shape and dtype without reading.
            _require_same_tensors({name: file.get_slice(name) for name in file.keys()}, schema, config)  # noqa: SIM118
            _require_same_file(path, record["weights_sha256"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{WEIGHTS_FILE} is no whole safetensors file ({error}): it is truncated, damaged or of another kind, such as a "
            f"pickle, which is never loaded; {EXPORT_AGAIN}"
        ) from error
    for name, tensor in tensors.items():
        _require_finite(name, tensor)
    return tensors


def _require_same_policy(metadata: Mapping[str, str], record: Mapping[str, Any]) -> None:
    """The weights were saved for this very schema and configuration: a changed range would change no shape."""
    for part in ("schema", "config"):
        if part not in metadata:
            raise ValueError(
                f"{WEIGHTS_FILE} does not say which {part} it was saved for, so it was not written as part of a bundle; "
                f"{EXPORT_AGAIN}"
            )
        if metadata[part] != digest(record[part]):
            raise ValueError(
                f"the {part} in policy.json is not the one that {WEIGHTS_FILE} was saved for: one of the two files was "
                f"changed or belongs to another bundle; {EXPORT_AGAIN}"
            )


def _require_same_tensors(slices: Mapping[str, Any], schema: EntitySchema, config: EntityPolicyConfig) -> None:
    needed = _needed(schema, config)
    missing, extra = sorted(needed.keys() - slices.keys()), sorted(slices.keys() - needed.keys())
    if missing:
        raise ValueError(f"{WEIGHTS_FILE}: tensor {missing[0]!r} is missing ({len(missing)} in all); {EXPORT_AGAIN}")
    if extra:
        raise ValueError(
            f"{WEIGHTS_FILE}: got tensor {extra[0][:80]!r}, which the policy does not have ({len(extra)} such in all); "
            f"{EXPORT_AGAIN}"
        )
    for name, tensor in needed.items():
        shape, dtype = list(slices[name].get_shape()), slices[name].get_dtype()
        got = DTYPES.get(dtype, dtype)
        if shape != list(tensor.shape) or got != _name_of(tensor.dtype):
            raise ValueError(
                f"{WEIGHTS_FILE}: tensor {name!r} is {got} {shape}, expected {_name_of(tensor.dtype)} {list(tensor.shape)}; "
                f"{EXPORT_AGAIN}"
            )


def _needed(schema: EntitySchema, config: EntityPolicyConfig) -> dict[str, Tensor]:
    """Shapes and dtypes of a policy's tensors, which have no memory behind them."""
    with torch.device("meta"):
        return dict(EntityPolicy(schema, config).state_dict())


def _require_same_file(path: Path, expected: str) -> None:
    got = sha256_of(path)
    if got != expected:
        raise ValueError(
            f"{WEIGHTS_FILE} is not the file that policy.json was written with: got SHA-256 {got[:12]}…, expected "
            f"{expected[:12]}…; {EXPORT_AGAIN}"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_finite(name: str, tensor: Tensor) -> None:
    bad = tensor.numel() - int(tensor.isfinite().sum())
    if bad:
        raise ValueError(
            f"tensor {name!r}: got {bad} numbers that are not finite among {tensor.numel()}, expected none: the training "
            "diverged, or the file was changed; take a policy from before that"
        )


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
