"""A recording as one HTML file that needs no network, and back.

The file holds a head (names, shapes, results) as JSON, and all arrays one after the other, compressed by gzip and written in
base64. Viewer, style and data are in the one file, and a content security policy in it forbids every connection.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.entities import EntitySchema
from perceiver_rl.replay.recording import Episode, Recording
from perceiver_rl.scene import Scene
from perceiver_rl.whole_file import write_whole

FORMAT = 2
"""Raised whenever older files can no longer be read."""

_DTYPES = {"bool": "|b1", "float16": "<f2", "float32": "<f4", "int16": "<i2"}
_SCRIPTS = ("data.js", "marks.js", "field.js", "chart.js", "panel.js", "main.js")
"""Of the viewer, in the order in which they are put together."""
_FEATURES = "features/"
_ALIGNMENT = 4
"""Arrays begin at multiples of this many bytes, as the browser's typed arrays want it."""
_DATA = re.compile(r'<script id="(head|arrays)" type="[^"]*">(.*?)</script>', re.DOTALL)


def write_page(recording: Recording, file: Path) -> int:
    """Write the replay, and make its folder if there is none; the file is either whole or not there.

    Returns:
        The file's size in bytes.

    Raises:
        OSError: If it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    page = make_page(recording).encode()
    write_whole(file, page)
    return len(page)


def make_page(recording: Recording) -> str:
    """The whole file's text. The same recording gives the same text."""
    head, arrays = _encode(recording)
    web = files("perceiver_rl.replay") / "web"
    parts = {
        "title": html.escape(f"{recording.env}: {recording.policy}"),
        "css": (web / "style.css").read_text("utf-8"),
        "js": "\n".join((web / name).read_text("utf-8") for name in _SCRIPTS),
        "head": _script_safe(json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":"))),
        "arrays": base64.b64encode(gzip.compress(arrays, mtime=0)).decode(),
    }
    # In one pass: what is put in is not looked through for further places.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], (web / "page.html").read_text("utf-8"))


def read_page(text: str) -> Recording:
    """The recording in a replay's text, to compute with what it shows.

    Raises:
        ValueError: If it is no replay, or one of another format.
    """
    data = dict(_DATA.findall(text))
    if data.keys() != {"head", "arrays"}:
        raise ValueError("replay: got a text without a recording, expected a file that `perceiver-rl replay` wrote")
    head = json.loads(data["head"])
    if head["format"] != FORMAT:
        raise ValueError(f"replay: got format {head['format']!r}, expected {FORMAT}; record it again")
    return _decode(head, gzip.decompress(base64.b64decode(data["arrays"])))


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element that it stands in, whatever names are in it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _encode(recording: Recording) -> tuple[dict[str, Any], bytes]:
    """The head, and the bytes of all arrays."""
    schema, blob = recording.schema, bytearray()
    episodes = []
    for episode in recording.episodes:
        places = {}
        for name, array in _arrays_of(episode).items():
            blob.extend(bytes(-len(blob) % _ALIGNMENT))
            places[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "at": len(blob)}
            blob.extend(np.ascontiguousarray(array, _DTYPES[array.dtype.name]).tobytes())
        numbers = {key: value for key, value in episode.info.items() if math.isfinite(value)}
        episodes.append(
            {"name": episode.name, "arrays": places, "won": episode.won, "info": numbers, "return": episode.total_reward}
        )
    head = {
        "format": FORMAT,
        "env": recording.env,
        "policy": recording.policy,
        "control": recording.control,
        "mode": recording.mode,
        "seed": recording.seed,
        "schema": schema.to_dict(),
        "scene": recording.scene.to_dict(),
        "options": [schema.option_name(option) for option in range(schema.num_options)],
        "targets": _targets(schema),
        "actor_slots": list(schema.actor_slots),
        "episodes": episodes,
    }
    return head, bytes(blob)


def _targets(schema: EntitySchema) -> list[int]:
    """For each option the entity that it is aimed at, -1 for none."""
    targets = [-1] * schema.num_verbs
    for verb in schema.targeted_verbs:
        targets.extend(range(*schema.entity_slices[verb.target].indices(schema.max_entities)))
    return targets


def _arrays_of(episode: Episode) -> dict[str, NDArray[Any]]:
    arrays = {f"{_FEATURES}{name}": array for name, array in episode.features.items()}
    for each in fields(Episode):
        value = getattr(episode, each.name)
        if isinstance(value, np.ndarray):
            arrays[each.name] = value
    return arrays


def _decode(head: dict[str, Any], blob: bytes) -> Recording:
    episodes = []
    for each in head["episodes"]:
        arrays = {name: _array_at(place, blob) for name, place in each["arrays"].items()}
        features = {name.removeprefix(_FEATURES): arrays.pop(name) for name in list(arrays) if name.startswith(_FEATURES)}
        optional: dict[str, Any] = {"visibility": None, "latents_to_tokens": None}
        episodes.append(
            Episode(name=each["name"], features=features, **(optional | arrays), won=each["won"], info=each["info"])
        )
    return Recording(
        env=head["env"],
        policy=head["policy"],
        control=head["control"],
        mode=head["mode"],
        seed=head["seed"],
        schema=EntitySchema.from_dict(head["schema"]),
        scene=Scene.from_dict(head["scene"]),
        episodes=tuple(episodes),
    )


def _array_at(place: dict[str, Any], blob: bytes) -> NDArray[Any]:
    shape = place["shape"]
    return np.frombuffer(blob, _DTYPES[place["dtype"]], math.prod(shape), place["at"]).reshape(shape)
