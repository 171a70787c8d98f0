"""Registered families: the texts of a `ChatTemplate` laid around a conversation."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from swiftcore.errors import DataError, UsageError
from swiftcore.template.agents import AgentTemplate, agent_of_family, find_agent_template
from swiftcore.template.agents.base import Tool, Turn
from swiftcore.template.agents.turns import call_place, count_calls, tool_responses
from swiftcore.template.conversation import AnswerPart, Conversation, Mode, Round
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.spans import Author, Piece, Span, cut, fill, weigh
from swiftcore.template.template import Template, TemplateOptions

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TODAY = re.compile(r"\{\{TODAY:(?P<format>[^}]*)\}\}")


class FamilyTemplate(Template):
    """A registered family.

    Raises:
        UsageError: the tokenizer lacks a control token of the family.
    """

    def __init__(self, definition: ChatTemplate, tokenizer: Any, options: TemplateOptions) -> None:
        super().__init__(definition.name, tokenizer, options)
        if options.use_chat_template:
            _require_tokens(definition, self.pieces.token_ids)
        else:
            definition = definition.for_generation()
        self._definition = _resolve(definition, tokenizer, options.today)
        if options.agent_template is None:
            self._agent = agent_of_family(definition.agent_template)
        else:
            self._agent = find_agent_template(options.agent_template, definition.agent_template)
        self._bos = _leading_ids(tokenizer) if definition.add_bos else ()
        self.stop_ids = self.pieces.encode([Piece((Span(self._definition.suffix),))])[0]

    @property
    def default_system(self) -> str | None:
        """The caller's system prompt, else the family's."""
        if self.options.system is not None:
            return self.options.system
        return self._definition.default_system

    @property
    def agent(self) -> AgentTemplate:
        """The chosen agent template, else the family's."""
        return self._agent

    @property
    def stop_words(self) -> list[str]:
        """The suffix, the eos token, the family's and the chosen agent template's stop words."""
        suffix = self._definition.suffix
        words = [suffix.strip() or suffix, self.tokenizer.eos_token, *self._definition.stop_words]
        if self.options.use_chat_template:
            words += self._agent.stop_words
        return list(dict.fromkeys(word for word in words if word))

    def spans(self, conversation: Conversation, mode: Mode) -> list[Span]:
        """Lay the family's texts around the row's."""
        definition = self._definition
        rounds = conversation.rounds
        if definition.chat_sep is None:
            rounds = rounds[-1:]
        rounds = self._rewrite_thinking(rounds, mode)
        outside = 1.0 if self.loss_scale.base == "all" else 0.0
        tools = conversation.tools
        begun = self._opening(conversation)
        spans = weigh(self._agent.opening(begun, tools) if tools else begun, outside)
        asked = next((at for at, turn in enumerate(rounds) if turn.source == "user"), 0)
        for index, turn in enumerate(rounds):
            last = index == len(rounds) - 1
            shown = tools if index == asked else ()
            spans += weigh(self._question(rounds, index, tools=shown), outside)
            if turn.answer is None:
                prefix = self.options.response_prefix
                text = definition.thinking_prefix if prefix is None else prefix
                spans.append(Span(text, weight=outside))
                continue
            answer = self._answer(
                turn.answer,
                counts=self._counts(rounds, index),
                earlier=count_calls(rounds[:index]),
            )
            spans += answer
            ends_itself = self._agent.calls_end_turn and turn.answer[-1].call is not None
            if last and mode == "train" and not ends_itself:
                end_weight = answer[-1].end_weight if answer else 0.0
                spans.append(Span(definition.suffix, weight=outside or end_weight))
        return spans

    def _opening(self, conversation: Conversation) -> list[Span]:
        definition = self._definition
        own = conversation.system is not None or self.options.system is not None
        system = conversation.system
        if system is None:
            system = self.default_system or ""
        content = [Span(system, Author.DATA)] if system else []
        if definition.system_prefix is None:
            tools = conversation.tools and self._agent.needs_system
            if (content and own) or tools:
                raise _no_system(self.name, "tools" if tools else "system")
            filled = fill(definition.prefix, {})
        else:
            if conversation.tools:
                content = self._agent.system(content, own=own, tools=list(conversation.tools))
            template = definition.system_prefix if content else definition.prefix
            filled = fill(template, {"{{SYSTEM}}": content})
        # A prefix that spells out what the tokenizer would add must not get it twice.
        start = self.pieces.encode([Piece(tuple(filled[:1]))])[0] if filled and self._bos else []
        doubled = tuple(start[: len(self._bos)]) == self._bos
        return filled if doubled or not self._bos else [Span("", ids=self._bos), *filled]

    def _question(
        self, rounds: tuple[Round, ...], index: int, *, tools: tuple[Tool, ...]
    ) -> list[Span]:
        turn = rounds[index]
        definition = self._definition
        separator = fill(definition.chat_sep or "", {}) if index else []

        def ask(query: list[Span]) -> list[Span]:
            return [*separator, *fill(definition.prompt, {"{{QUERY}}": query})]

        if turn.source == "tool":
            return self._agent.responses.write(tool_responses(rounds, index), Turn(separator, ask))
        query = [Span(turn.queries[0], Author.DATA)]
        return ask(self._agent.question(query, tools) if tools else query)

    def _counts(self, rounds: tuple[Round, ...], index: int) -> bool:
        return self.loss_scale.base != "last_round" or index == len(rounds) - 1

    def _answer(self, parts: tuple[AnswerPart, ...], *, counts: bool, earlier: int) -> list[Span]:
        """Write one answer with its weights; the last span tells the weight of its stop token."""
        spans: list[Span] = []
        end_weight = 0.0
        for position, part in enumerate(parts):
            written = self._written(part)
            if part.call is not None:
                before = "".join(span.text for span in spans)
                place = call_place(parts, position, before=before, earlier=earlier)
                written = [span for span in self._agent.calls.write(part.call, place) if span.text]
            factor = part.loss_scale if part.loss_scale is not None else 1.0
            end_weight = factor * float(counts if part.loss is None else part.loss)
            text = "".join(span.text for span in written)
            runs = [(length, weight * end_weight) for length, weight in self.loss_scale.runs(text)]
            spans += cut(written, runs)
        if self.loss_scale.base == "all":
            # The separator has a weight of its own there, and joins the answer in one piece.
            return spans
        if not spans:
            return [Span("", Author.ASSISTANT, end_weight=end_weight)]
        return [*spans[:-1], replace(spans[-1], end_weight=end_weight)]

    def _written(self, part: AnswerPart) -> list[Span]:
        # Without a chat template the row is pre-training text, whoever its message names.
        author = Author.ASSISTANT if self.options.use_chat_template else Author.DATA
        return [Span(part.text, author)]

    def _rewrite_thinking(self, rounds: tuple[Round, ...], mode: Mode) -> tuple[Round, ...]:
        """Apply the family's rules for think blocks, as its published template has them.

        Prompts, and rows of which only the last answer is trained, lose the think blocks before the
        last user message. Trained answers without a block get an empty one.
        """
        definition = self._definition
        if not definition.drops_history_thinking:
            return rounds
        last_user = max(index for index, turn in enumerate(rounds) if turn.source == "user")
        shortened = mode == "infer" or self.loss_scale.base == "last_round"
        rewritten: list[Round] = []
        for index, turn in enumerate(rounds):
            if turn.answer is None:
                rewritten.append(turn)
                continue
            first, *others = turn.answer
            if shortened and index < last_user:
                parts = [_without_thinking(part) for part in turn.answer]
            elif mode == "train" and not first.text.startswith("<think>"):
                parts = _with_prefix(definition.non_thinking_prefix, first, others)
            else:
                parts = list(turn.answer)
            rewritten.append(replace(turn, answer=tuple(parts)))
        return tuple(rewritten)


