"""BFCL v4: tool calls compared with the allowed ones, argument by argument.

The parts whose right answers are calls (simple, multiple, parallel) and those that ask whether to
call at all (irrelevance, relevance) are graded here. Multi-turn and memory parts need the
benchmark's own simulated tools and are refused.

A call is right when its function is, when it has all required arguments and none that is unknown,
and when each argument has the parameter's type and one of the allowed values. Strings are compared
without case, spaces and light punctuation; "" among the allowed values means that the argument may
be left out. Several calls may come in any order.

Source: Patil et al., "The Berkeley Function Calling Leaderboard", 2025.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer, Call
from swiftcore.evaluation.benchmarks.places import field_of, read_rows
from swiftcore.evaluation.benchmarks.question import Benchmark, Files, Grade, Question, Source
from swiftcore.recipe.benchmarks import BenchmarkArgs

_PREFIX = "BFCL_v4_"
_NEEDS_TOOLS = ("multi_turn", "memory", "web_search", "format_sensitivity")
_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "float": (float, int),
    "number": (float, int),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "dict": (dict,),
    "object": (dict,),
}
_LIGHT = re.compile(r"[ ,./\-_*^]")


def grade_calls(question: Question, answer: Answer, text: str) -> Grade:
    """Compare the calls of an answer with the allowed ones."""
    calls = answer.calls or ()
    shown = "\n".join(f"{c.name}({json.dumps(c.arguments, ensure_ascii=False)})" for c in calls)
    wants_call = question.facts["wants_call"]
    if wants_call is not None:
        why = None if bool(calls) == wants_call else ("no call" if wants_call else "a call")
        readable = all(call.arguments is not None for call in calls)
        return Grade({"accuracy": float(why is None and readable)}, shown or None, why)
    why = _difference(calls, question.facts["allowed"], question.facts["functions"])
    return Grade({"accuracy": float(why is None)}, shown or None, why)


def _difference(
    calls: Sequence[Call],
    allowed: Sequence[Mapping[str, Any]],
    functions: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return why calls are not the allowed ones; None when they are."""
    if len(calls) != len(allowed):
        return f"{len(calls)} calls instead of {len(allowed)}"
    rest = list(calls)
    for wanted in allowed:
        reasons = [call_difference(call, wanted, functions) for call in rest]
        if None not in reasons:
            return reasons[0]
        del rest[reasons.index(None)]
    return None


def call_difference(
    call: Call, wanted: Mapping[str, Any], functions: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Return why a call is not the wanted one (`{name: {argument: [allowed values]}}`)."""
    ((name, allowed),) = wanted.items()
    # No allowed value at all is how some rows write an empty list, the default.
    allowed = {argument: values or ["", []] for argument, values in allowed.items()}
    if api_name(call.name) != api_name(name):
        return f"{call.name or 'an unreadable call'} instead of {name}"
    if call.arguments is None:
        return f"{name}: unreadable arguments"
    schema = functions[api_name(name)]["parameters"]
    for required in schema.get("required", ()):
        if required not in call.arguments:
            return f"{name}: {required} is missing"
    for argument, value in call.arguments.items():
        if argument not in allowed or argument not in schema["properties"]:
            return f"{name}: {argument} is no argument"
        kind = schema["properties"][argument].get("type", "any")
        if not _has_type(value, kind) or not _is_allowed(value, allowed[argument]):
            return f"{name}: {argument} is {value!r}"
    for argument, values in allowed.items():
        if argument not in call.arguments and "" not in values:
            return f"{name}: {argument} is missing"
    return None


def api_name(name: str) -> str:
    """Return a function's name as APIs allow it: dots become underscores."""
    return name.replace(".", "_")


def _has_type(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _PYTHON_TYPES.get(kind, (object,)))


def _is_allowed(value: Any, allowed: Sequence[Any]) -> bool:
    return any(_same(value, other) for other in allowed)


def _same(value: Any, other: Any) -> bool:
    """Compare a value with an allowed one, in which dictionaries hold lists of allowed values."""
    if isinstance(value, str) and isinstance(other, str):
        return _spelled(value) == _spelled(other)
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, list) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return _same_fields(value, other)
    return bool(value == other)


