"""Files that are either whole or not there."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that it is never half there.

    Args:
        path: The file, in a folder that exists.
        text: All that it will hold.
    """
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(text)
    scratch.replace(path)
