"""Bundles that were changed, damaged or made to harm: each fails with a message, and nothing of it is run."""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_rl.bundle import load_policy
from tests.bundle.conftest import change_json, change_tensors, forge, sign

Record = dict[str, Any]


@pytest.fixture(autouse=True)
def _little_is_allocated() -> Iterator[None]:
    """Whatever is declared: no failure takes a gigabyte or ten seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "kilobytes"
    assert time.process_time() - begun < 10


def refuse(bundle: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_policy(bundle)
    assert str(error.value).startswith(f"bundle {bundle}: ")
    assert len(str(error.value)) < 1000


# -- what is there -----------------------------------------------------------------------------------------------


def test_missing__is_named(bundle: Path) -> None:
    refuse(bundle / "nowhere", "does not exist, expected a folder that `perceiver-rl export` wrote")
    refuse(bundle / "policy.json", "got a file, expected a folder")
    (bundle / "policy.safetensors").unlink()
    refuse(bundle, "policy.safetensors is missing.*get a whole copy")
    (bundle / "policy.json").unlink()
    refuse(bundle, "policy.json is missing")


def test_fifo__is_no_file_to_wait_for(bundle: Path) -> None:
    (bundle / "policy.json").unlink()
    os.mkfifo(bundle / "policy.json")
    refuse(bundle, "policy.json is missing")


def test_other_files__are_refused(bundle: Path) -> None:
    (bundle / "envs").mkdir()
    refuse(bundle, "got 'envs' in it, expected policy.json, policy.onnx, policy.safetensors alone")


@pytest.mark.parametrize("below", [".", "deeper"])
def test_modules_in_a_bundle__are_not_imported_by_commands_given_there(bundle: Path, below: str, tmp_path: Path) -> None:
    here, mark = bundle / below, tmp_path / "mark"
    here.mkdir(exist_ok=True)
    for module in ("torch", "envs"):
        (here / f"{module}.py").write_text(f"open({str(mark)!r}, 'w')")
    script = Path(sys.executable).with_name("perceiver-rl")
    evaluated = subprocess.run([script, "evaluate", bundle], cwd=here, capture_output=True, text=True, timeout=120)
    assert evaluated.returncode == 2
    assert "in it, expected policy.json" in evaluated.stderr
    assert not mark.exists()


# -- policy.json -------------------------------------------------------------------------------------------------


def _set(*keys: str | int, value: Any) -> Callable[[Record], None]:
    """Set a value somewhere inside."""

    def change(record: Record) -> None:
        inner: Any = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def _remove(*keys: str) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        for key in keys[:-1]:
            record = record[key]
        del record[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", value=2), "got format 2, expected 1; it was written by another version of perceiver-rl: use that"),
        (_set("format", value=True), "got format True, expected 1"),
        (_remove("format"), "got no format number, expected the policy.json of a bundle"),
        (_remove("schema"), "policy: got no 'schema', expected format, schema"),
        (_remove("schema", "actors"), r"policy.schema: got no 'actors'"),
        (_remove("config", "token_dim"), "config: got no 'token_dim', expected every setting"),
        (_remove("config", "perceiver", "num_latents"), r"config: got no 'perceiver\.num_latents'"),
        (_set("config", "tokendim", value=3), r"unknown key 'tokendim' \(did you mean 'token_dim'\?\)"),
        (_set("config", "token_dim", value="32"), r"config.token_dim: got '32' \(str\), expected int"),
        (_set("config", "perceiver", value=[]), "expected a mapping for PerceiverIOConfig"),
        (
            _set("schema", "entity_types", 0, "max_count", value=True),
            r"entity_types\[0\].max_count: got True, expected an int",
        ),
        (_set("schema", "verbs", value="stop"), "policy.schema.verbs: got 'stop', expected a list"),
        (_set("schema", "verbs", value=[""]), r"verbs\[0\]: got an empty string"),
        (_set("schema", "actors", value=["ghost"]), "got unknown entity type 'ghost'"),
        (_set("schema", "control", value="telepathy"), "control: got 'telepathy', expected one of centralized"),
        (_set("provenance", "seed", value="three"), "provenance.seed: got 'three', expected an integer"),
        (_set("provenance", "env", value="\x1b[2Jsmax"), r"got the string '\\x1b\[2Jsmax', expected up to 1,000 printable"),
        (_set("weights_sha256", value="../../x"), "weights_sha256: expected 64 hexadecimal digits"),
    ],
)
def test_json__is_strict(bundle: Path, change: Callable[[Record], None], message: str) -> None:
    change_json(bundle, change)
    refuse(bundle, f"policy.json: .*{message}")


@pytest.mark.parametrize(
    "keys", [("weights",), ("schema", "file"), ("provenance", "checkpoint"), ("config", "weights_file")]
)
def test_json__cannot_name_a_file(bundle: Path, keys: tuple[str, ...], tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_text("another policy")
    change_json(bundle, _set(*keys, value="../secret.safetensors"))
    refuse(bundle, f"unknown key '{keys[-1]}'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read .* it is truncated or damaged"),
        (b"\x80\x04N.", "cannot be read .* it is truncated or damaged"),
        (b"[1]", "got no format number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"format": NaN}', "got NaN, expected finite numbers"),
        (b'{"format": 1e999}', "got 1e999, expected finite numbers"),
        (b'{"format": ' + b"9" * 100_000 + b"}", "expected integers up to 2"),
        (b'{"format": 1, "format": 2}', "got key 'format' twice"),
        (b'{"format": [' + b"1," * 5_000 + b"1]}", "got a list of 5,001, expected at most 4,096 items"),
        (b'{"format": "' + b"x" * 5_000_000 + b'"}', "got 5,000,014 bytes, expected at most 4,194,304"),
    ],
)
def test_json__of_any_content_fails_cleanly(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "policy.json").write_bytes(content)
    refuse(bundle, f"policy.json: .*{message}")


def test_json__truncated_anywhere_fails_cleanly(bundle: Path) -> None:
    whole = (bundle / "policy.json").read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        (bundle / "policy.json").write_bytes(whole[:length])
        refuse(bundle, r"policy\.json: cannot be read")


# -- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("config", "token_dim", value=10**9), "config.token_dim: got 1,000,000,000, expected at most 65,536"),
        (_set("config", "token_dim", value=65_536), r"tensor '.*' is float32 \[.*\], expected float32 \[.*65536"),
        (_set("config", "perceiver", "latent_dim", value=65_536), r"tensor '.*' is float32 \[.*\], expected .*65536"),
        (_set("config", "perceiver", "self_widening_factor", value=65_536), r"expected float32 \[2097152"),
        (
            _set("config", "perceiver", "num_self_attends_per_block", value=10**9),
            "num_self_attends_per_block: got 1,000,000,0",
        ),
        (_set("config", "perceiver", "num_self_attends_per_block", value=60_000), "layers that one pass goes through: got"),
        (_set("config", "perceiver", "num_blocks", value=60_000), "layers that one pass goes through: got 120,000"),
        (_set("config", "perceiver", "num_latents", value=60_000), "attention weights of one pass: got"),
        (_set("config", "perceiver", "num_self_attends_per_block", value=500), r"tensor 'encoder\.blocks.*' is missing"),
        (_set("schema", "entity_types", 3, "max_count", value=10**9), r"slots of all entity types .*got 1,000,000,012"),
        (_set("schema", "entity_types", 0, "max_count", value=60_000), "actors times options: got"),
        (_set("schema", "entity_types", 0, "max_count", value=0), "got max_count=0, expected at least 1"),
    ],
)
def test_declared_sizes__are_compared_before_memory_is_taken(
    bundle: Path, change: Callable[[Record], None], message: str
) -> None:
    forge(bundle, change)
    refuse(bundle, message)


# -- a changed meaning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_set("schema", "entity_types", 0, "features", 0, "high", value=90.0), "schema"),
        (_set("schema", "verbs", value=["north", "stop"]), "schema"),
        (_set("schema", "entity_types", 0, "max_count", value=4), "schema"),
        (_set("config", "perceiver", "num_cross_attend_heads", value=2), "config"),
        (_set("config", "perceiver", "use_decoder_query_residual", value=False), "config"),
    ],
)
def test_changed_schema_or_config__is_noticed_though_every_shape_fits(
    bundle: Path, change: Callable[[Record], None], part: str
) -> None:
    change_json(bundle, change)
    refuse(bundle, f"the {part} in policy.json is not the one that policy.safetensors was saved for: .*; export the policy")


def test_weights_of_another_bundle__are_noticed(bundle: Path) -> None:
    signed = json.loads((bundle / "policy.json").read_text())["weights_sha256"]
    change_tensors(bundle, lambda tensors: tensors["heads.verb_head.bias"].add_(1.0))
    change_json(bundle, _set("weights_sha256", value=signed))
    refuse(
        bundle, r"policy.safetensors is not the file that policy.json was written with: got SHA-256 .*; export the policy"
    )


# -- tensors -----------------------------------------------------------------------------------------------------


def _narrow(tensors: dict[str, Tensor]) -> None:
    tensors["embedding.output.weight"] = tensors["embedding.output.weight"][:, :-1].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("embedding.output.bias"), "tensor 'embedding.output.bias' is missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(3)), "got tensor 'extra', which the policy does not have"),
        (_narrow, r"tensor 'embedding.output.weight' is float32 \[32, 31\], expected float32 \[32, 32\]"),
        (
            lambda tensors: tensors.update({"embedding.output.bias": tensors["embedding.output.bias"].half()}),
            r"tensor 'embedding.output.bias' is float16 \[32\], expected float32 \[32\]",
        ),
        (
            lambda tensors: tensors.update({"embedding.output.bias": torch.zeros(32, dtype=torch.int32)}),
            r"tensor 'embedding.output.bias' is I32 \[32\], expected float32 \[32\]",
        ),
        (
            lambda tensors: tensors["embedding.output.bias"].__setitem__(slice(2), torch.nan),
            "tensor 'embedding.output.bias': got 2 numbers that are not finite among 32, expected none",
        ),
        (
            lambda tensors: tensors["embedding.output.bias"].__setitem__(0, -torch.inf),
            "tensor 'embedding.output.bias': got 1 numbers that are not finite",
        ),
    ],
    ids=["missing", "extra", "shape", "half", "integer", "nan", "inf"],
)
def test_tensors__are_all_that_the_policy_needs_and_nothing_else(
    bundle: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    change_tensors(bundle, change)
    refuse(bundle, message)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch.save"])
def test_pickle_in_place_of_weights__is_not_loaded(bundle: Path, tmp_path: Path, writer: str) -> None:
    exploded, file = tmp_path / "exploded", bundle / "policy.safetensors"
    if writer == "pickle":
        file.write_bytes(pickle.dumps(Bomb(exploded)))
    else:
        torch.save({"weights": Bomb(exploded)}, file)
    sign(bundle)
    refuse(bundle, "policy.safetensors is no whole safetensors file .* such as a pickle, which is never loaded")
    assert not exploded.exists()
    pickle.loads(pickle.dumps(Bomb(exploded)))
    assert exploded.exists(), "the bomb works"


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights__fail_cleanly(bundle: Path, keep: int) -> None:
    file = bundle / "policy.safetensors"
    os.truncate(file, keep % file.stat().st_size)
    sign(bundle)
    refuse(bundle, "policy.safetensors is no whole safetensors file .* it is truncated, damaged")


def _safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


@pytest.mark.parametrize(
    "content",
    [
        _safetensors(b"{}", length=2**63),
        _safetensors(b"{}", length=2**40),
        _safetensors(json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()),
        _safetensors(json.dumps({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}}).encode()),
        _safetensors(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode(), b"1234"),
        _safetensors(b"[" * 10_000),
    ],
    ids=["header of 2^63", "header of 2^40", "tensor of terabytes", "overflow", "shape beyond data", "no object"],
)
def test_hostile_header__fails_cleanly(bundle: Path, content: bytes) -> None:
    (bundle / "policy.safetensors").write_bytes(content)
    sign(bundle)
    refuse(bundle, "policy.safetensors is no whole safetensors file")


def test_weights_of_no_bundle__are_told(bundle: Path) -> None:
    (bundle / "policy.safetensors").write_bytes(_safetensors(b"{}"))
    sign(bundle)
    refuse(bundle, "does not say which schema it was saved for, so it was not written as part of a bundle")
