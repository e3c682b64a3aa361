"""Find a training run's checkpoints, tell whole ones from damaged and foreign ones, and load the policy in them."""

from __future__ import annotations

import json
import logging
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib.module import PerceiverRLModule
from perceiver_rl.rllib.run_folder import CHECKPOINT_INFO, CHECKPOINTS, FORMAT
from perceiver_rl.schema_differences import require_same_but_slots

logger = logging.getLogger(__name__)

RLLIB_INFO = "rllib_checkpoint.json"
LEARNER = Path(COMPONENT_LEARNER_GROUP, COMPONENT_LEARNER)
MODULES = LEARNER / COMPONENT_RL_MODULE

REQUIRED_FILES = (RLLIB_INFO, "algorithm_state.pkl", "class_and_ctor_args.pkl", str(LEARNER / "state.pkl"))
"""Besides our own. RLlib writes others too, which depend on the algorithm; those that are there are looked at."""
MODULE_FILES = ("class_and_ctor_args.pkl", "module_state.pkl")
"""Of each policy."""


@dataclass(frozen=True)
class Score:
    """How well a policy played in training when it was saved."""

    tag: str
    """The training figure, e.g. `outcome/win_rate`."""
    value: float


@dataclass(frozen=True)
class CheckpointInfo:
    """What must be known of a checkpoint before it is loaded."""

    path: Path
    env: str
    env_config: dict[str, Any]
    env_steps: int
    """Environment steps that it was trained for."""
    seconds: float
    """Training time up to it."""
    seed: int
    config: str
    """Path or import string of the training config."""
    versions: dict[str, str]
    """Of the packages that wrote it."""
    commit: str | None
    schemas: dict[str, EntitySchema]
    """What each policy sees and does, by module id."""
    agents: dict[str, str]
    """Module id of each agent of a multi-agent environment; empty for a squad."""
    score: Score | None = None
    """None if no episode had ended yet."""
    files: dict[str, int] = field(default_factory=dict)
    """Every other file of the checkpoint and its size in bytes; empty where that was not written down yet."""

    @property
    def schema(self) -> EntitySchema:
        """The schema of the only policy.

        Raises:
            ValueError: If there are several.
        """
        return self.schemas[self.module_or_only_one(None)]

    def module_or_only_one(self, module: str | None) -> str:
        """A module id; for None, that of the only policy.

        Raises:
            ValueError: If there is no such policy, or none is named and there are several; the message lists them.
        """
        if module is None and len(self.schemas) == 1:
            return next(iter(self.schemas))
        if module not in self.schemas:
            raise ValueError(f"checkpoint {self.path}: got policy {module!r}, expected one of {', '.join(self.schemas)}")
        return module


# -- finding ---------------------------------------------------------------------------------------------------


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that is meant by a path.

    Args:
        path: A run folder, its `checkpoints` folder, or one checkpoint. Of several, the one with the most
            environment steps that is whole; damaged ones that are passed over are logged as warnings.

    Raises:
        ValueError: If there is nothing, nothing of ours, or nothing whole; the message says which, and names
            the file that is missing or cannot be read.
    """
    if not path.exists():
        raise ValueError(f"checkpoint {path}: does not exist; expected a run folder, a checkpoint in one, or a bundle")
    if not path.is_dir():
        raise ValueError(f"checkpoint {path}: got a file, expected a run folder of `train`, or a checkpoint in one")
    for folder in (path / CHECKPOINTS, path):
        candidates = checkpoints_in(folder)
        if candidates:
            return _newest_whole(candidates)
    if path.name == CHECKPOINTS or (path / CHECKPOINTS).is_dir() or (path / "run.json").is_file():
        raise ValueError(
            f"run {path}: holds no checkpoint; expected at least one, which `train` writes on schedule, at its end "
            "and at Ctrl-C"
        )
    require_whole(path)
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints by environment steps. One that is still being written has a name that begins with a dot."""
    found = [each for each in folder.glob("checkpoint_*") if each.is_dir()]
    return sorted(found, key=lambda each: (len(each.name), each.name))


def _newest_whole(candidates: list[Path]) -> Path:
    damage: list[str] = []
    for candidate in reversed(candidates):
        try:
            require_whole(candidate)
        except ValueError as error:
            damage.append(str(error))
            continue
        for message in damage:
            logger.warning("passed over: %s; using %s", message, candidate.name)
        return candidate
    raise ValueError(damage[0])


# -- checking --------------------------------------------------------------------------------------------------


def require_whole(checkpoint: Path) -> None:
    """Raise if a folder is not a checkpoint that `perceiver-rl train` wrote, with every file whole.

    No code in the checkpoint is run: pickles are walked through, not loaded.

    Raises:
        ValueError: The message says what is wrong, and with which file.
    """
    info = load_info(checkpoint)
    of_modules = (str(MODULES / module / name) for module in info.schemas for name in MODULE_FILES)
    for name in (*REQUIRED_FILES, *of_modules):
        if not (checkpoint / name).is_file():
            raise ValueError(_truncated(checkpoint, f"{name} is missing"))
    for file in sorted(checkpoint.rglob("*.pkl")):
        _require_whole_pickle(checkpoint, file)
    for name, size in info.files.items():
        file = checkpoint / name
        if not file.is_file():
            raise ValueError(_truncated(checkpoint, f"{name} is missing"))
        if file.stat().st_size != size:
            raise ValueError(_truncated(checkpoint, f"{name} has {file.stat().st_size:,} bytes of {size:,}"))


