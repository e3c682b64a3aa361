"""The page in a real browser. Skipped where there is none: `apt-get install chromium` brings one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_rl.replay import Recording
from tests.replay.duels import NASTIER, NASTY, NUM_LATENTS
from tests.replay.viewer import CHROMIUM, Viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path, nor in $CHROMIUM")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def viewer(browser: Any, file: Path) -> Iterator[Viewer]:
    viewer = Viewer(browser, file)
    yield viewer
    assert viewer.errors == []
    # Nothing but the file itself and what stands in it, and no name that came with the recording was run.
    assert [url for url in viewer.requests if not url.startswith("data:")] == [file.as_uri()]
    assert viewer.page.evaluate("() => window.hurt") is None
    viewer.page.close()


def test_page__plays_to_the_end_and_stops(viewer: Viewer) -> None:
    assert viewer.step() == 0
    assert viewer.page.inner_text("#result") == ""
    for _ in range(8):
        viewer.press("+")
    assert viewer.page.inner_text("#speed") == "40 steps/s"
    viewer.press(" ")
    viewer.page.wait_for_function("() => document.getElementById('chart').getAttribute('aria-valuenow') === '4'")
    viewer.page.wait_for_selector("#play[aria-label^=Play]")
    assert viewer.page.inner_text("#result") == "won"


def test_page__pauses(viewer: Viewer) -> None:
    for _ in range(4):
        viewer.press("-")
    assert viewer.page.inner_text("#speed") == "1 steps/s"
    viewer.press(" ")
    assert viewer.page.get_attribute("#play", "aria-label").startswith("Pause")
    viewer.page.click("#play")
    viewer.settle()
    assert viewer.page.get_attribute("#play", "aria-label").startswith("Play")
    assert viewer.step() < 4
    at = viewer.pixels()
    viewer.page.wait_for_timeout(300)
    assert viewer.pixels() == at


def test_page__steps_and_scrubs(viewer: Viewer) -> None:
    viewer.press("ArrowRight")
    viewer.press("ArrowRight")
    viewer.press("ArrowLeft")
    assert viewer.step() == 1
    viewer.press("End")
    assert viewer.step() == 4
    viewer.press("Home")
    assert viewer.step() == 0
    chart = viewer.page.query_selector("#chart").bounding_box()
    viewer.page.mouse.move(chart["x"] + 60, chart["y"] + 40)
    viewer.page.mouse.down()
    viewer.page.mouse.move(chart["x"] + chart["width"] - 60, chart["y"] + 40, steps=4)
    viewer.settle()
    assert viewer.step() == 4
    viewer.page.mouse.move(chart["x"] + chart["width"] / 2, chart["y"] + 40)
    viewer.page.mouse.up()
    viewer.settle()
    assert viewer.step() == 2


def test_page__shows_the_policys_probabilities_and_marks_the_choice(viewer: Viewer, recording: Recording) -> None:
    episode, schema = recording.episodes[0], recording.schema
    viewer.press("ArrowDown")
    assert viewer.page.inner_text("#unit-name") == "knight 1"
    assert viewer.page.inner_text("#unit-kind") == "archer"
    legal = np.flatnonzero(episode.legal[0, 1]).tolist()
    assert NASTIER not in viewer.bars("options"), "which is illegal for this one"
    expected = {schema.option_name(option): float(episode.probabilities[0, 1, option]) for option in legal}
    assert viewer.bars("options") == pytest.approx(expected, abs=0.006)
    chosen = viewer.page.query_selector_all("#options li.chosen .name")
    assert [each.inner_text() for each in chosen] == [schema.option_name(int(episode.options[0, 1]))]
    viewer.press("ArrowUp")
    assert NASTIER in viewer.bars("options")


def test_page__shows_what_the_selected_unit_attends_to(viewer: Viewer, recording: Recording) -> None:
    episode = recording.episodes[0]
    composed = episode.actors_to_tokens()[0, 0]
    names = [f"knight {i}" for i in range(3)] + [f"{NASTY} {i}" for i in range(4)] + ["globals"]
    expected = {name: float(share) for name, share in zip(names, composed, strict=True) if share >= 0.001}
    shown = viewer.bars("attention")
    assert shown == pytest.approx({name: expected[name] for name in shown}, abs=0.006)
    assert len(shown) == min(6, len(expected))
    assert f"{NASTY} 0" not in shown, "which this knight does not see"
    with_attention = viewer.pixels()
    viewer.press("a")
    assert viewer.pixels() != with_attention
    viewer.press("a")
    assert viewer.pixels() == with_attention


def test_page__shows_what_a_latent_reads(viewer: Viewer, recording: Recording) -> None:
    latents = recording.episodes[0].latents_to_tokens
    assert latents is not None
    assert len(viewer.page.query_selector_all("#latents button")) == NUM_LATENTS
    before = viewer.pixels()
    viewer.page.click("#latents button:nth-child(3)")
    viewer.settle()
    assert viewer.page.inner_text("#attention-of") == "latent 2 → entities"
    assert max(viewer.bars("attention").values()) == pytest.approx(float(latents[0, 0, 2].max()), abs=0.006)
    assert viewer.pixels() != before
    viewer.press("Escape")
    assert viewer.page.inner_text("#attention-of") == "unit → latents → entities"


def test_page__selects_by_mouse_and_lets_go(viewer: Viewer) -> None:
    spot = viewer.page.evaluate(
        "() => { const canvas = document.getElementById('field'), box = canvas.getBoundingClientRect();"
        " return [box.x, box.y, box.width, box.height]; }"
    )
    viewer.press("Escape")
    assert viewer.page.inner_text("#unit-name") == "Nothing selected"
    x, y, width, height = spot
    for row in range(1, 24):  # somewhere there is a unit
        for column in range(1, 24):
            viewer.page.mouse.click(x + column * width / 24, y + row * height / 24)
            if viewer.page.inner_text("#unit-name") != "Nothing selected":
                return
    raise AssertionError("no click selected anything")


def test_page__fades_what_the_unit_does_not_see(viewer: Viewer) -> None:
    viewer.press("a")
    with_view = viewer.pixels()
    viewer.press("v")
    assert viewer.pixels() != with_view


def test_page__absent_units_have_no_options(viewer: Viewer) -> None:
    viewer.press("ArrowRight")
    viewer.press("ArrowRight")
    assert viewer.page.inner_text("#unit-kind") == "dead, or out of sight"
    assert viewer.bars("options") == {}
    assert viewer.bars("attention") == {}


def test_page__has_help_another_episode_and_another_theme(viewer: Viewer) -> None:
    viewer.press("?")
    assert viewer.page.is_visible("#help dl")
    viewer.press("Escape")
    assert not viewer.page.is_visible("#help dl")
    viewer.press("e")
    assert viewer.page.get_attribute("#chart", "aria-valuemax") == "5"
    viewer.press("t")
    assert viewer.page.get_attribute("html", "data-theme") == "light"


def test_page__legend_tells_kinds_sides_and_what_marks_mean(viewer: Viewer) -> None:
    assert viewer.page.inner_text("#kinds").split("\n") == ["knight lancer", "knight archer", NASTY]
    assert viewer.page.inner_text("#marks").split("\n") == ["health", "cooldown", "target", "attention"]


@pytest.mark.parametrize("width", [360, 800, 1920])
def test_page__fits_the_window(viewer: Viewer, width: int) -> None:
    viewer.page.set_viewport_size({"width": width, "height": 800})
    viewer.settle()
    assert viewer.page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_page__cannot_reach_a_network(browser: Any, file: Path) -> None:
    viewer = Viewer(browser, file)
    outcome = viewer.page.evaluate("() => fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')")
    assert outcome == "refused"
    assert any("Content Security Policy" in error for error in viewer.errors)
    viewer.page.close()


def test_page__opens_where_its_address_says(browser: Any, file: Path) -> None:
    viewer = Viewer(browser, file, "&episode=1&step=3&unit=2&latent=4")
    assert viewer.step() == 3
    assert viewer.page.inner_text("#unit-name") == "knight 2"
    assert viewer.page.inner_text("#attention-of") == "latent 4 → entities"
    assert viewer.errors == []
    viewer.page.close()
