"""The tokenizer's own chat template as a training template, with proof of what is an answer."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from swiftcore.errors import DataError, UsageError
from swiftcore.template.agents import AgentTemplate, find_agent_template
from swiftcore.template.conversation import AnswerPart, Conversation, Mode
from swiftcore.template.jinja.answers import (
    AnswerFinder,
    Range,
    Renderer,
    StopTokens,
    no_proof,
)
from swiftcore.template.jinja.messages import (
    PROBE_TOOL,
    MessageStyle,
    Rewrite,
    Written,
    as_content,
    find_call_style,
    find_text_style,
    rewrite_tools,
    write_messages,
)
from swiftcore.template.jinja.sandbox import MARKS, Rendered, render
from swiftcore.template.registry import JINJA
from swiftcore.template.spans import Author, Span, cut
from swiftcore.template.template import Template, TemplateOptions

# Stand for a control token's text in the data while the template renders: private-use characters
# around a number, which no whitespace or JSON handling touches.
_HOLD_START, _HOLD_END = "\U000f1b01", "\U000f1b02"
_HOLD = re.compile(f"{_HOLD_START}(\\d+){_HOLD_END}")


# What a row or a recipe may not set for a template, because it is set already.
_TAKEN = {"messages", "tools", "documents", "add_generation_prompt", "strftime_now"}


class JinjaTemplate(Template):
    """The chat template that came with the tokenizer.

    Args:
        tokenizer: has the template.
        options: as for any template.
        is_reference: it is only compared with, so settings it does not know are left out.

    Raises:
        UsageError: the tokenizer has none, or it does not know a setting.
    """

    def __init__(
        self, tokenizer: Any, options: TemplateOptions, *, is_reference: bool = False
    ) -> None:
        super().__init__(JINJA, tokenizer, options)
        self._is_reference = is_reference
        self._sources = {
            with_tools: read_chat_template(tokenizer, with_tools=with_tools)
            for with_tools in (False, True)
        }
        self._agent = find_agent_template(options.agent_template or "hermes")
        self._token_ids = self.pieces.token_ids
        for name in options.thinking.chosen():
            if not is_reference and (problem := self._unknown(name)):
                raise UsageError(
                    problem,
                    where=f"template.{name}",
                    found="a setting that would do nothing",
                    expected="a name that the chat template reads",
                    do="remove it, or choose a registered template",
                )
        # Held also where they may be parsed afterwards: then they are counted, as in families.
        forbidden = [*sorted(self._token_ids, key=len, reverse=True), *MARKS]
        forbidden += [_HOLD_START, _HOLD_END]
        self._unsafe = re.compile("|".join(map(re.escape, forbidden)))

    @property
    def default_system(self) -> str | None:
        """The caller's system prompt; the template may have one of its own."""
        return self.options.system

    @property
    def agent(self) -> AgentTemplate:
        """How calls are read back; writing them is the template's own affair."""
        return self._agent

    @property
    def stop_words(self) -> list[str]:
        """The stop token the template ends an answer with, and the eos token."""
        words = (self._stops.ending, self.tokenizer.eos_token)
        return list(dict.fromkeys(word for word in words if word))

    @cached_property
    def text_style(self) -> MessageStyle:
        """How this template wants text."""
        return find_text_style(self._probe)

    @cached_property
    def call_style(self) -> MessageStyle:
        """How this template wants text and tool calls."""
        return find_call_style(self._probe, self.text_style)

    def _probe(self, messages: list[dict[str, Any]], tools: list[Any]) -> str:
        return self._render(messages, tools=tools, prompt=False).text

    @cached_property
    def _stops(self) -> StopTokens:
        is_special = self.pieces.is_special
        special = [token for token, token_id in self._token_ids.items() if is_special(token_id)]
        stops = StopTokens(special, self.tokenizer.eos_token)
        content = partial(as_content, style=self.text_style)
        for tools in ([], [PROBE_TOOL]):  # some can't be rendered without tools
            with suppress(DataError):
                stops.learn(partial(self._render, tools=tools), content)
                break
        return stops

    def spans(self, conversation: Conversation, mode: Mode) -> list[Span]:
        """Render the conversation and weigh what the assistant said."""
        held: list[str] = []
        hold = partial(self._hold, held)
        messages = self._messages(conversation, hold)
        rendering = self._rendering(conversation, hold)
        if mode == "infer":
            text = rendering(messages.messages, prompt=True).text
            _check_holds(text, len(held), conversation)
            prefix = self.options.response_prefix
            return [*_release([Span(text)], held), *([Span(prefix)] if prefix else [])]
        answers = [turn.answer for turn in conversation.rounds if turn.answer is not None]
        finder = AnswerFinder(rendering, self._stops)
        wanted = [not self._is_skipped(index, answers) for index in range(len(answers))]
        proven = finder.find(messages.messages, messages.answers, wanted)
        self._note(proven.problems, answers)
        _check_holds(proven.text, len(held), conversation)
        queries = ["\n".join(t.queries) for t in conversation.rounds if t.answer is not None]
        return _release(self._weigh(proven.text, proven.ranges, answers, queries), held)

    def written(self, conversation: Conversation, *, prompt: bool) -> str:
        """Return what the template itself makes of a conversation, control tokens obeyed.

        Raises:
            DataError: it refuses the conversation.
        """
        messages = self._messages(conversation, _as_is).messages
        return self._rendering(conversation, _as_is)(messages, prompt=prompt).text

    def last_prompt(self, conversation: Conversation) -> str:
        """Return the prompt before the last answer, as the template itself writes it.

        Raises:
            DataError: it refuses the conversation.
        """
        messages = self._messages(conversation, _as_is)
        first, _ = messages.answers[-1]
        return self._rendering(conversation, _as_is)(messages.messages[:first], prompt=True).text

    def holds_tokens(self, conversation: Conversation) -> bool:
        """Say whether control tokens in the conversation's texts are kept as text."""
        if self.options.allow_control_tokens:
            return False
        held: list[str] = []
        self._messages(conversation, partial(self._hold, held))
        rewrite_tools(conversation.tools, partial(self._hold, held))
        return bool(held)

    def is_only_special(self, text: str) -> bool:
        """Say whether a text is nothing but special tokens and white space."""
        return self._stops.is_only_special(text)

    def _messages(self, conversation: Conversation, rewrite: Rewrite) -> Written:
        system = conversation.system
        if system is None:
            system = self.default_system
        has_calls = any(
            part.call is not None for turn in conversation.rounds for part in turn.answer or ()
        )
        style = self.call_style if has_calls else self.text_style
        return write_messages(conversation, system=system, style=style, rewrite=rewrite)

    def _rendering(self, conversation: Conversation, rewrite: Rewrite) -> Renderer:
        """Return the template with the row's tools and settings."""
        settings: dict[str, Any] = {
            **self.options.thinking.chosen(),
            **conversation.template_kwargs,
        }
        for name in list(settings):
            if not (problem := self._unknown(name)):
                continue
            if not self._is_reference:
                raise DataError(
                    problem,
                    where=f"chat_template_kwargs.{name}",
                    found=settings[name],
                    expected="a name that the chat template reads",
                    do="remove it from the row",
                )
            del settings[name]
        tools = rewrite_tools(conversation.tools, rewrite)
        return partial(self._render, tools=tools, settings=settings)

    def _unknown(self, name: str) -> str | None:
        """Say what is wrong with a setting of this name."""
        if name in _TAKEN or name in self.tokenizer.special_tokens_map:
            return f"{name!r} of the chat template can't be set"
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in self._sources.values()):
            return f"the model's chat template does not read {name!r}"
        return None

    def _note(self, problems: dict[int, str], answers: list[tuple[AnswerPart, ...]]) -> None:
        """Count the answers that are not trained; one whose row insists on it is an error."""
        for index, reason in problems.items():
            if any(part.loss for part in answers[index]):
                raise no_proof(reason, f"answer {index + 1}, which has loss true")
            self.untrained[reason] += 1

    def _weigh(
        self,
        text: str,
        ranges: list[Range | None],
        answers: list[tuple[AnswerPart, ...]],
        queries: list[str],
    ) -> list[Span]:
        outside = 1.0 if self.loss_scale.base == "all" else 0.0
        spans: list[Span] = []
        position = 0
        for found, parts, query in zip(ranges, answers, queries, strict=True):
            if found is None:
                continue
            start, end = found
            spans.append(Span(text[position:start], weight=outside))
            factor = _message_weight(parts)
            body = text[start:end]
            scaled = self.loss_scale.runs(body, query)
            runs = [(length, weight * factor) for length, weight in scaled]
            spans += cut([Span(body)], runs)
            position = end
        return [*spans, Span(text[position:], weight=outside)]

    def _is_skipped(self, index: int, answers: list[tuple[AnswerPart, ...]]) -> bool:
        trained = self.loss_scale.base != "last_round" or index == len(answers) - 1
        flags = [part.loss for part in answers[index] if part.loss is not None]
        return not any(flags) if flags else not trained

    def _hold(self, held: list[str], text: str, author: Author) -> str:
        """Replace control tokens that may not be parsed, and our own marks, by placeholders."""

        def replace_one(found: re.Match[str]) -> str:
            token = self._token_ids.get(found.group())
            own_words = token is not None and not self.pieces.is_special(token)
            if author is Author.ASSISTANT and own_words:
                return found.group()
            held.append(found.group())
            return f"{_HOLD_START}{len(held) - 1}{_HOLD_END}"

        return self._unsafe.sub(replace_one, text)

    def _render(
        self,
        messages: list[dict[str, Any]],
        *,
        prompt: bool,
        tools: list[Any],
        settings: Mapping[str, Any] | None = None,
    ) -> Rendered:
        return render(
            self._sources[bool(tools)],
            today=self.options.today,
            messages=messages,
            tools=tools or None,
            documents=None,
            add_generation_prompt=prompt,
            **self.tokenizer.special_tokens_map,
            **(settings or {}),
        )


