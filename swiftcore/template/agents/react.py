"""ReAct and its relatives: calls as lines of plain text that begin with keywords.

Unlike ms-swift, arguments are JSON (there: a Python dict's repr), the first keyword starts on a
line of its own, and the user's system prompt stays in front of the instructions.

Sources: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models",
arXiv:2210.03629; the prompts of Qwen's function calling documentation, of Qwen-Agent (`qwen_*`) and
of ToolBench.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swiftcore.template.agents.base import (
    AgentTemplate,
    CallPlace,
    ParsedText,
    ResponseForm,
    Schemas,
    Tool,
    ToolsForm,
)
from swiftcore.template.agents.json_calls import (
    CallReader,
    decode_at,
    dump_json,
    read_json_call,
)
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span


@dataclass(frozen=True, slots=True)
class KeywordCalls:
    """A line with the tool's name and one with its arguments, each after a keyword.

    Args:
        action: before the name.
        action_input: before the arguments.
        observation: asks for the result; generation stops here.
    """

    action: str
    action_input: str
    observation: str

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call as two lines."""
        gap = "\n" if place.before and not place.before.endswith("\n") else ""
        body = f"{self.action} {call.name}\n{self.action_input} {dump_json(call.arguments)}\n"
        end = [Span(self.observation)] if place.is_last else []
        return [Span(gap), Span(body, Author.ASSISTANT), *end]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read each name with its arguments."""
        pattern = re.compile(
            rf"^[ \t]*{self.action}[ \t]*(?P<name>[^\n]*)\n\s*{self.action_input}\s*", re.MULTILINE
        )
        reader = CallReader(text)
        while (found := pattern.search(text, reader.position)) is not None:
            decoded = decode_at(text, found.end())
            if decoded is None:
                line, _, _ = text[found.end() :].partition("\n")
                reader.add(f"{self.action_input.strip('✿:')} is not JSON: {line[:120]!r}")
                reader.skip(found.start(), found.end() + len(line))
                continue
            arguments, end = decoded
            reader.add(read_json_call({"name": found["name"].strip(), "arguments": arguments}))
            reader.skip(found.start(), end)
        parsed = reader.result()
        rest = parsed.text.removesuffix(self.observation).rstrip()
        return ParsedText(parsed.calls, rest, parsed.problems)


def _described(
    before: str, describe: Callable[[dict[str, object]], str], middle: str, after: str
) -> Callable[[Sequence[Tool]], list[Span]]:
    """Return a writer of described tools, whose names stand once more in the instructions."""

    def write(tools: Sequence[Tool]) -> list[Span]:
        functions = [tool["function"] for tool in tools]
        spans = [Span(before)]
        for function in functions:
            spans += [Span(describe(function), Author.DATA), Span("\n\n")]
        names = ",".join(function["name"] for function in functions)
        return [*spans, Span(middle), Span(names, Author.DATA), Span(after)]

    return write


def _facts(function: dict[str, object]) -> tuple[object, object, str]:
    parameters = function.get("parameters") or {}
    text = parameters if isinstance(parameters, str) else dump_json(parameters)
    return function["name"], function.get("description") or "", text


def _api_en(function: dict[str, object]) -> str:
    name, description, parameters = _facts(function)
    return (
        f"{name}: Call this tool to interact with the {name} API. "
        f"What is the {name} API useful for? {description} Parameters: {parameters} "
        "Format the arguments as a JSON object."
    )


def _api_zh(function: dict[str, object]) -> str:
    name, description, parameters = _facts(function)
    return (
        f"{name}: 调用此工具与 {name} API 进行交互。{name} 有什么用？{description} "
        f"输入参数：{parameters} 此工具的输入应为JSON对象。"
    )


def _entry_en(function: dict[str, object]) -> str:
    name, description, parameters = _facts(function)
    return (
        f"### {name}\n\n{name}: {description} Parameters: {parameters} "
        "Format the arguments as a JSON object."
    )


def _entry_zh(function: dict[str, object]) -> str:
    name, description, parameters = _facts(function)
    return f"### {name}\n\n{name}: {description} 输入参数：{parameters} 此工具的输入应为JSON对象。"


_REACT_CALLS = KeywordCalls("Action:", "Action Input:", "Observation:")
_QWEN_CALLS = KeywordCalls("✿FUNCTION✿:", "✿ARGS✿:", "✿RESULT✿:")


def _observed(calls: KeywordCalls) -> ResponseForm:
    # The first response follows the keyword that ended the calls.
    return ResponseForm(each=(" ", "\n"), gap=calls.observation, own_turn=("", ""), continues=True)


def _react(name: str, write: Callable[[Sequence[Tool]], list[Span]]) -> AgentTemplate:
    return AgentTemplate(
        name,
        ToolsForm(write, replaces_default=True),
        _REACT_CALLS,
        _observed(_REACT_CALLS),
        stop_words=(_REACT_CALLS.observation,),
    )


def _qwen(name: str, write: Callable[[Sequence[Tool]], list[Span]]) -> AgentTemplate:
    return AgentTemplate(
        name,
        ToolsForm(write, glue_always=True),
        _QWEN_CALLS,
        _observed(_QWEN_CALLS),
        stop_words=(_QWEN_CALLS.observation,),
    )


REACT_EN = _react(
    "react_en",
    _described(
        "Answer the following questions as best you can. "
        "You have access to the following tools:\n\n",
        _api_en,
        "Use the following format:\n\n"
        "Question: the input question you must answer\n"
        "Thought: you should always think about what to do\n"
        "Action: the action to take, should be one of [",
        "]\nAction Input: the input to the action\n"
        "Observation: the result of the action\n"
        "... (this Thought/Action/Action Input/Observation can be repeated zero or more "
        "times)\nThought: I now know the final answer\n"
        "Final Answer: the final answer to the original input question\n\nBegin!\n",
    ),
)
REACT_ZH = _react(
    "react_zh",
    _described(
        "尽可能地回答以下问题。你可以使用以下工具:\n\n",
        _api_zh,
        "请按照以下格式进行:\n\n"
        "Question: 需要你回答的输入问题\n"
        "Thought: 你应该总是思考该做什么\n"
        "Action: 需要使用的工具，应该是[",
        "]中的一个\nAction Input: 传入工具的内容\n"
        "Observation: 行动的结果\n"
        "... (这个Thought/Action/Action Input/Observation可以重复N次)\n"
        "Thought: 我现在知道最后的答案\n"
        "Final Answer: 对原始输入问题的最终答案\n\n现在开始！\n",
    ),
)
REACT_GRPO = _react(
    "react_grpo",
    _described(
        "A conversation for tool calling between User and Assistant. The user asks a question "
        "which may be solved by calling tools, and the Assistant solves it. The assistant first "
        "thinks about the reasoning process in the mind and then provides the user with the "
        "answer. The reasoning process should be enclosed within <think> </think>tags and answer "
        "should follow the ReACT format(Action:xxx\nAction Input:xxx), i.e., <think> reasoning "
        "process here </think> Action: action here\nAction Input: parameters here\n\n"
        "Answer the following questions as best as you can. "
        "You have access to the following tools:\n\n",
        _api_en,
        "Use the following format:\n\n"
        "<think>you should always think about what to do</think>\n"
        "Action: the action to take, should be one of [",
        "]\nAction Input: the input to the action\n"
        "Observation: the result of the action, given by the actual calling\n"
        "... (this Thought/Action/Action Input/Observation can be repeated zero or more times)\n"
        "Final Answer: the final answer to the original input question\n\nBegin!\n",
    ),
)

_EN = ("# Tools\n\n## You have access to the following tools:\n\n", _entry_en)
_ZH = ("# 工具\n\n## 你拥有如下工具：\n\n", _entry_zh)
_REPLY_EN = "✿RETURN✿: Reply based on tool results. Images need to be rendered as ![](url)"
_REPLY_ZH = "✿RETURN✿: 根据工具结果进行回复，需将图片用![](url)渲染出来"

QWEN_EN = _qwen(
    "qwen_en",
    _described(
        *_EN,
        "## When you need to call a tool, please insert the following command in your reply, which "
        "can be called zero or multiple times according to your needs:\n\n"
        "✿FUNCTION✿: The tool to use, should be one of [",
        f"]\n✿ARGS✿: The input of the tool\n✿RESULT✿: Tool results\n{_REPLY_EN}",
    ),
)
QWEN_ZH = _qwen(
    "qwen_zh",
    _described(
        *_ZH,
        "## 你可以在回复中插入零次、一次或多次以下命令以调用工具：\n\n"
        "✿FUNCTION✿: 工具名称，必须是[",
        f"]之一。\n✿ARGS✿: 工具输入\n✿RESULT✿: 工具结果\n{_REPLY_ZH}",
    ),
)
QWEN_EN_PARALLEL = _qwen(
    "qwen_en_parallel",
    _described(
        *_EN,
        "## Insert the following command in your reply when you need to call N tools in "
        "parallel:\n\n✿FUNCTION✿: The name of tool 1, should be one of [",
        "]\n✿ARGS✿: The input of tool 1\n"
        "✿FUNCTION✿: The name of tool 2\n✿ARGS✿: The input of tool 2\n...\n"
        "✿FUNCTION✿: The name of tool N\n✿ARGS✿: The input of tool N\n"
        "✿RESULT✿: The result of tool 1\n✿RESULT✿: The result of tool 2\n...\n"
        # "he result": so it stands in the prompt these models were trained with.
        f"✿RESULT✿: he result of tool N\n{_REPLY_EN}",
    ),
)
QWEN_ZH_PARALLEL = _qwen(
    "qwen_zh_parallel",
    _described(
        *_ZH,
        "## 你可以在回复中插入以下命令以并行调用N个工具：\n\n✿FUNCTION✿: 工具1的名称，必须是[",
        "]之一\n✿ARGS✿: 工具1的输入\n✿FUNCTION✿: 工具2的名称\n✿ARGS✿: 工具2的输入\n...\n"
        "✿FUNCTION✿: 工具N的名称\n✿ARGS✿: 工具N的输入\n"
        "✿RESULT✿: 工具1的结果\n✿RESULT✿: 工具2的结果\n...\n"
        f"✿RESULT✿: 工具N的结果\n{_REPLY_ZH}",
    ),
)


def _toolbench(tools: Sequence[Tool]) -> list[Span]:
    functions = dump_json([tool["function"] for tool in tools])
    return [Span(_TOOLBENCH), Span(functions, Author.DATA)]


_TOOLBENCH = (
    "You can use many tools(functions) to do the following task.\n"
    "First I will give you the task description, and your task start.\n"
    "At each step, you need to give your thought to analyze the status now and what to do next, "
    "with a function call to actually execute your step. Your output should follow this format:\n"
    "Thought:\nAction:\nAction Input:\n\n"
    "After the call, you will get the call result, and you are now in a new state.\n"
    "Then you will analyze your status now, then decide what to do next...\n"
    "After many (Thought-call) pairs, you finally perform the task, then you can give your final "
    "answer.\nRemember:\n"
    "1.the state change is irreversible, you can't go back to one of the former state, if you want "
    'to restart the task, say "I give up and restart".\n'
    "2.All the thought is short, at most in 5 sentence.\n"
    "3.You can do more then one try, so if your plan is to continuously try some conditions, you "
    "can do one of the conditions per try.\n"
    "Let's Begin!\n"
    "Task description: You should use functions to help handle the real time user queries. "
    "Remember:\n"
    '1.ALWAYS call "Finish" function at the end of the task. And the final answer should contain '
    "enough information to show to the user,If you can't handle the task, or you find that "
    "function calls always fail(the function is not valid now), use function "
    "Finish->give_up_and_restart.\n"
    "2.Do not use origin tool names, use only subfunctions' names.\n"
    "Specifically, you have access to the following APIs: "
)
TOOLBENCH = _react("toolbench", _toolbench)
