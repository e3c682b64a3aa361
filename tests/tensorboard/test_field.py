"""What is drawn over the battlefield, part by part: each of these fails where the part is left out."""

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perceiver_rl.replay import Recording
from perceiver_rl.tensorboard.canvas import ATTENTION, FIELD, LINE, SIDES, Colour
from perceiver_rl.tensorboard.cast import Cast
from perceiver_rl.tensorboard.field import PANEL, VIDEO, View, attention_field, episode_frames, following_views, view_of
from tests.replay.duels import record_duels

HEAD, GAP, LEGEND = 30, 8, 28
"""Pixels above a field, between fields, and below the last one."""


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_duels(encoder="transformer")


def pixels(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB")).astype(float)


def with_changes(recording: Recording, **changes: Any) -> Cast:
    """The first episode with other arrays."""
    return Cast(recording, dataclasses.replace(recording.episodes[0], **changes))


def first_frame(cast: Cast) -> tuple[np.ndarray[Any, Any], View]:
    view = following_views(cast, (0, HEAD), (VIDEO[0], VIDEO[1] - HEAD - LEGEND))[0]
    return pixels(episode_frames(cast)[0][0]), view


def is_drawn(picture: np.ndarray[Any, Any], place: tuple[float, float], colour: Colour) -> bool:
    """Whether a pixel at a place or beside it lies nearer to the colour than to the field's."""
    row, column = (round(each - 0.5) for each in reversed(place))
    there = picture[row - 1 : row + 2, column - 1 : column + 2]
    towards = np.subtract(colour, FIELD).astype(float)
    return bool(((there - FIELD) @ towards / (towards @ towards)).max() > 0.5)


def along(view: View, cast: Cast, start: int, stop: int, share: float) -> tuple[float, float]:
    """A point between two who stand there in the first frame."""
    (x0, y0), (x1, y1) = view.at(cast.places[0, start]), view.at(cast.places[0, stop])
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def alone(view: View, cast: Cast, place: tuple[float, float]) -> bool:
    """Whether nobody stands there, nor glows."""
    standing = [view.at(cast.places[0, role.index]) for role in cast.standing(0)]
    return all(np.hypot(*np.subtract(each, place)) > 3.2 * view.radius for each in standing)


def test_frames__draw_a_line_from_whoever_attacks_to_the_target(recording: Recording) -> None:
    options = np.zeros_like(recording.episodes[0].options)
    seen = 0
    for actor in range(3):
        for target in range(3):
            attacking = options.copy()
            attacking[:, actor] = 2 + target
            cast = with_changes(recording, options=attacking)
            (drawn, view), (without, _) = first_frame(cast), first_frame(with_changes(recording, options=options))
            for share in (0.3, 0.5, 0.7):
                place = along(view, cast, actor, 3 + target, share)
                if alone(view, cast, place):
                    assert is_drawn(drawn, place, SIDES["own"])
                    assert not is_drawn(without, place, SIDES["own"])
                    seen += 1
    assert seen >= 6


def test_field__draws_an_arc_to_what_a_unit_attends_to(recording: Recording) -> None:
    attention = np.zeros_like(recording.episodes[0].actors_to_memory)
    seen = 0
    for target in (3, 4, 5):
        attending = attention.copy()
        attending[..., target] = 1
        cast = with_changes(recording, actors_to_memory=attending)
        picture = pixels(attention_field(cast, 0))
        for panel in range(3):
            view = view_of(cast.places[:1], (GAP + panel * (PANEL[0] + GAP), HEAD), PANEL)
            (x0, y0), (x1, y1) = (view.at(cast.places[0, index]) for index in (panel, target))
            bend = 0.16 / 2  # of the control point; half as much of the curve's middle
            place = ((x0 + x1) / 2 - bend * (y1 - y0), (y0 + y1) / 2 + bend * (x1 - x0))
            if alone(view, cast, place):
                assert is_drawn(picture, place, ATTENTION)
                seen += 1
    assert seen >= 4


def test_frames__draw_health_as_a_share_of_a_ring(recording: Recording) -> None:
    cast = with_changes(recording)  # all have half of it
    frame, view = first_frame(cast)
    places = {role.index: view.at(cast.places[0, role.index]) for role in cast.standing(0)}
    close = [
        (one, other)
        for one, other in combinations(places, 2)
        if np.hypot(*np.subtract(places[one], places[other])) < 5 * view.radius
    ]
    apart = set(places).difference(*close)
    assert apart
    for index in apart:
        x, y = places[index]
        reach = 1.55 * view.radius - max(1.4, view.radius * 0.2) / 2  # the middle of its line
        right, left = (frame[round(y - 0.5), round(x + side * reach - 0.5)] for side in (1, -1))
        colour = SIDES[cast.roles[index].look.side]
        assert np.abs(right - colour).mean() < 30
        assert np.abs(left - LINE).mean() < 30


def test_frames__tell_value_and_return(recording: Recording) -> None:
    episode = recording.episodes[0]
    head = first_frame(with_changes(recording))[0][:HEAD]
    other_value = first_frame(with_changes(recording, value=episode.value + 1))[0][:HEAD]
    assert (head != other_value).any()
    second = pixels(episode_frames(with_changes(recording))[0][1])[:HEAD]
    other_return = pixels(episode_frames(with_changes(recording, reward=episode.reward + 1))[0][1])[:HEAD]
    assert (second != other_return).any()
