"""Which characters of a rendered conversation the assistant wrote, shown by rendering.

An answer is trained when all of this holds:

- what serving would send before it (the messages up to it, with a generation prompt) is a prefix of
  the text;
- what follows is what the template writes when the conversation ends there, up to the stop token;
- it holds the message's words, its calls with their arguments, and ends with a special token.

`{% generation %}` blocks replace the second point. A template whose prompt is no prefix of its own
conversation (it indents one differently, or opens a think block only in prompts) can still be
trained on its last answer: as the prompt that will be served, followed by that answer.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from swiftcore.errors import DataError
from swiftcore.template.jinja.sandbox import Rendered

_FIRST, _SECOND = "An answer.", "Another answer."

Range = tuple[int, int]


class Renderer(Protocol):
    """A chat template with everything but the messages given."""

    def __call__(self, messages: list[dict[str, Any]], *, prompt: bool) -> Rendered:
        """Render messages, with a generation prompt or without."""
        ...


@dataclass(frozen=True)
class Proven:
    """A text with its answers.

    Args:
        text: the conversation.
        ranges: where each answer stands; None for one that is not trained.
        problems: why an answer that was wanted is not trained, by its number from 0.
    """

    text: str
    ranges: list[Range | None]
    problems: dict[int, str] = field(default_factory=dict)


class _Unproven(Exception):
    """One answer can't be shown; `everywhere` means no row of this template can."""

    def __init__(self, reason: str, found: object, *, everywhere: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found
        self.everywhere = everywhere


class StopTokens:
    """The special tokens of a tokenizer, and which of them ends an answer.

    Args:
        special: texts of the added tokens flagged special.
        eos: the tokenizer's eos token.
    """

    def __init__(self, special: list[str], eos: str | None) -> None:
        self._special = tuple(sorted(special, key=len, reverse=True))
        self.eos = eos
        self.ending: str | None = None

    def learn(self, render: Renderer, content: Callable[[str], Any]) -> None:
        """Find the token that ends answers, in the middle of a conversation and at its end.

        Args:
            render: the template.
            content: makes the content of a message from its text.

        Raises:
            DataError: the template can't render a plain conversation.
        """
        messages = [
            {"role": "user", "content": content("One?")},
            {"role": "assistant", "content": content(_FIRST)},
            {"role": "user", "content": content("Two?")},
            {"role": "assistant", "content": content(_SECOND)},
        ]
        at_end = self._after(render(messages[:2], prompt=False).text, _FIRST)
        try:
            inside = self._after(render(messages, prompt=False).text, _FIRST)
        except DataError:
            inside = at_end  # some templates take one round only
        shared = [a for a, b in zip(at_end, inside, strict=False) if a == b]
        candidates = shared or at_end
        self.ending = self.eos if self.eos in candidates else next(iter(candidates), None)

    def end_of(self, body: str, after: int, *, calls: bool) -> int | None:
        """Return where the stop token of an answer ends, None where there is none.

        Args:
            body: what follows the prompt; some templates write eos, or the next generation prompt,
                behind the stop token.
            after: where the answer's words end.
            calls: whether the answer ends with tool calls, which have special tokens of their own.
        """
        for token in (self.ending, self.eos):
            if token and (place := body.find(token, after)) >= 0:
                return place + len(token)
        if calls:
            rest = body.rstrip()
            return len(rest) if len(rest) > after and rest.endswith(self._special) else None
        rest = body[after:].lstrip()
        token = next((token for token in self._special if rest.startswith(token)), None)
        return None if token is None else len(body) - len(rest) + len(token)

    def starts(self, text: str) -> int | None:
        """Return where the ending token ends that `text` starts with, None if it doesn't."""
        for token in (self.ending, self.eos):
            if token and text.startswith(token):
                return len(token)
        return None

    def is_only_special(self, text: str) -> bool:
        """Say whether a text is nothing but special tokens and white space."""
        while (text := text.lstrip()).startswith(self._special):
            token = next(token for token in self._special if text.startswith(token))
            text = text[len(token) :]
        return not text

    def last_start(self, text: str) -> int | None:
        """Return where the last special token of a text starts, None if it has none."""
        return max((place for t in self._special if (place := text.rfind(t)) >= 0), default=None)

    def _after(self, text: str, words: str) -> list[str]:
        """Return the special tokens right after the last place of some words."""
        _, _, rest = text.rpartition(words)
        found: list[str] = []
        while (rest := rest.lstrip()).startswith(self._special):
            token = next(token for token in self._special if rest.startswith(token))
            found.append(token)
            rest = rest[len(token) :]
        return found


class AnswerFinder:
    """Finds the answers of conversations that one template writes.

    Args:
        render: the template, with the tools of one row.
        stops: what ends an answer.
    """

    def __init__(self, render: Renderer, stops: StopTokens) -> None:
        self._render = render
        self._stops = stops
        self._prompts: dict[int, str] = {}

    def find(
        self, messages: list[dict[str, Any]], answers: list[Range], wanted: list[bool]
    ) -> Proven:
        """Return the text to train on, with the answers that are wanted and could be shown.

        Args:
            messages: a conversation; one that does not end with an answer ends as a prompt.
            answers: the range of messages of each answer.
            wanted: which answers are to be trained.

        Raises:
            DataError: no wanted answer can be shown, or none ends with a stop token.
        """
        is_answered = bool(answers) and answers[-1][1] == len(messages)
        rendered = self._render(messages, prompt=not is_answered)
        text, blocks = rendered.text, _joined(rendered.generated)
        if is_answered and wanted[-1]:
            first, stop = answers[-1]
            prompt = self._prompt(messages, first)
            if not text.startswith(prompt):
                served = self._as_served(prompt, text, messages[first - 1 : stop])
                if served is not None:
                    text, blocks = served, []
        marked = blocks if len(blocks) == len(answers) else [None] * len(answers)
        ranges: list[Range | None] = [None] * len(answers)
        problems: dict[int, _Unproven] = {}
        for index, (first, stop) in enumerate(answers):
            if not wanted[index]:
                continue
            try:
                ranges[index] = self._range(text, messages, first, stop, marked[index])
            except _Unproven as err:
                problems[index] = err
        for index, problem in problems.items():
            if problem.everywhere or not any(ranges):
                raise no_proof(problem.reason, f"answer {index + 1}: {problem.found}")
        return Proven(text, ranges, {index: err.reason for index, err in problems.items()})

    def _range(
        self,
        text: str,
        messages: list[dict[str, Any]],
        first: int,
        stop: int,
        marked: Range | None,
    ) -> Range:
        calls = bool(messages[stop - 1].get("tool_calls"))
        start = len(before := self._prompt(messages, first))
        if not text.startswith(before) or (marked and marked[1] < start):
            raise _Unproven("its generation prompt is no prefix of the conversation", before[-40:])
        if marked:
            # Some blocks open inside the generation prompt; what serving sends is not generated.
            start, body = max(start, marked[0]), text[max(start, marked[0]) : marked[1]]
        else:
            ending_there = self._as_last(text, messages, stop)
            if not ending_there.startswith(before):
                raise _Unproven(
                    "it writes an answer differently once the conversation goes on", before[-40:]
                )
            body = ending_there[start:]
        if first and not _holds(before, _text(messages[first - 1]).strip()):
            raise _Unproven("its prompts leave out what was asked", before[-40:])
        after = _end_of_words(body, messages[first:stop])
        end = self._stops.end_of(body, after, calls=calls)
        if end is None:
            # A stop token that comes only when the conversation goes on, or outside of the block.
            following = self._stops.starts(text[start + len(body) :])
            if following is None or not text[start:].startswith(body):
                raise _Unproven(
                    "it ends an answer without a stop token", repr(body[-40:]), everywhere=True
                )
            return start, start + len(body) + following
        if not text[start:].startswith(body[:end]):
            raise _Unproven(
                "it writes an answer differently once the conversation goes on", repr(body[-40:])
            )
        return start, start + end

    def _prompt(self, messages: list[dict[str, Any]], first: int) -> str:
        """Return what serving sends to get the answer that begins at message `first`."""
        if first not in self._prompts:
            self._prompts[first] = self._render(messages[:first], prompt=True).text
        return self._prompts[first]

    def _as_last(self, text: str, messages: list[dict[str, Any]], stop: int) -> str:
        """Return the conversation as it is when it ends with this answer."""
        return text if stop == len(messages) else self._render(messages[:stop], prompt=False).text

    def _as_served(self, prompt: str, text: str, messages: list[dict[str, Any]]) -> str | None:
        """Return the served prompt followed by the answer; None where they don't fit together.

        Args:
            prompt: what serving sends.
            text: the whole conversation, which does not start with it.
            messages: the question and the answer.
        """
        calls = bool(messages[-1].get("tool_calls"))
        answer = _text(messages[-1])
        place = _skip_same(prompt, text)
        if place is not None:  # only the white space differs
            return self._joined(prompt, text[place:], messages[-1])
        opened = prompt[_num_same(prompt, text) :].strip()
        if not calls and opened and answer.startswith(opened):
            # The prompt has begun the answer already, as with "<think>".
            rest = answer[len(opened) :].rstrip()
            words = answer.rpartition("</think>")[2].strip()
            tail = text[text.rfind(words) + len(words) :].lstrip()
            return self._joined(prompt, rest + tail, {"content": rest})
        # Something before the question is written in prompts only, such as the system prompt.
        start = self._stops.last_start(prompt)
        wanted = messages[-1]["tool_calls"][0]["function"]["name"] if calls else answer.strip()
        place = -1 if start is None else text.rfind(prompt[start:], 0, text.rfind(wanted))
        if start is None or place < 0:
            return None
        body = text[place + len(prompt) - start :]
        asked = _text(messages[0]).strip()
        return None if asked and asked in body else self._joined(prompt, body, messages[-1])

    def _joined(self, prompt: str, body: str, message: dict[str, Any]) -> str | None:
        body = body.lstrip() if prompt[-1:].isspace() else body
        try:
            after = _end_of_words(body, [message])
        except _Unproven:
            return None
        end = self._stops.end_of(body, after, calls=bool(message.get("tool_calls")))
        return None if end is None else prompt + body[:end]


def _end_of_words(body: str, messages: list[dict[str, Any]]) -> int:
    """Return where an answer's last words end.

    Raises:
        _Unproven: something that its messages say is left out.
    """
    end = 0
    for message in messages:
        for words in _text(message).replace("<think>", "</think>").split("</think>"):
            found = _find(body, words.strip(), end)
            if found is None:
                raise _Unproven("it leaves words of an answer out", words.strip()[:80])
            end = max(end, found)
        for call in message.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            start = end
            for words in (call["function"]["name"], *_leaves(arguments)):
                found = _find(body, words.strip(), start)
                if found is None:
                    raise _Unproven(
                        "it leaves a tool call out", words.strip()[:80], everywhere=True
                    )
                end = max(end, found)
    return end


def _find(body: str, words: str, start: int) -> int | None:
    """Return where words end in a text, plain or as a JSON string has them; None without them.

    They are looked for from `start`, then from the beginning: templates may change the order.
    """
    spellings = (words, json.dumps(words, ensure_ascii=False)[1:-1], json.dumps(words)[1:-1])
    for spelling in dict.fromkeys(spellings):
        for place in (body.find(spelling, start), body.find(spelling)):
            if place >= 0:
                return place + len(spelling)
    return None


def _holds(text: str, words: str) -> bool:
    return _find(text, words, 0) is not None


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value


def _joined(blocks: tuple[Range, ...]) -> list[Range]:
    """Join blocks without a gap between them."""
    joined: list[Range] = []
    for start, end in blocks:
        if start == end:
            continue
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _skip_same(prompt: str, text: str) -> int | None:
    """Return where `prompt` ends in `text`, white space aside; None if it does not start it."""
    place = 0
    for char in prompt:
        if char.isspace():
            continue
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text) or text[place] != char:
            return None
        place += 1
    return place


def _num_same(one: str, other: str) -> int:
    """Return how many characters two texts share from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def no_proof(reason: str, found: object) -> DataError:
    """Build the error for a row whose answers can't be shown."""
    return DataError(
        "the model's chat template does not show which tokens the assistant wrote: " + reason,
        where="template: jinja",
        found=found,
        expected="answers that stay as they were written, each ended by a stop token",
        do="use loss_scale last_round, a registered template, or a chat template with "
        "{% generation %} blocks",
    )
