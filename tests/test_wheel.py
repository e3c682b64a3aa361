"""The wheel is the library alone, and works without a checkout."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.wheels import ROOT, build_wheel

PROGRAM = """
import sys
# -S left out site-packages and with it the .pth file by which an editable install puts the checkout on the path.
sys.path[:0] = sys.argv[1:]

import importlib.util
for name in ("envs", "agents", "configs"):
    assert importlib.util.find_spec(name) is None, name

import perceiver_rl.rllib
assert perceiver_rl.__file__.startswith(sys.argv[1]), perceiver_rl.__file__
perceiver_rl.rllib.register()

from ray.rllib.models.catalog import MODEL_DEFAULTS, ModelCatalog
from ray.tune.registry import ENV_CREATOR, _global_registry
from perceiver_rl.entities import EntitySchema, EntityType
assert not _global_registry.contains(ENV_CREATOR, "smax/2s3z")
schema = EntitySchema(entity_types=(EntityType("ant", ("x",), max_count=3),), actors=("ant",), verbs=("dig", "rest"))
config = {**MODEL_DEFAULTS, "custom_model": "perceiver", "custom_action_dist": "perceiver"}
model = ModelCatalog.get_model_v2(schema.observation_space, schema.action_space, 6, config, framework="torch")
print(type(model).__name__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel__holds_the_library_its_types_and_its_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    (metadata,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert {name.partition("/")[0] for name in names} == {"perceiver_rl", metadata}
    assert {name for name in names if name.startswith("perceiver_rl/")} == {
        str(file.relative_to(ROOT))
        for file in (ROOT / "perceiver_rl").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "perceiver_rl/py.typed" in names
    assert f"{metadata}/licenses/LICENSE" in names
    assert "perceiver-rl = perceiver_rl.cli:main" in zipfile.ZipFile(wheel).read(f"{metadata}/entry_points.txt").decode()


def test_wheel__registers_with_rllib_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty.mkdir()
    packages = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(unpacked), *packages]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PerceiverModelV2"]
