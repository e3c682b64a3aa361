"""What a training run leaves behind: curves, one line an iteration, recovery points, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.descriptions import model_text, schema_text
from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.checkpoint import load_info
from perceiver_rl.rllib.metrics import ACTIONS, verb_shares
from perceiver_rl.rllib.recovery import ResumePoint, save_recovery_point
from perceiver_rl.rllib.retention import score_of, thin_out
from perceiver_rl.rllib.run_description import METRICS, hyper_parameters, models, settings_text
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.summaries import add_summary, hparams_session, verb_histogram


@dataclass(frozen=True)
class Progress:
    """How a run stands after an iteration."""

    env_steps: int
    total_env_steps: int
    seconds: float
    """Training time, from the first iteration on and over all resumptions."""
    env_steps_per_second: float
    """Over the last iteration."""
    numbers: dict[str, float]
    """By TensorBoard tag."""


@dataclass(frozen=True)
class PreparedRun:
    """A run of which everything has been checked that can be before Ray starts."""

    settings: RunSettings
    folder: RunFolder
    config: AlgorithmConfig
    schemas: dict[str, EntitySchema]
    """What each policy sees and does, by module id."""
    agents: dict[str, str]
    """Module id of each agent of a multi-agent environment; empty for a squad."""
    resume_point: ResumePoint | None
    """Where a resumed run goes on from; None where one begins."""


class TrainingError(RuntimeError):
    """A run cannot go on; what it has saved so far is whole, and it can be gone on with from there."""


class Recorder:
    """Writes what a run leaves behind.

    Args:
        run: The run.
        on_checkpoint: Called with each checkpoint that was written.
    """

    def __init__(self, run: PreparedRun, on_checkpoint: Callable[[Path], None]) -> None:
        self.run = run
        self._on_checkpoint = on_checkpoint
        self._last_saved: Path | None = None
        if run.resume_point is not None and run.resume_point.path.is_dir():
            self._last_saved = run.resume_point.path
        self._info = {
            "env": run.config.env,
            "env_config": dict(run.config.env_config),
            "config": run.settings.config,
            "seed": run.settings.seed,
            "schemas": {module: schema.to_dict() for module, schema in run.schemas.items()},
            "agents": run.agents,
        }
        control = "per agent" if run.agents else next(iter(run.schemas.values())).control
        self._session = hparams_session(hyper_parameters(run.config, run.settings, control), METRICS)

    @contextmanager
    def open_log(self, env_steps: int) -> Iterator[SummaryWriter]:
        """TensorBoard's writer; what an earlier, interrupted part of the run logged after `env_steps` is taken back.

        Raises:
            TrainingError: If the disk takes no more.
        """
        with _disk_errors_told(self.run.folder.path):
            self.run.folder.cut_progress(env_steps)
            writer = SummaryWriter(str(self.run.folder.path), purge_step=env_steps + 1 if env_steps else 0)
            if env_steps == 0:
                self._describe(writer)
        try:
            yield writer
        except BaseException:
            with suppress(OSError):  # what brought the run to its end is told, not what follows from it
                writer.close()
            raise
        with _disk_errors_told(self.run.folder.path):
            writer.close()

    def _describe(self, writer: SummaryWriter) -> None:
        """What was asked for, as text and as hyper-parameters."""
        config, settings = self.run.config, self.run.settings
        writer.add_text("run/settings", settings_text(settings, config))
        for module, model in models(config).items():
            writer.add_text(f"run/model/{module}" if module else "run/model", model_text(model))
        for module, schema in self.run.schemas.items():
            writer.add_text(f"run/schema{self._ending(module)}", schema_text(schema))
        *beginning, _ = self._session
        for summary in beginning:
            add_summary(writer, summary)

    def finish(self, writer: SummaryWriter) -> None:
        """Say that the run is complete."""
        add_summary(writer, self._session[-1])

    def log(self, writer: SummaryWriter, progress: Progress) -> None:
        """One iteration's numbers, to TensorBoard and to the progress file; nothing stays in a buffer.

        Raises:
            TrainingError: If the disk takes no more.
        """
        numbers = {**progress.numbers, "time/env_steps_per_second": progress.env_steps_per_second}
        with _disk_errors_told(self.run.folder.path):
            for tag, value in numbers.items():
                writer.add_scalar(tag, value, progress.env_steps)
            for module, schema in self.run.schemas.items():
                if shares := verb_shares(numbers, schema, module):
                    histogram = verb_histogram(f"{ACTIONS}/verbs{self._ending(module)}", shares)
                    add_summary(writer, histogram, progress.env_steps)
            writer.flush()
            self.run.folder.append_progress({"env_steps": progress.env_steps, "seconds": progress.seconds, **numbers})

    def save_recovery_point(self, algorithm: Algorithm, progress: Progress) -> None:
        """Where the run stands. After `log`: a resumed run takes back what was logged later, and has all from before.

        Raises:
            TrainingError: If the disk takes no more.
        """
        with _disk_errors_told(self.run.folder.path):
            save_recovery_point(self.run.folder, algorithm, progress.env_steps, progress.seconds)

    def save(self, algorithm: Algorithm, progress: Progress) -> Path:
        """A checkpoint, unless these steps have one already; old ones are thinned out.

        Raises:
            TrainingError: If the disk takes no more.
        """
        if self._last_saved is not None and load_info(self._last_saved).env_steps == progress.env_steps:
            return self._last_saved
        score = score_of(progress.numbers)
        info = {**self._info, "seconds": progress.seconds, "score": asdict(score) if score else None}
        with _disk_errors_told(self.run.folder.path):
            self._last_saved = self.run.folder.save_checkpoint(algorithm, progress.env_steps, info)
            thin_out(self.run.folder, self._last_saved, self.run.settings.keep_checkpoints)
        self._on_checkpoint(self._last_saved)
        return self._last_saved

    def _ending(self, module: str) -> str:
        """Of a tag that each policy has."""
        return f"/{module}" if len(self.run.schemas) > 1 else ""


@contextmanager
def _disk_errors_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"run folder {folder}: cannot be written ({error}); the checkpoints so far are whole. Make room, or mend what "
            "else is the matter, and go on with --resume"
        ) from error
    except RayError as error:  # a learner in a process of its own has the state that is saved
        raise process_ended(error) from error


def process_ended(error: RayError) -> TrainingError:
    """What to tell where a process ended that RLlib does not replace."""
    what = str(error).partition("\n")[0]  # Ray's lines after the first name actors by numbers
    return TrainingError(
        f"a process of the run ended, and it was no env runner: {type(error).__name__}: {what} What was saved before is "
        "whole. Go on with --resume"
    )
