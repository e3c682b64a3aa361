"""Train every learning task and its negative control, and write what was reached.

    python -m benchmarks.tasks
    python -m benchmarks.tasks --tasks xor,count --seeds 0 --control-seeds ""

Each run is `perceiver-rl train configs.tasks_ppo:TASK --seed SEED`, the control's with
`--set 'environment.env_config={"ablate": True}'`, one after the other; then the greedy policy plays. The
results file is written after every run, and runs that are in it are not repeated. Wants a clean checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import read_progress

RESULTS = Path("benchmarks/results/tasks.json")
REACHED = 0.98
"""Share of the best return at which a task counts as learned."""
SMOOTHING = 4
"""Iterations over which a return in training is averaged."""
EVALUATION_ENVS = 64


def main(
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas; all if empty.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, separated by commas.")] = "0,1,2",
    control_seeds: Annotated[str, typer.Option(help="Seeds of the negative controls; none if empty.")] = "0",
    episodes: Annotated[int, typer.Option(help="Episodes of each evaluation.", min=EVALUATION_ENVS)] = 512,
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs/tasks"),
    json_file: Annotated[Path, typer.Option("--json", help="The results file.")] = RESULTS,
) -> None:
    """Train, evaluate, write."""
    from envs.tasks import names
    from perceiver_rl.provenance import provenance

    if str(provenance()["commit"]).endswith("-dirty"):
        raise SystemExit("this checkout has changes that are not committed; results name the commit that made them")
    records: list[dict[str, Any]] = json.loads(json_file.read_text()) if json_file.exists() else []
    done = {(record["task"], record["ablated"], record["seed"]) for record in records}
    for task in filter(None, tasks.split(",")) if tasks else names():
        for ablated, of in ((False, seeds), (True, control_seeds)):
            for seed in map(int, filter(None, of.split(","))):
                if (task, ablated, seed) in done:
                    continue
                folder = runs / f"{task}{'-ablated' if ablated else ''}-s{seed}"
                records.append(run_task(task, seed=seed, ablated=ablated, folder=folder, episodes=episodes))
                json_file.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
                print(json.dumps(records[-1]), flush=True)


def run_task(
    task: str, *, seed: int, ablated: bool, folder: Path, episodes: int, steps: int | None = None
) -> dict[str, Any]:
    """Train and evaluate once.

    Args:
        task: Name in `envs.tasks`, and of the function in `configs.tasks_ppo`.
        seed: Of training and of the evaluation.
        ablated: Whether to train and evaluate the negative control.
        folder: The run's folder.
        episodes: Of the evaluation, greedy, about: every environment of the batch plays the same number.
        steps: Length of the run, if not the config's.

    Returns:
        One record of the results file.
    """
    # Here and not above: the process that tries the environment imports this file again, and needs none of these.
    from statistics import fmean

    from envs.tasks import make_vec
    from perceiver_rl.evaluation.agent import PolicyAgent
    from perceiver_rl.evaluation.rollout import evaluate
    from perceiver_rl.provenance import provenance
    from perceiver_rl.rllib.checkpoint import load_policy
    from perceiver_rl.rllib.config_file import default_steps, load_factory
    from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
    from perceiver_rl.rllib.training import prepare, train

    config = f"configs.tasks_ppo:{task}"
    total = steps or default_steps(load_factory(config))
    commit = provenance()["commit"]
    overrides = ('environment.env_config={"ablate": True}',) if ablated else ()
    run = prepare(RunSettings(config, None, seed, total, overrides, checkpoint_every=total), RunFolder(folder))
    env = make_vec(task, EVALUATION_ENVS, ablate=ablated)
    result = train(run)
    agent = PolicyAgent(load_policy(result.checkpoint, env.schema))
    episodes_per_env = max(1, episodes // EVALUATION_ENVS)
    played = evaluate(agent, env, episodes_per_env=episodes_per_env, seed=seed, greedy=True)
    return {
        "task": task,
        "seed": seed,
        "ablated": ablated,
        "best_return": env.best_return,
        "greedy_return": round(fmean(record.total_reward for record in played), 4),
        "episodes": len(played),
        f"steps_to_{REACHED}": steps_to(
            REACHED * env.best_return, read_progress(folder), run.config.num_envs_per_env_runner * env.time_limit
        ),
        "env_steps": result.progress.env_steps,
        "seconds": round(result.progress.seconds, 1),
        "commit": commit,
    }


def steps_to(threshold: float, progress: list[dict[str, float]], first: int) -> int | None:
    """Environment steps at which training episodes, whose actions are sampled, first had a return of `threshold`.

    Args:
        threshold: The return, as a mean over the last four iterations.
        progress: What the run logged, one record an iteration.
        first: Steps before which no iteration counts: at first only short episodes have ended, which are the good ones.

    Returns:
        Steps; None if it was never reached.
    """
    counted = [record for record in progress if record["env_steps"] >= first and "outcome/return" in record]
    for last in range(SMOOTHING, len(counted) + 1):
        if sum(record["outcome/return"] for record in counted[last - SMOOTHING : last]) / SMOOTHING >= threshold:
            return int(counted[last - 1]["env_steps"])
    return None


if __name__ == "__main__":
    typer.run(main)
