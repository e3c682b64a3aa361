"""Play episodes, and keep what was seen, thought and chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from perceiver_rl.autoreset import require_next_step_autoreset
from perceiver_rl.entities import GLOBALS, VISIBILITY, EntitySchema, Observation, features_key, schema_of
from perceiver_rl.evaluation.rollout import telling_where, torch_threads_of
from perceiver_rl.infos import Outcome, info_of, outcome_in
from perceiver_rl.nn.capture import capture_attention
from perceiver_rl.nn.perceiver_io import PerceiverIO
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.replay.recording import Episode, Recording
from perceiver_rl.rewards import require_finite
from perceiver_rl.scene import SCENE, Scene
from perceiver_rl.seeding import AGENT, EVALUATION, stream_seed

DECODER = "encoder.decoder"
READERS = "encoder.cross_attends."


@dataclass(frozen=True)
class Thought:
    """What a policy made of a batch of observations, arrays with a leading axis `[num_envs]`; see `Episode`."""

    options: NDArray[np.int64]
    arrays: dict[str, NDArray[Any]]


def record(
    policy: EntityPolicy,
    env: VectorEnv[Any, Any, Any],
    *,
    env_name: str,
    policy_name: str,
    seed: int,
    greedy: bool,
    max_steps: int | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Recording:
    """Record the first episode of every environment of a batch.

    With the same seed and as many environments they are the first that `evaluate` plays. Greedily they are with fewer, too,
    where each environment has a random stream of its own; draws of actions come from one stream for the batch.

    Args:
        policy: Who plays, on the device where it is; put into evaluation mode.
        env: Where: NEXT_STEP autoreset, an observation space that carries the policy's schema. It is reset first, and not
            closed. A `Scene` under `"scene"` in its metadata tells how it is drawn.
        env_name: What the replay calls the environment.
        policy_name: What it calls the policy.
        seed: Seeds the environments and the agent's draws.
        greedy: Each actor's most probable option rather than a draw.
        max_steps: Stop there; an episode that has not ended by then is kept as far as it went, won by nobody. None to play
            all episodes to their ends.
        on_step: Called after every step with episodes done, episodes in all, and steps so far.

    Raises:
        ValueError: If the environment resets in another mode or has no schema, its scene names unknown features, an
            observation does not keep the contract, or a reward is not finite.
        Exception: Whatever else the environment or the policy raises. All errors of a step carry a note that tells the step.
    """
    require_next_step_autoreset(env, env_name)
    schema = schema_of(env.single_observation_space)
    scene = env.metadata.get(SCENE) or Scene.of(schema)
    scene.check(schema)
    policy = policy.eval()
    generator = torch.Generator(next(policy.parameters()).device)
    generator.manual_seed(stream_seed(AGENT, seed))
    tapes = [Tape() for _ in range(env.num_envs)]
    with torch_threads_of(1):
        observation, _ = env.reset(seed=stream_seed(EVALUATION, seed))
        steps = 0
        while not all(tape.over for tape in tapes) and steps != max_steps:
            steps += 1
            before = observation
            with telling_where(f"in step {steps} of a replay in {env.num_envs} environments of {env_name}"):
                schema.check(before, (env.num_envs,))
                thought = think(policy, before, greedy=greedy, generator=generator)
                observation, reward, terminated, truncated, infos = env.step(thought.options)
                require_finite(reward)
            for index, tape in enumerate(tapes):
                if not tape.over:
                    tape.add(frame_of(schema, before, index), thought, float(reward[index]), index)
                    if terminated[index] or truncated[index]:
                        tape.end(frame_of(schema, observation, index), outcome_in(info_of(infos, index)))
            if on_step is not None:
                on_step(sum(tape.over for tape in tapes), len(tapes), steps)
    for index, tape in enumerate(tapes):
        if not tape.over:
            tape.end(frame_of(schema, observation, index), Outcome())
    return Recording(
        env=env_name,
        policy=policy_name,
        control=schema.control,
        mode="greedy" if greedy else "sampled",
        seed=seed,
        schema=schema,
        scene=scene,
        episodes=tuple(tape.episode(schema, f"episode {number}") for number, tape in enumerate(tapes, 1)),
    )


def think(
    policy: EntityPolicy, observation: Observation, *, greedy: bool, generator: torch.Generator | None = None
) -> Thought:
    """Choose for every actor, and tell by what: probabilities, attention and value.

    Attention is the mean over heads and, where the latents read several times, over readings.

    Args:
        policy: Who chooses.
        observation: Batched arrays `[num_envs, …]`, by the keys of the policy's schema.
        greedy: Each actor's most probable option rather than a draw.
        generator: Source of randomness; torch's global one if None.
    """
    tensors = {key: torch.tensor(array, device=next(policy.parameters()).device) for key, array in observation.items()}
    with torch.inference_mode():
        with capture_attention(policy) as weights:
            options, output = policy.act(tensors, greedy=greedy, generator=generator)
        present = output.legal.any(dim=-1)
        arrays = {
            "legal": output.legal,
            "probabilities": torch.where(output.legal, output.distribution.log_probs.exp(), 0.0).half(),
            "options": options.short(),
            "value": policy.value(tensors).float(),
            **_attention(policy, weights, present),
        }
    return Thought(options.cpu().numpy(), {key: tensor.cpu().numpy() for key, tensor in arrays.items()})


def _attention(
    policy: EntityPolicy, weights: Mapping[str, list[Tensor]], present: Bool[Tensor, "batch actors"]
) -> dict[str, Tensor]:
    """What actors' queries and latents attend to, by the names of `Episode`."""
    decoder = weights[DECODER][0].mean(dim=1)  # sets queries memory
    first = 0  # of the actors' queries; what stands before them is learned
    for name, part in policy.queries.parts.items():
        if name == "actors":
            break
        first += part(1).shape[1]
    apart = policy.schema.control == "decentralized"
    count = 1 if apart else present.shape[1]
    asked = decoder[:, first : first + count]
    arrays = {"actors_to_memory": _by_actor(asked.squeeze(1), present) if apart else asked * present.unsqueeze(-1)}
    if isinstance(policy.encoder, PerceiverIO):
        readings = [each for name, runs in weights.items() if name.startswith(READERS) for each in runs]
        read: Float[Tensor, "sets latents tokens"] = torch.stack(readings).mean(dim=(0, 2))
        arrays["latents_to_tokens"] = _by_actor(read, present) if apart else read.unsqueeze(1)
    return {name: array.half() for name, array in arrays.items()}


