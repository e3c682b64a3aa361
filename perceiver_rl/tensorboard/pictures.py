"""From a recorded episode to everything that TensorBoard shows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.replay.recording import Episode, Recording
from perceiver_rl.summaries import add_summary, encoded_image, verb_histogram
from perceiver_rl.tensorboard.canvas import LATENT, gif, png
from perceiver_rl.tensorboard.cast import Cast
from perceiver_rl.tensorboard.charts import Table, heat_map, verb_bars
from perceiver_rl.tensorboard.field import attention_field, episode_frames
from perceiver_rl.verbs import count_verbs, shares

ACTIONS = "actions"
"""Group of the verbs' shares, the same as in training."""
MAX_SHOWN = 48
"""Rows of a table of attention at most."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its size in pixels."""

    encoded: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """What one recorded episode gives."""

    images: dict[str, Picture]
    """By TensorBoard tag."""
    verbs: dict[str, float]
    """Share of each verb among the choices of present actors."""
    left_out: str | None
    """Why some pictures are missing; None if none are."""

    def write(self, writer: SummaryWriter, env_steps: int) -> None:
        """Write all of it at a step."""
        for tag, picture in self.images.items():
            summary = encoded_image(tag, picture.encoded, picture.width, picture.height)
            add_summary(writer, summary, env_steps)
        for verb, share in self.verbs.items():
            writer.add_scalar(f"{ACTIONS}/{verb}", share, env_steps)
        add_summary(writer, verb_histogram(f"{ACTIONS}/verbs", self.verbs), env_steps)


def draw_pictures(recording: Recording) -> Pictures:
    """Draw a recording's first episode: choices by verb, attention, and the episode itself.

    Attention is that of one moment, see `telling_step`. Where those who act stand nowhere, there is no field and no video.
    """
    episode = recording.episodes[0]
    cast = Cast(recording, episode)
    counts = shares(count_verbs(recording.schema, episode.options, episode.legal))
    images = {"actions/by_verb": _still(verb_bars(counts, "Choices by verb", f"{recording.mode}, {episode.length} steps"))}
    step = telling_step(episode)
    images |= {tag: _still(heat_map(table)) for tag, table in attention_tables(cast, step).items()}
    if cast.has_field:
        images["attention/field"] = _still(attention_field(cast, step))
        frames, milliseconds = episode_frames(cast)
        images["episode/video"] = Picture(gif(frames, milliseconds), *frames[0].size)
        return Pictures(images, counts, left_out=None)
    nowhere = ", ".join(dict.fromkeys(actor.entity_type.name for actor in cast.actors if actor.look.position is None))
    return Pictures(images, counts, left_out=f"no field and no video, since {nowhere} has no position")


def telling_step(episode: Episode) -> int:
    """The step with the most legal options, the first of several: when most units are there and within reach."""
    return int(episode.legal.sum(axis=(1, 2)).argmax())


def attention_tables(cast: Cast, step: int) -> dict[str, Table]:
    """Attention in its two parts and as a whole, by TensorBoard tag; of whoever is there.

    Every actor that acts is a row, up to `MAX_SHOWN`. Rows sum to one, or nearly so: they are kept in half precision. Under
    decentralized control, where each actor has latents of its own, what they read is shown for the first.
    """
    episode, names, here = cast.episode, cast.token_names(), cast.tokens_present(step)
    acting = cast.acting(step)[:MAX_SHOWN]
    units, things = [cast.actors[number].name for number in acting], [names[token] for token in here]
    when = f"percent, step {step} of {episode.length}"
    composed = episode.actors_to_tokens()[step][acting][:, here]
    tables = {"attention/units_to_units": Table("Units attend to", when, units, things, composed)}
    if episode.latents_to_tokens is None or not acting:
        return tables
    asked = episode.actors_to_memory[step][acting].astype(np.float32)
    latents = [f"latent {number}" for number in range(asked.shape[1])]
    tables["attention/units_to_latents"] = Table("Units ask latents", when, units, latents, asked, LATENT)
    apart = episode.latents_to_tokens.shape[1] > 1
    read = episode.latents_to_tokens[step, acting[0] if apart else 0].astype(np.float32)[:MAX_SHOWN, here]
    title = f"Latents of {units[0]} read" if apart else "Latents read"
    tables["attention/latents_to_units"] = Table(title, when, latents[:MAX_SHOWN], things, read, LATENT)
    return tables


def _still(picture: Image.Image) -> Picture:
    return Picture(png(picture), *picture.size)
