"""The tokenizer's own chat template as a training template, with proof of what is an answer.

A chat template renders text; it does not say which of it is the answer. Where it has
`{% generation %}` blocks they are taken. Otherwise each answer is found by rendering: the
conversation before it with a generation prompt must be a prefix of the conversation after it, and
the difference must hold the message's own words and end with a stop token. A row for which this
can't be shown is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from swiftcore.errors import DataError, UsageError
from swiftcore.template.agents import AgentTemplate, find_agent_template
from swiftcore.template.conversation import AnswerPart, Conversation, Mode, Round
from swiftcore.template.registry import JINJA
from swiftcore.template.sandbox import MARKS, Rendered, render
from swiftcore.template.spans import Author, Span, cut
from swiftcore.template.template import Template, TemplateOptions

# Stand for a control token's text in the data while the template renders: private-use characters
# around a number, which no whitespace or JSON handling touches.
_HOLD_START, _HOLD_END = "\U000f1b01", "\U000f1b02"
_HOLD = re.compile(f"{_HOLD_START}(\\d+){_HOLD_END}")

_PROBE = "An answer."


class JinjaTemplate(Template):
    """The chat template that came with the tokenizer.

    Raises:
        UsageError: the tokenizer has none.
    """

    def __init__(self, tokenizer: Any, options: TemplateOptions) -> None:
        super().__init__(JINJA, tokenizer, options)
        self._source = read_chat_template(tokenizer)
        self._agent = find_agent_template(options.agent_template or "hermes")
        self._token_ids = self.pieces.token_ids
        unsafe = [*sorted(self._token_ids, key=len, reverse=True), *MARKS, _HOLD_START, _HOLD_END]
        self._unsafe = re.compile("|".join(map(re.escape, unsafe)))
        self._marks_answers = re.search(r"\{%-?\s*generation\s*-?%\}", self._source) is not None

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
        """The eos token, and the stop token the template ends an answer with."""
        words = [self.tokenizer.eos_token]
        probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        _, _, tail = self._render(probe, [], prompt=False).text.rpartition(_PROBE)
        found = self.pieces.find(tail)
        return list(dict.fromkeys(word for word in (found and found.group(), *words) if word))

    def spans(self, conversation: Conversation, mode: Mode) -> list[Span]:
        """Render the conversation and weigh what the assistant said."""
        held: list[str] = []
        messages, ends = self._messages(conversation, held)
        tools = [self._hold_all(tool, held) for tool in conversation.tools]
        if mode == "infer" or conversation.rounds[-1].answer is None:
            rendered = self._render(messages, tools, prompt=True)
            prefix = self.options.response_prefix
            tail = [Span(prefix)] if prefix and mode == "infer" else []
        else:
            rendered, tail = self._render(messages, tools, prompt=False), []
        _check_holds(rendered.text, len(held), conversation)
        if mode == "infer":
            return [*_release([Span(rendered.text)], held), *tail]
        answers = [turn.answer for turn in conversation.rounds if turn.answer is not None]
        ranges = self._answer_ranges(rendered, messages, tools, ends, answers)
        return _release(self._weigh(rendered.text, ranges, answers), held)

    def _weigh(
        self,
        text: str,
        ranges: list[tuple[int, int] | None],
        answers: list[tuple[AnswerPart, ...]],
    ) -> list[Span]:
        outside = 1.0 if self.loss_scale.base == "all" else 0.0
        spans: list[Span] = []
        position = 0
        for found, parts in zip(ranges, answers, strict=True):
            if found is None:
                continue
            start, end = found
            spans.append(Span(text[position:start], weight=outside))
            factor = _message_weight(parts)
            body = text[start:end]
            runs = [(length, weight * factor) for length, weight in self.loss_scale.runs(body)]
            spans += cut([Span(body)], runs)
            position = end
        return [*spans, Span(text[position:], weight=outside)]

    def _answer_ranges(
        self,
        rendered: Rendered,
        messages: list[dict[str, Any]],
        tools: list[Any],
        ends: list[tuple[int, int]],
        answers: list[tuple[AnswerPart, ...]],
    ) -> list[tuple[int, int] | None]:
        """Return where each answer stands in the text; None for one that is not trained."""
        if self._marks_answers:
            return self._marked_ranges(rendered, messages, tools, ends, answers)
        ranges: list[tuple[int, int] | None] = []
        for index, (first, stop) in enumerate(ends):
            if self._is_skipped(index, answers):
                ranges.append(None)
                continue
            before = self._render(messages[:first], tools, prompt=True).text
            through = self._render(messages[:stop], tools, prompt=False).text
            if not (through.startswith(before) and rendered.text.startswith(through)):
                raise _no_proof(
                    "it writes an answer differently once the conversation goes on",
                    f"answer {index + 1} of {len(answers)}",
                )
            found = (len(before), len(through))
            ranges.append(self._checked(rendered.text, found, messages[first:stop]))
        return ranges

    def _marked_ranges(
        self,
        rendered: Rendered,
        messages: list[dict[str, Any]],
        tools: list[Any],
        ends: list[tuple[int, int]],
        answers: list[tuple[AnswerPart, ...]],
    ) -> list[tuple[int, int] | None]:
        text = rendered.text
        if len(rendered.generated) != len(ends):
            raise _no_proof(
                "its {% generation %} blocks are not one for each answer",
                f"{len(rendered.generated)} blocks, {len(ends)} answers",
            )
        ranges: list[tuple[int, int] | None] = []
        for index, ((start, end), (first, stop)) in enumerate(
            zip(rendered.generated, ends, strict=True)
        ):
            if self._is_skipped(index, answers):
                ranges.append(None)
                continue
            before = self._render(messages[:first], tools, prompt=True).text
            if not text.startswith(before) or end < len(before):
                raise _no_proof(
                    "its generation prompt is no prefix of the answered conversation",
                    f"answer {index + 1} of {len(answers)}",
                )
            # Some blocks open inside the generation prompt; what serving sends is not generated.
            start = max(start, len(before))
            following = self.pieces.find(text[end:])
            if self._stop_end(text[start:end]) is None and following and not following.start():
                end += following.end()
            ranges.append(self._checked(text, (start, end), messages[first:stop]))
        return ranges

    def _is_skipped(self, index: int, answers: list[tuple[AnswerPart, ...]]) -> bool:
        trained = self.loss_scale.base != "last_round" or index == len(answers) - 1
        flags = [part.loss for part in answers[index] if part.loss is not None]
        return not any(flags) if flags else not trained

    def _checked(
        self, text: str, found: tuple[int, int], messages: list[dict[str, Any]]
    ) -> tuple[int, int]:
        """Return the range up to its stop token, once the message's words are seen in it.

        The stop token is the last special token of the range, with only whitespace after it.
        """
        start, end = found
        body = text[start:end]
        for message in messages:
            wanted = [message.get("content") or ""]
            wanted += [call["function"]["name"] for call in message.get("tool_calls", ())]
            for words in wanted:
                answer = words.rpartition("</think>")[2].strip()
                if answer not in body:
                    raise _no_proof("it leaves words of an answer out", answer[:80])
        stop = self._stop_end(body)
        if stop is None:
            raise _no_proof("it ends an answer without a stop token", repr(body[-40:]))
        return start, start + stop

    def _stop_end(self, body: str) -> int | None:
        """Return where the stop token of an answer ends; only whitespace may follow it."""
        stripped = body.rstrip()
        is_special = self.pieces.is_special
        stops = (token for token, token_id in self._token_ids.items() if is_special(token_id))
        return len(stripped) if any(map(stripped.endswith, stops)) else None

    def _messages(
        self, conversation: Conversation, held: list[str]
    ) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        """Return OpenAI messages, and for each answer the range of messages it became."""
        messages: list[dict[str, Any]] = []
        ends: list[tuple[int, int]] = []
        system = conversation.system
        if system is None:
            system = self.default_system
        if system is not None:
            messages.append({"role": "system", "content": self._hold(system, held, Author.DATA)})
        for turn in conversation.rounds:
            messages += self._question(turn, held)
            if turn.answer is not None:
                first = len(messages)
                messages.append(self._answer(turn.answer, held))
                ends.append((first, len(messages)))
        return messages, ends

    def _question(self, turn: Round, held: list[str]) -> list[dict[str, Any]]:
        role = "tool" if turn.source == "tool" else "user"
        return [
            {"role": role, "content": self._hold(query, held, Author.DATA)}
            for query in turn.queries
        ]

    def _answer(self, parts: tuple[AnswerPart, ...], held: list[str]) -> dict[str, Any]:
        text = "".join(part.text for part in parts if part.call is None)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self._hold(text, held, Author.ASSISTANT),
        }
        calls = [
            {
                "type": "function",
                "function": {
                    "name": part.call.name,
                    "arguments": self._hold_all(part.call.arguments, held),
                },
            }
            for part in parts
            if part.call is not None
        ]
        return message | ({"tool_calls": calls} if calls else {})

    def _hold(self, text: str, held: list[str], author: Author) -> str:
        """Replace control tokens that may not be parsed, and our own marks, by placeholders."""

        def replace_one(found: re.Match[str]) -> str:
            token = self._token_ids.get(found.group())
            own_words = token is not None and not self.pieces.is_special(token)
            if author is Author.ASSISTANT and own_words:
                return found.group()
            held.append(found.group())
            return f"{_HOLD_START}{len(held) - 1}{_HOLD_END}"

        return self._unsafe.sub(replace_one, text)

    def _hold_all(self, value: Any, held: list[str]) -> Any:
        if isinstance(value, str):
            return self._hold(value, held, Author.DATA)
        if isinstance(value, Mapping):
            return {
                self._hold_all(key, held): self._hold_all(item, held) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._hold_all(item, held) for item in value]
        return value

    def _render(
        self, messages: list[dict[str, Any]], tools: list[Any], *, prompt: bool
    ) -> Rendered:
        return render(
            self._source,
            today=self.options.today,
            messages=messages,
            tools=tools or None,
            documents=None,
            add_generation_prompt=prompt,
            **self.tokenizer.special_tokens_map,
        )


def read_chat_template(tokenizer: Any) -> str:
    """Return the tokenizer's Jinja text; of several, the one named "default".

    Raises:
        UsageError: it has none.
    """
    source = getattr(tokenizer, "chat_template", None)
    if isinstance(source, Mapping):
        source = source.get("default")
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
        raise _no_proof("it cuts or escapes the row's text", f"{found} of {expected} marks whole")


def _message_weight(parts: tuple[AnswerPart, ...]) -> float:
    scales = {part.loss_scale for part in parts if part.loss_scale is not None}
    flags = {part.loss for part in parts}
    if len(scales) > 1 or (False in flags and True in flags):
        raise _no_proof("messages of one answer have different weights", sorted(scales))
    return scales.pop() if scales else 1.0


def _no_proof(reason: str, found: object) -> DataError:
    return DataError(
        "the model's chat template does not show which tokens the assistant wrote: " + reason,
        where="template: jinja",
        found=found,
        expected="answers that stay as they were written, each ended by a stop token",
        do="use loss_scale last_round, a registered template, or a chat template with "
        "{% generation %} blocks",
    )
