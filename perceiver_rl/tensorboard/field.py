"""The battlefield: one picture of whom each unit attends to, and an episode's frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from perceiver_rl.tensorboard.canvas import ATTENTION, FIELD, LINE, MUTED, SIDES, TEXT, Canvas, Number, Point, text_width
from perceiver_rl.tensorboard.cast import Cast, Role

PANELS = 6
"""Units of which one picture shows the attention, at most."""
PANEL = (280, 208)
VIDEO = (480, 360)
VIDEO_FRAMES = 60
"""Of a longer episode TensorBoard gets that many frames at most, evenly."""
FRAME_MS = 120
LAST_FRAME_MS = 1500

_HEAD = 30
"""Height of the line of words above a field."""
_LEGEND = 28
_REACH = 6
"""Frames that the video's view looks ahead and back, so that it moves slowly."""
_SHARES: tuple[int, int, int] = (120, 80, 0)
"""Colour of figures: attention's, dark enough to read."""


@dataclass(frozen=True)
class View:
    """Which part of the world is shown, and where on a canvas."""

    corner: Point
    """Upper left, in pixels."""
    scale: float
    """Pixels for one unit of length."""
    west: float
    north: float
    radius: float
    """Of an entity, in pixels."""

    def at(self, place: Float[np.ndarray, "2"]) -> tuple[float, float]:
        """The pixel of a place."""
        x, y = place.tolist()
        return self.corner[0] + self.scale * (x - self.west), self.corner[1] + self.scale * (self.north - y)


def view_of(places: Float[np.ndarray, "frames entities 2"], corner: Point, size: Point) -> View:
    """The part of the world that holds all places, in the middle of a rectangle of pixels."""
    all_places = places.reshape(-1, 2)
    all_places = all_places[~np.isnan(all_places[:, 0])]
    if not len(all_places):
        all_places = np.zeros((1, 2))
    low, high = all_places.min(axis=0), all_places.max(axis=0)
    return _view(low, high, _spacing(places), corner, size)


def _view(low: Float[np.ndarray, "2"], high: Float[np.ndarray, "2"], spacing: float, corner: Point, size: Point) -> View:
    pad = 30
    wide, tall = np.maximum(high - low, [1e-3, 1e-3]).tolist()
    scale = min((size[0] - 2 * pad) / wide, (size[1] - 2 * pad) / tall)
    middle_x, middle_y = ((low + high) / 2).tolist()
    radius = min(12.0, max(3.0, 0.27 * spacing * scale))
    return View(corner, scale, middle_x - size[0] / scale / 2, middle_y + size[1] / scale / 2, radius)


