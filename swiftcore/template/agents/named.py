"""Families that write a call as a name and its JSON arguments: DeepSeek, Kimi, Mistral.

Sources: the published chat templates of DeepSeek-V3.1, of Kimi-K2 and of Mistral's models of
December 2025, and DeepSeek's published encoding of V4.
"""

from collections.abc import Sequence

from swiftcore.template.agents.base import (
    AgentTemplate,
    ResponseForm,
    Tool,
    ToolResponse,
    ToolsForm,
)
from swiftcore.template.agents.json_calls import NamedCalls, dump_json
from swiftcore.template.agents.tagged import TaggedCalls
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span


def _deepseek_tools(tools: Sequence[Tool]) -> list[Span]:
    shown = "\n\n".join(
        f"### {function['name']}\nDescription: {function.get('description') or ''}\n\n"
        f"Parameters: {dump_json(function.get('parameters') or {})}"
        for function in (tool["function"] for tool in tools)
    )
    return [
        Span("## Tools\nYou have access to the following tools:\n\n"),
        Span(shown, Author.DATA),
        Span(
            "\n\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>"
            "tool_call_arguments<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>\n\n"
            "Where:\n- `tool_call_name` must be an exact match to one of the available tools\n"
            "- `tool_call_arguments` must be valid JSON that strictly follows the tool's "
            "Parameters Schema\n"
            "- For multiple tool calls, chain them directly without separators or spaces"
        ),
    ]


DEEPSEEK_V3_1 = AgentTemplate(
    "deepseek_v3_1",
    ToolsForm(_deepseek_tools, glue_always=True),
    NamedCalls(
        opening="<｜tool▁call▁begin｜>",
        middle="<｜tool▁sep｜>",
        closing="<｜tool▁call▁end｜>",
        section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    ResponseForm(each=("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"), own_turn=("", "")),
)


def _dsml(name: str, mark: str, block: str, *, glue_always: bool) -> AgentTemplate:
    """Return DeepSeek V4's template, or V4.1's: other marks, another name of the block."""

    def show(tools: Sequence[Tool]) -> list[Span]:
        shown = "\n".join(dump_json(tool["function"]) for tool in tools)
        return [
            Span(
                "## Tools\n\nYou have access to a set of tools to help answer the user's question. "
                f'You can invoke tools by writing a "<{mark}{block}>" block like the following:\n\n'
                f'<{mark}{block}>\n<{mark}invoke name="$TOOL_NAME">\n'
                f'<{mark}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE'
                f'</{mark}parameter>\n...\n</{mark}invoke>\n<{mark}invoke name="$TOOL_NAME2">\n'
                f"...\n</{mark}invoke>\n</{mark}{block}>\n\n"
                'String parameters should be specified as is and set `string="true"`. For all '
                "other types (numbers, booleans, arrays, objects), pass the value in JSON format "
                'and set `string="false"`.\n\n'
                "If thinking_mode is enabled (triggered by <think>), you MUST output your complete "
                "reasoning inside <think>...</think> BEFORE any tool calls or final response.\n\n"
                "Otherwise, output directly after </think> with tool calls or final response.\n\n"
                "### Available Tool Schemas\n\n"
            ),
            Span(shown, Author.DATA),
            Span(
                "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to "
                "invoke tool calls.\n"
            ),
        ]

    return AgentTemplate(
        name,
        ToolsForm(show, glue_always=glue_always),
        TaggedCalls(
            call=(f'<{mark}invoke name="', '">\n', f"</{mark}invoke>"),
            argument=(f'<{mark}parameter name="', '" string="{}">', f"</{mark}parameter>\n"),
            section=(f"<{mark}{block}>\n", f"\n</{mark}{block}>"),
            text_gap="\n\n",
            always_gap=True,
            string_flag=True,
        ),
        ResponseForm(
            each=("<tool_result>", "</tool_result>"),
            gap="\n\n",
            own_turn=("<｜User｜>", "<｜Assistant｜>"),
        ),
        control_tokens=("<｜User｜>", "<｜Assistant｜>"),
    )


DEEPSEEK_V4 = _dsml("deepseek_v4", "｜DSML｜", "tool_calls", glue_always=False)
DEEPSEEK_V41 = _dsml("deepseek_v41", "｜DSML｜ ", "calls", glue_always=True)


def _kimi_tools(tools: Sequence[Tool]) -> list[Span]:
    return [
        Span("<|im_system|>tool_declare<|im_middle|>"),
        Span(dump_json(list(tools)), Author.DATA),
        Span("<|im_end|>"),
    ]


def _kimi_id(call: ToolCall, number: int) -> list[Span]:
    return [Span("functions."), Span(call.name, Author.ASSISTANT), Span(f":{number}")]


def _kimi_response(response: ToolResponse) -> list[Span]:
    name = response.call.name if response.call is not None else "unknown"
    return [
        Span("<|im_system|>tool<|im_middle|>## Return of "),
        Span(f"functions.{name}:{response.number}\n{response.content}", Author.DATA),
        Span("<|im_end|>"),
    ]


KIMI_K2 = AgentTemplate(
    "kimi_k2",
    ToolsForm(_kimi_tools, place="front"),
    NamedCalls(
        opening="<|tool_call_begin|>",
        middle="<|tool_call_argument_begin|>",
        closing="<|tool_call_end|>",
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        write_name=_kimi_id,
        name=r"\s*(?:functions\.)?(?P<name>[^\n<>]+?)(?::\d+)?\s*",
    ),
    ResponseForm(write_one=_kimi_response, own_turn=("", "<|im_assistant|>assistant<|im_middle|>")),
    control_tokens=("<|im_system|>", "<|im_middle|>", "<|im_end|>", "<|im_assistant|>"),
)


def _mistral_tools(tools: Sequence[Tool]) -> list[Span]:
    return [
        Span("[AVAILABLE_TOOLS]"),
        Span(dump_json(list(tools)), Author.DATA),
        Span("[/AVAILABLE_TOOLS]"),
    ]


MISTRAL = AgentTemplate(
    "mistral",
    ToolsForm(_mistral_tools, place="behind"),
    NamedCalls(
        opening="[TOOL_CALLS]",
        middle="[ARGS]",
        closing="",
        name=r"(?P<name>[^\n\[\]{}]+?)(?:\[CALL_ID\]\w*)?",
    ),
    ResponseForm(each=("[TOOL_RESULTS]", "[/TOOL_RESULTS]"), own_turn=("", "")),
)
