"""What the page draws, stroke by stroke: the browser's drawing surface is listened to, and the page knows nothing of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_rl.replay import Recording
from tests.replay.viewer import CHROMIUM, Viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path, nor in $CHROMIUM")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

LISTENER = """
window.strokes = {};
const surface = CanvasRenderingContext2D.prototype;
const list = (context) => (window.strokes[context.canvas.id] ??= []);
for (const name of ["moveTo", "lineTo", "quadraticCurveTo", "arc"]) {
  const own = surface[name];
  surface[name] = function (...numbers) { (this.path ??= []).push([name, ...numbers]); return own.apply(this, numbers); };
}
const beginPath = surface.beginPath, clearRect = surface.clearRect, stroke = surface.stroke;
surface.beginPath = function () { this.path = []; return beginPath.apply(this); };
surface.clearRect = function (...numbers) { window.strokes[this.canvas.id] = []; return clearRect.apply(this, numbers); };
surface.stroke = function () {
  list(this).push({ path: this.path, colour: this.strokeStyle, width: this.lineWidth, dash: this.getLineDash() });
  return stroke.apply(this);
};
"""


@dataclass(frozen=True)
class Stroke:
    """A line that was drawn."""

    path: list[list[Any]]
    colour: str
    width: float
    dash: list[float]

    @property
    def operations(self) -> list[str]:
        return [operation for operation, *_ in self.path]

    @property
    def ends(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return tuple(self.path[0][-2:]), tuple(self.path[-1][-2:])

    @property
    def sweep(self) -> float:
        """Share of a circle that the last arc is."""
        *_, first, last = self.path[-1]
        return (last - first) / (2 * math.pi)


class Drawing:
    """What stands on one canvas, and the page's colours by name."""

    def __init__(self, viewer: Viewer, canvas: str) -> None:
        raw = viewer.page.evaluate("(canvas) => window.strokes[canvas]", canvas)
        self.strokes = [Stroke(**each) for each in raw]
        self._viewer = viewer

    def of(self, colour: str, *operations: str) -> list[Stroke]:
        """Strokes of one of the page's colours, made by those operations."""
        value = self._viewer.page.evaluate(
            "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", f"--{colour}"
        )
        return [each for each in self.strokes if each.colour == value and each.operations == list(operations)]

    def spots(self) -> list[tuple[float, float]]:
        """Where those who are there stand, in their order: the middle of the ring in which health is drawn."""
        return [(each.path[0][1], each.path[0][2]) for each in self.of("line", "arc") if each.sweep == pytest.approx(1)]


@pytest.fixture
def viewer(browser: Any, file: Path) -> Iterator[Viewer]:
    viewer = Viewer(browser, file, script=LISTENER)
    yield viewer
    assert viewer.errors == []
    viewer.page.close()


def test_field__draws_a_line_from_whoever_attacks_to_the_target(viewer: Viewer, recording: Recording) -> None:
    field = Drawing(viewer, "field")
    spots = field.spots()
    assert len(spots) == 6
    options = recording.episodes[0].options[0]
    expected = {(actor, 3 + option - 2) for actor, option in enumerate(options.tolist()) if option >= 2}
    assert expected
    lines = [each.ends for each in field.of("own", "moveTo", "lineTo") if math.dist(*each.ends) > 1]

    def nearest(place: tuple[float, float]) -> int:
        return min(range(6), key=lambda spot: math.dist(spots[spot], place))

    assert {(nearest(start), nearest(stop)) for start, stop in lines} == expected


def test_field__draws_health_and_cooldown_as_rings(viewer: Viewer) -> None:
    field = Drawing(viewer, "field")
    health = [each for colour in ("own", "other") for each in field.of(colour, "arc") if each.sweep < 1]
    cooldown = [each for each in field.of("muted", "arc") if each.sweep < 1]
    for rings in (health, cooldown):
        assert [(each.path[0][1], each.path[0][2]) for each in rings] == field.spots()
        assert [each.sweep for each in rings] == pytest.approx([0.5] * 6)
    assert all(outer.path[0][3] > inner.path[0][3] for outer, inner in zip(cooldown, health, strict=True))


def test_field__draws_arcs_to_what_the_selected_unit_attends_to(viewer: Viewer, recording: Recording) -> None:
    field = Drawing(viewer, "field")
    attention = recording.episodes[0].actors_to_tokens()[0, 0, :6]
    attended = [other for other in range(1, 6) if attention[other] >= 0.01]
    arcs = field.of("attention", "moveTo", "quadraticCurveTo")
    assert len(arcs) == len(attended) >= 2
    spots = field.spots()
    assert all(each.ends[0] == pytest.approx(spots[0]) for each in arcs)
    assert np.argsort([each.width for each in arcs]).tolist() == np.argsort(attention[attended]).tolist()
    viewer.press("a")
    assert Drawing(viewer, "field").of("attention", "moveTo", "quadraticCurveTo") == []


def test_field__draws_a_dashed_ring_around_the_selected_unit(viewer: Viewer) -> None:
    for unit in (0, 1):
        field = Drawing(viewer, "field")
        (ring,) = [each for each in field.of("text", "arc") if each.dash]
        assert tuple(ring.path[0][1:3]) == pytest.approx(field.spots()[unit])
        viewer.press("ArrowDown")


def test_field__draws_where_units_came_from_and_where_one_was_lost(viewer: Viewer) -> None:
    assert Drawing(viewer, "field").of("own", "moveTo", "lineTo", "moveTo", "lineTo") == []
    viewer.press("ArrowRight")
    viewer.press("ArrowRight")  # the first knight is gone
    field = Drawing(viewer, "field")
    assert len(field.of("own", "moveTo", "lineTo", "moveTo", "lineTo")) == 1
    trails = [each for each in field.of("other", "moveTo", "lineTo") if math.dist(*each.ends) > 1e-6]
    assert len(trails) == 2 * 3, "two steps of each of three foes"


def test_chart__draws_the_value_as_a_line_and_where_time_stands(viewer: Viewer, recording: Recording) -> None:
    episode = recording.episodes[0]
    chart = Drawing(viewer, "chart")
    lines = chart.of("text", *["lineTo"] * episode.length)
    assert len(lines) == 2, "what is past, and what is to come"
    for line in lines:
        (x, y) = np.array([point[1:] for point in line.path]).T
        assert np.diff(x) == pytest.approx(np.full(episode.length - 1, x[1] - x[0]))
        assert np.corrcoef(y, episode.value)[0, 1] < -0.999, "up is more"
        for step in (0, 2):
            viewer.press("Home")
            for _ in range(step):
                viewer.press("ArrowRight")
            (handle,) = Drawing(viewer, "chart").of("attention", "moveTo", "lineTo")
            assert handle.path[0][1] == pytest.approx(x[step], abs=1)
