"""TensorBoard in a real browser: on what a run writes, and, slowly, on a run that was trained.

Skipped where there is no browser: `apt-get install chromium` brings one.
"""

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
from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.tensorboard import draw_pictures
from perceiver_rl.tensorboard.painter import FOLDER
from tests.replay.duels import DUEL, NASTIER, record_duels
from tests.replay.viewer import ARGUMENTS, CHROMIUM
from tests.rllib.test_event_file import record as record_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path, nor in $CHROMIUM"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CONFIG = "tests/tensorboard/duel_config.py"
NUMBERS = {
    "outcome/return": 1.5,
    "outcome/win_rate": 0.5,
    "outcome/episode_length": 4.5,
    "policy/entropy_per_actor": 0.7,
    "value/explained_variance": 0.1,
    "optimizer/learning_rate": 1e-3,
    "actions/stop": 0.25,
    f"actions/{NASTIER}": 0.25,
    "actions/attack": 0.5,
}
COMMANDS = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module", params=["written", "trained"])
def logdir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one short run."""
    logdir = tmp_path_factory.mktemp("runs")
    if request.param == "trained":
        train_run(logdir / "duel")
    else:
        write_run(logdir / "duel")
    return logdir


def write_run(folder: Path) -> None:
    """What the code that logs a run writes of one iteration, and of one checkpoint."""
    record_run(folder, CONFIG, {"default_policy": DUEL}, NUMBERS)
    with SummaryWriter(str(folder / FOLDER)) as writer:
        draw_pictures(record_duels()).write(writer, 64)


def train_run(folder: Path) -> None:
    train = [str(COMMANDS / "perceiver-rl"), "train", CONFIG, "--steps", "2000", "--checkpoint-every", "1000"]
    done = subprocess.run(
        [*train, "--out", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Pictures:   of 2 checkpoints" in done.stderr


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
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/data/runs", timeout=5) as answer:
                if b"pictures" in answer.read():
                    return
        except OSError:  # it does not answer yet
            pass
        assert time.monotonic() < deadline, "TensorBoard did not find the run"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)  # on cores that other work keeps busy a page takes half a minute
    yield page
    page.close()


def keep(page: Any, name: str) -> None:
    """A screenshot for whoever wants to look, where $SCREENSHOTS names a folder."""
    if os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(os.environ["SCREENSHOTS"]) / f"{name}.png"))


def test_dashboard__shows_scalars_in_readable_groups(page: Any, address: str) -> None:
    page.goto(f"{address}/#timeseries")
    for group in ("actions", "outcome", "policy", "value", "optimizer", "time"):
        title = page.locator("metrics-card-group-toolbar").get_by_text(group, exact=True)
        title.scroll_into_view_if_needed()
        assert title.is_visible()
    keep(page, "timeseries")


def test_dashboard__shows_pictures_and_plays_the_episode(page: Any, address: str) -> None:
    with page.expect_response(lambda answer: answer.headers.get("content-type") == "image/gif") as video:
        page.goto(f"{address}/#images")
        page.wait_for_selector("tf-image-loader img")
        keep(page, "images")
        page.fill("tf-tag-filterer input", "episode/video")  # shown, and so loaded, if it was out of sight
    assert video.value.body().startswith(b"GIF89a")


def test_dashboard__shows_hyper_parameters_beside_final_metrics(page: Any, address: str) -> None:
    page.goto(f"{address}/#hparams")
    page.wait_for_selector("text=learning_rate")
    page.wait_for_selector("text=outcome/return")
    keep(page, "hparams")


def test_dashboard__shows_config_and_schema_as_text(page: Any, address: str) -> None:
    page.goto(f"{address}/#text")
    page.wait_for_selector("text=aimed at")
    keep(page, "text")