def _as_is(text: str, author: Author) -> str:
    return text


def read_chat_template(tokenizer: Any, *, with_tools: bool = False) -> str:
    """Return the tokenizer's Jinja text; of several the one transformers would choose.

    Raises:
        UsageError: it has none.
    """
    source = getattr(tokenizer, "chat_template", None)
    if isinstance(source, Mapping):
        source = source.get("tool_use" if with_tools else "default") or source.get("default")
    if not isinstance(source, str) or not source:
        raise UsageError(
            "the tokenizer has no chat template of its own",
            where="template: jinja",
            found="no chat_template.jinja and none in tokenizer_config.json",
            expected="a Jinja chat template",
            do="name a registered template; `swift template list` shows them",
        )
    return source


def _release(spans: list[Span], held: list[str]) -> list[Span]:
    """Put the held control tokens back, as data."""
    released: list[Span] = []
    for span in spans:
        position = 0
        for found in _HOLD.finditer(span.text):
            released.append(Span(span.text[position : found.start()], weight=span.weight))
            token = held[int(found.group(1))]
            released.append(Span(token, Author.DATA, weight=span.weight))
            position = found.end()
        released.append(Span(span.text[position:], weight=span.weight))
    return released


def _check_holds(text: str, expected: int, conversation: Conversation) -> None:
    found = len(_HOLD.findall(text))
    if text.count(_HOLD_START) != found or text.count(_HOLD_END) != found:
        raise no_proof("it cuts or escapes the row's text", f"{found} of {expected} marks whole")


def _message_weight(parts: tuple[AnswerPart, ...]) -> float:
    scales = {part.loss_scale for part in parts if part.loss_scale is not None}
    flags = {part.loss for part in parts}
    if len(scales) > 1 or (False in flags and True in flags):
        raise no_proof("messages of one answer have different weights", sorted(scales))
    return scales.pop() if scales else 1.0
