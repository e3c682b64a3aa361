"""The cluster files in the examples are what Ray's own launchers take; no cloud is asked."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


@pytest.mark.parametrize(("name", "workers"), [("machines.yaml", 2), ("aws.yaml", 8)])
def test_ray_up_files__are_taken_by_the_launcher(name: str, workers: int) -> None:
    config = prepare_config(_load(name))
    validate_config(config)
    most = sum(kind["max_workers"] for kind in config["available_node_types"].values())
    assert min(most, config["max_workers"]) == workers
    assert config["head_node_type"] in config["available_node_types"]


def test_ray_up_files__start_every_node_with_the_token() -> None:
    machines, aws = _load("machines.yaml"), _load("aws.yaml")
    for node in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in machines[f"{node}_start_ray_commands"][-1]
    assert aws["docker"]["run_options"] == ["--env", "RAY_AUTH_MODE=token"]
    assert {"~/.ray/auth_token"} == set(machines["file_mounts"]) == set(aws["file_mounts"])


@pytest.mark.parametrize("name", ["machines.yaml", "aws.yaml"])
def test_ray_up_files__have_no_key_that_the_launcher_does_not_know(name: str) -> None:
    config = {**prepare_config(_load(name)), "idle_minutes": 5}
    with pytest.raises(jsonschema.ValidationError, match="idle_minutes"):
        validate_config(config)


def test_ray_cluster__is_taken_by_the_autoscaler() -> None:
    config = _derive_autoscaling_config_from_ray_cr(_load("raycluster.yaml"))
    head, sampler = config["available_node_types"]["headgroup"], config["available_node_types"]["sampler"]
    assert (head["resources"]["CPU"], sampler["resources"]["CPU"]) == (16, 8)
    assert (sampler["min_workers"], sampler["max_workers"]) == (0, 8)


def test_ray_cluster__has_requests_equal_to_limits_so_that_ray_counts_what_there_is() -> None:
    spec = _load("raycluster.yaml")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_cluster_files__name_the_ray_that_is_installed() -> None:
    assert _load("raycluster.yaml")["spec"]["rayVersion"] == ray.__version__
    assert f"rayproject/ray:{ray.__version__}-py311" in (FOLDER / "Dockerfile").read_text()
