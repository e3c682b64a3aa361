"""A surface to draw on in logical pixels, smooth at the edges, in the colours of the replay's light theme."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Number = float | int  # beartype, which checks signatures in tests, takes no int for a float
Point = tuple[Number, Number]

TEXT: Colour = (28, 36, 48)
MUTED: Colour = (104, 114, 130)
LINE: Colour = (226, 223, 213)
GROUND: Colour = (255, 255, 255)
FIELD: Colour = (251, 250, 246)
ATTENTION: Colour = (196, 138, 8)
LATENT: Colour = (115, 80, 201)
SIDES: dict[str, Colour] = {"own": (43, 114, 191), "other": (205, 86, 55), "neutral": (125, 135, 146)}
"""Blue and vermilion: told apart with every common kind of colour blindness."""

SMOOTH = 2
"""Pixels of the surface for one of the picture, each way."""

SHAPES: tuple[tuple[int, Number] | None, ...] = (
    None,
    (4, 0),
    (4, 0.125),
    (3, 0.25),
    (6, 0.25),
    (5, 0.25),
    (8, 0.0625),
    (3, 0.75),
)
"""Outlines by number, as in the replay: sides and first corner in turns; None is a circle."""


class Canvas:
    """Shapes and words on a surface that is scaled down at the end.

    Args:
        width: In pixels of the picture.
        height: The same.
        ground: Colour of the surface.
    """

    def __init__(self, width: int, height: int, ground: Colour = GROUND) -> None:
        self.width = width
        self.height = height
        self._image = Image.new("RGB", (width * SMOOTH, height * SMOOTH), ground)
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def copy(self) -> Canvas:
        """The same once more, to draw on."""
        canvas = Canvas(self.width, self.height)
        canvas._image.paste(self._image)
        return canvas

    def picture(self) -> Image.Image:
        """What was drawn, in the size that was asked for."""
        return self._image.reduce(SMOOTH)

    def rectangle(self, corner: Point, size: Point, colour: Colour, alpha: Number = 1.0, *, rounded: Number = 0.0) -> None:
        """A filled rectangle from its upper left corner."""
        (left, top), (wide, high) = corner, size
        if wide <= 0 or high <= 0:
            return
        box = [left * SMOOTH, top * SMOOTH, (left + wide) * SMOOTH - 1, (top + high) * SMOOTH - 1]
        radius = min(rounded, wide / 2, high / 2) * SMOOTH
        self._draw.rounded_rectangle(box, radius, fill=_with(colour, alpha))

    def line(self, points: Sequence[Point], colour: Colour, width: Number, alpha: Number = 1.0) -> None:
        """A line through points."""
        scaled = [(x * SMOOTH, y * SMOOTH) for x, y in points]
        self._draw.line(scaled, _with(colour, alpha), max(1, round(width * SMOOTH)), joint="curve")

    def disc(self, centre: Point, radius: Number, colour: Colour, alpha: Number = 1.0) -> None:
        """A filled circle."""
        self._draw.ellipse(_box(centre, radius), fill=_with(colour, alpha))

    def ring(self, centre: Point, radius: Number, share: Number, colour: Colour, width: Number) -> None:
        """A share of a circle's line, from the top."""
        if share > 0:
            self._draw.arc(_box(centre, radius), -90, -90 + 360 * min(1.0, share), _with(colour, 1.0), round(width * SMOOTH))

    def shape(self, number: int, centre: Point, radius: Number, colour: Colour, alpha: Number = 1.0) -> None:
        """A filled outline of `SHAPES`."""
        outline = SHAPES[number % len(SHAPES)]
        if outline is None:
            self.disc(centre, radius, colour, alpha)
            return
        sides, first = outline
        size = radius * {3: 1.3, 4: 1.18}.get(sides, 1.08)
        angles = [2 * math.pi * (side / sides - first) for side in range(sides)]
        self.polygon([(centre[0] + size * math.cos(a), centre[1] + size * math.sin(a)) for a in angles], colour, alpha)

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: Number = 1.0) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * SMOOTH, y * SMOOTH) for x, y in points], fill=_with(colour, alpha))

    def text(
        self,
        place: Point,
        words: str,
        size: Number = 13,
        colour: Colour = TEXT,
        *,
        anchor: str = "lm",
        halo: Colour | None = None,
        turned: bool = False,
    ) -> None:
        """Words at a place.

        Args:
            place: Where.
            words: What.
            size: In pixels.
            colour: Of the letters.
            anchor: Pillow's two letters for the point of the words that lies at the place, such as `"lm"`: left, middle.
            halo: Colour of an edge around the letters, for words on top of something.
            turned: Upwards instead of rightwards; the place is then the lower end, in the middle of the letters' height.
        """
        font = _font(round(size * SMOOTH))
        if turned:
            left, top, right, bottom = font.getbbox(words, anchor="la")
            tile = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
            ImageDraw.Draw(tile).text((1 - left, 1 - top), words, fill=255, font=font, anchor="la")
            upright = tile.transpose(Image.Transpose.ROTATE_90)
            corner = (round(place[0] * SMOOTH - upright.width / 2), round(place[1] * SMOOTH - upright.height))
            self._image.paste(colour, corner, upright)
            return
        self._draw.text(
            (place[0] * SMOOTH, place[1] * SMOOTH),
            words,
            fill=colour,
            font=font,
            anchor=anchor,
            stroke_width=0 if halo is None else round(1.6 * SMOOTH),
            stroke_fill=halo,
        )


def text_width(words: str, size: Number) -> float:
    """How wide words are, in pixels."""
    return _font(round(size * SMOOTH)).getlength(words) / SMOOTH


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    return _bytes(picture, "PNG")


def gif(frames: Sequence[Image.Image], milliseconds: Sequence[int]) -> bytes:
    """The bytes of an animated GIF that plays for ever.

    Args:
        frames: Of one size, drawn in the same colours: the first one's palette serves for all.
        milliseconds: How long each is shown.
    """
    first = frames[0].quantize(128, dither=Image.Dither.NONE)
    rest = [frame.quantize(palette=first, dither=Image.Dither.NONE) for frame in frames[1:]]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0)
    return buffer.getvalue()


def mix(low: Colour, high: Colour, share: Number) -> Colour:
    """A colour between two."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _bytes(picture: Image.Image, kind: Literal["PNG"]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def _with(colour: Colour, alpha: Number) -> tuple[int, int, int, int]:
    return (*colour, round(255 * min(1.0, max(0.0, alpha))))


def _box(centre: Point, radius: Number) -> list[float]:
    x, y = centre
    return [(x - radius) * SMOOTH, (y - radius) * SMOOTH, (x + radius) * SMOOTH, (y + radius) * SMOOTH]


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which is there wherever Pillow is."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("pictures: Pillow was built without FreeType, expected the wheels of `pip install pillow`")
    return font