def _spacing(places: Float[np.ndarray, "frames entities 2"]) -> float:
    """A distance to the nearest neighbour that three in four keep; 1 if there are no two."""
    apart = []
    for frame in places[:: max(1, len(places) // 8)]:
        here = frame[~np.isnan(frame[:, 0])]
        if len(here) > 1:
            distances = np.hypot(*(here[:, None] - here[None]).transpose(2, 0, 1))
            np.fill_diagonal(distances, np.inf)
            apart += distances.min(axis=1).tolist()
    return float(np.quantile(apart, 0.25)) if apart else 1.0


def attention_field(cast: Cast, step: int) -> Image.Image:
    """Whom each unit attends to, drawn over the battlefield: a panel for each unit that acts, the first `PANELS` of them.

    A unit's attention to another is `Episode.actors_to_tokens`: the product of what it asks the latents and what they read.
    """
    episode = cast.episode
    attention = episode.actors_to_tokens()[step]
    acting = cast.acting(step)
    shown = acting[:PANELS]
    columns = max(1, min(len(shown), 2 if len(shown) == 4 else 3))
    rows = math.ceil(len(shown) / columns)
    gap, (wide, high) = 8, PANEL
    canvas = Canvas(columns * (wide + gap) + gap, rows * (high + _HEAD + gap) + _LEGEND)
    for place, number in enumerate(shown):
        left = gap + (place % columns) * (wide + gap)
        top = (place // columns) * (high + _HEAD + gap)
        canvas.text((left + 2, top + _HEAD / 2 + 2), cast.actors[number].name, 16)
        option = cast.schema.option_name(int(episode.options[step, number]))
        canvas.text((left + wide - 2, top + _HEAD / 2 + 2), option, 15, MUTED, anchor="rm")
        canvas.rectangle((left, top + _HEAD), PANEL, FIELD, rounded=8)
        view = view_of(cast.places[step : step + 1], (left, top + _HEAD), PANEL)
        _draw_attention(canvas, view, cast, step, cast.actors[number], attention[number])
    more = f"first {len(shown)} of {len(acting)} units, " if len(acting) > len(shown) else ""
    _draw_legend(canvas, cast, [step], f"{more}step {step} of {episode.length}")
    return canvas.picture()


def _draw_attention(
    canvas: Canvas, view: View, cast: Cast, step: int, actor: Role, attention: Float[np.ndarray, " tokens"]
) -> None:
    """One unit's attention as glow, arcs and figures."""
    weights = attention[: len(cast.roles)].tolist()
    most = max(*weights, 1e-6)
    spots = {role.index: view.at(cast.places[step, role.index]) for role in cast.standing(step)}
    for index, spot in spots.items():
        _draw_glow(canvas, view, spot, weights[index] / most)
    if actor.index in spots:
        start = spots[actor.index]
        for index, spot in spots.items():
            if index != actor.index and weights[index] >= 0.01:
                share = weights[index] / most
                _draw_arc(canvas, start, spot, view.radius, 0.8 + 4 * share, 0.15 + 0.7 * share)
        canvas.ring(start, view.radius * 1.95, 1, TEXT, 1.6)
    _draw_entities(canvas, view, cast, step)
    largest = sorted((index for index in spots if weights[index] >= 0.05), key=lambda index: -weights[index])
    for index in largest[:4]:
        (x, y), away = spots[index], view.radius * 1.6 + 8
        y = y - away if y - away > view.corner[1] + 8 else y + away
        canvas.text((x, y), f"{100 * weights[index]:.0f} %", 14, _SHARES, anchor="mm", halo=FIELD)


def episode_frames(
    cast: Cast, size: tuple[int, int] = VIDEO, at_most: int = VIDEO_FRAMES
) -> tuple[list[Image.Image], list[int]]:
    """An episode as pictures, and for how many milliseconds each is shown.

    Glow is the mean over acting units of their attention; lines go from whoever chose a targeted verb to its target.

    Args:
        cast: Of the episode.
        size: Width and height in pixels.
        at_most: Frames; of a longer episode they are taken evenly.
    """
    episode = cast.episode
    count = min(episode.length + 1, at_most)
    chosen = np.unique(np.linspace(0, episode.length, count).round().astype(int)).tolist()
    wide, high = size
    ground = (wide, high - _HEAD - _LEGEND)
    empty = Canvas(wide, high)
    empty.rectangle((0, _HEAD), ground, FIELD)
    _draw_legend(empty, cast, chosen, "")
    views = following_views(cast, (0, _HEAD), ground)
    attention = episode.actors_to_tokens()
    returns = np.concatenate([[0.0], np.cumsum(episode.reward, dtype=np.float64)])
    pictures = []
    for frame in chosen:
        canvas = empty.copy()
        words = f"return {returns[frame]:.2f}"
        if frame < episode.length:
            words = f"value {episode.value[frame]:.2f}   {words}"
            _draw_step(canvas, views[frame], cast, frame, attention[frame])
        elif episode.won is not None:
            words = f"{'won' if episode.won else 'not won'}   {words}"
        _draw_entities(canvas, views[frame], cast, frame)
        canvas.text((8, _HEAD / 2), f"step {frame} of {episode.length}", 15)
        canvas.text((wide - 8, _HEAD / 2), words, 15, MUTED, anchor="rm")
        pictures.append(canvas.picture())
    return pictures, [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]


def following_views(cast: Cast, corner: Point, size: Point) -> list[View]:
    """For each frame a view that follows whoever stands there, slowly enough to watch."""
    places, count = cast.places, len(cast.places)
    lows, highs = np.zeros((count, 2)), np.zeros((count, 2))
    for frame in range(count):
        near = places[max(0, frame - _REACH) : frame + _REACH + 1].reshape(-1, 2)
        near = near[~np.isnan(near[:, 0])]
        if len(near):
            lows[frame], highs[frame] = near.min(axis=0), near.max(axis=0)
        elif frame:
            lows[frame], highs[frame] = lows[frame - 1], highs[frame - 1]
    spacing = _spacing(places)
    views = []
    for frame in range(count):  # the mean reaches no further than each box does, so nothing that is there is left out
        around = slice(max(0, frame - _REACH), frame + _REACH + 1)
        views.append(_view(lows[around].mean(axis=0), highs[around].mean(axis=0), spacing, corner, size))
    return views


def _draw_step(canvas: Canvas, view: View, cast: Cast, step: int, attention: Float[np.ndarray, "actors tokens"]) -> None:
    """What lies under the entities of a frame: glow of attention, lines to targets."""
    spots = {role.index: view.at(cast.places[step, role.index]) for role in cast.standing(step)}
    acting = cast.acting(step)
    weights = attention[acting].mean(axis=0).tolist() if acting else [0.0] * attention.shape[1]
    most = max(*weights[: len(cast.roles)], 1e-6)
    for index, spot in spots.items():
        _draw_glow(canvas, view, spot, weights[index] / most)
    for number in acting:
        actor, target = cast.actors[number], cast.target(int(cast.episode.options[step, number]))
        if target is not None and target.index in spots and actor.index in spots:
            canvas.line([spots[actor.index], spots[target.index]], SIDES[actor.look.side], 2, 0.8)


def _draw_entities(canvas: Canvas, view: View, cast: Cast, frame: int) -> None:
    """Colour is the side, shape the kind, the ring around it health."""
    width = max(1.4, view.radius * 0.2)
    for role in cast.standing(frame):
        spot, colour = view.at(cast.places[frame, role.index]), SIDES[role.look.side]
        canvas.shape(int(cast.kinds[frame, role.index]), spot, view.radius, colour)
        health = float(cast.health[frame, role.index])
        if not math.isnan(health):
            canvas.ring(spot, view.radius * 1.55, 1, LINE, width)
            canvas.ring(spot, view.radius * 1.55, health, colour, width)
        if view.radius >= 7 and role.entity_type.max_count > 1:
            canvas.text(spot, str(role.slot), 1.1 * view.radius, (255, 255, 255), anchor="mm")


def _draw_glow(canvas: Canvas, view: View, spot: Point, share: Number) -> None:
    """A soft disc, the larger and stronger the more attention."""
    if share < 0.05:
        return
    reach = view.radius * (1.7 + 1.3 * math.sqrt(share))
    for part in (1.0, 0.85, 0.7):
        canvas.disc(spot, reach * part, ATTENTION, 0.14 * share)


def _draw_arc(canvas: Canvas, start: Point, stop: Point, radius: Number, width: Number, alpha: Number) -> None:
    """A bent line, so that those there and back stay apart."""
    (x0, y0), (x1, y1) = start, stop
    bend = 0.16
    middle = ((x0 + x1) / 2 - bend * (y1 - y0), (y0 + y1) / 2 + bend * (x1 - x0))
    times = np.linspace(0, 1, 16)[:, None]
    curve = (1 - times) ** 2 * np.array(start) + 2 * times * (1 - times) * np.array(middle) + times**2 * np.array(stop)
    outside = [(x, y) for x, y in curve.tolist() if math.dist((x, y), stop) >= radius * 0.9]
    if len(outside) > 1:
        canvas.line(outside, ATTENTION, width, alpha)


def _draw_legend(canvas: Canvas, cast: Cast, frames: Sequence[int], words: str) -> None:
    """Kinds and sides of whoever is there, on the canvas's lowest line, and words at its right end."""
    roles = [(frame, role) for frame in frames for role in cast.standing(frame)]
    seen = dict.fromkeys(
        (role.entity_type.name, role.look.side, int(cast.kinds[frame, role.index])) for frame, role in roles
    )
    x, y, size = 12.0, canvas.height - _LEGEND / 2, 14
    for type_name, side, kind in seen:
        kind_name = cast.kind_names[kind]
        label = type_name if kind_name == type_name else f"{type_name} {kind_name.removeprefix('is_')}"
        if x + 20 + text_width(label, size) > canvas.width - text_width(words, size) - 20:
            break
        canvas.shape(kind, (x, y), 6, SIDES[side])
        canvas.text((x + 13, y), label, size, MUTED)
        x += 30 + text_width(label, size)
    canvas.text((canvas.width - 10, y), words, size, MUTED, anchor="rm")
