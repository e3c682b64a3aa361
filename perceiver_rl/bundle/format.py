"""What a bundle's `policy.json` says: its form, its limits, and the way to dataclasses and back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from perceiver_rl.bundle.strict_json import ANYTHING, MapOf, parse_file, require_form
from perceiver_rl.configuration import from_mapping, to_mapping
from perceiver_rl.entities import Control, EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicyConfig

FORMAT = 1

POLICY_FILE = "policy.json"
WEIGHTS_FILE = "policy.safetensors"
ONNX_FILE = "policy.onnx"
FILES = frozenset((POLICY_FILE, WEIGHTS_FILE, ONNX_FILE))
"""All that a bundle may hold. Nothing in it says where else to look."""

MAX_SLOTS = 65_536
"""Of all entity types together. No weight depends on them, so the weights' sizes do not bear them out."""
MAX_CHOICES = 2**26
"""Actors times options, and actors times slots: the sizes of an observation's masks."""
MAX_SETTING = 65_536
"""Any whole number of the configuration: widths, latents, heads, …"""
MAX_WORK = 2**30
"""Weights of attention that one pass computes: pairs of what reads and what is read, times heads, times observations."""
MAX_NUMBERS = 2**28
"""Numbers and bits of all observations that one pass decides about, and numbers of one layer between."""

MAX_LAYERS = 1_024
"""Layers that one pass goes through."""


@dataclass(frozen=True)
class Provenance:
    """Where a policy comes from."""

    env: str
    """Name or import string of the environment that it was trained in."""
    env_config: dict[str, Any]
    """That environment's options."""
    config: str
    """Path or import string of the training config."""
    seed: int
    env_steps: int
    """Environment steps that it was trained for."""
    seconds: float
    """Training time."""
    commit: str | None
    """Of the checkout that trained it, if it was one."""
    versions: dict[str, str]
    """Of the packages that trained it."""
    policy: str
    """Module id of the policy."""
    agents: dict[str, str]
    """Module id of each agent of a multi-agent environment; empty for a squad."""


@dataclass(frozen=True)
class BundleRecord:
    """All of `policy.json`."""

    schema: EntitySchema
    config: EntityPolicyConfig
    provenance: Provenance
    evaluation: tuple[dict[str, Any], ...]
    """Records of `perceiver-rl evaluate --json`; empty if there were none."""
    versions: dict[str, str]
    """Of the packages that wrote the bundle."""
    weights_sha256: str
    """Of the file with the weights."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "format": FORMAT,
            "schema": self.schema.to_dict(),
            "config": to_mapping(self.config),
            "provenance": asdict(self.provenance),
            "evaluation": list(self.evaluation),
            "versions": self.versions,
            "weights_sha256": self.weights_sha256,
        }


_FEATURE = {"name": str, "low": float, "high": float}
SCHEMA_FORM = {
    "entity_types": [{"name": str, "features": [_FEATURE], "max_count": int}],
    "actors": [str],
    "verbs": [str],
    "targeted_verbs": [{"name": str, "target": str}],
    "globals": [_FEATURE],
    "control": frozenset(get_args(Control)),
    "relative": [_FEATURE],
    "privileged": [str],
}
_PROVENANCE = {
    "env": str,
    "env_config": MapOf(ANYTHING),
    "config": str,
    "seed": int,
    "env_steps": int,
    "seconds": float,
    "commit": (str, type(None)),
    "versions": MapOf(str),
    "policy": str,
    "agents": MapOf(str),
}
_FORM = {
    "format": int,
    "schema": SCHEMA_FORM,
    "config": MapOf(ANYTHING),
    "provenance": _PROVENANCE,
    "evaluation": [MapOf(ANYTHING)],
    "versions": MapOf(str),
    "weights_sha256": str,
}


def read_json(path: Path) -> tuple[BundleRecord, dict[str, Any]]:
    """What `policy.json` says, as dataclasses and as it stands there.

    Raises:
        ValueError: The message says what is wrong; the caller says with which file.
    """
    parsed = parse_file(path)
    if not isinstance(parsed, dict) or "format" not in parsed:
        raise ValueError("got no format number, expected the policy.json of a bundle")
    if type(parsed["format"]) is not int or parsed["format"] != FORMAT:
        raise ValueError(
            f"got format {str(parsed['format'])[:40]}, expected {FORMAT}; it was written by another version of "
            "perceiver-rl: use that version, or export the policy again with this one"
        )
    require_form(parsed, _FORM, "policy")
    if not re.fullmatch("[0-9a-f]{64}", parsed["weights_sha256"]):
        raise ValueError("weights_sha256: expected 64 hexadecimal digits")
    record = BundleRecord(
        schema=EntitySchema.from_dict(parsed["schema"]),
        config=_read_config(parsed["config"]),
        provenance=Provenance(**parsed["provenance"]),
        evaluation=tuple(parsed["evaluation"]),
        versions=parsed["versions"],
        weights_sha256=parsed["weights_sha256"],
    )
    require_bounded(record.schema, record.config)
    return record, parsed


def _read_config(values: Mapping[str, Any]) -> EntityPolicyConfig:
    """Every setting must be there: another version's default would be another policy."""
    # Bounds first: some checks of the configuration calculate with what they check.
    _require_bounded_settings(values, "config")
    config = from_mapping(EntityPolicyConfig, values, "config")
    missing = sorted(set(_keys(to_mapping(config))) - set(_keys(values)))
    if missing:
        raise ValueError(f"config: got no {missing[0]!r}, expected every setting of EntityPolicyConfig")
    return config


