"""A registered family written as a Jinja chat template, for engines that only know those.

What can't be said in Jinja (tools written as code, rules for single families) is not guessed:
`write_chat_template` renders what it wrote and compares it, token by token, with the family. Tools
are left out, and refused by the written template, where only they are the reason.
"""

import re
from collections.abc import Sequence
from typing import Any

from swiftcore.errors import SwiftError, UsageError
from swiftcore.template.agents.base import CallPlace
from swiftcore.template.conversation import ToolCall
from swiftcore.template.family import FamilyTemplate
from swiftcore.template.spans import Author, Span

_PLACEHOLDER = re.compile(
    r"\{\{(SYSTEM|QUERY|ROUND0|ROUND1|BOS|EOS|ID|TOKEN|TODAY)(?::([^}]*))?\}\}"
)
_SYSTEM, _NAME = "\U000f1c01", "a_probe_tool"
_ARGUMENTS = {"a_probe_key": "value", "another": 1}
_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": f"probe_{number}",
            "description": "A tool.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for number in (1, 2)
]


class _NotSayable(Exception):
    """Something of an agent template has no form in Jinja that this module knows."""


def to_jinja(template: FamilyTemplate, *, with_tools: bool = True) -> str:
    """Return a Jinja chat template that writes what the family writes.

    Args:
        template: the family with its tokenizer and settings.
        with_tools: write tools and calls too; else conversations with them are refused.

    Raises:
        UsageError: the tools of this family can't be written.
    """
    try:
        return _Writer(template, with_tools=with_tools).source()
    except _NotSayable as err:
        raise UsageError(
            f"template {template.name!r} has no form as a Jinja chat template",
            where="chat_template.jinja",
            found=str(err),
            expected="tools as JSON, and calls with JSON arguments",
            do="write it without tools, or serve with swift, which needs no Jinja",
        ) from err


def write_chat_template(template: FamilyTemplate) -> tuple[str | None, bool]:
    """Return a chat template that is shown to give the family's tokens, and whether it has tools.

    None where there is no such template.
    """
    for with_tools in (True, False):
        try:
            source = to_jinja(template, with_tools=with_tools)
        except UsageError:
            continue
        if gives_same_tokens(template, source, with_tools=with_tools):
            return source, with_tools
    return None, False


def gives_same_tokens(
    template: FamilyTemplate, source: str | dict[str, str], *, with_tools: bool
) -> bool:
    """Say whether a chat template gives a family's tokens, on conversations of every kind."""
    from swiftcore.template.parity import parity_report

    tokenizer = template.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = source
    try:
        report = parity_report(template, tokenizer, _probes(template, with_tools=with_tools))
    except SwiftError:
        return False
    finally:
        tokenizer.chat_template = before
    prompt, conversation = report["prompt"], report["conversation"]
    settled = prompt["compared"] == prompt["equal"] > 0 and not prompt["refused"]
    if template.definition.is_thinking:
        # These train on history that no prompt has; what is served is the prompt.
        return settled
    return (
        settled
        and conversation["compared"] == conversation["equal"]
        and not conversation["refused"]
    )


def _probes(template: FamilyTemplate, *, with_tools: bool) -> list[dict[str, Any]]:
    def talk(*texts: str, system: str | None = None) -> list[dict[str, str]]:
        begun = [{"role": "system", "content": system}] if system else []
        roles = ("user", "assistant")
        return begun + [
            {"role": roles[place % 2], "content": text} for place, text in enumerate(texts)
        ]

    rows: list[dict[str, Any]] = [
        {"messages": talk("One?", "An answer.")},
        {"messages": talk("One?", "First.\n", "Two?", "Second.", "Three?", "Third.")},
    ]
    definition = template.definition
    if definition.system_prefix is not None or definition.system_prompt is not None:
        rows.append({"messages": talk("One?", "First.", "Two?", "Second.", system="Be kind.")})
    if definition.is_thinking:
        opened, closed = definition.thinking_marks
        thought = f"{opened}\nhm\n{closed}\n\n"
        rows.append({"messages": talk("One?", thought + "First.", "Two?", thought + "Second.")})
    if with_tools:
        call = {
            "role": "tool_call",
            "content": '{"name": "probe_1", "arguments": {"city": "Łódź"}}',
        }
        other = {"role": "tool_call", "content": '{"name": "probe_2", "arguments": {}}'}
        said = {"role": "assistant", "content": "I will look."}
        reply = {"role": "tool_response", "content": '{"t": 21}'}
        told = {"role": "assistant", "content": "21."}
        for system in (None, "Be kind."):
            if system and not (definition.system_prefix or definition.system_prompt):
                continue
            asked = talk("Weather?", system=system)
            rows += [
                {"messages": [*asked, call, reply, told], "tools": _TOOLS[:1]},
                {"messages": [*asked, call, other, reply, reply, told], "tools": _TOOLS},
                {
                    "messages": [*asked, said, call, reply, told, *talk("So?", "Yes.")],
                    "tools": _TOOLS,
                },
            ]
    return rows


