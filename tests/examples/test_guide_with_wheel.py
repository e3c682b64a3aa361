"""The guide to extending, to the letter, where nothing but the wheel is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.wheels import ROOT, build_wheel

GUIDE = ROOT / "docs" / "extending.md"
COMMANDS = re.findall(r"^\$ (.+)$", GUIDE.read_text(), re.MULTILINE)


@pytest.mark.slow
def test_guide__works_to_the_letter(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    # the files of the examples are those of the guide, which another test sees to
    game = Path(shutil.copytree(ROOT / "examples" / "extending", tmp_path / "my_game"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))} | {
        "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "OMP_NUM_THREADS": "1",
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=game, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run(f"pip install --quiet {wheel} pettingzoo")
    run("! python -c 'import jax'")
    run("! python -c 'import envs'")
    assert len(COMMANDS) > 5
    told = {command: run(command) for command in COMMANDS}
    for command, output in told.items():
        assert "Traceback" not in output, command
        if " train " in command:
            assert "Checkpoint: " in output
        if " evaluate " in command:
            assert re.search(r"\bgreedy\b", output)
            assert re.search(r"\brandom\b", output)
