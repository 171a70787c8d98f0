"""What an agent template is: where tools stand, how calls are written, how results come back.

An agent template is put together from three parts, so that most of them are a few lines of data:

- tools: a text for all tools, and its place (`ToolsForm`);
- calls: how one call is written into an answer and read back out of it (`CallForm`);
- responses: the texts around what the tools answered (`ResponseForm`).

The parts say who wrote each character (`Author`): only the markers are parsed for control tokens,
never names, arguments or results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from swiftcore.errors import UsageError
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

Tool = dict[str, Any]
"""A tool definition: `{"type": "function", "function": {...}}`."""
Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of the parameters of each tool."""


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A model's answer, taken apart.

    Args:
        calls: the calls that could be read, in order.
        text: what the answer says beside the calls.
        problems: one sentence for each call that could not be read.
    """

    calls: list[ToolCall] = field(default_factory=list)
    text: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CallPlace:
    """Where a call stands in its answer.

    Args:
        before: the answer's text up to here.
        number: how many calls the conversation had before.
        is_first: whether a run of calls begins here.
        is_last: whether it ends here.
    """

    before: str
    number: int
    is_first: bool
    is_last: bool

    def gap(self, text: str) -> str:
        """Return `text` where words stand before a run of calls; a think block is no words."""
        words = self.before.rpartition("</think>")[2]
        return text if self.is_first and words.strip() else ""


@dataclass(frozen=True, slots=True)
class ToolResponse:
    """What a tool answered.

    Args:
        content: its words.
        call: the call it answers, by position; None where the row has more responses than calls.
        number: how many responses the conversation had before.
    """

    content: str
    call: ToolCall | None
    number: int


@dataclass(frozen=True, slots=True)
class Turn:
    """The family's texts around a turn.

    Args:
        separator: what ends the answer before.
        ask: writes a user turn with the given content, separator included.
    """

    separator: list[Span]
    ask: Callable[[list[Span]], list[Span]]


Place = Literal["after", "before", "question", "front", "behind"]


@dataclass(frozen=True, slots=True)
class ToolsForm:
    """The text that shows the tools.

    Args:
        write: the text.
        place: after or before the system prompt (both in the family's system turn), before the
            words of the first question, in front of the family's opening, or behind it.
        glue: between system prompt and tools, or tools and system prompt.
        glue_always: write the glue after an empty system prompt too, as published prompts do.
        replaces_default: the family's own system prompt gives way; the user's never does.
        default_system: stands in where the row has no system prompt.
        replaces: texts of the family's opening that read otherwise where tools are shown.
    """

    write: Callable[[Sequence[Tool]], list[Span]]
    place: Place = "after"
    glue: str = "\n\n"
    glue_always: bool = False
    replaces_default: bool = False
    default_system: str = ""
    replaces: tuple[tuple[str, str], ...] = ()


class CallForm(Protocol):
    """How calls are written and read."""

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call.

        Raises:
            DataError: the format can't carry this call so that it could be read back.
        """
        ...

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read all calls; what can't be read is reported, never raised."""
        ...


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """The texts around responses.

    Args:
        each: before and after one response.
        gap: between two of them.
        around: before and after all of them.
        own_turn: the role header before them and the header of the next answer; None: they stand
            where a user's words would.
        continues: the answer goes on, no separator stands before them.
        write_one: writes one response where `each` is not enough.
    """

    each: tuple[str, str] = ("", "")
    gap: str = ""
    around: tuple[str, str] = ("", "")
    own_turn: tuple[str, str] | None = None
    continues: bool = False
    write_one: Callable[[ToolResponse], list[Span]] | None = None

    @property
    def begins_answer(self) -> bool:
        """Whether a role header stands before the next answer; else it goes on without one."""
        return self.own_turn is None or bool(self.own_turn[1])

    def write(self, responses: Sequence[ToolResponse], turn: Turn) -> list[Span]:
        """Write a turn of responses, up to where the next answer begins."""
        spans = [Span(self.around[0])]
        for index, response in enumerate(responses):
            spans.append(Span(self.gap if index else ""))
            spans += self._one(response)
        spans.append(Span(self.around[1]))
        spans = [span for span in spans if span.text]
        if self.own_turn is None:
            return turn.ask(spans)
        header, answer = self.own_turn
        separator = [] if self.continues else turn.separator
        spans = [*separator, Span(header), *spans, Span(answer)]
        return [span for span in spans if span.text or span.ids]

    def _one(self, response: ToolResponse) -> list[Span]:
        if self.write_one is not None:
            return self.write_one(response)
        before, after = self.each
        return [Span(before), Span(response.content, Author.DATA), Span(after)]


@dataclass(frozen=True, slots=True)
class AgentTemplate:
    """How one family writes tools, calls and responses.

    Args:
        name: public name, that of ms-swift.
        tools: how tools are shown.
        calls: how calls are written and read.
        responses: how results come back.
        stop_words: texts that end an answer because a response must follow.
        calls_end_turn: a run of calls ends with a stop token of its own, not the family's suffix.
        opening_before_calls: replaces the family's opening of answers that call after some words.
        control_tokens: added tokens that begin or end its turns and texts, without which a
            tokenizer is that of another family.
    """

    name: str
    tools: ToolsForm
    calls: CallForm
    responses: ResponseForm
    stop_words: tuple[str, ...] = ()
    calls_end_turn: bool = False
    opening_before_calls: str = ""
    control_tokens: tuple[str, ...] = ()

    @property
    def needs_system(self) -> bool:
        """Whether the tools stand in the family's system turn."""
        return self.tools.place in ("after", "before")

    def system(self, system: list[Span], *, own: bool, tools: Sequence[Tool]) -> list[Span]:
        """Return the system prompt, with the tools in it where they belong there.

        Args:
            system: the system prompt so far, possibly empty.
            own: whether the user wrote it.
            tools: the definitions.
        """
        form = self.tools
        if not self.needs_system:
            return system
        if form.replaces_default and not own:
            system = []
        if not system and not own and form.default_system:
            system = [Span(form.default_system)]
        glue = [Span(form.glue)] if form.glue and (system or form.glue_always) else []
        if form.place == "before":
            return [*form.write(tools), *glue, *system]
        return [*system, *glue, *form.write(tools)]

    def opening(self, opening: list[Span], tools: Sequence[Tool]) -> list[Span]:
        """Return the family's opening as it reads where tools are shown."""
        if self.tools.place == "front":
            return [*self.tools.write(tools), *opening]
        if self.tools.place == "behind":
            return [*opening, *self.tools.write(tools)]
        return _replaced(opening, self.tools.replaces) if self.tools.replaces else opening

    def question(self, query: list[Span], tools: Sequence[Tool]) -> list[Span]:
        """Return the first question, with the tools in it where they belong there."""
        if self.tools.place != "question":
            return query
        return [*self.tools.write(tools), Span(self.tools.glue), *query]

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedText:
        """Read calls back out of an answer.

        Args:
            text: the model's words.
            tools: the definitions; formats that write values without quotes need them to tell a
                number from a text that looks like one.
        """
        return self.calls.parse(text, parameter_schemas(tools))


def parameter_schemas(tools: Sequence[Tool]) -> dict[str, Mapping[str, Any]]:
    """Return the JSON schema of each tool's parameters."""
    schemas: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            schemas[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
    return schemas


def _replaced(spans: list[Span], replaces: Sequence[tuple[str, str]]) -> list[Span]:
    """Replace texts in what the template wrote itself, across the borders of its spans."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        ours = span.author is Author.TEMPLATE and not span.ids
        if ours and last is not None and last.author is Author.TEMPLATE and not last.ids:
            joined[-1] = Span(last.text + span.text)
        else:
            joined.append(span)
    for old, new in replaces:
        joined = [
            Span(span.text.replace(old, new)) if span.author is Author.TEMPLATE and old in span.text
            else span
            for span in joined
        ]  # fmt: skip
    return joined


class _Refusal:
    """Stands for an agent template whose form could not be established."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _error(self) -> UsageError:
        return UsageError(
            f"how the agent template {self._name!r} writes tools and calls is not established",
            where="template.agent_template",
            found=self._name,
            expected="one of list_agent_templates(), or rows without tools and calls",
            do="choose an agent template, or template 'jinja', which uses the model's own",
        )

    def tools(self, tools: Sequence[Tool]) -> list[Span]:
        raise self._error()

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        raise self._error()

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        return ParsedText(text=text)


def unestablished(name: str) -> AgentTemplate:
    """Return an agent template that refuses tools and calls, for families that name one we lack."""
    refusal = _Refusal(name)
    return AgentTemplate(name, ToolsForm(refusal.tools), refusal, ResponseForm())
