"""A replay's page in headless Chromium."""

import os
import shutil
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Viewer:
    """The open page, and what went wrong in it.

    Args:
        browser: Playwright's.
        file: The page.
        place: Where to begin, in the form of its address.
        script: Run before the page's own.
    """

    def __init__(self, browser: Any, file: Path, place: str = "", script: str = "") -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.page.add_init_script(script)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{file.as_uri()}#theme=dark{place}")
        self.page.wait_for_selector("[data-ready]")
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.settle()

    def step(self) -> int:
        return int(self.page.get_attribute("#chart", "aria-valuenow"))

    def bars(self, where: str) -> dict[str, float]:
        """Names and shares of a list of bars."""
        bars = self.page.query_selector_all(f"#{where} li:not(.note)")
        texts = [(bar.query_selector(".name").inner_text(), bar.query_selector(".share").inner_text()) for bar in bars]
        return {name: float(share.removesuffix(" %")) / 100 for name, share in texts}

    def pixels(self) -> str:
        return self.page.evaluate("() => document.getElementById('field').toDataURL()")
