import dataclasses
import io
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.replay import Recording, record
from perceiver_rl.scene import Scene
from perceiver_rl.tensorboard.canvas import SIDES
from perceiver_rl.tensorboard.cast import Cast
from perceiver_rl.tensorboard.charts import Table, heat_map, verb_bars
from perceiver_rl.tensorboard.field import PANEL, VIDEO, attention_field, episode_frames, following_views, view_of
from perceiver_rl.tensorboard.pictures import attention_tables, draw_pictures, telling_step
from tests.replay.duels import NASTIER, NUM_LATENTS, DuelVectorEnv, make_policy, record_duels

TABLES = {"attention/units_to_units", "attention/units_to_latents", "attention/latents_to_units"}
FIELD = {"attention/field", "episode/video"}


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_duels()


def pixels(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB")).astype(float)


def test_pictures__are_images_of_the_size_that_they_say(recording: Recording) -> None:
    pictures = draw_pictures(recording)
    assert set(pictures.images) == {"actions/by_verb"} | TABLES | FIELD
    assert pictures.left_out is None
    for tag, picture in pictures.images.items():
        image = Image.open(io.BytesIO(picture.encoded))
        assert image.size == (picture.width, picture.height)
        assert image.format == ("GIF" if tag == "episode/video" else "PNG")
        assert len(np.unique(pixels(image).reshape(-1, 3), axis=0)) > 8


def test_pictures__video_shows_every_frame_of_a_short_episode(recording: Recording) -> None:
    video = Image.open(io.BytesIO(draw_pictures(recording).images["episode/video"].encoded))
    frames = [pixels(frame) for frame in ImageSequence.Iterator(video)]
    assert len(frames) == recording.episodes[0].length + 1
    assert all((before != after).any() for before, after in pairwise(frames))
    assert video.info["loop"] == 0


def test_verbs__are_the_shares_of_what_present_units_chose(recording: Recording) -> None:
    episode, schema = recording.episodes[0], recording.schema
    names: Counter[str] = Counter()
    for step, actor in np.argwhere(episode.legal.any(axis=2)):
        option = schema.option_name(int(episode.options[step, actor]))
        names["attack" if option.startswith("attack ") else option] += 1
    verbs = draw_pictures(recording).verbs
    assert list(verbs) == ["stop", NASTIER, "attack"]
    assert sum(names.values()) == 3 * episode.length - 1, "one knight is away for a step"
    assert verbs == pytest.approx({verb: names[verb] / sum(names.values()) for verb in verbs})


@pytest.mark.parametrize("control", ["centralized", "decentralized"])
def test_tables__rows_sum_to_one_and_units_to_units_is_the_product(control: Any) -> None:
    recording = record_duels(control)
    episode = recording.episodes[0]
    cast = Cast(recording, episode)
    for step in range(episode.length):
        tables = attention_tables(cast, step)
        assert set(tables) == TABLES
        for table in tables.values():
            assert table.weights.shape == (len(table.row_names), len(table.column_names))
            np.testing.assert_allclose(table.weights.sum(axis=1), 1.0, atol=8e-3)
        asked, read = tables["attention/units_to_latents"].weights, tables["attention/latents_to_units"].weights
        whole = tables["attention/units_to_units"]
        # Apart, only the first unit's latents are in the table.
        rows = slice(None) if control == "centralized" else slice(0, 1)
        np.testing.assert_allclose(whole.weights[rows], (asked @ read)[rows], atol=2e-3)
        assert ("knight 0" in whole.row_names) == (step != 2)
        assert whole.column_names[-1] == "globals"
        assert len(tables["attention/latents_to_units"].row_names) == NUM_LATENTS


def test_tables__transformer_has_no_latents() -> None:
    recording = record_duels(encoder="transformer")
    assert set(attention_tables(Cast(recording, recording.episodes[0]), 0)) == {"attention/units_to_units"}


def test_telling_step__is_the_first_with_the_most_legal_options(recording: Recording) -> None:
    episode = recording.episodes[0]
    assert telling_step(episode) == 0
    legal = episode.legal.copy()
    legal[[0, 1, 3], 2] = False
    assert telling_step(dataclasses.replace(episode, legal=legal)) in (0, 1)
    legal[[0, 1]] = False
    assert telling_step(dataclasses.replace(episode, legal=legal)) == 2


def test_heat_map__is_darkest_where_the_weight_is_largest() -> None:
    def darkness(weights: list[list[float]]) -> np.ndarray[Any, Any]:
        picture = pixels(heat_map(Table("t", "", ["a", "b"], ["c", "d"], np.array(weights, np.float32))))
        return 255 - picture.mean(axis=2)

    left, right = darkness([[1, 0], [0, 0]]), darkness([[0, 1], [0, 0]])
    assert left.shape == right.shape
    assert (left - right).mean(axis=0).argmax() < (right - left).mean(axis=0).argmax()


def test_heat_map__has_room_for_many(recording: Recording) -> None:
    weights = np.full((48, 130), 1 / 130, np.float32)
    names = [f"unit {number}" for number in range(130)]
    picture = heat_map(Table("t", "n", names[:48], names, weights))
    assert picture.width < 1400
    assert picture.height < 700


def test_verb_bars__are_as_long_as_shares() -> None:
    bars = pixels(verb_bars({"go": 0.25, "stay": 0.75}, "", ""))
    blue = (np.abs(bars - SIDES["own"]).sum(axis=2) < 30).sum(axis=1)
    middle = len(blue) - 36  # between both
    assert blue[middle:].max() == pytest.approx(3 * blue[:middle].max(), rel=0.03)


def test_frames__show_each_unit_at_its_place_in_the_colour_of_its_side(recording: Recording) -> None:
    episode = recording.episodes[0]
    cast = Cast(recording, episode)
    frames, _ = episode_frames(cast)
    view = following_views(cast, (0, 30), (VIDEO[0], VIDEO[1] - 58))[-1]
    last = pixels(frames[-1])
    places = {role.index: view.at(cast.places[-1, role.index]) for role in cast.standing(episode.length)}
    apart = [
        index
        for index, place in places.items()
        if all(np.hypot(*np.subtract(place, other)) > 4 * view.radius for key, other in places.items() if key != index)
    ]
    assert len({cast.roles[index].look.side for index in apart}) == 2
    for index in apart:
        x, y = places[index]
        colour = last[round(y + 0.55 * view.radius) - 1, round(x - 0.45 * view.radius)]
        np.testing.assert_allclose(colour, SIDES[cast.roles[index].look.side], atol=25)


def test_field__glows_where_attention_is() -> None:
    recording = record_duels(encoder="transformer")
    episode = recording.episodes[0]
    cast = Cast(recording, episode)

    def drawn(attended: int) -> np.ndarray[Any, Any]:
        attention = np.zeros_like(episode.actors_to_memory)
        attention[..., attended] = 1
        attending = dataclasses.replace(episode, actors_to_memory=attention)
        return pixels(attention_field(Cast(recording, attending), 0))

    one, other = drawn(3), drawn(4)
    assert one.shape == other.shape
    panel = view_of(cast.places[:1], (8, 30), PANEL)
    goldness = (one - other)[..., 0] - (one - other)[..., 2]  # gold has red and little blue

    def around(index: int) -> float:
        x, y = panel.at(cast.places[0, index])
        rows, columns = np.mgrid[: one.shape[0], : one.shape[1]]
        distance = np.hypot(columns - x, rows - y)
        return float(goldness[(distance > 1.8 * panel.radius) & (distance < 2.8 * panel.radius)].mean())

    assert around(3) > 3 > -3 > around(4)


def test_pictures__without_positions_there_is_no_field_and_a_reason() -> None:
    env = DuelVectorEnv(1)
    env.metadata["scene"] = Scene.of(env.schema).with_look("knight", position=None)
    recording = record(make_policy(env.schema), env, env_name="duel", policy_name="fresh", seed=0, greedy=True)
    pictures = draw_pictures(recording)
    assert set(pictures.images) == {"actions/by_verb"} | TABLES
    assert pictures.left_out == "no field and no video, since knight has no position"


def test_pictures__are_written_as_images_histogram_and_scalars(recording: Recording, tmp_path: Path) -> None:
    pictures = draw_pictures(recording)
    with SummaryWriter(str(tmp_path)) as writer:
        pictures.write(writer, 300)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == set(pictures.images)
    (video,) = events.Images("episode/video")
    assert (video.step, video.width, video.height) == (300, *VIDEO)
    assert video.encoded_image_string == pictures.images["episode/video"].encoded
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert scalars == pytest.approx({f"actions/{verb}": share for verb, share in pictures.verbs.items()})
    (histogram,) = events.Histograms("actions/verbs")
    assert histogram.histogram_value.bucket_limit == [0.5, 1.5, 2.5]
    assert histogram.histogram_value.bucket == pytest.approx([100 * share for share in pictures.verbs.values()])


def test_record__stops_where_it_is_told_to() -> None:
    env = DuelVectorEnv(2)
    policy = make_policy(env.schema)
    whole = record(policy, env, env_name="duel", policy_name="fresh", seed=7, greedy=True)
    part = record(policy, env, env_name="duel", policy_name="fresh", seed=7, greedy=True, max_steps=4)
    assert [episode.length for episode in part.episodes] == [4, 4]
    assert [episode.won for episode in part.episodes] == [True, None]
    assert part.episodes[1].entity_mask.shape[0] == 5
    np.testing.assert_array_equal(part.episodes[1].options, whole.episodes[1].options[:4])


def test_cast__who_is_absent_stands_nowhere(recording: Recording) -> None:
    cast = Cast(recording, recording.episodes[0])
    assert [role.index for role in cast.standing(1)] == [0, 1, 2, 3, 4, 5], "the last foe is never there"
    assert [role.index for role in cast.standing(2)] == [1, 2, 3, 4, 5]
    assert cast.acting(2) == [1, 2]


def test_frames__glow_where_the_units_attend_on_the_mean() -> None:
    recording = record_duels(encoder="transformer")
    episode = recording.episodes[0]

    def first_frame(attended: int) -> np.ndarray[Any, Any]:
        attention = np.zeros_like(episode.actors_to_memory)
        attention[..., attended] = 1
        cast = Cast(recording, dataclasses.replace(episode, actors_to_memory=attention))
        return pixels(episode_frames(cast)[0][0])

    assert (first_frame(3) != first_frame(4)).any()
    np.testing.assert_array_equal(first_frame(3), first_frame(3))
