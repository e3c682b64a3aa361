import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from perceiver_rl.scene import Scene
from perceiver_rl.tensorboard.field import FRAME_MS, LAST_FRAME_MS
from perceiver_rl.tensorboard.film import SIZE, film_writer
from tests.replay.duels import record_duels


def test_gif__has_every_frame_of_the_first_episode(tmp_path: Path) -> None:
    recording = record_duels()
    size = film_writer(tmp_path / "new" / "duel.gif")(recording)
    with Image.open(tmp_path / "new" / "duel.gif") as film:
        assert (film.format, film.size) == ("GIF", SIZE)
        frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(film)]
    assert len(frames) == recording.episodes[0].length + 1
    assert len(set(frames)) > 1
    assert size == (tmp_path / "new" / "duel.gif").stat().st_size


def test_mp4__plays_as_long_as_the_gif_and_shows_the_same(tmp_path: Path) -> None:
    recording = record_duels()
    gif, mp4 = tmp_path / "duel.gif", tmp_path / "duel.mp4"
    film_writer(gif)(recording)
    assert film_writer(mp4)(recording) == mp4.stat().st_size
    told = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(mp4)], capture_output=True, text=True).stderr
    assert re.search(r"Video: h264 .*yuv420p.*720x540", told), told
    frames = imageio_ffmpeg.read_frames(str(mp4))
    properties = next(frames)
    seconds = (recording.episodes[0].length * FRAME_MS + LAST_FRAME_MS) / 1000
    assert properties["duration"] == pytest.approx(seconds, rel=0.05)
    first = np.frombuffer(next(frames), np.uint8).reshape(SIZE[1], SIZE[0], 3).astype(float)
    with Image.open(gif) as film:
        assert np.abs(first - np.asarray(film.convert("RGB"))).mean() < 4


def test_film__needs_a_known_suffix_and_its_package_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"got a file of type .webm, expected .gif or .mp4"):
        film_writer(tmp_path / "duel.webm")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'perceiver-rl\[film\]', or name a .gif"):
        film_writer(tmp_path / "duel.mp4")


@pytest.mark.parametrize("name", ["duel.gif", "duel.mp4"])
def test_film__needs_positions(name: str, tmp_path: Path) -> None:
    recording = dataclasses.replace(record_duels(), scene=Scene({}))
    with pytest.raises(ValueError, match="got actors without positions, expected features named x and y"):
        film_writer(tmp_path / name)(recording)
    assert not (tmp_path / name).exists()
