"""Ray nodes on this machine, each started by `ray start` in processes of its own, and killed like a machine that fails."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
START_S = 300.0
"""Far more than a node takes to start on an idle machine."""


class Nodes:
    """A cluster of this machine's: a head node, and others.

    Args:
        logs: Where the nodes' own words go.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.port, self.client_port = _free_port(), _free_port()
        # A token of its own; and what a process of the run imports is what travels to it.
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_raylet_start_wait_time_s": str(int(START_S)),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """For `--address`."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """For `--address` from outside of the cluster."""
        return f"ray://127.0.0.1:{self.client_port}"

    def start_head(self, num_cpus: int) -> subprocess.Popen[bytes]:
        """The first node."""
        return self._start(
            num_cpus,
            "127.0.0.1",
            "--head",
            f"--port={self.port}",
            f"--ray-client-server-port={self.client_port}",
            "--include-dashboard=false",
        )

    def wait_until_up(self) -> None:
        """Until the head node answers, and knows itself to be there."""
        log = self._logs / "node0.log"
        wait_until(lambda: b"block forever" in log.read_bytes(), START_S, "the head node is up")

    def start(self, num_cpus: int) -> subprocess.Popen[bytes]:
        """Another one, at an address of its own in this machine."""
        return self._start(num_cpus, f"127.0.0.{1 + len(self._processes)}", f"--address={self.address}")

    def _start(self, num_cpus: int, ip: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            str(RAY),
            "start",
            "--block",
            f"--num-cpus={num_cpus}",
            "--num-gpus=0",
            f"--node-ip-address={ip}",
            f"--object-store-memory={100 * 2**20}",
            # Agents that look for a port of their own have 15 s to tell it to Ray, which is too little on a busy machine.
            *(f"--{agent}-port={_free_port()}" for agent in AGENTS),
            "--disable-usage-stats",
            *arguments,
        ]
        with (self._logs / f"node{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes.append(process)
        return process

    @staticmethod
    def kill(node: subprocess.Popen[bytes]) -> None:
        """End all of a node's processes at once, without a word of farewell."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """End what still runs; the head last."""
        for node in reversed(self._processes):
            if node.poll() is None:
                self.kill(node)


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Come back when it is so.

    Raises:
        TimeoutError: If it is not so by then.
    """
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