def _same_fields(value: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    for key, found in value.items():
        allowed = other.get(key)
        if key not in other or not _is_allowed(
            found, allowed if isinstance(allowed, list) else [allowed]
        ):
            return False
    absent = [other[key] for key in other if key not in value]
    return all(isinstance(values, list) and "" in values for values in absent)


def _spelled(text: str) -> str:
    return _LIGHT.sub("", text).casefold().replace("'", '"')


def _read(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    folder = files["test"]
    paths = {path.name.removeprefix(_PREFIX).partition(".")[0]: path for path in _parts(folder)}
    lacking = [name for name in args.subset_list if name not in paths]
    refused = [name for name in args.subset_list if name.startswith(_NEEDS_TOOLS)]
    if lacking or refused:
        raise DataError(
            "A part of BFCL can't be asked.",
            where=folder,
            found=", ".join(refused or lacking),
            expected=", ".join(name for name in paths if not name.startswith(_NEEDS_TOOLS)),
            do="multi-turn, memory and web parts need the benchmark's own tools"
            if refused
            else "name parts that are there in evaluate.eval_dataset_args.bfcl_v4.subset_list",
        )
    chosen = args.subset_list or [name for name in paths if not name.startswith(_NEEDS_TOOLS)]
    return [question for name in chosen for question in _part(name, paths[name], args)]


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*.json*"))


def _part(name: str, path: Path, args: BenchmarkArgs) -> list[Question]:
    wants_call = False if "irrelevance" in name else True if "relevance" in name else None
    answers: dict[str, Any] = {}
    if wants_call is None:
        answers = {str(r["id"]): r["ground_truth"] for r in read_rows(_answers_of(path))}
    questions = []
    for place, row in enumerate(read_rows(path), 1):
        key = str(field_of(row, "id", path, place))
        functions = field_of(row, "function", path, place)
        if wants_call is None and key not in answers:
            raise DataError(
                "A question of BFCL has no answer.",
                where=f"{path}:{place}",
                found=key,
                expected=f"a row with this id in {_answers_of(path)}",
            )
        (messages,) = field_of(row, "question", path, place)
        system = [{"role": "system", "content": args.system_prompt}] if args.system_prompt else []
        questions.append(
            Question(
                subset=name,
                row={"messages": [*system, *messages], "tools": [_tool(f) for f in functions]},
                target=json.dumps(answers.get(key, "a call" if wants_call else "no call")),
                text=str(messages[-1]["content"]),
                facts={
                    "wants_call": wants_call,
                    "allowed": answers.get(key, ()),
                    "functions": {api_name(f["name"]): f for f in functions},
                },
            )
        )
    return questions


def _answers_of(path: Path) -> Path:
    answers = path.parent / "possible_answer" / path.name
    if answers.is_file():
        return answers
    raise DataError(
        "A part of BFCL lacks its answers.",
        where=answers,
        found="no such file",
        expected=f"possible_answer/{path.name} beside the questions",
        do="put it there, or leave the part out of evaluate.eval_dataset_args.bfcl_v4.subset_list",
    )


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function of BFCL as OpenAI's tools are written, its types being JSON schema's."""
    return {
        "type": "function",
        "function": {
            "name": api_name(function["name"]),
            "description": function.get("description", ""),
            "parameters": _schema(function["parameters"]),
        },
    }


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    fields = {key: _schema(value) for key, value in schema.items() if key != "optional"}
    kind = fields.get("type")
    return fields | {"type": _JSON_TYPES.get(kind, kind)} if isinstance(kind, str) else fields


BFCL_V4 = Benchmark(
    "bfcl_v4",
    {"test": Source((f"bfcl_v4/{_PREFIX}*.json*", f"{_PREFIX}*.json*"), folder=True)},
    _read,
    grade_calls,
)
