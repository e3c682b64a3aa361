"""A search for good settings: everything that can be wrong with it is found first, then Ray Tune runs its trials."""

from __future__ import annotations

import logging
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from perceiver_rl.configuration import unknown_name
from perceiver_rl.rllib.cluster import local_ray
from perceiver_rl.rllib.metrics import ACTIONS, AUXILIARY, MODULE_TAGS, TAGS
from perceiver_rl.rllib.training import build_config, try_out
from perceiver_rl.rllib.tuning.report import Ended, TrialRecord, read_trials, write_report
from perceiver_rl.rllib.tuning.settings import SearchFolder, SearchSettings
from perceiver_rl.rllib.tuning.space import Interval, Parameter, assignments, draw, parse_parameters
from perceiver_rl.rllib.tuning.trial import ENV_STEPS, ERROR_FILE, SCORE, TriedEnvironment, environment_key, run_trial

HALVING = 2
"""At each of ASHA's decisions the better half of the trials so far goes on; the next one is after twice the steps."""
QUANTILE = 0.25
"""Share of PBT's population that copies as many of the best."""
RESAMPLE = 0.25
"""Probability with which PBT draws a parameter anew; else a number is multiplied by one of its factors."""
FACTORS = (1.25, 0.8)
KEPT_CHECKPOINTS = 3
"""Of each trial, in Tune's folder; PBT copies from the newest ones."""
FIXED_UNDER_PBT = ("model", "environment")
"""Sections that a copy cannot change: its weights fit one network and one observation."""
POINT = "parameters"
GROUPS = tuple(sorted({tag.partition("/")[0] for tag in (*TAGS, *MODULE_TAGS)} | {ACTIONS, AUXILIARY}))


@dataclass(frozen=True)
class PreparedSearch:
    """A search of which everything has been checked that can be before Ray starts."""

    settings: SearchSettings
    folder: SearchFolder
    parameters: list[Parameter]
    plan: list[dict[str, Any]]
    """The parameters that each trial begins with."""
    environments: dict[str, TriedEnvironment]
    resources: tune.PlacementGroupFactory
    """Of the largest trial."""
    resume: bool
    """Whether Tune has a state to go on from."""

    @property
    def cpus(self) -> int:
        """CPUs that Ray must believe to have for each trial at a time."""
        return math.ceil(self.resources.required_resources.get("CPU", 1))


@dataclass(frozen=True)
class SearchProgress:
    """How a search stands."""

    env_steps: int
    """Of all trials; one that was stopped early counts in full."""
    total_env_steps: int
    ended: int
    samples: int
    best: float | None


@dataclass(frozen=True)
class SearchResult:
    """How a search ended."""

    trials: list[TrialRecord]
    interrupted: bool
    """Whether Ctrl-C ended it before its time."""


def prepare_search(settings: SearchSettings, folder: SearchFolder, *, resume: bool = False) -> PreparedSearch:
    """Check everything that can be wrong with a search, and begin its folder.

    Every trial's config is built, and every environment among them is tried, so that no mistake shows up hours later.

    Args:
        settings: What to do.
        folder: Where to write.
        resume: Go on with the search in the folder.

    Raises:
        ValueError: If a parameter, its distribution, the metric, the config or the environment is not valid, or the folder
            holds a search already.
        ImportError: If the environment needs a package that is not installed.
    """
    parameters = parse_parameters(settings.parameters, settings.overrides)
    _check(settings, parameters)
    plan = folder.read()[1] if resume else draw(parameters, settings.samples, settings.seed)
    environments: dict[str, TriedEnvironment] = {}
    resources = []
    for point in plan:
        config = build_config(settings.trial_settings(assignments(point)))
        if not config.is_online:
            raise ValueError(
                f"config {settings.config!r}: got one that learns from recorded episodes, expected one that plays; without "
                "battles there is no outcome by which trials could be compared"
            )
        if environment_key(config) not in environments:
            environments[environment_key(config)] = TriedEnvironment(*try_out(config, settings.seed))
        resources.append(_resources(config))
    if not resume:
        folder.create(settings, plan)
    largest = max(resources, key=lambda each: each.required_resources.get("CPU", 1))
    return PreparedSearch(settings, folder, parameters, plan, environments, largest, resume=resume and folder.has_state())


