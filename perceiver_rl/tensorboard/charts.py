"""Charts without a field: attention as tables of shades, choices as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from perceiver_rl.tensorboard.canvas import LINE, MUTED, SIDES, TEXT, Canvas, Colour, mix, text_width

_SHADES: tuple[Colour, ...] = ((255, 253, 246), (240, 200, 100), (190, 110, 20), (84, 34, 10))
"""From nothing to the largest weight; ever darker, so that it reads without colours too."""


@dataclass(frozen=True)
class Table:
    """Who attends to what at one moment."""

    title: str
    note: str
    """Beside the title, fainter."""
    row_names: Sequence[str]
    """Who attends."""
    column_names: Sequence[str]
    """What is attended to."""
    weights: Float[np.ndarray, "rows columns"]
    """From 0 to 1."""
    colour: Colour = TEXT
    """Of the title."""


def heat_map(table: Table) -> Image.Image:
    """A table in shades, and in percent where there is room."""
    weights, row_names, column_names = table.weights, table.row_names, table.column_names
    rows, columns = weights.shape
    wide = float(np.clip(620 / max(1, columns), 9, 38))
    high = float(np.clip(440 / max(1, rows), 9, 30))
    size = 14.0
    left = 16 + max((text_width(name, size) for name in row_names), default=0)
    above = 42 + max((text_width(name, size) for name in column_names), default=0)
    width = max(left + columns * wide + 10, text_width(table.title, 17) + text_width(table.note, 14) + 40)
    canvas = Canvas(round(width), round(above + rows * high + 10))
    canvas.text((10, 17), table.title, 17, table.colour)
    canvas.text((canvas.width - 8, 17), table.note, 14, MUTED, anchor="rm")
    most = max(float(weights.max(initial=0.0)), 1e-6)
    for row in range(rows):
        y = above + row * high
        if high >= 13 or row % 2 == 0:
            canvas.text((left - 6, y + high / 2), row_names[row], min(size, high + 3), anchor="rm")
        for column in range(columns):
            share = float(weights[row, column]) / most
            canvas.rectangle((left + column * wide, y), (wide - 1.5, high - 1.5), _shade(share))
            if wide >= 26 and high >= 16:
                number = f"{100 * weights[row, column]:.0f}"
                ink = (255, 255, 255) if share > 0.55 else MUTED if number == "0" else TEXT
                canvas.text(
                    (left + (column + 0.5) * wide - 0.75, y + high / 2 - 0.5),
                    number,
                    13,
                    ink,
                    anchor="mm",
                )
    for column in range(columns):
        if wide >= 13 or column % 2 == 0:
            canvas.text((left + (column + 0.5) * wide, above - 6), column_names[column], min(size, wide + 3), turned=True)
    return canvas.picture()


def verb_bars(shares: Mapping[str, float], title: str, note: str) -> Image.Image:
    """How often each verb was chosen."""
    size, high = 15, 28
    left = 16 + max((text_width(verb, size) for verb in shares), default=0)
    length = 300
    width = max(left + length + 70, text_width(title, 17) + text_width(note, 14) + 40)
    canvas = Canvas(round(width), 46 + high * len(shares))
    canvas.text((10, 17), title, 17)
    canvas.text((canvas.width - 8, 17), note, 14, MUTED, anchor="rm")
    for row, (verb, share) in enumerate(shares.items()):
        y = 38 + row * high
        canvas.text((left - 8, y + high / 2), verb, size, anchor="rm")
        canvas.rectangle((left, y + 4), (length, high - 8), LINE, 0.5, rounded=4)
        canvas.rectangle((left, y + 4), (length * share, high - 8), SIDES["own"], rounded=4)
        canvas.text((left + length + 10, y + high / 2), f"{100 * share:.0f} %", size)
    return canvas.picture()


def _shade(share: float) -> Colour:
    place = min(1.0, max(0.0, share)) * (len(_SHADES) - 1)
    below = min(int(place), len(_SHADES) - 2)
    return mix(_SHADES[below], _SHADES[below + 1], place - below)
