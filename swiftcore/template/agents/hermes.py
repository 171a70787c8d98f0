"""Hermes and its relatives: tools as JSON in the system prompt, calls as JSON between tags.

Sources: the published chat templates of Qwen2.5 (hermes) and Youtu-LLM (youtu), and that of
Hunyuan-A13B (hunyuan_hermes).
"""

from collections.abc import Callable, Sequence

from swiftcore.template.agents.base import (
    AgentTemplate,
    ResponseForm,
    Tool,
    ToolsForm,
)
from swiftcore.template.agents.json_calls import JsonCalls, NamedCalls, dump_json
from swiftcore.template.spans import Author, Span

SIGNATURES = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)


def listed(
    before: str,
    after: str,
    *,
    each: tuple[str, str] = ("\n", ""),
    unwrapped: bool = False,
) -> Callable[[Sequence[Tool]], list[Span]]:
    """Return a writer of tools as JSON, one after the other between two texts.

    Args:
        before: what introduces them.
        after: how to call them.
        each: around one tool.
        unwrapped: leave out the `{"type": "function", ...}` around a tool.
    """

    def write(tools: Sequence[Tool]) -> list[Span]:
        spans = [Span(before)]
        for tool in tools:
            shown = tool["function"] if unwrapped else tool
            spans += [Span(each[0]), Span(dump_json(shown), Author.DATA), Span(each[1])]
        return [*spans, Span(after)]

    return write


IN_TAGS = ResponseForm(each=("<tool_response>\n", "\n</tool_response>"), gap="\n")

HERMES = AgentTemplate(
    "hermes",
    ToolsForm(
        listed(
            SIGNATURES,
            "\n</tools>\n\nFor each function call, return a json object with function name and "
            "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
            '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
        ),
        glue_always=True,
    ),
    JsonCalls("<tool_call>\n", "\n</tool_call>", gap="\n"),
    IN_TAGS,
)

HUNYUAN_HERMES = AgentTemplate(
    "hunyuan_hermes",
    ToolsForm(
        listed(
            SIGNATURES,
            "\n</tools>\n\nFor function call returns, you should first print <tool_calls>"
            "For each function call, you should return object like:\n<tool_call>function_name\n"
            "```json\nfunction_arguments_in_json_format\n```</tool_call>"
            "At the end of function call returns, you should print </tool_calls>",
        )
    ),
    NamedCalls(
        opening="<tool_call>",
        middle="\n```json\n",
        closing="\n```</tool_call>",
        section=("<tool_calls>", "</tool_calls>"),
        gap="\n",
    ),
    ResponseForm(
        each=("<tool_response>", "</tool_response>"),
        gap="\n",
        around=("<tool_responses>", "</tool_responses>"),
    ),
)

YOUTU = AgentTemplate(
    "youtu",
    ToolsForm(
        listed(
            "<|begin_of_tool_description|>Tool calling capabilities.\nYou may call one or more "
            "functions to assist with the user query. You have the following functions available:",
            "\nFor tool call returns, you MUST use the following format:\n"
            '<tool_call>{"name": "function-name", "arguments": {"param1": "value1", '
            '"param2": "value2"}}</tool_call>\n<|end_of_tool_description|>',
            each=("\n```json\n", "\n```"),
        )
    ),
    JsonCalls("<tool_call>", "</tool_call>"),
    ResponseForm(each=("<tool_response>", "</tool_response>"), gap="\n"),
)
