"""Scripted and random agents by name, each imported when it is asked for."""

from __future__ import annotations

from perceiver_rl.configuration import unknown_name
from perceiver_rl.entities import EntitySchema
from perceiver_rl.environments import load
from perceiver_rl.evaluation.agent import Agent

AGENTS: dict[str, str] = {
    "random": "perceiver_rl.evaluation.random_agent:RandomAgent",
    "heuristic": "agents.scripted:AttackNearestAgent",
    "hunter": "agents.hunter:HunterAgent",
}
"""Name → `"module:Class"`; the class is called with the environment's schema."""


def make_agent(name: str, schema: EntitySchema) -> Agent:
    """Build an agent.

    Args:
        name: One of `AGENTS`, or an import string `"module:Class"` of your own.
        schema: The environment's schema.

    Raises:
        ValueError: If there is no such agent (the message lists the known ones), or it cannot play a schema.
    """
    if ":" not in name and name not in AGENTS:
        raise ValueError(unknown_name("agent: got unknown name", name, AGENTS))
    agent: Agent = load(AGENTS.get(name, name))(schema)
    return agent


def agent_names() -> list[str]:
    """Names of all agents."""
    return list(AGENTS)
