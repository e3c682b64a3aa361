"""The battlefield: one picture of whom each unit attends to, and an episode's frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from perceiver_rl.replay.recording import Episode
from perceiver_rl.tensorboard.canvas import ATTENTION, FIELD, LINE, MUTED, SIDES, TEXT, Canvas, Point, text_width
from perceiver_rl.tensorboard.cast import Cast, Role

PANELS = 6
"""Units of which one picture shows the attention, at most."""
PANEL = (336, 252)
VIDEO = (480, 360)
VIDEO_FRAMES = 60
"""Of a longer episode, that many frames at most, evenly."""
FRAME_MS = 120
LAST_FRAME_MS = 1500

_HEAD = 30
"""Height of the line of words above a field."""
_LEGEND = 28


@dataclass(frozen=True)
class Window:
    """Which part of the world is shown, and where on a canvas."""

    corner: Point
    """Upper left, in pixels."""
    scale: float
    """Pixels for one unit of length."""
    west: float
    north: float
    radius: float
    """Of an entity, in pixels."""

    def at(self, place: Point) -> Point:
        """The pixel of a place."""
        return self.corner[0] + self.scale * (place[0] - self.west), self.corner[1] + self.scale * (self.north - place[1])


def window(cast: Cast, episode: Episode, frames: Sequence[int], corner: Point, size: Point) -> Window:
    """The part of the world that holds whoever is there in some frames, in the middle of a rectangle of pixels."""
    places = [role.place(episode, frame) for frame in frames for role in cast.present(episode, frame)]
    x, y = np.array([place for place in places if place is not None] or [(0.0, 0.0)]).T
    crowd = max(sum(1 for role in cast.present(episode, frame) if role.place(episode, frame)) for frame in frames)
    radius = float(np.clip(0.28 * math.sqrt(size[0] * size[1] / max(1, crowd) / 8), 3.0, 12.0))
    pad = 2.6 * radius
    wide, high = max(float(np.ptp(x)), 1e-3), max(float(np.ptp(y)), 1e-3)
    scale = min((size[0] - 2 * pad) / wide, (size[1] - 2 * pad) / high)
    middle_x, middle_y = (float(x.min()) + float(x.max())) / 2, (float(y.min()) + float(y.max())) / 2
    return Window(corner, scale, middle_x - size[0] / scale / 2, middle_y + size[1] / scale / 2, radius)


def attention_field(cast: Cast, episode: Episode, step: int) -> Image.Image:
    """Whom each unit attends to, drawn over the battlefield: a panel for each unit that acts, the first `PANELS` of them.

    A unit's attention to another is `Episode.actors_to_tokens`: the product of what it asks the latents and what they read.
    """
    attention = episode.actors_to_tokens()[step]
    acting = [(number, actor) for number, actor in enumerate(cast.actors) if episode.legal[step, number].any()]
    shown = acting[:PANELS]
    columns = min(len(shown), 2 if len(shown) in (2, 4) else 3) or 1
    rows = math.ceil(len(shown) / columns)
    gap, (wide, high) = 8, PANEL
    canvas = Canvas(columns * (wide + gap) + gap, rows * (high + _HEAD + gap) + _LEGEND)
    for place, (number, actor) in enumerate(shown):
        left = gap + (place % columns) * (wide + gap)
        top = (place // columns) * (high + _HEAD + gap)
        canvas.text((left + 2, top + _HEAD / 2 + 2), actor.name, 16)
        option = cast.recording.schema.option_name(int(episode.options[step, number]))
        canvas.text((left + wide - 2, top + _HEAD / 2 + 2), option, 15, MUTED, anchor="rm")
        canvas.rectangle((left, top + _HEAD), PANEL, FIELD, rounded=8)
        view = window(cast, episode, [step], (left, top + _HEAD), PANEL)
        _draw_attention(canvas, view, cast, episode, step, actor, attention[number, : len(cast.roles)])
    more = f"first {len(shown)} of {len(acting)} units, " if len(acting) > len(shown) else ""
    _legend(canvas, cast, episode, [step], f"{more}step {step} of {episode.length}")
    return canvas.picture()


def _draw_attention(
    canvas: Canvas,
    view: Window,
    cast: Cast,
    episode: Episode,
    step: int,
    actor: Role,
    weights: Float[np.ndarray, " entities"],
) -> None:
    """One unit's attention as glow, arcs and figures."""
    most = max(float(weights.max()), 1e-6)
    spots = {role.index: view.at(place) for role in cast.present(episode, step) if (place := role.place(episode, step))}
    if actor.index not in spots:
        return
    for index, spot in spots.items():
        _glow(canvas, view, spot, float(weights[index]) / most)
    start = spots[actor.index]
    for index, spot in spots.items():
        if index != actor.index and weights[index] >= 0.01:
            share = float(weights[index]) / most
            _arc(canvas, start, spot, view.radius, 0.8 + view.radius * 0.45 * share, 0.15 + 0.7 * share)
    _draw_entities(canvas, view, cast, episode, step)
    canvas.ring(start, view.radius * 1.95, 1.0, TEXT, 1.6)
    largest = sorted((index for index in spots if weights[index] >= 0.05), key=lambda index: -weights[index])
    for index in largest[:4]:
        words, (x, y) = f"{100 * weights[index]:.0f} %", spots[index]
        away = view.radius * 1.6 + 9
        y = y - away if y - away > view.corner[1] + 8 else y + away
        canvas.text((x, y), words, 14, (120, 80, 0), anchor="mm", halo=FIELD)


