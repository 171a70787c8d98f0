"""Agent templates: how tools are shown to a model, how calls are written and read back."""

from swiftcore.template.agents.base import AgentTemplate, ParsedText, find_json_calls
from swiftcore.template.agents.hermes import HERMES
from swiftcore.template.agents.react import REACT_EN
from swiftcore.template.registry import unknown_name

_AGENTS: dict[str, AgentTemplate] = {agent.name: agent for agent in (HERMES, REACT_EN)}

__all__ = [
    "AgentTemplate",
    "ParsedText",
    "find_agent_template",
    "find_json_calls",
    "list_agent_templates",
    "parse_tool_calls",
]


def list_agent_templates() -> list[str]:
    """Return the names of all agent templates, sorted."""
    return sorted(_AGENTS)


def find_agent_template(name: str) -> AgentTemplate:
    """Return the agent template called `name`.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    if name in _AGENTS:
        return _AGENTS[name]
    raise unknown_name("agent template", name, list_agent_templates())


def parse_tool_calls(text: str, agent_template: str = "hermes") -> ParsedText:
    """Read the tool calls out of a model's answer; what can't be read is reported, not raised."""
    return find_agent_template(agent_template).parse(text)