def _no_system(name: str, found: str) -> DataError:
    return DataError(
        f"template {name!r} has no place for a system prompt or tools",
        where="messages[0]" if found == "system" else "tools",
        found=found,
        expected="rows without a system message and without tools",
        do="choose another template, or move the text into the first user message",
    )


def _require_tokens(definition: ChatTemplate, known: Mapping[str, int]) -> None:
    missing = [token for token in definition.control_tokens if token not in known]
    if missing:
        raise UsageError(
            f"the tokenizer lacks control tokens of template {definition.name!r}",
            where="tokenizer",
            found="missing " + ", ".join(missing),
            expected="added tokens " + ", ".join(definition.control_tokens),
            do="choose the template of this model's family, or 'jinja'",
        )


def _resolve(definition: ChatTemplate, tokenizer: Any, today: date) -> ChatTemplate:
    def resolve(text: str) -> str:
        for placeholder, token in (
            ("{{BOS}}", tokenizer.bos_token),
            ("{{EOS}}", tokenizer.eos_token),
        ):
            if placeholder in text and not token:
                raise UsageError(
                    f"template {definition.name!r} needs a token the tokenizer does not have",
                    where="tokenizer",
                    found=f"no {placeholder.strip('{}').lower()}_token",
                    expected="a tokenizer that names it in tokenizer_config.json",
                    do="set it there, or choose another template",
                )
            text = text.replace(placeholder, token or "")
        return _TODAY.sub(lambda found: _format_date(today, found["format"]), text)

    return replace(
        definition,
        prefix=resolve(definition.prefix),
        system_prefix=definition.system_prefix and resolve(definition.system_prefix),
        prompt=resolve(definition.prompt),
        chat_sep=definition.chat_sep and resolve(definition.chat_sep),
        suffix=resolve(definition.suffix),
        default_system=definition.default_system and resolve(definition.default_system),
    )


def _format_date(day: date, pattern: str) -> str:
    # strftime would write month names in the machine's language.
    return (
        pattern.replace("%d", f"{day.day:02d}")
        .replace("%b", _MONTHS[day.month - 1])
        .replace("%m", f"{day.month:02d}")
        .replace("%Y", f"{day.year:04d}")
    )


def _leading_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return what the tokenizer puts before a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    return tuple(whole[: whole.index(bare[0])]) if bare and bare[0] in whole else ()


def _without_thinking(part: AnswerPart) -> AnswerPart:
    _, marker, answer = part.text.rpartition("</think>")
    return replace(part, text=answer.lstrip("\n")) if marker else part


def _with_prefix(prefix: str, first: AnswerPart, others: list[AnswerPart]) -> list[AnswerPart]:
    if not prefix:
        return [first, *others]
    if first.call is None:
        return [replace(first, text=prefix + first.text), *others]
    return [replace(first, text=prefix, call=None), first, *others]