def load_info(checkpoint: Path) -> CheckpointInfo:
    """Read what `perceiver-rl train` wrote beside RLlib's checkpoint.

    Args:
        checkpoint: One checkpoint's folder.

    Raises:
        ValueError: If the folder holds no checkpoint of ours, or what it says cannot be read.
    """
    file = checkpoint / CHECKPOINT_INFO
    if not file.is_file():
        what = "an RLlib checkpoint that" if (checkpoint / RLLIB_INFO).is_file() else "a folder that"
        raise ValueError(
            f"checkpoint {checkpoint}: got {what} was not written by `perceiver-rl train` (it has no {CHECKPOINT_INFO}), "
            "expected a run folder, or a checkpoint in one"
        )
    try:
        record = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(_truncated(checkpoint, f"{CHECKPOINT_INFO} cannot be read ({error})")) from error
    written_by = record.get("format") if isinstance(record, dict) else None
    if written_by != FORMAT:
        raise ValueError(
            f"checkpoint {checkpoint}: got format {written_by!r} in {CHECKPOINT_INFO}, expected {FORMAT}; "
            "it was written by another version of perceiver-rl"
        )
    try:
        return CheckpointInfo(
            path=checkpoint,
            env=record["env"],
            env_config=record["env_config"],
            env_steps=record["env_steps"],
            seconds=record["seconds"],
            seed=record["seed"],
            config=record["config"],
            versions=record["versions"],
            commit=record["commit"],
            schemas={module: EntitySchema.from_dict(schema) for module, schema in _schemas_in(record).items()},
            agents=record.get("agents", {}),
            score=Score(**record["score"]) if record.get("score") else None,
            files=record.get("files", {}),
        )
    except (KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be understood ({error})"
        raise ValueError(_truncated(checkpoint, f"{CHECKPOINT_INFO} {what}")) from error


def _schemas_in(record: dict[str, Any]) -> dict[str, Any]:
    """By module id; checkpoints from before there were several have one schema."""
    return record["schemas"] if "schemas" in record else {DEFAULT_MODULE_ID: record["schema"]}


def _require_whole_pickle(checkpoint: Path, file: Path) -> None:
    """Walk through a pickle to its end, without loading what it describes."""
    with file.open("rb") as stream:
        try:
            for _ in pickletools.genops(stream):
                pass
        except (ValueError, MemoryError, OverflowError) as error:  # the latter two of a damaged length
            name = file.relative_to(checkpoint)
            raise ValueError(
                _truncated(checkpoint, f"{name} breaks off or is damaged after {file.stat().st_size:,} bytes ({error})")
            ) from error


def _truncated(checkpoint: Path, what: str) -> str:
    return f"checkpoint {checkpoint}: truncated, {what}; expected a whole checkpoint: use another, or copy it again"


# -- loading ---------------------------------------------------------------------------------------------------


def load_policy(checkpoint: Path, schema: EntitySchema | None = None, module: str | None = None) -> EntityPolicy:
    """The trained policy, in evaluation mode, on the CPU. Ray need not run.

    RLlib's checkpoints are pickles, and loading one can run any code: load only what you would run.

    Args:
        checkpoint: What `find_checkpoint` gave back.
        schema: The schema of the environment that it shall play in; None for that of its own. It may have other numbers of
            slots (`max_count`) than the one that the policy was trained with: no weight depends on them.
        module: Which policy, where several were trained; None for the only one.

    Raises:
        ValueError: If the schema differs in anything else, there is no such policy, or the checkpoint cannot be loaded.
    """
    info = load_info(checkpoint)
    module_id = info.module_or_only_one(module)
    if schema is not None:
        require_playable(info, schema, module_id)
    try:
        with _without_deprecation_log():
            loaded = RLModule.from_checkpoint((checkpoint / MODULES / module_id).resolve())
    except Exception as error:  # unpickling fails in as many ways as the versions of a package can differ
        versions = ", ".join(f"{package} {version}" for package, version in info.versions.items())
        raise ValueError(
            f"checkpoint {checkpoint}: its module cannot be loaded ({type(error).__name__}: {error}); "
            f"it was written with {versions}"
        ) from error
    if not isinstance(loaded, PerceiverRLModule):
        raise ValueError(
            f"checkpoint {checkpoint}: got a module of class {type(loaded).__name__}, expected PerceiverRLModule"
        )
    policy: EntityPolicy = loaded.policy
    if schema is not None and schema != policy.schema:
        weights = policy.state_dict()
        policy = loaded.build_policy(schema)
        policy.load_state_dict(weights)
    return policy.eval()


@contextmanager
def _without_deprecation_log() -> Iterator[None]:
    """RLlib's base class calls its own deprecated code for every module, and says so on the terminal."""
    log = logging.getLogger("ray._common.deprecation")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def require_playable(info: CheckpointInfo, schema: EntitySchema, module: str | None = None) -> None:
    """Raise if a policy cannot play an environment because its schema differs in more than numbers of slots.

    Raises:
        ValueError: The message lists what differs.
    """
    trained = info.schemas[info.module_or_only_one(module)]
    require_same_but_slots(trained, schema, f"checkpoint {info.path}, trained in {info.env!r}", info.env)
