import dataclasses
from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from perceiver_rl.scene import Scene
from perceiver_rl.tensorboard.film import SIZE, write_gif
from tests.replay.duels import record_duels


def test_write_gif__has_every_frame_of_the_first_episode(tmp_path: Path) -> None:
    recording = record_duels()
    size = write_gif(recording, tmp_path / "new" / "duel.gif")
    with Image.open(tmp_path / "new" / "duel.gif") as film:
        assert (film.format, film.size) == ("GIF", SIZE)
        frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(film)]
    assert len(frames) == recording.episodes[0].length + 1
    assert len(set(frames)) > 1
    assert size == (tmp_path / "new" / "duel.gif").stat().st_size


def test_write_gif__needs_positions(tmp_path: Path) -> None:
    recording = dataclasses.replace(record_duels(), scene=Scene({}))
    with pytest.raises(ValueError, match="got actors without positions, expected features named x and y"):
        write_gif(recording, tmp_path / "duel.gif")
