"""Where a run's processes live: a local Ray of the size needed, or a cluster."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.services import get_ray_address_from_environment
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.registry import _global_registry
from ray.util.placement_group import placement_group, remove_placement_group

from perceiver_rl.rllib.parcel import runtime_env, travels_already

ANSWER_S = 10.0
"""How long a cluster may take to answer."""

ROOM_S = 600.0
"""How long a run waits for room in a cluster, where nodes may be on their way."""

SIGN_OF_LIFE_S = 0.25
"""How long an iteration waits for an env runner that was lost to say that it is back."""

_LOOK_S = 1.0


class ClusterError(RuntimeError):
    """A run cannot have the cluster that it asks for."""


def cluster_address(address: str | None) -> str | None:
    """Where the cluster is, or None for a Ray of the run's own: what is asked for, else RAY_ADDRESS.

    Args:
        address: `auto` for the cluster that this machine belongs to, `host:port` for one of which it is a node, or
            `ray://host:port` for one from outside; `local` or None for none.

    Raises:
        ValueError: If it is none of these, or nobody answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        return None
    place, asked = address, repr(address)
    if address == "auto":
        place = _of_this_machine()
        asked = f"'auto', which is {place}"
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--address: got {asked}, expected 'auto', 'host:port' or 'ray://host:port'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise ValueError(
            f"--address: got {asked}, where nobody answers ({error}); expected the address that `ray start --head` "
            "printed (port 6379 unless told otherwise), or ray:// with the port of its client server (10001)"
        ) from error
    return address


def _of_this_machine() -> str:
    """What Ray takes `auto` for: RAY_ADDRESS, a cluster that runs here, or one that was noted here by `ray start`."""
    try:
        return str(get_ray_address_from_environment("auto", None))
    except ConnectionError as error:
        raise ValueError(
            "--address: got 'auto', but this machine belongs to no Ray cluster; expected one that was begun or joined here "
            "by `ray start`"
        ) from error


QUIET = ("RAY_BACKEND_LOG_LEVEL", "fatal")
"""Ray's C++ side reports an actor's restart settings as an error, at every start."""
FEW_RECORDS = ("RAY_task_events_max_num_task_in_gcs", "1000")
"""Ray's control process keeps a record of each of the last 100,000 calls, some of every iteration: its memory would grow for
hours."""


@contextmanager
def ray_for(
    config: AlgorithmConfig,
    address: str | None = None,
    *,
    leave_out: Path | None = None,
    say: Callable[[str], None] = lambda words: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Ray for the duration of a run; without an address, one that this process has joined already is used and left running.

    Args:
        config: The run's.
        address: As of `cluster_address`, which decides. Code travels to a cluster, see `runtime_env`.
        leave_out: A folder that does not.
        say: Told what is waited for.
        stop: Whether to wait no longer.

    Raises:
        ClusterError: If the cluster does not take the run.
        ValueError: If there is none at the address, or too much would travel there.
        KeyboardInterrupt: If `stop` says so while the run waits for room.
    """
    # A trial of a search has no address and is in a Ray that runs already, whatever RAY_ADDRESS says.
    joined = address is None and ray.is_initialized()
    if joined or (address := cluster_address(address)) is None:
        with local_ray(cpus_needed(config)):
            yield
        return
    os.environ.setdefault(*QUIET)
    _connect(address, {} if travels_already() else runtime_env(Path.cwd(), leave_out))
    try:
        wait_for_room(bundles_needed(config), say, stop)
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_ray(cpus: int, *, show_logs: bool = True) -> Iterator[None]:
    """A Ray of this machine's own, or the one that runs already.

    Args:
        cpus: How many it must believe to have, see `cpus_needed`.
        show_logs: Whether what its processes print is shown here.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(*QUIET)
    os.environ.setdefault(*FEW_RECORDS)
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=show_logs)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str, env: dict[str, Any]) -> None:
    try:
        ray.init(address=address, runtime_env=env or None, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"--address {address}: got no connection to a Ray cluster: {' '.join(str(error).split())}. Expected one that "
            f"runs Ray {ray.__version__} with this Python, and, if it wants a token, the same one here "
            "(~/.ray/auth_token or RAY_AUTH_TOKEN) with RAY_AUTH_MODE=token"
        ) from error
    # What was registered before, as environments are, travels when Ray starts; through ray:// it does not by itself.
    _global_registry.flush_values()