def _check(settings: SearchSettings, parameters: list[Parameter]) -> None:
    group, slash, _ = settings.metric.partition("/")
    if not slash or group not in GROUPS:
        raise ValueError(
            unknown_name(
                f"--metric {settings.metric}: expected a TensorBoard tag such as outcome/win_rate; group", group, GROUPS
            )
        )
    if not settings.report_every <= settings.total_env_steps:
        raise ValueError(
            f"--report-every: got {settings.report_every:,}, expected at most --steps {settings.total_env_steps:,}"
        )
    if not settings.grace <= settings.total_env_steps:
        raise ValueError(f"--grace: got {settings.grace:,}, expected at most --steps {settings.total_env_steps:,}")
    if settings.scheduler == "pbt":
        if settings.samples < 2:
            raise ValueError(f"--samples: got {settings.samples}, expected at least 2 for --scheduler pbt, a population")
        for parameter in parameters:
            if parameter.name.partition(".")[0] in FIXED_UNDER_PBT:
                raise ValueError(
                    f"--param {parameter.name}: got a setting of {' or '.join(FIXED_UNDER_PBT)} under --scheduler pbt, "
                    "which changes settings of a network that has begun to learn; expected others, or --scheduler asha"
                )


def _resources(config: AlgorithmConfig) -> tune.PlacementGroupFactory:
    """What a trial needs: its own process, its env runners, its learners."""
    return config.algo_class.default_resource_request(config)


def run_search(
    search: PreparedSearch, *, concurrent: int, on_progress: Callable[[SearchProgress], None] | None = None
) -> SearchResult:
    """Run a search's trials, and leave a report.

    The first Ctrl-C ends the search in a state from which it can go on; a second one ends at once.

    Args:
        search: What `prepare_search` gave back.
        concurrent: Trials at a time.
        on_progress: Called with every report of a trial.
    """
    settings, folder = search.settings, SearchFolder(search.folder.path.resolve())
    # A partial of a function that is found by its name: what Ray would pickle of a closure is not always to be pickled.
    trainable = partial(_run_trial, settings, folder, search.environments)
    random.seed(settings.seed)  # the generator by which Tune's PBT chooses whom to copy
    scheduler = _scheduler(search)
    watch = _Watch(search, scheduler, on_progress or (lambda progress: None))
    with _quiet_tune(), local_ray(concurrent * search.cpus, show_logs=False):
        tune.run(
            tune.with_resources(trainable, search.resources),
            name=folder.tune.name,
            storage_path=str(folder.path),
            config={POINT: tune.grid_search(search.plan)},
            metric=SCORE,
            mode=settings.mode,
            stop={ENV_STEPS: settings.total_env_steps},
            scheduler=scheduler,
            # A population is complete before anybody copies: there Ray's CPUs alone are the limit.
            max_concurrent_trials=None if settings.scheduler == "pbt" else concurrent,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            trial_dirname_creator=lambda trial: f"{_number(trial.trial_id):05d}",
            callbacks=[watch],
            resume="AUTO" if search.resume else None,
            reuse_actors=True,  # a process needs ten seconds to start, and compiles SMAX
            raise_on_failed_trial=False,
            verbose=0,
        )
    trials = watch.report()
    return SearchResult(trials, interrupted=any(trial.ended is Ended.NOT for trial in trials))


