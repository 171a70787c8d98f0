"""Families that write calls as tags: Qwen3-Coder, Seed-OSS, MiniMax, MiniCPM5, Hunyuan 3.

Where a published template prints a boolean or a list as Python does, JSON is written instead;
both are read.

Sources: the published chat templates of these models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftcore.template.agents.base import AgentTemplate, ResponseForm, Tool, ToolsForm
from swiftcore.template.agents.hermes import IN_TAGS, SIGNATURES, listed
from swiftcore.template.agents.json_calls import dump_json
from swiftcore.template.agents.tagged import TaggedCalls
from swiftcore.template.spans import Author, Span

_FUNCTIONS = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
_REMINDER = (
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO "
    "suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\n"
    "value_1\n</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second "
    "parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n"
    "<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: an inner "
    "<function=...></function> block must be nested within <tool_call></tool_call> XML tags\n"
    "- Required parameters MUST be specified\n- You may provide optional reasoning for your "
    "function call in natural language BEFORE the function call, but NOT after\n- If there is no "
    "function call available, answer the question like normal with your current knowledge and do "
    "not tell the user about function calls\n</IMPORTANT>"
)


def _extra(value: object, handled: tuple[str, ...]) -> str:
    if not isinstance(value, Mapping):
        return ""
    return "".join(
        f"\n<{key}>{inner if isinstance(inner, str) else dump_json(inner)}</{key}>"
        for key, inner in value.items()
        if key not in handled
    )


def _function_as_tags(function: Mapping[str, Any]) -> str:
    text = f"\n<function>\n<name>{function['name']}</name>"
    if "description" in function:
        text += f"\n<description>{str(function['description']).strip()}</description>"
    parameters = function.get("parameters")
    text += "\n<parameters>"
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    for name, fields in (properties if isinstance(properties, Mapping) else {}).items():
        text += f"\n<parameter>\n<name>{name}</name>"
        if isinstance(fields, Mapping):
            if "type" in fields:
                text += f"\n<type>{fields['type']}</type>"
            if "description" in fields:
                text += f"\n<description>{str(fields['description']).strip()}</description>"
            text += _extra(fields, ("name", "type", "description"))
        text += "\n</parameter>"
    text += _extra(parameters, ("type", "properties")) + "\n</parameters>"
    return text + _extra(function, ("type", "name", "description", "parameters")) + "\n</function>"


def _coder_tools(tools: Sequence[Tool]) -> list[Span]:
    shown = "".join(_function_as_tags(tool["function"]) for tool in tools)
    return [Span(_FUNCTIONS), Span(shown, Author.DATA), Span(_REMINDER)]


_CODER_CALLS = TaggedCalls(
    call=("<tool_call>\n<function=", ">\n", "</function>\n</tool_call>"),
    argument=("<parameter=", ">\n", "\n</parameter>\n"),
    text_gap="\n\n",
)

QWEN3_CODER = AgentTemplate(
    "qwen3_coder",
    ToolsForm(
        _coder_tools,
        default_system=(
            "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
        ),
        glue_always=True,
    ),
    _CODER_CALLS,
    ResponseForm(each=("<tool_response>\n", "\n</tool_response>\n")),
)

QWEN3_5 = AgentTemplate(
    "qwen3_5",
    ToolsForm(listed(_FUNCTIONS, _REMINDER), place="before"),
    _CODER_CALLS,
    IN_TAGS,
)

_SEED_TYPES = {
    "string": "str",
    "number": "int",
    "integer": "int",
    "boolean": "bool",
    "array": "list",
}


def _seed_type(fields: object) -> str:
    declared = fields.get("type") if isinstance(fields, Mapping) else None
    return _SEED_TYPES.get(declared, "Any") if isinstance(declared, str) else "Any"


def _seed_fields(title: str, schema: object, *, marks_required: bool) -> str:
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
        return ""
    required = schema.get("required") or ()
    lines = [f"    {title}:"] if schema["properties"] else []
    for name, fields in schema["properties"].items():
        mark = (" [必填]" if name in required else " [选填]") if marks_required else ""
        described = fields.get("description") if isinstance(fields, Mapping) else ""
        lines.append(f"    - {name} ({_seed_type(fields)}){mark}: {described or ''}")
    return "\n".join(lines) + "\n" if lines else ""


def _seed_function(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    signature = ",".join(
        f"{name}: {_seed_type(fields)}"
        for name, fields in (properties if isinstance(properties, Mapping) else {}).items()
    )
    inner = _seed_fields("Args", parameters, marks_required=True)
    inner += _seed_fields("Returns", function.get("returns"), marks_required=False)
    return (
        f'Function:\ndef {function["name"]}({signature}):\n    """\n'
        f"    {str(function.get('description') or '').strip()}\n\n{inner}"
        '\n    """'
    )