def bundles_needed(config: AlgorithmConfig) -> list[dict[str, float]]:
    """What each actor of a run asks a node for, by Ray's names of resources; those that ask for nothing are left out."""
    runner = {
        "CPU": config.num_cpus_per_env_runner,
        "GPU": config.num_gpus_per_env_runner,
        **config.custom_resources_per_env_runner,
    }
    cpus = config.num_cpus_per_learner
    if not isinstance(cpus, (int, float)):  # "auto"
        cpus = 0 if config.num_gpus_per_learner else 1
    learner = {"CPU": cpus, "GPU": config.num_gpus_per_learner, **(config.custom_resources_per_learner or {})}
    aggregators = config.num_aggregator_actors_per_learner * max(1, config.num_learners)
    bundles = [
        *[runner] * (config.num_env_runners + config.evaluation_num_env_runners),
        *[learner] * config.num_learners,
        *[{"CPU": 1}] * aggregators,
    ]
    asked = [{name: float(amount) for name, amount in bundle.items() if amount} for bundle in bundles]
    return [bundle for bundle in asked if bundle]


def cpus_needed(config: AlgorithmConfig) -> int:
    """CPUs that Ray must believe to have, so that none of a run's actors waits for one for ever."""
    return 1 + math.ceil(sum(bundle.get("CPU", 1.0) for bundle in bundles_needed(config)))


def lose_no_time_over_the_lost(config: AlgorithmConfig) -> None:
    """Ask env runners that were lost only briefly whether they are back, unless the config says how long.

    RLlib asks in every iteration whether they are back, and waits: nobody samples meanwhile. A runner that finds no room in
    the cluster never answers, and one that is starting is asked again in the next iteration.
    """
    if config.env_runner_health_probe_timeout_s == AlgorithmConfig().env_runner_health_probe_timeout_s:
        config.fault_tolerance(env_runner_health_probe_timeout_s=SIGN_OF_LIFE_S)


def wait_for_room(
    bundles: list[dict[str, float]],
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    patience_s: float = ROOM_S,
) -> None:
    """Come back when the cluster has room for all of these at once.

    Ray would let a run begin whose actors find no room, and that run would wait without a word. What is reserved here, and
    given back at once, is demand that an autoscaler sees: a cluster that can grow does so.

    Args:
        bundles: As of `bundles_needed`.
        say: Told what is waited for, once.
        stop: Whether to wait no longer.
        patience_s: Seconds.

    Raises:
        ClusterError: If there is no room by then.
        KeyboardInterrupt: If `stop` says so.
    """
    if not bundles:
        return
    room = placement_group(bundles, strategy="PACK")
    try:
        until = time.monotonic() + patience_s
        told = False
        while not room.wait(_LOOK_S):
            if stop():
                raise KeyboardInterrupt
            if time.monotonic() >= until:
                raise ClusterError(
                    f"cluster: got no room in {patience_s:.0f} s for {_sum(bundles)} ({_free()}); start more nodes, or ask "
                    "for fewer --env-runners or learners"
                )
            if not told:
                say(f"Waiting for room in the cluster: this run takes {_sum(bundles)}; {_free()}. Ctrl-C gives up")
                told = True
    finally:
        remove_placement_group(room)


def _sum(bundles: list[dict[str, float]]) -> str:
    """All of them in words: `4 CPU in 3 processes`."""
    names = sorted({name for bundle in bundles for name in bundle})
    amounts = [f"{sum(bundle.get(name, 0.0) for bundle in bundles):g} {name}" for name in names]
    return f"{', '.join(amounts)} in {len(bundles)} process{'es' * (len(bundles) > 1)}"


def _free() -> str:
    free, every = ray.available_resources(), ray.cluster_resources()
    names = [name for name in every if name in ("CPU", "GPU")]
    told = [f"{free.get(name, 0):g} of {every[name]:g} {name}" for name in names]
    nodes = sum(node["Alive"] for node in ray.nodes())
    return f"free on {nodes} node{'s' * (nodes != 1)}: {', '.join(told) or 'nothing'}"
