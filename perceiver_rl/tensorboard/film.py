"""One recorded episode as a GIF or MP4 file, for slides and pages that run no script."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from perceiver_rl.replay.recording import Recording
from perceiver_rl.tensorboard.canvas import gif
from perceiver_rl.tensorboard.cast import Cast
from perceiver_rl.tensorboard.field import episode_frames

SIZE = (720, 540)
MAX_FRAMES = 400
MP4_FRAME_MS = 40
"""How long each frame of an MP4 is shown; what is shown for longer is there several times."""


def film_writer(path: Path) -> Callable[[Recording], int]:
    """What writes a film, found before an episode is recorded: it needs a known suffix, and for `.mp4` a package.

    Args:
        path: The file; missing folders are made.

    Returns:
        A function that writes the first episode of a recording, and returns the file's size in bytes. It raises a
        `ValueError` if those who act stand nowhere, so that there is no field to draw.

    Raises:
        ValueError: If the file is neither a `.gif` nor an `.mp4`.
        ImportError: If it is an `.mp4` and imageio-ffmpeg is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"film {path}: got a file of type {suffix or 'none'}, expected .gif or .mp4")
    if suffix == ".mp4":
        _ffmpeg()

    def write(recording: Recording) -> int:
        cast = Cast(recording, recording.episodes[0])
        if not cast.has_field:
            raise ValueError(
                f"film of {recording.env}: got actors without positions, expected features named x and y, or a scene that "
                "names others (docs/replay.md)"
            )
        frames, milliseconds = episode_frames(cast, SIZE, MAX_FRAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".mp4":
            _write_mp4(path, frames, milliseconds)
        else:
            path.write_bytes(gif(frames, milliseconds))
        return path.stat().st_size

    return write


def _write_mp4(path: Path, frames: Sequence[Image.Image], milliseconds: Sequence[int]) -> None:
    """H.264 in the pixel format that every browser and slide program plays."""
    writer = _ffmpeg().write_frames(str(path), SIZE, fps=1000 / MP4_FRAME_MS, quality=8, macro_block_size=2)
    with warnings.catch_warnings():
        # JAX, if an environment brought it, warns of every fork; this one executes ffmpeg at once, which is safe.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        writer.send(None)
    try:
        for frame, duration in zip(frames, milliseconds, strict=True):
            pixels = np.ascontiguousarray(frame)
            for _ in range(max(1, round(duration / MP4_FRAME_MS))):
                writer.send(pixels)
    finally:
        writer.close()


def _ffmpeg() -> ModuleType:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ImportError(
            "an MP4 film needs the package imageio-ffmpeg, which is not installed; run: pip install 'perceiver-rl[film]', "
            "or name a .gif"
        ) from error
    return imageio_ffmpeg
