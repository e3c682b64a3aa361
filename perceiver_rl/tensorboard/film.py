"""One recorded episode as a GIF file, for slides and pages that run no script."""

from __future__ import annotations

from pathlib import Path

from perceiver_rl.replay.recording import Recording
from perceiver_rl.tensorboard.canvas import gif
from perceiver_rl.tensorboard.cast import Cast
from perceiver_rl.tensorboard.field import episode_frames

SIZE = (720, 540)
MAX_FRAMES = 400


def write_gif(recording: Recording, path: Path) -> int:
    """Write the first episode of a recording.

    Args:
        recording: What was recorded.
        path: The file; missing folders are made.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: If those who act stand nowhere, so that there is no field to draw.
    """
    cast = Cast(recording, recording.episodes[0])
    if not cast.has_field:
        raise ValueError(
            f"GIF of {recording.env}: got actors without positions, expected features named x and y, or a scene that names "
            "others (docs/replay.md)"
        )
    film = gif(*episode_frames(cast, SIZE, MAX_FRAMES))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film)
    return len(film)
