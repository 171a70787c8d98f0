"""ToolBench step metrics: the decision, the tool that is named, and the input it is given.

A step is one assistant turn: one or more tool calls, or a final answer. It is scored in the ReAct
form of ToolBench, where `Finish` is the answer:

    Thought: ...
    Action: get_weather
    Action Input: {"city": "Paris"}

Text in other forms is rewritten first (`react_from_hermes`), so all styles meet one definition.

| key | applies where | value |
|---|---|---|
| plan_em | always | 1 when both call a tool, both answer, or both give up |
| Act.EM | the target calls a tool | 1 when the tool is the same |
| F1 | the target calls a tool, with readable input | agreement of the arguments, below |
| Easy_F1 | F1 applies, the target's input is empty, or the tool is wrong | F1 |
| Hard_F1 | F1 applies, the target has arguments, or the tool is wrong | F1 |
| HalluRate | always | 1 when a tool is called that was not offered |
| Rouge-L | both answer | ROUGE-L of the two final answers |

Rouge-L leaves out steps whose decision was wrong already; plan_em counts those.

F1 is 0 for a wrong tool or unreadable input. For the right tool each argument of the target counts
1 when name and value agree and one half when only the name does; precision divides that by the
number of predicted arguments, recall by the number of the target's. An empty target input is
matched by an empty input alone.

Source: the recorded step metrics of EvalScope 1.14.1 (tests/test_evaluation_agent.py repeats those
cases). What no recorded case fixes is our reading of the metrics of Shen et al., "Small LLMs Are
Weak Tool Learners", 2024: half credit for a right name with a wrong value, giving up as a decision
of its own, and plain text without an action as an answer.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from swiftcore.scores.text import rouge_l, without_thinking

Plan = Literal["call", "answer", "give_up", "none"]

FINISH = "Finish"
GIVE_UP = "give_up_and_restart"
_OBSERVATION = re.compile(r"^[ \t]*Observation:", re.MULTILINE)
_ACTION = re.compile(r"^[ \t]*Action:", re.MULTILINE)
_THOUGHT = re.compile(r"^[ \t]*Thought:", re.MULTILINE)
_INPUT_MARK = "Action Input:"
_HERMES_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """One tool call as it was written; `arguments` is None when the input is no JSON object."""

    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True)
class Step:
    """What one assistant turn decided: calls, or an answer, or neither that can be read."""

    plan: Plan
    calls: tuple[Call, ...] = ()
    answer: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the called tools, in order."""
        return tuple(call.name for call in self.calls)


@dataclass
class _Scores:
    """Collects F1 values of the calls of one step."""

    all: list[float] = field(default_factory=list)
    easy: list[float] = field(default_factory=list)
    hard: list[float] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        named = {"F1": self.all, "Easy_F1": self.easy, "Hard_F1": self.hard}
        return {name: sum(values) / len(values) for name, values in named.items() if values}


def agent_step_metrics(
    prediction: str, target: str, tools: Sequence[Mapping[str, Any]] | str | None
) -> dict[str, float]:
    """Score one step against its target, both as ReAct text.

    Args:
        prediction: what the model wrote.
        target: what it should have written.
        tools: the offered tools, as `{"name": ...}` or OpenAI `{"function": {"name": ...}}`, or
            the JSON text of such a list.

    Returns:
        The metrics of the module's table; a missing key means that the metric does not apply.
        Unreadable predictions score 0, they never raise.
    """
    predicted, expected = parse_react(prediction), parse_react(target)
    offered = tool_names(tools) | {FINISH}
    metrics: dict[str, float] = {
        "plan_em": float(predicted.plan == expected.plan != "none"),
        "HalluRate": int(any(name not in offered for name in predicted.names)),
    }
    if expected.plan == "call":
        metrics["Act.EM"] = float(predicted.names == expected.names)
        metrics |= _argument_scores(predicted, expected).means()
    elif predicted.plan == expected.plan == "answer" and expected.answer is not None:
        metrics["Rouge-L"] = rouge_l(predicted.answer or "", expected.answer)
    return metrics


def parse_react(text: str) -> Step:
    """Read the decision of one assistant turn; text without an action is a plain answer."""
    observation = _OBSERVATION.search(text)
    if observation:
        text = text[: observation.start()]
    actions = list(_ACTION.finditer(text))
    if not actions:
        answer = without_thinking(text)
        return Step("answer", answer=answer) if answer else Step("none")
    ends = [*(match.start() for match in actions[1:]), len(text)]
    calls = tuple(_call(text[m.end() : end]) for m, end in zip(actions, ends, strict=True))
    if any(call.name == FINISH for call in calls):
        return _finish(next(call for call in calls if call.name == FINISH))
    return Step("call", calls) if all(call.name for call in calls) else Step("none")


