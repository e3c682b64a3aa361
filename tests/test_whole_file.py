"""Files that are whole or not there, and asked for before the work."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from perceiver_rl.cli import app
from perceiver_rl.whole_file import require_writable, write_whole

BUNDLE = Path(__file__).parents[1] / "agents" / "bundles" / "smax_2s3z"


def test_write_whole__leaves_what_was_there_and_no_scratch_where_it_fails(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "kept", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    write_whole(tmp_path / "text", "ä")
    write_whole(tmp_path / "bytes", b"\xff")
    assert ((tmp_path / "text").read_text("utf-8"), (tmp_path / "bytes").read_bytes()) == ("ä", b"\xff")


def test_require_writable__makes_folders_and_nothing_else(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "file", "--out")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new" / "file").write_text("kept")
    require_writable(tmp_path / "new" / "file", "--out")
    assert [each.read_text() for each in (tmp_path / "new").iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "got a folder, expected a file"),
        ("/dev/null", "--out /dev/null: got something else, expected a file"),
        ("/proc/file", r"--out /proc/file: cannot be written: "),
        ("file/below", "cannot be written: File exists"),
    ],
)
def test_require_writable__says_what_is_in_the_way(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        require_writable(tmp_path / file, "--out")


PLACES = [("evaluate", "--json"), ("evaluate", "--csv"), ("replay", "--out")]


@pytest.mark.parametrize("arguments", PLACES)
def test_commands__ask_before_they_play(arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_rl.evaluation.arena.evaluate", lambda *args, **kwargs: pytest.fail("played"))
    monkeypatch.setattr("perceiver_rl.replay.trained.record", lambda *args, **kwargs: pytest.fail("played"))
    command, option = arguments
    done = CliRunner().invoke(app, [command, str(BUNDLE), option, str(tmp_path)])
    assert done.exit_code == 2
    assert "got a folder, expected a file" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--json"), ("evaluate", "--csv"), ("replay", "--out"), ("replay", "--film")]
)
def test_commands__write_nothing_into_a_bundle(arguments: tuple[str, str]) -> None:
    before = sorted(BUNDLE.iterdir())
    command, option = arguments
    done = CliRunner().invoke(app, [command, str(BUNDLE), option, str(BUNDLE / "file.gif")])
    assert done.exit_code == 2
    assert "got a place in a bundle, expected another folder" in " ".join(done.stderr.split())
    assert sorted(BUNDLE.iterdir()) == before
