"""Evaluations in TensorBoard: beside a training run's own curves, or in a folder of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.descriptions import model_parameters, model_text, schema_text, table_text
from perceiver_rl.evaluation.parallel import RETURN_PER_AGENT
from perceiver_rl.evaluation.statistics import UNITS_LEFT, Summary
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.summaries import add_summary, hparams_session

SCALARS = {
    "win_rate": "win_rate",
    "win_rate_low": "win_rate_low",
    "win_rate_high": "win_rate_high",
    "return": "return_mean",
    "return_low": "return_low",
    "return_high": "return_high",
    "return_per_agent": "return_per_agent_mean",
    "episode_length": "length_mean",
    "units_left": "units_left_mean",
}
"""Last part of the tag → field of `Summary`."""

METRICS = ("win_rate", "return", "episode_length")
"""Scalars of each mode that stand beside the hyper-parameters."""

_TOLD_ABOVE = {RETURN_PER_AGENT, UNITS_LEFT}
"""Outcomes that a field of `Summary` has, too."""


def log_summaries(
    run: Path,
    summaries: Sequence[Summary],
    env_steps: int,
    policies: Mapping[str, Mapping[str, EntityPolicy]] | None = None,
    *,
    alone: bool = False,
) -> None:
    """Write one policy's summaries, so that checkpoints make a curve.

    Scalars are `evaluation/<mode>/<scalar>`, `evaluation_outcomes/<mode>/<key>` for what else the environment tells of an
    episode, and `evaluation_units/<mode>/<kind>/<figure>` for what it tells of its units. Text has what was evaluated and,
    of each policy, its model and schema. All go to `RUN/evaluation/<environment>`, a TensorBoard run of its own:
    TensorBoard reads the newest event file of a folder only, so a file in the training's folder would hide what a running
    training still logs.

    Args:
        run: The training run's folder, or one that stands in its place.
        summaries: Of one policy, at most one for each environment and mode.
        env_steps: How long the policy was trained; the scalars' step.
        policies: By environment and module id, with that environment's schema.
        alone: Whether each environment becomes a row of hyper-parameters. Not beside a training run, which is a row by
            itself: TensorBoard takes the columns of all from the first row that it finds.

    Raises:
        ValueError: If two summaries are of one environment and mode: their points could not be told apart.
    """
    places = [(each.env, each.mode) for each in summaries]
    if len(set(places)) < len(places):
        raise ValueError(
            f"summaries for TensorBoard: got {', '.join(f'{mode} in {env}' for env, mode in places)}, expected "
            "at most one for each environment and mode; log one policy a call"
        )
    for env in dict.fromkeys(each.env for each in summaries):
        of_env = [each for each in summaries if each.env == env]
        playing = (policies or {}).get(env, {})
        scalars = {tag: value for summary in of_env for tag, value in _scalars(summary)}
        with SummaryWriter(str(run / "evaluation" / _folder_name(env))) as writer:
            for tag, text in _texts(of_env, playing).items():
                writer.add_text(tag, text, env_steps)
            metrics = [tag for tag in _metrics() if tag in scalars]
            session = hparams_session(_hyper_parameters(of_env[0], env_steps, playing), metrics) if alone else []
            for each in session[:-1]:
                add_summary(writer, each)
            for tag, value in scalars.items():
                writer.add_scalar(tag, value, env_steps)
            for each in session[-1:]:
                add_summary(writer, each)


def _scalars(summary: Summary) -> Iterator[tuple[str, float]]:
    for scalar, field in SCALARS.items():
        value = getattr(summary, field)
        if value is not None:
            yield f"evaluation/{summary.mode}/{scalar}", value
    for key, value in summary.outcomes.items():
        if key not in _TOLD_ABOVE:
            yield f"evaluation_outcomes/{summary.mode}/{key}", value
    for kind, figures in summary.units.items():
        for figure, value in figures.items():
            if figure != "units":  # how many there were, which is no outcome
                yield f"evaluation_units/{summary.mode}/{kind}/{figure}", value


def _metrics() -> list[str]:
    return [f"evaluation/{mode}/{scalar}" for mode in ("greedy", "sampled") for scalar in METRICS]


def _texts(summaries: Sequence[Summary], policies: Mapping[str, EntityPolicy]) -> dict[str, str]:
    """Markdown by tag."""
    first = summaries[0]
    asked = {
        "policy": first.policy,
        "checkpoint": first.checkpoint,
        "environment": first.env,
        "its options": first.env_config,
        "control": first.control,
        "seed": first.seed,
        "episodes": ", ".join(f"{each.episodes:,} {each.mode}" for each in summaries),
        "commit": first.commit,
        **{f"version of {package}": version for package, version in first.versions.items()},
    }
    texts = {"evaluation/settings": table_text(("evaluated", ""), asked.items())}
    for module, policy in policies.items():
        ending = f"/{module}" if len(policies) > 1 else ""
        texts[f"evaluation/model{ending}"] = model_text(asdict(policy.config))
        texts[f"evaluation/schema{ending}"] = schema_text(policy.schema)
    return texts


def _hyper_parameters(
    summary: Summary, env_steps: int, policies: Mapping[str, EntityPolicy]
) -> dict[str, bool | int | float | str]:
    """Under the names that training gives them; `seed` is training's, so the evaluation's has another."""
    model = next((asdict(policy.config) for policy in policies.values()), {})
    found = {
        **model_parameters(model),
        "env": summary.env,
        "evaluation/episodes": summary.episodes,
        "evaluation/policy": summary.policy,
        "evaluation/seed": summary.seed,
        "model/control": summary.control,
        "total_env_steps": env_steps,
    }
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def _folder_name(env: str) -> str:
    return re.sub(r"[^\w.-]+", "_", env)
