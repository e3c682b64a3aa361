"""Episodes come back from a dataset to the bit; what is not whole or breaks the contract is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceiver_rl.dataset import (
    DatasetDescription,
    DatasetWriter,
    Episode,
    Origin,
    read_description,
    read_episodes,
    read_steps,
    writer,
)
from perceiver_rl.entities import EntitySchema
from tests.environments import COURIERS
from tests.schemas import observe

ORIGIN = Origin(
    env="tests.environments:make_couriers",
    env_config={"control": "centralized"},
    policy="couriers",
    greedy=False,
    seed=3,
    versions={"numpy": "2.0"},
    commit=None,
)
LENGTHS = (3, 1, 7, 5)


def an_episode(length: int, schema: EntitySchema = COURIERS) -> Episode:
    observations = observe(COURIERS, length + 1, seed=length)
    if schema.control == "decentralized":  # everybody sees everything
        observations["visibility"] = np.ones((length + 1, *schema.arrays["visibility"][0]), bool)
    legal = observations["action_mask"][:-1]
    actions = np.where(legal.any(axis=-1), legal.shape[-1] - 1 - legal[..., ::-1].argmax(axis=-1), 0)
    rewards = np.random.default_rng(length).normal(size=length).astype(np.float32)
    return Episode(observations, actions, rewards, length % 2 == 0, length % 2 == 1, (None, True, False)[length % 3])


def write(path: Path, lengths: tuple[int, ...] = LENGTHS, schema: EntitySchema = COURIERS) -> DatasetDescription:
    with DatasetWriter(path, schema) as dataset:
        for length in lengths:
            dataset.add(an_episode(length, schema))
        return dataset.finish(ORIGIN)


@pytest.mark.parametrize("schema", [COURIERS, replace(COURIERS, control="decentralized")], ids=lambda each: each.control)
def test_dataset__gives_episodes_back_to_the_bit(
    schema: EntitySchema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "STEPS_PER_FILE", 4)
    written = write(tmp_path / "d", schema=schema)
    assert [(each.episodes, each.steps) for each in written.files] == [(2, 4), (1, 7), (1, 5)]
    assert read_description(tmp_path / "d") == written
    assert written.schema == schema
    assert (written.origin, written.episodes, written.steps) == (ORIGIN, 4, 16)
    for length, read in zip(LENGTHS, read_episodes(tmp_path / "d"), strict=True):
        expected = an_episode(length, schema)
        assert read.observations.keys() == expected.observations.keys()
        for key, array in expected.observations.items():
            assert read.observations[key].dtype == array.dtype
            assert read.observations[key].tobytes() == array.tobytes()
        assert read.actions.tolist() == expected.actions.tolist()
        assert read.rewards.tobytes() == expected.rewards.tobytes()
        assert (read.terminated, read.truncated, read.won) == (expected.terminated, expected.truncated, expected.won)


def test_steps__are_those_of_all_episodes_without_their_last_observations(tmp_path: Path) -> None:
    write(tmp_path / "a", (3, 1))
    write(tmp_path / "b", (4,))
    steps = read_steps([tmp_path / "a", tmp_path / "b"])
    episodes = [an_episode(length) for length in (3, 1, 4)]
    assert len(steps) == 8
    assert steps.last.tolist() == [False, False, True, True, False, False, False, True]
    for key, array in steps.observations.items():
        np.testing.assert_array_equal(array, np.concatenate([each.observations[key][:-1] for each in episodes]))
    assert steps.actions.tolist() == [row for each in episodes for row in each.actions.tolist()]


def test_returns__are_discounted_to_each_episodes_end(tmp_path: Path) -> None:
    write(tmp_path / "d", (3, 2))
    steps = read_steps([tmp_path / "d"])
    expected = []
    for length in (3, 2):
        rewards = an_episode(length).rewards
        expected += [sum(0.9**k * rewards[t + k] for k in range(length - t)) for t in range(length)]
    assert steps.returns(0.9).tolist() == pytest.approx(expected, rel=1e-5)


def test_dataset__tells_means_of_return_and_wins(tmp_path: Path) -> None:
    written = write(tmp_path / "d", (1, 2, 3, 4))  # won: true, false, not told, true
    assert written.win_rate == pytest.approx(2 / 3)
    assert written.mean_return == pytest.approx(np.mean([an_episode(length).rewards.sum() for length in (1, 2, 3, 4)]))


def test_dataset__is_plain_parquet(tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    table = pq.read_table(tmp_path / "d" / "episodes-00000.parquet")
    assert table.column("obs/entities/post").to_pylist() == [an_episode(3).observations["entities/post"].ravel().tolist()]
    assert "obs/action_mask" in table.column_names


def test_writer__leaves_nothing_where_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "STEPS_PER_FILE", 1)

    def interrupted() -> None:
        with DatasetWriter(tmp_path / "d", COURIERS) as dataset:
            dataset.add(an_episode(3))
            assert list(tmp_path.glob("**/*.parquet"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_writer__replaces_nothing(tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    with pytest.raises(ValueError, match=r"dataset .*/d: there is something already; choose another folder"):
        DatasetWriter(tmp_path / "d", COURIERS)
    with DatasetWriter(tmp_path / "e", COURIERS) as empty, pytest.raises(ValueError, match="got no episodes"):
        empty.finish(ORIGIN)


def test_reader__says_how_to_make_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset .*/none: does not exist; .* `perceiver-rl collect POLICY .*/none"):
        read_description(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no dataset\.json"):
        read_description(tmp_path)


def test_reader__refuses_what_is_not_whole(tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    file = tmp_path / "d" / "episodes-00000.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=rf"episodes-00000\.parquet has {len(whole) - 9:,} bytes, expected {len(whole):,}"):
        read_description(tmp_path / "d")
    file.write_bytes(whole[:-9] + bytes(9))  # of the right size, but torn
    with pytest.raises(ValueError, match=r"dataset .*episodes-00000\.parquet: .*; collect it again"):
        read_steps([tmp_path / "d"])
    file.unlink()
    with pytest.raises(ValueError, match=r"episodes-00000\.parquet is missing"):
        read_description(tmp_path / "d")


def change(folder: Path, column: str, values: list[list[float]]) -> None:
    """Put other values into a column of the only file, and tell its new size."""
    file = folder / "episodes-00000.parquet"
    table = pq.read_table(file)
    index = table.column_names.index(column)
    pq.write_table(
        table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)), file
    )
    record = json.loads((folder / "dataset.json").read_text())
    record["files"][0]["bytes"] = file.stat().st_size
    (folder / "dataset.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("actions", 99, r"actions, step 0, courier \d: got option 99, expected one of"),
        ("obs/entities/post", float("nan"), r"post"),
        ("obs/action_mask", True, r"action_mask"),
    ],
)
def test_reader__refuses_what_breaks_the_contract(column: str, value: float, message: str, tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    size = len(pq.read_table(tmp_path / "d" / "episodes-00000.parquet").column(column)[0].as_py())
    change(tmp_path / "d", column, [[value] * size])
    with pytest.raises(ValueError, match=rf"dataset .*episodes-00000\.parquet: .*{message}"):
        read_steps([tmp_path / "d"])


def test_reader__refuses_lists_of_other_lengths(tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    change(tmp_path / "d", "actions", [[0] * 11])
    with pytest.raises(ValueError, match=r"column 'actions': got lists of other lengths"):
        read_steps([tmp_path / "d"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "got another format than 1"),
        ({"files": []}, "got 0 steps, expected some"),
        ({"files": [{"name": "../x", "episodes": 1, "steps": 1, "bytes": 1}]}, "names without folders"),
        ({"origin": {}}, "origin"),
    ],
)
def test_reader__refuses_a_description_of_another_form(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    write(tmp_path / "d", (3,))
    file = tmp_path / "d" / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ValueError, match=rf"dataset .*{message}"):
        read_description(tmp_path / "d")