class _Writer:
    def __init__(self, template: FamilyTemplate, *, with_tools: bool) -> None:
        self._template = template
        self._family = template.definition
        self._tokenizer = template.tokenizer
        self._with_tools = with_tools

    def source(self) -> str:
        """Return the whole template."""
        return "".join(line.strip() + "\n" for line in self._lines() if line).rstrip("\n")

    def _lines(self) -> list[str]:
        family = self._family
        opened, closed = map(_literal, family.thinking_marks)
        only_last = family.chat_sep is None
        preserves = self._template.options.thinking.preserve_thinking
        if preserves is None:
            preserves = bool(family.preserve_thinking)
        thinks = "add_generation_prompt" if family.is_thinking else "false"
        return [
            '{%- set own = messages[0].role == "system" -%}',
            "{%- set rest = messages[1:] if own else messages -%}",
            f"{{%- set system = messages[0].content if own else {self._default_system()} -%}}",
            *self._tools(),
            *self._refused_system(),
            "{%- set ns = namespace(round=0, asked=0, first=-1, query='', calls=0) -%}",
            "{%- for message in rest -%}",
            '{%- if message.role == "user" -%}',
            "{%- set ns.asked = loop.index0 -%}",
            "{%- if ns.first < 0 -%}{%- set ns.first = loop.index0 -%}{%- endif -%}",
            "{%- endif -%}",
            "{%- endfor -%}",
            self._opening(),
            "{%- for message in rest -%}",
            *(["{%- if loop.index0 >= ns.asked -%}"] if only_last else []),
            '{%- if message.role == "user" -%}',
            "{%- set query = message.content -%}",
            *self._turn("loop.index0"),
            '{%- elif message.role == "tool" -%}',
            *self._responses(),
            '{%- elif message.role == "assistant" -%}',
            '{%- set text = message.content or "" -%}',
            f"{{%- set history = {thinks} or loop.index0 < ns.asked -%}}",
            *(
                [
                    "{%- if loop.index0 < ns.asked -%}",
                    f"{{%- if {closed} in text -%}}",
                    f'{{%- set text = text.split({closed})[-1].lstrip("\\n") -%}}',
                    "{%- endif -%}",
                    "{%- endif -%}",
                ]
                if family.is_thinking and not preserves
                else []
            ),
            *(
                [f"{{%- set text = text.strip({_literal(family.strips_answers)}) -%}}"]
                if family.strips_answers
                else []
            ),
            f"{{{{- {_literal(family.answer_break)} -}}}}" if family.answer_break else "",
            *self._answer_opening(opened),
            "{{- text -}}",
            *self._calls(),
            "{%- if loop.last and not add_generation_prompt -%}",
            f"{{{{- {self._text(family.suffix)} -}}}}",
            "{%- endif -%}",
            "{%- endif -%}",
            *(["{%- endif -%}"] if only_last else []),
            "{%- endfor -%}",
            *self._generation(),
        ]

    def _default_system(self) -> str:
        system = self._template.options.system
        if system is not None:
            return _literal(system)
        return self._text(self._family.default_system or "")

    def _refused_system(self) -> list[str]:
        family = self._family
        if family.system_prefix is not None or family.system_prompt is not None:
            return []
        return [
            "{%- if own -%}",
            '{{- raise_exception("this model has no place for a system prompt") -}}',
            "{%- endif -%}",
        ]

    def _opening(self) -> str:
        family = self._family
        bos = ""
        if family.add_bos:
            bare = list(self._tokenizer("a", add_special_tokens=False)["input_ids"])
            whole = list(self._tokenizer("a")["input_ids"])
            lead = whole[: whole.index(bare[0])] if bare and bare[0] in whole else []
            bos = "".join(self._tokenizer.convert_ids_to_tokens(lead))
        if family.system_prefix is None:
            expression = self._text(family.prefix)
        else:
            expression = (
                f"(({self._text(family.system_prefix)}) if system else {self._text(family.prefix)})"
            )
        if bos and not family.prefix.startswith((bos, "{{BOS}}")):
            expression = f"{_literal(bos)} + {expression}"
        return f"{{{{- {expression} -}}}}"

    def _turn(self, place: str) -> list[str]:
        """Write separator and prompt around `query`."""
        family = self._family
        prompt = self._text(family.prompt)
        if family.system_prompt is not None:
            carrier = "ns.asked" if family.system_round == "last" else "ns.first"
            condition = f"system and {place} == {carrier}"
            prompt = f"(({self._text(family.system_prompt)}) if {condition} else ({prompt}))"
        separator = self._text(family.chat_sep or "")
        return [
            f"{{{{- (({separator}) if ns.round else '') + {prompt} -}}}}",
            "{%- set ns.round = ns.round + 1 -%}",
        ]

    def _answer_opening(self, opened: str) -> list[str]:
        family = self._family
        if family.answer_opening:
            text = family.answer_opening
            first = _literal(text[: text.index(">") + 1])
            return [
                f"{{%- if not text.startswith({first}) -%}}",
                f"{{{{- {_literal(text)} -}}}}",
                "{%- endif -%}",
            ]
        if not family.history_thinking_prefix and not family.non_thinking_prefix:
            return []
        history = _literal(family.history_thinking_prefix)
        answer = _literal(family.non_thinking_prefix)
        return [
            f"{{%- if not text.startswith({opened}) -%}}",
            f"{{{{- {history} if history else {answer} -}}}}",
            "{%- endif -%}",
        ]

    def _generation(self) -> list[str]:
        family, controls = self._family, self._template.options.thinking
        if family.thinking_prefix == family.non_thinking_prefix == "":
            return []
        thinks = controls.enable_thinking
        usual = family.thinks_by_default if thinks is None else thinks
        think, answer = map(_literal, (family.thinking_prefix, family.non_thinking_prefix))
        chosen = "enable_thinking" if family.thinking_prefix != family.non_thinking_prefix else ""
        condition = str(usual).lower()
        if chosen and not family.always_thinks:
            condition = f"({chosen} if {chosen} is defined else {condition})"
        after = "" if family.thinks_after_tools else ' and messages[-1].role != "tool"'
        return [
            f"{{%- if add_generation_prompt{after} -%}}",
            f"{{{{- {think} if {condition} else {answer} -}}}}",
            "{%- endif -%}",
        ]

    def _tools(self) -> list[str]:
        refused = [
            "{%- if tools -%}",
            '{{- raise_exception("this chat template does not write tools") -}}',
            "{%- endif -%}",
        ]
        if not self._with_tools:
            return refused
        own = self._tool_text([Span(_SYSTEM, Author.DATA)], own=True)
        default = self._template.default_system
        content = [Span(_SYSTEM, Author.DATA)] if default else []
        usual = self._tool_text(content, own=False)
        return [
            "{%- if tools -%}",
            "{%- set system -%}",
            "{%- if own -%}",
            *own,
            "{%- else -%}",
            *usual,
            "{%- endif -%}",
            "{%- endset -%}",
            "{%- endif -%}",
        ]

    def _tool_text(self, content: list[Span], *, own: bool) -> list[str]:
        agent = self._template.agent
        if agent.tools.place not in ("after", "before"):
            raise _NotSayable(
                f"agent template {agent.name!r} shows tools outside the system prompt"
            )
        one = _joined(agent.system(content, own=own, tools=_TOOLS[:1]))
        two = _joined(agent.system(content, own=own, tools=_TOOLS))
        for shown, parts in (("tool", _TOOLS), ("tool.function", [t["function"] for t in _TOOLS])):
            first, second = map(_json, parts)
            if one.count(first) != 1:
                continue
            head, _, tail = one.partition(first)
            middle = two.removeprefix(head + first).removesuffix(second + tail)
            if head + first + middle + second + tail != two:
                continue
            return [
                f"{{{{- {self._with_system(head)} -}}}}",
                "{%- for tool in tools -%}",
                f"{{{{- ('' if loop.first else {_literal(middle)}) + ({shown} | tojson) -}}}}",
                "{%- endfor -%}",
                f"{{{{- {self._with_system(tail)} -}}}}",
            ]
        raise _NotSayable(f"agent template {agent.name!r} does not show tools as JSON")

    @staticmethod
    def _with_system(text: str) -> str:
        return " + system + ".join(map(_literal, text.split(_SYSTEM)))

    def _calls(self) -> list[str]:
        refused = [
            "{%- if message.tool_calls -%}",
            '{{- raise_exception("this chat template does not write tool calls") -}}',
            "{%- endif -%}",
        ]
        if not self._with_tools:
            return refused
        if self._template.agent.calls_end_turn:
            raise _NotSayable("a turn of calls ends with a stop token of its own")

        def write(*, words: bool, first: bool, last: bool) -> str:
            return self._call_text(CallPlace("words" if words else "", 0, first, last))

        begun = {
            words: (
                write(words=words, first=True, last=True),
                write(words=words, first=True, last=False),
            )
            for words in (True, False)
        }
        more = (
            write(words=False, first=False, last=True),
            write(words=False, first=False, last=False),
        )
        return [
            "{%- set words = text.split('</think>')[-1].strip() -%}",
            "{%- for call in message.tool_calls or [] -%}",
            "{%- set function = call.function if call.function is defined else call -%}",
            "{%- if loop.first and words -%}",
            f"{{{{- ({begun[True][0]}) if loop.last else ({begun[True][1]}) -}}}}",
            "{%- elif loop.first -%}",
            f"{{{{- ({begun[False][0]}) if loop.last else ({begun[False][1]}) -}}}}",
            "{%- else -%}",
            f"{{{{- ({more[0]}) if loop.last else ({more[1]}) -}}}}",
            "{%- endif -%}",
            "{%- endfor -%}",
        ]

    def _call_text(self, place: CallPlace) -> str:
        call = ToolCall(_NAME, dict(_ARGUMENTS))
        text = _joined(self._template.agent.calls.write(call, place))
        arguments = _json(_ARGUMENTS)
        if text.count(_NAME) != 1 or text.count(arguments) != 1:
            raise _NotSayable("calls are not a name and JSON arguments")
        pieces = re.split(f"({_NAME}|{re.escape(arguments)})", text)
        said = {_NAME: "function.name", arguments: "(function.arguments | tojson)"}
        return " + ".join(said.get(piece) or _literal(piece) for piece in pieces if piece)

    def _responses(self) -> list[str]:
        form = self._template.agent.responses
        if not self._with_tools:
            return ['{{- raise_exception("this chat template does not write tool responses") -}}']
        if form.write_one is not None:
            raise _NotSayable("responses are written one by one, by rules of their own")
        before, after = map(_literal, form.each)
        begin, end = map(_literal, form.around)
        lines = [
            "{%- if loop.first or loop.previtem.role != 'tool' -%}",
            f"{{%- set ns.query = {begin} -%}}",
            "{%- else -%}",
            f"{{%- set ns.query = ns.query + {_literal(form.gap)} -%}}",
            "{%- endif -%}",
            f"{{%- set ns.query = ns.query + {before} + message.content + {after} -%}}",
            "{%- if loop.last or loop.nextitem.role != 'tool' -%}",
            f"{{%- set query = ns.query + {end} -%}}",
        ]
        if form.own_turn is None:
            return [*lines, *self._turn("-2"), "{%- endif -%}"]
        header, answer = map(_literal, form.own_turn)
        separator = "''" if form.continues else self._text(self._family.chat_sep or "")
        return [
            *lines,
            f"{{{{- {separator} + {header} + query + {answer} -}}}}",
            "{%- set ns.round = ns.round + 1 -%}",
            "{%- endif -%}",
        ]

    def _text(self, text: str) -> str:
        """Return the expression of one of the family's texts."""
        said: list[str] = []
        position = 0
        for found in _PLACEHOLDER.finditer(text):
            if fixed := text[position : found.start()]:
                said.append(_literal(fixed))
            said.append(self._placeholder(found[1], found[2] or ""))
            position = found.end()
        if fixed := text[position:]:
            said.append(_literal(fixed))
        return " + ".join(said) or "''"

    def _placeholder(self, name: str, argument: str) -> str:
        if name in ("SYSTEM", "QUERY"):
            return name.lower()
        if name in ("ROUND0", "ROUND1"):
            return f"((ns.round + {name[-1]}) | string)"
        if name == "TODAY":
            return f"strftime_now({_literal(argument)})"
        if name in ("BOS", "EOS"):
            return _literal(str(getattr(self._tokenizer, f"{name.lower()}_token")))
        token = int(argument) if name == "ID" else getattr(self._tokenizer, argument, None)
        if token is None:
            token = self._tokenizer.init_kwargs[argument]
        return _literal(str(self._tokenizer.convert_ids_to_tokens(token)))


def _literal(text: str) -> str:
    """Return a text as a Jinja string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("\t", "\\t").replace("\r", "\\r") + '"'


def _json(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _joined(spans: Sequence[Span]) -> str:
    return "".join(span.text for span in spans)
