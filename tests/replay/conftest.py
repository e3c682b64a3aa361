from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perceiver_rl.replay import Recording, write_page
from tests.replay.duels import record_duels
from tests.replay.viewer import ARGUMENTS, CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # an import that tests without a browser do not need

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_duels("decentralized")


@pytest.fixture(scope="module")
def file(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("replay") / "replay.html"
    size = write_page(recording, file)
    assert size == file.stat().st_size < 200_000
    return file
