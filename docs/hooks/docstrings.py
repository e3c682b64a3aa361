"""Docstrings as the site's Markdown wants them; in the code they are written to be read as they stand.

Three things of the house style mean something else to Markdown. A paragraph `Source: …` (in environments also
`Observation: …`, `Action: …`) whose further lines are indented would become a box with half a sentence as its title. An
example that begins with `>>>` would be a quotation in a quotation in a quotation. And `text::` before an indented drawing is
a sign of another markup.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTIONS = {"Args", "Attributes", "Example", "Examples", "Raises", "Returns", "Yields"}
"""What the site shows as lists of its own."""

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!```)\S.*)*", re.MULTILINE)
TERM = re.compile(r"(?<=\n)(?P<name>[A-Z][a-z]+(?: [a-z]+)?): (?P<text>\S.*(?:\n {4,}\S.*)*)$", re.MULTILINE)
"""Not the first line, which is the summary whatever it begins with."""


class PlainMarkdown(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(docstring: str) -> str:
    """A docstring with its terms in bold, examples in fences, and single colons before drawings."""
    docstring = EXAMPLE.sub(r"\n```pycon\n\g<0>\n```", docstring)
    return TERM.sub(_term, docstring).replace("::\n\n    ", ":\n\n    ")


def _term(match: re.Match[str]) -> str:
    if match["name"] in SECTIONS:
        return match[0]
    text = re.sub(r"\n +", "\n", match["text"])
    return f"\n**{match['name']}:** {text}"