def _by_actor(views: Float[Tensor, "views *rest"], present: Bool[Tensor, "batch actors"]) -> Tensor:
    """What belongs to each view, at its actor: there is one view for each present actor, in their order."""
    out = views.new_zeros(*present.shape, *views.shape[1:])
    out[present] = views
    return out


def frame_of(schema: EntitySchema, observation: Observation, index: int) -> Observation:
    """One environment's entities, copied, by the names of `Episode`; features by key."""
    frame = {features_key(each.name): observation[features_key(each.name)][index] for each in schema.entity_types}
    frame["entity_mask"] = schema.entity_mask(observation)[index]
    frame[GLOBALS] = observation[GLOBALS][index]
    if VISIBILITY in observation:
        frame[VISIBILITY] = observation[VISIBILITY][index]
    return {key: np.array(array) for key, array in frame.items()}


@dataclass
class Tape:
    """One episode while it is played."""

    frames: list[Observation] = field(default_factory=list)
    thoughts: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    over: bool = False

    def add(self, frame: Observation, thought: Thought, reward: float, index: int) -> None:
        """A step of environment `index`."""
        self.frames.append(frame)
        self.thoughts.append({key: array[index] for key, array in thought.arrays.items()})
        self.rewards.append(reward)

    def end(self, frame: Observation, outcome: Outcome) -> None:
        """The last frame, and what the environment said of the episode."""
        self.frames.append(frame)
        self.outcome = outcome
        self.over = True

    def episode(self, schema: EntitySchema, name: str) -> Episode:
        """All of it as arrays."""
        frames = {key: np.stack([frame[key] for frame in self.frames]) for key in self.frames[0]}
        thoughts = {key: np.stack([thought[key] for thought in self.thoughts]) for key in self.thoughts[0]}
        return Episode(
            name=name,
            features={each.name: frames[features_key(each.name)] for each in schema.entity_types},
            entity_mask=frames["entity_mask"],
            globals=frames[GLOBALS],
            visibility=frames.get(VISIBILITY),
            legal=thoughts["legal"],
            probabilities=thoughts["probabilities"],
            options=thoughts["options"],
            value=thoughts["value"],
            reward=np.array(self.rewards, np.float32),
            actors_to_memory=thoughts["actors_to_memory"],
            latents_to_tokens=thoughts.get("latents_to_tokens"),
            won=self.outcome.won,
            info=self.outcome.numbers,
        )
