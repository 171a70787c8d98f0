"""A JSON document of any length, read through a window that stays small."""

import codecs
import json
import re
from typing import BinaryIO

from swiftcore.data.readers.json_values import decode, decode_at, skip_space
from swiftcore.data.readers.lines import MAX_LINE_BYTES, excerpt_text
from swiftcore.errors import DataError

_BLOCK_BYTES = 2**20
# A literal or an escape that the window's end cuts through is reported this close to the end.
_CUT_CHARACTERS = 12

_PLAIN_PART = re.compile(r'[^"\[\]{}]*+')
_STRING_PART = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]}]*")


class JsonText:
    """The text from a place in a document onwards; reading on forgets what lies before it.

    Args:
        stream: stands at the start of the document.
        source: name of the file, for messages.
    """

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream = stream
        self._source = source
        self._begin()

    def _begin(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._line = 1
        self._counted = 0
        self._ended = False

    def rewind(self) -> None:
        """Go back to the start of the document."""
        self._stream.seek(0)
        self._begin()

    def peek(self) -> str:
        """Skip space and return the next character, "" at the end of the document."""
        while True:
            self._at = skip_space(self._text, self._at)
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def step(self) -> None:
        """Go over the character that `peek` returned."""
        self._at += 1

    def line(self) -> int:
        """Return the line of the current place."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def take_value(self) -> tuple[object, str | None]:
        """Return the value that starts here and go behind it; or its raw start and the problem.

        Raises:
            DataError: the document is no JSON here.
        """
        value, end, problem = self._decode()
        if problem is not None:
            shown = excerpt_text(self._text, self._at)
            self.skip_value()
            return shown, problem
        self._at = end
        return value, None

    def look_at_value(self) -> tuple[object, str | None]:
        """Return what `take_value` would, and stay; a value beyond one block is a problem too."""
        value, _, problem = self._decode(_BLOCK_BYTES)
        return value, problem

    def skip_value(self) -> None:
        """Go behind the value that starts here, whatever its size and depth, without parsing it.

        Raises:
            DataError: the document ends inside the value.
        """
        if self.peek() not in ("[", "{", '"'):
            self._skip_scalar()
            return
        depth, in_string = 0, False
        while True:
            match = (_STRING_PART if in_string else _PLAIN_PART).match(self._text, self._at)
            self._at = match.end() if match else self._at
            mark = self._text[self._at : self._at + 1]
            # A backslash stops the match only where the window ends behind it.
            if mark in ("", "\\"):
                if not self._read_on():
                    raise self.broken("the document ends inside a value")
                continue
            self._at += 1
            if mark == '"':
                in_string = not in_string
            else:
                depth += 1 if mark in "[{" else -1
            if depth == 0 and not in_string:
                return

    def is_json_lines(self) -> bool:
        """Tell whether the first line is a value of its own, and another one follows it.

        A first line longer than a block is not looked at; should others follow, that is an error
        at the end of the document.
        """
        size = 0
        while (end := self._text.find("\n", self._at + size)) < 0:
            size = len(self._text) - self._at
            if size >= _BLOCK_BYTES or not self._read_on():
                return False
        size = end - self._at
        while skip_space(self._text, self._at + size) == len(self._text):
            if not self._read_on():
                return False
        try:
            decode(self._text[self._at : self._at + size])
        except json.JSONDecodeError:
            return False
        except (ValueError, RecursionError):
            return True
        return True

    def broken(self, problem: str, at: int | None = None) -> DataError:
        """Return the error that the document is no JSON at a place of the window."""
        at = self._at if at is None else at
        return DataError(
            "the file is not valid JSON",
            where=f"{self._source}:{self._line + self._text.count(chr(10), self._counted, at)}",
            found=problem,
            do="mend the file, or give it as .jsonl, where a broken line costs only itself",
        )

    def _decode(self, limit: int = MAX_LINE_BYTES) -> tuple[object, int, str | None]:
        while True:
            try:
                value, end = decode_at(self._text, self._at)
                # A number at the end of the window may go on behind it: 1 and . and 5.
                if end < len(self._text) - _CUT_CHARACTERS or self._ended:
                    return value, end, None
            except json.JSONDecodeError as err:
                cut = err.pos >= len(self._text) - _CUT_CHARACTERS
                if self._ended or not (cut or err.msg.startswith("Unterminated string")):
                    raise self.broken(err.msg, err.pos) from err
            except (ValueError, RecursionError) as err:
                return None, -1, f"not valid JSON: {err}"
            if len(self._text) - self._at > limit:
                return None, -1, f"row is longer than {limit} characters"
            self._read_on()

    def _skip_scalar(self) -> None:
        while True:
            match = _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._read_on():
                return

    def _read_on(self) -> bool:
        """Enlarge the window at its end; False when the document has no more."""
        if self._ended:
            return False
        self.line()
        self._text = self._text[self._at :]
        self._at = self._counted = 0
        # Twice the window each time: a long value is decoded a few times, not once a block.
        raw = self._stream.read(max(_BLOCK_BYTES, len(self._text)))
        self._ended = not raw
        try:
            self._text += self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as err:
            line = self._line + self._text.count("\n") + err.object.count(b"\n", 0, err.start)
            raise DataError(
                "the JSON document is not UTF-8",
                where=f"{self._source}:{line}",
                found=f"byte {err.object[err.start]:#04x}",
                do="save it as UTF-8",
            ) from err
        return True
