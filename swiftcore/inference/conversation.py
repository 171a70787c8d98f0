"""A conversation with a model, line by line, at a terminal or through a pipe."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

from swiftcore.errors import SwiftError
from swiftcore.evaluation.answering import described, raise_unless_of_this_row
from swiftcore.generation import Completion, Delta, SamplingParams
from swiftcore.inference.answers import completion_fields
from swiftcore.inference.screen import Screen
from swiftcore.serving.logprobs import TokenTexts
from swiftcore.template import Encoded, Template
from swiftcore.template.thinking import begun_block

HELP = (
    "quit or Ctrl-D ends; clear starts anew; system sets the system prompt; multi-line takes "
    "questions of several lines; Ctrl-C stops an answer"
)
_LEAVES = ("quit", "exit")
_SYSTEM = ("system", "reset-system")
_DEFAULT_SYSTEM = "default-system"
_LINES_END = "#"

ReadLine = Callable[[str], str | None]
"""Shows a text, and returns the next line without its end; None when there are no more."""


class TalkingEngine(Protocol):
    """An engine with the template that writes its prompts."""

    @property
    def template(self) -> Template:
        """Writes prompts."""
        ...

    def stream(
        self, prompt: list[int], params: SamplingParams, *, number: int = 0
    ) -> Iterator[Delta]:
        """Answer one prompt piece by piece."""
        ...


class Conversation:
    """Questions and answers in turn, until the questions end.

    Args:
        engine: answers.
        params: how.
        read_line: where questions come from.
        out: where answers go.
        is_styled: for a person at a terminal: with hints, reasoning set apart, and interrupts that
            end an answer and not the conversation.
        streams: print answers as they grow.
        as_json: print each answer as one line of JSON instead.
        prefix: text that prompts end with and answers start with.
        texts: writes the log-probabilities of tokens into JSON, where they are asked for.

    Attributes:
        num_failed: questions without an answer.
    """

    def __init__(
        self,
        engine: TalkingEngine,
        params: SamplingParams,
        read_line: ReadLine,
        out: TextIO,
        *,
        is_styled: bool = False,
        streams: bool = True,
        as_json: bool = False,
        prefix: str = "",
        texts: TokenTexts | None = None,
    ) -> None:
        self._engine = engine
        self._params = params
        self._read_line = read_line
        self._out = out
        self._is_styled = is_styled
        self._streams = streams and not as_json
        self._as_json = as_json
        self._prefix = prefix
        self._texts = texts
        self._screen = Screen(out, engine.template, is_styled=is_styled)
        self._system: str | None = None
        self._messages: list[dict[str, Any]] = []
        self._many_lines = False
        self._num_asked = 0
        self.num_failed = 0

    def run(self) -> None:
        """Talk until the questions end."""
        self._hint(HELP)
        goes_on = True
        while goes_on:
            try:
                goes_on = self._turn()
            except KeyboardInterrupt:
                if not self._is_styled:
                    raise
                self._hint("\nquit or Ctrl-D ends the conversation")

    def _turn(self) -> bool:
        """Take one question or command; tell whether more may come."""
        text = self._lines() if self._many_lines else self._read_line("> ")
        if text is None or text.strip() in _LEAVES:
            return False
        if not self._is_command(text) and text.strip():
            self._ask(text)
        return True

    def _lines(self) -> str | None:
        """Return lines up to one that ends in #; a line that is a command stands alone."""
        lines: list[str] = []
        while (line := self._read_line("... " if lines else "> ")) is not None:
            if not lines and line.strip() in (*_LEAVES, *_SYSTEM, "clear", "single-line"):
                return line
            if line.rstrip().endswith(_LINES_END):
                return "\n".join([*lines, line.rstrip()[: -len(_LINES_END)]]).rstrip("\n")
            lines.append(line)
        return "\n".join(lines) if lines else None

    def _is_command(self, text: str) -> bool:
        word = text.strip()
        if word == "clear":
            self._messages = []
        elif word in ("multi-line", "single-line"):
            self._many_lines = word == "multi-line"
            if self._many_lines:
                self._hint(
                    f"a line that ends in {_LINES_END} ends a question; single-line goes back"
                )
        elif word in _SYSTEM:
            self._read_system()
        else:
            return False
        return True

    def _read_system(self) -> None:
        """Take the next line as system prompt and start anew."""
        given = self._read_line(f"system prompt ({_DEFAULT_SYSTEM} goes back): ")
        if given is not None:
            self._system = None if given.strip() == _DEFAULT_SYSTEM else given
            self._messages = []

    def _ask(self, text: str) -> None:
        """Answer one question; one that fails is forgotten again."""
        question = {"role": "user", "content": text}
        number = self._num_asked
        self._num_asked += 1
        try:
            prompt = self._prompt([*self._messages, question])
            answer = self._answered(prompt, number)
        except SwiftError as err:
            raise_unless_of_this_row(err)
            self.num_failed += 1
            self._fail(err)
            return
        if answer:
            self._messages += [question, {"role": "assistant", "content": answer}]

    def _prompt(self, messages: list[dict[str, Any]]) -> Encoded:
        if self._system is not None:
            messages = [{"role": "system", "content": self._system}, *messages]
        encoded = self._engine.template.encode({"messages": messages}, mode="infer")
        assert isinstance(encoded, Encoded)  # only training splits rows
        return encoded

    def _answered(self, prompt: Encoded, number: int) -> str:
        """Show the answer to a prompt and return it, as far as it went."""
        self._screen.begin()
        mark = self._engine.template.thinking_marks[0]
        text, completion = self._prefix or begun_block(prompt.text, mark), None
        if self._streams:
            self._screen.add(text)
        try:
            for delta in self._engine.stream(prompt.input_ids, self._params, number=number):
                text += delta.text
                completion = delta.completion
                if self._streams:
                    self._screen.add(delta.text)
        except KeyboardInterrupt:
            if not self._is_styled:
                raise
        self._show(text, completion)
        return text

    def _show(self, text: str, completion: Completion | None) -> None:
        if self._as_json and completion is not None:
            self._print_json({"response": text, **completion_fields(completion, self._texts)})
            return
        if not self._streams:
            self._screen.add(text)
        self._screen.end(text)
        if completion is None:
            self._hint("(stopped)")
        elif completion.finish_reason == "length":
            self._hint("(cut off: no room for more, or --max_new_tokens reached)")

    def _fail(self, err: SwiftError) -> None:
        if self._as_json:
            self._print_json({"response": None, "error": described(err)})
        else:
            self._out.write(f"{err}\n")
            self._out.flush()

    def _hint(self, text: str) -> None:
        if self._is_styled:
            self._out.write(f"{text}\n")
            self._out.flush()

    def _print_json(self, value: dict[str, Any]) -> None:
        self._out.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._out.flush()
