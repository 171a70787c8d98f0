"""Registered families: the texts of a `ChatTemplate` laid around a conversation."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from swiftcore.errors import DataError, UsageError
from swiftcore.template.agents import AgentTemplate, agent_of_family, find_agent_template
from swiftcore.template.agents.base import Tool, Turn
from swiftcore.template.agents.turns import call_place, count_calls, tool_responses
from swiftcore.template.conversation import AnswerPart, Conversation, Mode, Round
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.registry import is_built_in
from swiftcore.template.spans import Author, Piece, Span, cut, group, weigh
from swiftcore.template.template import Template, TemplateOptions
from swiftcore.template.texts import prepare_texts
from swiftcore.template.thinking import ThinkingControls, open_answers, opening


class FamilyTemplate(Template):
    """A registered family.

    Raises:
        UsageError: the tokenizer lacks a control token of the family, or a thinking control would
            do nothing.
    """

    def __init__(self, definition: ChatTemplate, tokenizer: Any, options: TemplateOptions) -> None:
        super().__init__(definition.name, tokenizer, options)
        self._registered = definition
        options.thinking.check(definition, use_chat_template=options.use_chat_template)
        if options.use_chat_template:
            _require_tokens(definition, self.pieces.token_ids)
        else:
            definition = definition.for_generation()
        self._definition = definition
        self._texts = prepare_texts(definition, tokenizer, options.today)
        if options.agent_template is None:
            self._agent = agent_of_family(definition.agent_template)
        else:
            self._agent = find_agent_template(options.agent_template, definition.agent_template)
        self._bos = _leading_ids(tokenizer) if definition.add_bos else ()
        known = self.pieces.token_ids
        self._agent_lacks = [token for token in self._agent.control_tokens if token not in known]
        suffix = self.pieces.encode(group(self._texts.suffix.fill()))
        self.stop_ids = [token for ids in suffix for token in ids]

    @property
    def definition(self) -> ChatTemplate:
        """The family's texts and rules."""
        return self._definition

    @property
    def settings(self) -> dict[str, Any]:
        """What `load_template` needs; a family of the user's own brings its whole definition."""
        if is_built_in(self._registered):
            return super().settings
        return {**super().settings, "definition": asdict(self._registered)}

    @property
    def default_system(self) -> str | None:
        """The caller's system prompt, else the family's."""
        if self.options.system is not None:
            return self.options.system
        return self._texts.default_system

    @property
    def thinking_marks(self) -> tuple[str, str]:
        """First and last text of a think block, as the family writes it."""
        return self._definition.thinking_marks

    @property
    def agent(self) -> AgentTemplate:
        """The chosen agent template, else the family's."""
        return self._agent

    @property
    def stop_words(self) -> list[str]:
        """The suffix, the eos token, the family's and the chosen agent template's stop words."""
        suffix = self._texts.suffix.characters
        words = [suffix.strip() or suffix, self.tokenizer.eos_token, *self._definition.stop_words]
        if self.options.use_chat_template:
            words += self._agent.stop_words
        return list(dict.fromkeys(word for word in words if word))

    def spans(self, conversation: Conversation, mode: Mode) -> list[Span]:
        """Lay the family's texts around the row's."""
        definition = self._definition
        controls = self._controls(conversation)
        rounds = conversation.rounds
        if self._agent_lacks and (conversation.tools or count_calls(rounds)):
            raise _lacks_tokens(f"agent template {self._agent.name!r}", self._agent_lacks)
        if definition.chat_sep is None:
            rounds = rounds[-1:]
        answers = open_answers(
            definition,
            controls,
            rounds,
            is_prompt=mode == "infer",
            last_counts=self.loss_scale.base == "last_round",
        )
        outside = 1.0 if self.loss_scale.base == "all" else 0.0
        system = self._system(conversation)
        tools = conversation.tools
        begun = self._opening(system)
        spans = weigh(self._agent.opening(begun, tools) if tools else begun, outside)
        asked = next((at for at, turn in enumerate(rounds) if turn.source == "user"), 0)
        carrier = self._carrier(rounds) if system else None
        for index, turn in enumerate(rounds):
            within = system if index == carrier else []
            shown = tools if index == asked else ()
            question = self._question(rounds, index, system=within, tools=shown)
            spans += weigh(question, outside)
            before, parts = answers[index]
            if not self._is_headed(turn):
                before = ""
            if parts is None:
                text = self.options.response_prefix
                if text is None:
                    text = opening(definition, controls, turn) if self._is_headed(turn) else ""
                gap = definition.answer_break if text and self._is_headed(turn) else ""
                spans.append(Span(gap + text, weight=outside))
                continue
            if before and before == definition.answer_opening and count_calls((turn,)):
                before = self._agent.opening_before_calls or before
            answer = self._answer(
                parts,
                query="\n".join(turn.queries),
                opening=before,
                counts=self._counts(rounds, index),
                earlier=count_calls(rounds[:index]),
            )
            if definition.answer_break and self._is_set_off(turn, answer):
                spans.append(Span(definition.answer_break, weight=outside))
            spans += answer
            ends_itself = self._agent.calls_end_turn and parts[-1].call is not None
            if index == len(rounds) - 1 and mode == "train" and not ends_itself:
                end_weight = answer[-1].end_weight if answer else 0.0
                spans += weigh(self._texts.suffix.fill(), outside or end_weight)
        return spans

    def _controls(self, conversation: Conversation) -> ThinkingControls:
        if not self.options.use_chat_template:
            return ThinkingControls()
        return self.options.thinking.for_row(conversation.template_kwargs, self._definition)

    def _system(self, conversation: Conversation) -> list[Span]:
        """Return the row's system prompt with the tools, else the caller's or the family's."""
        definition = self._definition
        own = conversation.system is not None or self.options.system is not None
        system = conversation.system
        if system is None:
            system = self.default_system or ""
        content = [Span(system, Author.DATA)] if system else []
        if definition.system_prefix is None and definition.system_prompt is None:
            tools = conversation.tools and self._agent.needs_system
            if (content and own) or tools:
                raise _no_system(self.name, "tools" if tools else "system")
            return []
        if conversation.tools:
            content = self._agent.system(content, own=own, tools=list(conversation.tools))
        return content

    def _opening(self, system: list[Span]) -> list[Span]:
        texts = self._texts
        if system and texts.system_prefix is not None:
            filled = texts.system_prefix.fill(SYSTEM=system)
        else:
            filled = texts.prefix.fill()
        # A prefix that spells out what the tokenizer would add must not get it twice.
        start = self.pieces.encode([Piece(tuple(filled[:1]))])[0] if filled and self._bos else []
        doubled = tuple(start[: len(self._bos)]) == self._bos
        return filled if doubled or not self._bos else [Span("", ids=self._bos), *filled]

    def _carrier(self, rounds: tuple[Round, ...]) -> int | None:
        """Return the round whose prompt holds the system prompt, in families that put it there."""
        if self._texts.system_prompt is None:
            return None
        asked = [index for index, turn in enumerate(rounds) if turn.source == "user"]
        if not asked:
            return None
        return asked[-1] if self._definition.system_round == "last" else asked[0]

    def _question(
        self,
        rounds: tuple[Round, ...],
        index: int,
        *,
        system: list[Span],
        tools: tuple[Tool, ...],
    ) -> list[Span]:
        turn = rounds[index]
        separator = self._texts.chat_sep.fill() if index else []

        def ask(query: list[Span]) -> list[Span]:
            values = {
                "QUERY": query,
                "ROUND0": [Span(str(index))],
                "ROUND1": [Span(str(index + 1))],
                "SYSTEM": system,
            }
            text = self._texts.system_prompt if system else None
            return [*separator, *(text or self._texts.prompt).fill(**values)]

        if turn.source == "tool":
            return self._agent.responses.write(tool_responses(rounds, index), Turn(separator, ask))
        query = [Span(turn.queries[0], Author.DATA)]
        return ask(self._agent.question(query, tools) if tools else query)

    def _is_headed(self, turn: Round) -> bool:
        return turn.source == "user" or self._agent.responses.begins_answer

    def _is_set_off(self, turn: Round, answer: list[Span]) -> bool:
        """Tell whether the family's break stands before an answer, as not before some calls."""
        mark = self._definition.no_break_before
        begins_with_call = bool(turn.answer) and turn.answer[0].call is not None
        if not self._is_headed(turn) or not mark or not begins_with_call:
            return self._is_headed(turn)
        ours = [span.text for span in answer if span.author is Author.TEMPLATE]
        return not any(mark in text for text in ours)

    def _counts(self, rounds: tuple[Round, ...], index: int) -> bool:
        return self.loss_scale.base != "last_round" or index == len(rounds) - 1

    def _answer(
        self,
        parts: tuple[AnswerPart, ...],
        *,
        query: str,
        opening: str,
        counts: bool,
        earlier: int,
    ) -> list[Span]:
        """Write one answer with its weights; the last span tells the weight of its stop token."""
        parts = self._stripped(parts)
        spans: list[Span] = []
        end_weight = 0.0
        for position, part in enumerate(parts):
            begun = [Span(opening)] if opening and not position else []
            written = self._written(part)
            if part.call is not None:
                before = "".join(span.text for span in [*spans, *begun])
                place = call_place(parts, position, before=before, earlier=earlier)
                written = [span for span in self._agent.calls.write(part.call, place) if span.text]
            written = [*begun, *written]
            factor = part.loss_scale if part.loss_scale is not None else 1.0
            end_weight = factor * float(counts if part.loss is None else part.loss)
            text = "".join(span.text for span in written)
            scaled = self.loss_scale.runs(text, query)
            runs = [(length, weight * end_weight) for length, weight in scaled]
            spans += cut(written, runs)
        if self.loss_scale.base == "all":
            # The separator has a weight of its own there, and joins the answer in one piece.
            return spans
        if not spans:
            return [Span("", Author.ASSISTANT, end_weight=end_weight)]
        return [*spans[:-1], spans[-1].ending(end_weight)]

    def _written(self, part: AnswerPart) -> list[Span]:
        # Without a chat template the row is pre-training text, whoever its message names.
        author = Author.ASSISTANT if self.options.use_chat_template else Author.DATA
        return [Span(part.text, author)]

    def _stripped(self, parts: tuple[AnswerPart, ...]) -> tuple[AnswerPart, ...]:
        characters = self._definition.strips_answers
        if not characters:
            return parts
        return tuple(replace(part, text=part.text.strip(characters)) for part in parts)


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
        raise _lacks_tokens(f"template {definition.name!r}", missing)


def _lacks_tokens(what: str, missing: list[str]) -> UsageError:
    return UsageError(
        f"the tokenizer lacks control tokens of {what}",
        where="tokenizer",
        found="missing " + ", ".join(missing),
        expected="the added tokens of the model's family",
        do="choose the template of this model's family, or 'jinja'",
    )


def _leading_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return what the tokenizer puts before a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    return tuple(whole[: whole.index(bare[0])]) if bare and bare[0] in whole else ()
