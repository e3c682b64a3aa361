"""What a dataset's `dataset.json` says: what was played, by whom, and which files there are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perceiver_rl.bundle.format import SCHEMA_FORM
from perceiver_rl.bundle.strict_json import ANYTHING, MapOf, parse_file, require_form
from perceiver_rl.entities import EntitySchema

FORMAT = 1
DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class Origin:
    """Who played what, and with which code."""

    env: str
    """Name or import string of the environment."""
    env_config: dict[str, Any]
    """That environment's options."""
    policy: str
    """A name that means something on other machines: of a checkpoint, a bundle or a scripted agent."""
    greedy: bool
    """Whether each actor took its best option, rather than a draw."""
    seed: int
    versions: dict[str, str]
    """Of the packages that recorded it."""
    commit: str | None
    """Of the checkout that recorded it, if it was one."""


@dataclass(frozen=True)
class DatasetFile:
    """A file of whole episodes."""

    name: str
    episodes: int
    steps: int
    bytes: int


@dataclass(frozen=True)
class DatasetDescription:
    """All of `dataset.json`."""

    schema: EntitySchema
    origin: Origin
    mean_return: float
    """Mean over episodes of the undiscounted sum of rewards."""
    win_rate: float | None
    """None if the environment says nothing of winning."""
    files: tuple[DatasetFile, ...]

    @property
    def episodes(self) -> int:
        """Of all files."""
        return sum(each.episodes for each in self.files)

    @property
    def steps(self) -> int:
        """Of all files."""
        return sum(each.steps for each in self.files)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(each.bytes for each in self.files)

    def write(self, folder: Path) -> None:
        """Write `dataset.json`."""
        record = {"format": FORMAT, **asdict(self), "schema": self.schema.to_dict()}
        (folder / DESCRIPTION_FILE).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


_FORM = {
    "format": int,
    "schema": SCHEMA_FORM,
    "origin": {
        "env": str,
        "env_config": MapOf(ANYTHING),
        "policy": str,
        "greedy": bool,
        "seed": int,
        "versions": MapOf(str),
        "commit": (str, type(None)),
    },
    "mean_return": float,
    "win_rate": (float, type(None)),
    "files": [{"name": str, "episodes": int, "steps": int, "bytes": int}],
}


def read_description(path: str | Path) -> DatasetDescription:
    """What a dataset holds; the files that it names are there and have the size that it tells.

    Raises:
        ValueError: If it is no dataset, one of another version, or not whole; the message names what is wrong.
    """
    folder = Path(path)
    if not (folder / DESCRIPTION_FILE).is_file():
        what = f"holds no {DESCRIPTION_FILE}" if folder.exists() else "does not exist"
        raise ValueError(
            f"dataset {path}: {what}; expected a folder that was made by "
            f"`perceiver-rl collect POLICY {path} --episodes 2000`, POLICY being a run, a bundle or a scripted agent"
        )
    try:
        parsed = parse_file(folder / DESCRIPTION_FILE)
        if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
            raise ValueError(f"got another format than {FORMAT}; collect it again with this version of perceiver-rl")
        require_form(parsed, _FORM, "dataset")
        description = DatasetDescription(
            schema=EntitySchema.from_dict(parsed["schema"]),
            origin=Origin(**parsed["origin"]),
            mean_return=parsed["mean_return"],
            win_rate=parsed["win_rate"],
            files=tuple(DatasetFile(**each) for each in parsed["files"]),
        )
    except ValueError as error:
        raise ValueError(f"dataset {folder / DESCRIPTION_FILE}: {error}") from error
    if description.steps < 1:
        raise ValueError(f"dataset {path}: got {description.steps} steps, expected some")
    for each in description.files:
        file = folder / each.name
        if Path(each.name).name != each.name:
            raise ValueError(f"dataset {path}: got a file named {each.name!r}, expected names without folders")
        size = file.stat().st_size if file.is_file() else None
        if size != each.bytes:
            got = "is missing" if size is None else f"has {size:,} bytes"
            raise ValueError(f"dataset {path}: {each.name} {got}, expected {each.bytes:,} bytes; copy or collect it again")
    return description
