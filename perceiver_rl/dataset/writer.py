"""Write a dataset: whole, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perceiver_rl.dataset.description import DatasetDescription, DatasetFile, Origin
from perceiver_rl.dataset.episode import Episode, columns_of, row_of
from perceiver_rl.entities import EntitySchema

STEPS_PER_FILE = 20_000
"""A file is closed after the episode that reaches this many: about 15 MB in memory on a map of ten units."""


class DatasetWriter:
    """Writes whole episodes into files beside the dataset's place, and renames the folder when all are there.

    Use it as a context manager: leaving it before `finish` removes what was written.

    Args:
        path: The dataset's folder; missing parents are made.
        schema: What the observations mean.

    Raises:
        ValueError: If there is something already.
    """

    def __init__(self, path: Path, schema: EntitySchema) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"dataset {path}: there is something already; choose another folder, or remove it")
        self._path = path
        self._schema = schema
        self._columns = columns_of(schema)
        self._scratch = path.with_name(f".{path.name}.part")
        self._pending: list[Episode] = []
        self._files: list[DatasetFile] = []
        self._returns: list[float] = []
        self._won: list[bool | None] = []

    def __enter__(self) -> DatasetWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, episode: Episode) -> None:
        """Add an episode."""
        self._pending.append(episode)
        self._returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self._won.append(episode.won)
        if sum(each.length for each in self._pending) >= STEPS_PER_FILE:
            self._close_file()

    def finish(self, origin: Origin) -> DatasetDescription:
        """Write what is left and the description, and put the dataset into its place.

        Raises:
            ValueError: If nothing was added.
        """
        if not self._returns:
            raise ValueError(f"dataset {self._path}: got no episodes, expected at least one")
        if self._pending:
            self._close_file()
        told = [won for won in self._won if won is not None]
        description = DatasetDescription(
            schema=self._schema,
            origin=origin,
            mean_return=float(np.mean(self._returns)),
            win_rate=float(np.mean(told)) if told else None,
            files=tuple(self._files),
        )
        description.write(self._scratch)
        self._scratch.replace(self._path)  # an empty folder may be there
        return description

    def _close_file(self) -> None:
        rows = [row_of(each) for each in self._pending]
        columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in self._columns}
        file = self._scratch / f"episodes-{len(self._files):05d}.parquet"
        # Bytes of floats apart from each other compress better; only columns without a dictionary can have that.
        floats = [field.name for field in self._columns if field.type == pa.list_(pa.float32())]
        pq.write_table(
            pa.table(columns, self._columns),
            file,
            compression="zstd",
            use_dictionary=False,
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in floats},
        )
        steps = sum(each.length for each in self._pending)
        self._files.append(DatasetFile(file.name, len(rows), steps, file.stat().st_size))
        self._pending = []