TUNE_ENVIRONMENT = {
    # Paths of configs and modules of the user's own are relative to the folder where the command was given.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # With it, verbose=0 would mean some output.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds between notes of where the search stands. Within Tune's own ten a short trial ends, and a killed search would
    # do it again.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # The trials are run folders, with curves of their own.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # So many seconds a trial's thread may take to end before its process is not used for the next trial.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
"""Ray Tune reads these when it starts, and its trials when they do."""


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Ray Tune as this module wants it; what it would say stands in the report."""
    log = logging.getLogger("ray.tune")
    level, before = log.level, {name: os.environ.get(name) for name in TUNE_ENVIRONMENT}
    log.setLevel(logging.CRITICAL)
    os.environ |= TUNE_ENVIRONMENT
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


def _run_trial(
    settings: SearchSettings, folder: SearchFolder, environments: dict[str, TriedEnvironment], config: dict[str, Any]
) -> None:
    number = _number(tune.get_context().get_trial_id())
    run_trial(settings, folder.trial(number), number, config[POINT], environments)


def _scheduler(search: PreparedSearch) -> TrialScheduler:
    settings = search.settings
    if settings.scheduler == "asha":
        return ASHAScheduler(
            time_attr=ENV_STEPS,
            max_t=settings.total_env_steps,
            grace_period=settings.grace,
            reduction_factor=HALVING,
        )
    if settings.scheduler == "none":
        return FIFOScheduler()
    generator = np.random.default_rng(settings.seed)
    mutations: dict[str, Any] = {}
    for parameter in search.parameters:
        values = parameter.values
        mutations[parameter.name] = (
            partial(_redraw, values, generator) if isinstance(values, Interval) else list(values.values)
        )
    return _Population(
        time_attr="training_iteration",  # a trial reports once for each exchange
        perturbation_interval=1,
        hyperparam_mutations={POINT: mutations},
        quantile_fraction=QUANTILE,
        resample_probability=RESAMPLE,
        perturbation_factors=FACTORS,
        custom_explore_fn=partial(_fit, search.parameters),
        log_config=False,  # the trials' histories tell it
        synch=True,  # trials that take turns would otherwise be compared at different steps
    )


class _Population(PopulationBasedTraining):
    """Ray's, which waits for ever in a search that is gone on with: its next exchange is the first one again, long past."""

    _next_perturbation_sync: int

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        live = tune_controller.get_live_trials()
        if live and all(trial.status in ("PENDING", "PAUSED") for trial in live):
            hindmost = min(self._trial_state[trial].last_train_time for trial in live)
            if hindmost >= self._next_perturbation_sync:
                self._next_perturbation_sync = hindmost + self._perturbation_interval
        return super().choose_trial_to_run(tune_controller)


def _redraw(values: Interval, generator: np.random.Generator) -> int | float:
    return values.at(generator.random())


def _fit(parameters: list[Parameter], config: dict[str, Any]) -> dict[str, Any]:
    """Bring what PBT multiplied back between its bounds."""
    point = dict(config[POINT])
    for parameter in parameters:
        if isinstance(parameter.values, Interval):
            point[parameter.name] = parameter.values.fit(point[parameter.name])
    return {**config, POINT: point}


def _number(trial_id: str) -> int:
    """The place in the plan of a trial of Tune's: `1a2b3_00004` → 4."""
    return int(trial_id.rpartition("_")[2])


class _Watch(tune.Callback):
    """Follows the trials, writes the report, and keeps what Tune forgets of a search that goes on.

    Tune restores trials, not the scheduler: ASHA would no longer know what earlier trials had reached.
    """

    def __init__(
        self, search: PreparedSearch, scheduler: TrialScheduler, on_progress: Callable[[SearchProgress], None]
    ) -> None:
        self._search = search
        self._scheduler = scheduler
        self._on_progress = on_progress
        self._ended: dict[int, Ended] = {}
        self._steps: dict[int, int] = {}
        self._scores: dict[int, float] = {}

    def report(self) -> list[TrialRecord]:
        """Write the report; give back what stands in it, best first."""
        trials = read_trials(self._search.settings, self._search.folder, self._search.plan, self._ended)
        write_report(self._search.settings, self._search.folder, trials)
        return trials

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        number = _number(trial.trial_id)
        self._steps[number], self._scores[number] = result[ENV_STEPS], result[SCORE]
        self._tell()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = _number(trial.trial_id)
        total = self._search.settings.total_env_steps
        self._ended[number] = Ended.FINISHED if self._steps.get(number, 0) >= total else Ended.EARLY
        self._tell()
        self.report()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = _number(trial.trial_id)
        self._ended[number] = Ended.FAILED
        file = self._search.folder.trial(number) / ERROR_FILE
        if not file.exists():  # its process ended without a word
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{trial.get_error()}\n")
        self._tell()
        self.report()

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"ended": self._ended, "steps": self._steps, "scores": self._scores}
        if isinstance(self._scheduler, ASHAScheduler):
            with tempfile.TemporaryDirectory() as folder:
                self._scheduler.save(str(Path(folder, "asha")))
                state["asha"] = Path(folder, "asha").read_bytes()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._ended, self._steps, self._scores = state["ended"], state["steps"], state["scores"]
        if isinstance(self._scheduler, ASHAScheduler):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "asha").write_bytes(state["asha"])
                self._scheduler.restore(str(Path(folder, "asha")))

    def _tell(self) -> None:
        settings = self._search.settings
        total = settings.total_env_steps
        best = (max if settings.mode == "max" else min)(self._scores.values(), default=None)
        steps = sum(total if i in self._ended else min(total, self._steps.get(i, 0)) for i in range(settings.samples))
        self._on_progress(SearchProgress(steps, total * settings.samples, len(self._ended), settings.samples, best))