def episode_frames(cast: Cast, episode: Episode) -> tuple[list[Image.Image], list[int]]:
    """An episode as pictures, and for how many milliseconds each is shown.

    Glow is the mean over acting units of their attention; lines go from whoever chose a targeted verb to its target.
    """
    count = min(episode.length + 1, VIDEO_FRAMES)
    chosen = np.unique(np.linspace(0, episode.length, count).round().astype(int)).tolist()
    wide, high = VIDEO
    view = window(cast, episode, chosen, (0, _HEAD), (wide, high - _HEAD - _LEGEND))
    attention = episode.actors_to_tokens()
    returns = np.concatenate([[0.0], np.cumsum(episode.reward, dtype=np.float64)])
    pictures = []
    for frame in chosen:
        canvas = Canvas(wide, high)
        canvas.rectangle((0, _HEAD), (wide, high - _HEAD - _LEGEND), FIELD)
        canvas.text((8, _HEAD / 2), f"step {frame} of {episode.length}", 15)
        words = f"return {returns[frame]:.2f}"
        if frame < episode.length:
            words = f"value {episode.value[frame]:.2f}   {words}"
            _draw_step(canvas, view, cast, episode, frame, attention[frame])
        elif episode.won is not None:
            words = f"{'won' if episode.won else 'not won'}   {words}"
        canvas.text((wide - 8, _HEAD / 2), words, 15, MUTED, anchor="rm")
        _draw_entities(canvas, view, cast, episode, frame)
        _legend(canvas, cast, episode, chosen, "")
        pictures.append(canvas.picture())
    return pictures, [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]


def _draw_step(
    canvas: Canvas, view: Window, cast: Cast, episode: Episode, step: int, attention: Float[np.ndarray, "actors tokens"]
) -> None:
    """What lies under the entities of a frame: glow of attention, lines to targets."""
    spots = {role.index: view.at(place) for role in cast.present(episode, step) if (place := role.place(episode, step))}
    acting = episode.legal[step].any(axis=-1)
    mean = attention[acting].mean(axis=0) if acting.any() else np.zeros(attention.shape[1])
    most = max(float(mean[: len(cast.roles)].max()), 1e-6)
    for index, spot in spots.items():
        _glow(canvas, view, spot, float(mean[index]) / most)
    for number, actor in enumerate(cast.actors):
        target = cast.target(int(episode.options[step, number])) if acting[number] else None
        if target is not None and target.index in spots and actor.index in spots:
            canvas.line([spots[actor.index], spots[target.index]], SIDES[actor.look.side], 2.0, 0.8)


def _draw_entities(canvas: Canvas, view: Window, cast: Cast, episode: Episode, frame: int) -> None:
    """Colour is the side, shape the kind, the ring around it health."""
    for role in cast.present(episode, frame):
        place = role.place(episode, frame)
        if place is None:
            continue
        spot, colour = view.at(place), SIDES[role.look.side]
        canvas.shape(cast.kinds.index(role.kind(episode, frame)), spot, view.radius, colour)
        health = role.health(episode, frame)
        if health is not None:
            canvas.ring(spot, view.radius * 1.55, 1.0, LINE, max(1.4, view.radius * 0.2))
            canvas.ring(spot, view.radius * 1.55, health, colour, max(1.4, view.radius * 0.2))
        if view.radius >= 8 and role.entity_type.max_count > 1:
            canvas.text(spot, str(role.slot), view.radius * 0.95, (255, 255, 255), anchor="mm")


def _glow(canvas: Canvas, view: Window, spot: Point, share: float) -> None:
    """A soft disc, the larger and stronger the more attention."""
    if share < 0.05:
        return
    reach = view.radius * (1.7 + 1.6 * math.sqrt(share))
    for part in (1.0, 0.85, 0.7):
        canvas.disc(spot, reach * part, ATTENTION, 0.14 * share)


def _arc(canvas: Canvas, start: Point, stop: Point, radius: float, width: float, alpha: float) -> None:
    """A bent line, so that those there and back stay apart."""
    (x0, y0), (x1, y1) = start, stop
    bend = 0.16
    middle = ((x0 + x1) / 2 - bend * (y1 - y0), (y0 + y1) / 2 + bend * (x1 - x0))
    times = np.linspace(0, 1, 16)[:, None]
    curve = (1 - times) ** 2 * np.array(start) + 2 * times * (1 - times) * np.array(middle) + times**2 * np.array(stop)
    outside = [(float(x), float(y)) for x, y in curve if math.dist((x, y), stop) >= radius * 0.9]
    if len(outside) > 1:
        canvas.line(outside, ATTENTION, width, alpha)


def _legend(canvas: Canvas, cast: Cast, episode: Episode, frames: Sequence[int], words: str) -> None:
    """Kinds and sides of whoever is there, on the canvas's lowest line."""
    seen = dict.fromkeys(
        (role.entity_type.name, role.look.side, role.kind(episode, frame))
        for frame in frames
        for role in cast.present(episode, frame)
        if role.look.position is not None
    )
    x, y = 12.0, canvas.height - _LEGEND / 2
    size = 14
    for type_name, side, kind in seen:
        label = type_name if kind == type_name else f"{type_name} {kind.removeprefix('is_')}"
        if x + 20 + text_width(label, size) > canvas.width - text_width(words, size) - 20:
            break
        canvas.shape(cast.kinds.index(kind), (x, y), 6, SIDES[side])
        canvas.text((x + 13, y), label, size, MUTED)
        x += 30 + text_width(label, size)
    canvas.text((canvas.width - 10, y), words, size, MUTED, anchor="rm")
