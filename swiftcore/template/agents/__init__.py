"""Agent templates: how tools are shown to a model, how calls are written and read back."""

from collections.abc import Sequence

from swiftcore.template.agents.base import AgentTemplate, ParsedText, Tool, unestablished
from swiftcore.template.agents.coders import (
    HY_V3,
    HY_V3_PREVIEW,
    MINICPM5,
    MINIMAX_M2,
    QWEN3_5,
    QWEN3_CODER,
    SEED_OSS,
)
from swiftcore.template.agents.gemma import GEMMA3, GEMMA4
from swiftcore.template.agents.glm import CHATGLM4, GLM4, GLM4_5, GLM4_7, GLM5_1
from swiftcore.template.agents.harmony import GPT_OSS
from swiftcore.template.agents.hermes import HERMES, HUNYUAN_HERMES, YOUTU
from swiftcore.template.agents.llama import LLAMA3, LLAMA4
from swiftcore.template.agents.named import (
    DEEPSEEK_V3_1,
    DEEPSEEK_V4,
    DEEPSEEK_V41,
    KIMI_K2,
    MISTRAL,
)
from swiftcore.template.agents.react import (
    QWEN_EN,
    QWEN_EN_PARALLEL,
    QWEN_ZH,
    QWEN_ZH_PARALLEL,
    REACT_EN,
    REACT_GRPO,
    REACT_ZH,
    TOOLBENCH,
)
from swiftcore.template.registry import unknown_name

_AGENTS: dict[str, AgentTemplate] = {
    agent.name: agent
    for agent in (
        CHATGLM4,
        DEEPSEEK_V3_1,
        DEEPSEEK_V4,
        DEEPSEEK_V41,
        GEMMA3,
        GEMMA4,
        GLM4,
        GLM4_5,
        GLM4_7,
        GLM5_1,
        GPT_OSS,
        HERMES,
        HUNYUAN_HERMES,
        HY_V3,
        HY_V3_PREVIEW,
        KIMI_K2,
        LLAMA3,
        LLAMA4,
        MINICPM5,
        MINIMAX_M2,
        MISTRAL,
        QWEN3_5,
        QWEN3_CODER,
        QWEN_EN,
        QWEN_EN_PARALLEL,
        QWEN_ZH,
        QWEN_ZH_PARALLEL,
        REACT_EN,
        REACT_GRPO,
        REACT_ZH,
        SEED_OSS,
        TOOLBENCH,
        YOUTU,
    )
}

__all__ = [
    "AgentTemplate",
    "ParsedText",
    "agent_of_family",
    "find_agent_template",
    "list_agent_templates",
    "parse_tool_calls",
]


def list_agent_templates() -> list[str]:
    """Return the names of all agent templates, sorted."""
    return sorted(_AGENTS)


def find_agent_template(name: str, family: str | None = None) -> AgentTemplate:
    """Return the agent template called `name`.

    Args:
        name: one of `list_agent_templates()`, or the family's own.
        family: what the family names as its own.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    if name in _AGENTS:
        return _AGENTS[name]
    if name == family:
        return unestablished(name)
    raise unknown_name("agent template", name, list_agent_templates())


def agent_of_family(name: str | None) -> AgentTemplate:
    """Return a family's own agent template; one that is not established refuses tools when used."""
    return find_agent_template(name or HERMES.name, name)


def parse_tool_calls(
    text: str, agent_template: str = "hermes", tools: Sequence[Tool] = ()
) -> ParsedText:
    """Read the tool calls out of a model's answer; what can't be read is reported, not raised."""
    return find_agent_template(agent_template).parse(text, tools)
