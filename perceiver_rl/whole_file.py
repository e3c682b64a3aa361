"""Files that are either whole or not there."""

from __future__ import annotations

from pathlib import Path


def require_writable(path: Path, what: str) -> None:
    """Raise if a file cannot be written at a path; asked before the long work whose result it will hold.

    Args:
        path: Where the file will be; missing folders are made. A file that is there stays as it is.
        what: What asks for it, for the message, e.g. an option.

    Raises:
        ValueError: If there is something else than a file, or the folder takes no file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{what} {path}: got {'a folder' if path.is_dir() else 'something else'}, expected a file")
    scratch = _scratch(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        raise ValueError(f"{what} {path}: cannot be written: {error.strerror}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it, so that it is never half there.

    Args:
        path: The file, in a folder that exists.
        content: All that it will hold.
    """
    scratch = _scratch(path)
    try:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
