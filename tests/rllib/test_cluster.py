"""Where a run's processes live, as far as that can be told without a Ray: addresses, what travels, what is asked for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private import services
from ray._private.runtime_env.packaging import get_uri_for_directory
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from typer.testing import CliRunner

from perceiver_rl.cli import app
from perceiver_rl.rllib import parcel
from perceiver_rl.rllib.cluster import bundles_needed, cluster_address, cpus_needed, lose_no_time_over_the_lost, ray_for
from perceiver_rl.rllib.parcel import EXCLUDES, runtime_env, size_of, travels_already

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where somebody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> int:
    """A port where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("asked", [None, "", "local"])
def test_address__is_none_where_no_cluster_is_asked_for(asked: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address(asked) is None


def test_address__is_what_is_asked_for_before_what_the_environment_says(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening}")
    assert cluster_address(None) == f"127.0.0.1:{listening}"
    assert cluster_address("auto") == "auto"
    for address in (f"127.0.0.1:{listening}", f"ray://127.0.0.1:{listening}"):
        assert cluster_address(address) == address
    assert cluster_address("local") is None


@pytest.mark.parametrize("asked", ["6379", "host", "host:", ":6379", "http://host:port"])
def test_address__of_no_known_form_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match=rf"--address: got '{asked}', expected 'auto', 'host:port' or 'ray://host:port'"):
        cluster_address(asked)


def test_address__where_nobody_answers_is_refused_at_once(silent: int) -> None:
    with pytest.raises(ValueError, match=rf"--address: got 'ray://127.0.0.1:{silent}', where nobody answers \(.*refused\)"):
        cluster_address(f"ray://127.0.0.1:{silent}")


def test_address__of_this_machines_cluster_is_refused_where_that_is_gone_or_never_was(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: f"127.0.0.1:{silent}")
    with pytest.raises(ValueError, match=rf"--address: got 'auto', which is 127\.0\.0\.1:{silent}, where nobody answers"):
        cluster_address("auto")
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(ValueError, match=r"got 'auto', but this machine belongs to no Ray cluster"):
        cluster_address("auto")


def test_checkout__travels_whole_but_for_what_runs_and_caches_leave() -> None:
    env = runtime_env(CHECKOUT)
    assert env["working_dir"] == str(CHECKOUT)
    assert "py_modules" not in env  # an empty list ends what a node begins
    assert 1e6 < size_of(CHECKOUT, env["excludes"]) < 50e6


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder, with what should not travel."""
    for name in (
        "game.py",
        "data/maps.bin",
        "runs/one/progress.jsonl",
        ".git/objects/a",
        ".venv/bin/python",
        "notes/secret",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0123456789")
    (tmp_path / ".rayignore").write_text("notes/\n")
    return tmp_path


def test_folder__leaves_out_what_is_excluded_or_ignored(project: Path) -> None:
    assert size_of(project, [*EXCLUDES, "/.rayignore"]) == 20
    (project / "mine" / "checkpoints").mkdir(parents=True)
    (project / "mine" / "checkpoints" / "weights").write_bytes(b"0123456789")
    assert size_of(project, [*EXCLUDES, "/.rayignore"]) == 30
    env = runtime_env(project, leave_out=project / "mine")
    assert size_of(project, [*env["excludes"], "/.rayignore"]) == 20
    assert runtime_env(project, leave_out=project.parent)["excludes"] == list(EXCLUDES)


def test_size__is_of_what_ray_packs(project: Path) -> None:
    before = get_uri_for_directory(str(project), include_gitignore=True, excludes=list(EXCLUDES))
    (project / "runs" / "one" / "more").write_text("more")
    assert get_uri_for_directory(str(project), include_gitignore=True, excludes=list(EXCLUDES)) == before
    (project / "data" / "more").write_text("more")
    assert get_uri_for_directory(str(project), include_gitignore=True, excludes=list(EXCLUDES)) != before


def test_library_elsewhere__travels_beside_the_folder(project: Path) -> None:
    modules = runtime_env(project)["py_modules"]
    assert modules == [str(CHECKOUT / name) for name in ("perceiver_rl", "envs", "agents", "configs")]


def test_too_large_a_folder__is_refused_with_what_is_large(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "data" / "video").write_bytes(bytes(2_000_000))
    monkeypatch.setattr(parcel, "MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"got more than 1 MB, data/video \(2 MB\).*Name what the nodes do not need in a"):
        runtime_env(project)


def test_submitted_job__has_travelled_already(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not travels_already()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert travels_already()


def test_bundles__are_what_each_process_asks_for() -> None:
    config = (
        IMPALAConfig()
        .env_runners(num_env_runners=2, num_cpus_per_env_runner=0.5, custom_resources_per_env_runner={"sampler": 1})
        .evaluation(evaluation_num_env_runners=1)
        .learners(num_learners=2, num_gpus_per_learner=1, num_aggregator_actors_per_learner=1)
    )
    runner = {"CPU": 0.5, "sampler": 1.0}
    assert bundles_needed(config) == [runner] * 3 + [{"GPU": 1.0}] * 2 + [{"CPU": 1.0}] * 2


@pytest.mark.parametrize(
    ("runners", "learners", "cpus_per_runner", "expected"), [(0, 0, 1, 1), (1, 0, 1, 2), (3, 2, 1, 6), (3, 0, 0.5, 3)]
)
def test_local_ray__has_a_cpu_for_each_process(runners: int, learners: int, cpus_per_runner: float, expected: int) -> None:
    config = PPOConfig().env_runners(num_env_runners=runners, num_cpus_per_env_runner=cpus_per_runner)
    assert cpus_needed(config.learners(num_learners=learners)) == expected


@pytest.mark.parametrize("joined", [False, True])
def test_silent_address__is_told_before_anything_is_packed(
    joined: bool, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: joined)  # one that runs already takes no other one's place
    with pytest.raises(ValueError, match="nobody answers"), ray_for(PPOConfig(), f"127.0.0.1:{silent}"):
        pass


def test_lost_runners__are_asked_briefly_unless_the_config_says_how_long() -> None:
    config = PPOConfig()
    lose_no_time_over_the_lost(config)
    assert config.env_runner_health_probe_timeout_s < 1
    lose_no_time_over_the_lost(config.fault_tolerance(env_runner_health_probe_timeout_s=5.0))
    assert config.env_runner_health_probe_timeout_s == 5.0


def test_train__at_an_address_where_nobody_answers_begins_no_run(silent: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "tests/courier_config.py", "--out", str(run), "--address", f"127.0.0.1:{silent}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"--address: got '127.0.0.1:{silent}', where nobody answers" in result.output
    assert not run.exists()