def _seed_tools(tools: Sequence[Tool]) -> list[Span]:
    shown = "\n\n".join(_seed_function(tool["function"]) for tool in tools)
    return [
        Span(shown, Author.DATA),
        Span(
            "\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
            "<parameter=example_parameter_1>value_1</parameter>\n"
            "<parameter=example_parameter_2>This is the value for the second parameter\n"
            "that can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n"
        ),
    ]


SEED_OSS = AgentTemplate(
    "seed_oss",
    ToolsForm(
        _seed_tools,
        default_system=(
            "You are Doubao, a helpful AI assistant. You may call one or more functions to assist "
            "with the user query."
        ),
        glue_always=True,
    ),
    TaggedCalls(
        call=("<seed:tool_call>\n<function=", ">\n", "</function>\n</seed:tool_call>"),
        argument=("<parameter=", ">", "</parameter>\n"),
        text_gap="\n\n",
    ),
    ResponseForm(each=("<seed:bos>tool\n", "<seed:eos>"), own_turn=("", "<seed:bos>assistant\n")),
    control_tokens=("<seed:bos>", "<seed:eos>"),
)

MINIMAX_M2 = AgentTemplate(
    "minimax_m2",
    ToolsForm(
        listed(
            "# Tools\nYou may call one or more tools to assist with the user query.\n"
            "Here are the tools available in JSONSchema format:\n\n<tools>",
            "\n</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass "
            'parameters:\n\n<minimax:tool_call>\n<invoke name="tool-name-1">\n'
            '<parameter name="param-key-1">param-value-1</parameter>\n'
            '<parameter name="param-key-2">param-value-2</parameter>\n...\n'
            "</invoke>\n</minimax:tool_call>",
            each=("\n<tool>", "</tool>"),
            unwrapped=True,
        ),
        glue_always=True,
    ),
    TaggedCalls(
        call=('<invoke name="', '">\n', "</invoke>"),
        argument=('<parameter name="', '">', "</parameter>\n"),
        section=("<minimax:tool_call>\n", "\n</minimax:tool_call>"),
        text_gap="\n",
    ),
    ResponseForm(
        each=("<response>", "</response>"),
        gap="\n",
        own_turn=("]~b]tool\n", "[e~[\n]~b]ai\n"),
    ),
    control_tokens=("]~b]", "[e~["),
)

MINICPM5 = AgentTemplate(
    "minicpm5",
    ToolsForm(
        listed(
            "# Tools\n\nYou are provided with function signatures within <tools></tools> XML tags:"
            "\n<tools>",
            "\n</tools>\n\nTool usage guidelines:\n"
            "- You may call zero or more functions. If no function calls are needed, just answer "
            "normally and do not include any <function ... </function>.\n"
            "- When calling a function, return an XML object within <function ... </function> "
            'using:\n<function name="function-name"><param name="param-name">param-value</param>'
            "</function>\n- param-value may be multi-line. If it contains <, & or newline "
            'characters, wrap it in a CDATA block: <param name="param-name"><![CDATA[...'
            "multi-line value...]]></param>",
        )
    ),
    TaggedCalls(
        call=('<function name="', '">', "</function>"),
        argument=('<param name="', '">', "</param>"),
        cdata=True,
    ),
    IN_TAGS,
)


def _hunyuan3(name: str, mark: str) -> AgentTemplate:
    """Return Hunyuan 3's template; the released model's tokens carry a mark."""

    def tag(text: str) -> str:
        return f"<{text}{mark}>"

    key, end_key = tag("arg_key"), tag("/arg_key")
    value, end_value = tag("arg_value"), tag("/arg_value")
    return AgentTemplate(
        name,
        ToolsForm(
            listed(
                SIGNATURES,
                f"\n</tools>\n\nFor function call returns, you should first print "
                f"{tag('tool_calls')}\nFor each function call, you should return object like:\n"
                f"{tag('tool_call')}{{function-name}}{tag('tool_sep')}\n"
                f"{key}{{arg-key-1}}{end_key}\n{value}{{arg-value-1}}{end_value}\n"
                f"{key}{{arg-key-2}}{end_key}\n{value}{{arg-value-2}}{end_value}\n"
                f"...\n{tag('/tool_call')}\nAt the end of function call returns, you should print "
                f"{tag('/tool_calls')}",
            )
        ),
        TaggedCalls(
            call=(tag("tool_call"), tag("tool_sep") + "\n", tag("/tool_call")),
            argument=(key, f"{end_key}\n{value}", f"{end_value}\n"),
            section=(tag("tool_calls") + "\n", "\n" + tag("/tool_calls")),
        ),
        ResponseForm(
            each=(tag("tool_response") + "\n", "\n" + tag("/tool_response")),
            gap="\n",
            around=(tag("tool_responses") + "\n", "\n" + tag("/tool_responses")),
            own_turn=("", f"<｜hy_Assistant{mark}｜>"),
        ),
        control_tokens=(f"<｜hy_Assistant{mark}｜>",),
    )


HY_V3_PREVIEW = _hunyuan3("hy_v3_preview", "")
HY_V3 = _hunyuan3("hy_v3", ":opensource")