def react_from_hermes(text: str) -> str:
    """Rewrite hermes output as ReAct text: calls become actions, a plain answer becomes Finish.

    Thinking is dropped. A call whose JSON can't be read, or that was cut off before its closing
    tag, becomes an action without a name, which fails every metric that applies.
    """
    text = without_thinking(text)
    calls = list(_HERMES_CALL.finditer(text))
    if not calls:
        return finish_text(text) if text else ""
    thought = " ".join(text[: calls[0].start()].split())
    lines = [f"Thought: {thought}"] if thought else []
    for match in calls:
        name, arguments = _read_hermes_call(match.group(1)) if match.group(2) else (None, None)
        lines += [f"Action: {name or ''}", f"{_INPUT_MARK} {arguments or ''}"]
    return "\n".join(lines)


def react_from_output(text: str) -> str:
    """Rewrite a model's output as ReAct text, whichever of the two styles it is written in."""
    if "<tool_call>" not in text and _ACTION.search(text):
        return text
    return react_from_hermes(text)


def react_from_calls(calls: Iterable[str | Mapping[str, Any]]) -> str:
    """Write the contents of `tool_call` messages (`{"name", "arguments"}`) as ReAct text."""
    lines: list[str] = []
    for call in calls:
        written = call if isinstance(call, str) else json.dumps(call, ensure_ascii=False)
        name, arguments = _read_hermes_call(written)
        lines += [f"Action: {name or ''}", f"{_INPUT_MARK} {arguments or ''}"]
    return "\n".join(lines)


def finish_text(answer: str) -> str:
    """Write a final answer as ReAct text."""
    payload = {"return_type": "give_answer", "final_answer": answer}
    return f"Action: {FINISH}\n{_INPUT_MARK} {json.dumps(payload, ensure_ascii=False)}"


def tool_names(tools: Sequence[Mapping[str, Any]] | str | None) -> set[str]:
    """Return the names of offered tools; entries without a name are passed over."""
    if isinstance(tools, str):
        tools = _json_or_none(tools) if tools.strip() else None
    names: set[str] = set()
    for tool in tools if isinstance(tools, list | tuple) else ():
        entry = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            names.add(entry["name"])
    return names


def _call(block: str) -> Call:
    name, mark, written = block.partition(_INPUT_MARK)
    if not mark:
        name = block.strip().partition("\n")[0]
    next_thought = _THOUGHT.search(written)
    if next_thought:
        written = written[: next_thought.start()]
    value = _json_or_none(written.strip()) if mark else None
    return Call(name.strip(), value if isinstance(value, dict) else None)


def _finish(call: Call) -> Step:
    arguments = call.arguments or {}
    if arguments.get("return_type") == GIVE_UP:
        return Step("give_up")
    answer = arguments.get("final_answer")
    return Step("answer", answer=None if answer is None else str(answer))


def _argument_scores(predicted: Step, expected: Step) -> _Scores:
    scores = _Scores()
    if predicted.names != expected.names:
        scores.all, scores.easy, scores.hard = [0.0], [0.0], [0.0]
        return scores
    for mine, theirs in zip(predicted.calls, expected.calls, strict=True):
        if theirs.arguments is None:
            continue
        value = _argument_f1(mine.arguments, theirs.arguments)
        scores.all.append(value)
        (scores.hard if theirs.arguments else scores.easy).append(value)
    return scores


def _argument_f1(predicted: dict[str, Any] | None, expected: dict[str, Any]) -> float:
    if predicted is None:
        return 0.0
    if not expected:
        return float(not predicted)
    matched = sum(
        (1.0 if predicted[name] == value else 0.5)
        for name, value in expected.items()
        if name in predicted
    )
    if not matched:
        return 0.0
    precision, recall = matched / len(predicted), matched / len(expected)
    return 2 * precision * recall / (precision + recall)


def _read_hermes_call(written: str) -> tuple[str | None, str | None]:
    call = _json_or_none(written.strip())
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None, None
    arguments = call.get("arguments", {})
    # A name over several lines would break the ReAct form; no tool has such a name.
    name = " ".join(call["name"].split())
    if isinstance(arguments, str):
        return name, " ".join(arguments.splitlines())
    return name, json.dumps(arguments, ensure_ascii=False)


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