def _keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def require_bounded(schema: EntitySchema, config: EntityPolicyConfig, rows: int = 1) -> None:
    """Raise if something is declared so large that building or using the policy could exhaust a machine.

    Args:
        schema: Of the observations.
        config: Of the policy.
        rows: Observations that one pass decides about.

    Raises:
        ValueError: What is too large, and the limit.
    """
    _require_bounded_settings(to_mapping(config), "config")
    perceiver, transformer = config.perceiver, config.transformer
    slots, actors = schema.max_entities, schema.max_actors
    views = actors if schema.control == "decentralized" else 1  # of one observation; each actor reads for itself there
    queries = slots + 1 + (1 if schema.control == "decentralized" else actors)
    width = max(config.token_dim, perceiver.latent_dim)
    if config.encoder == "perceiver":
        latents, layers = perceiver.num_latents, perceiver.num_blocks * (perceiver.num_self_attends_per_block + 1)
        heads = max(perceiver.num_cross_attend_heads, perceiver.num_self_attend_heads, perceiver.num_decoder_heads)
        pairs = latents * layers * (latents + slots) + queries * latents
    else:
        layers, heads = transformer.num_layers, max(transformer.num_heads, transformer.num_decoder_heads)
        pairs = (slots * layers + queries) * slots
    for name, got, limit in (
        ("layers that one pass goes through", layers, MAX_LAYERS),
        ("slots of all entity types (max_count)", schema.max_entities, MAX_SLOTS),
        ("actors times options", actors * schema.num_options, MAX_CHOICES),
        ("actors times slots", actors * slots, MAX_CHOICES),
        ("attention weights of one pass", rows * views * pairs * heads, MAX_WORK),
        ("numbers of one layer in one pass", rows * views * (slots + queries) * width, MAX_NUMBERS),
        ("numbers that one pass is given", rows * sum(math.prod(shape) for shape, _ in schema.arrays.values()), MAX_NUMBERS),
    ):
        if got > limit:
            raise ValueError(f"{name}: got {got:,}, expected at most {limit:,} in a bundle")


def _require_bounded_settings(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _require_bounded_settings(value, f"{where}.{key}")
        elif isinstance(value, int) and value > MAX_SETTING:
            raise ValueError(f"{where}.{key}: got {value:,}, expected at most {MAX_SETTING:,} in a bundle")
