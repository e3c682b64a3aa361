"""TensorBoard in a real browser, on a real run. Skipped where there is none: `apt-get install chromium` brings one."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replay.test_page import ARGUMENTS, CHROMIUM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path, nor in $CHROMIUM")]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

COMMANDS = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one short run."""
    logdir = tmp_path_factory.mktemp("runs")
    train = [str(COMMANDS / "perceiver-rl"), "train", "tests/tensorboard/duel_config.py", "--steps", "2000"]
    done = subprocess.run(
        [*train, "--checkpoint-every", "1000", "--out", str(logdir / "duel")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Pictures:   of 2 checkpoints" in done.stderr
    return logdir


@pytest.fixture(scope="module")
def address(logdir: Path) -> Iterator[str]:
    """TensorBoard, until the tests are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(COMMANDS / "tensorboard"), "--logdir", str(logdir), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for_runs(address)
            yield address
        finally:
            server.terminate()


def wait_for_runs(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{address}/data/runs", timeout=5) as answer:
                if b"pictures" in answer.read():
                    return
        except OSError:  # it does not answer yet
            pass
        assert time.monotonic() < deadline, "TensorBoard did not find the run"
        time.sleep(0.2)


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


def keep(page: Any, name: str) -> None:
    """A screenshot for whoever wants to look, where $SCREENSHOTS names a folder."""
    if os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(os.environ["SCREENSHOTS"]) / f"{name}.png"))


def test_dashboard__shows_scalars_in_readable_groups(page: Any, address: str) -> None:
    page.goto(f"{address}/#timeseries")
    for group in ("actions", "outcome", "policy", "value", "optimizer", "time"):
        page.wait_for_selector(f"metrics-card-group-toolbar >> text={group}", state="attached")
    keep(page, "timeseries")


def test_dashboard__shows_pictures_and_plays_the_episode(page: Any, address: str) -> None:
    with page.expect_response(lambda answer: answer.headers.get("content-type") == "image/gif") as video:
        page.goto(f"{address}/#images")
        page.wait_for_selector("tf-image-loader img", state="attached")
        keep(page, "images")
        page.fill("tf-tag-filterer input", "episode/video")  # shown, and so loaded, if it was out of sight
    assert video.value.body().startswith(b"GIF89a")


def test_dashboard__shows_hyper_parameters_beside_final_metrics(page: Any, address: str) -> None:
    page.goto(f"{address}/#hparams")
    page.wait_for_selector("text=learning_rate", state="attached")
    page.wait_for_selector("text=outcome/return", state="attached")
    keep(page, "hparams")


def test_dashboard__shows_config_and_schema_as_text(page: Any, address: str) -> None:
    page.goto(f"{address}/#text")
    page.wait_for_selector("text=aimed at", state="attached")
    keep(page, "text")
