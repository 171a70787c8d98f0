"""Calls as tags, one for the call and one for each argument, as many coder models write them.

Values stand between tags without escapes. A closing tag inside a value does not end it unless
another tag of the call follows; a value in which one does can't be written and is refused.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from swiftcore.errors import DataError
from swiftcore.template.agents.base import CallPlace, ParsedText, Schemas
from swiftcore.template.agents.json_calls import CallReader, loosely
from swiftcore.template.agents.values import property_schema, read_value, write_value
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span


@dataclass(frozen=True)
class TaggedCalls:
    """The texts around names, keys and values; whitespace in them may vary when reading.

    Args:
        call: before the name, between name and arguments, after the arguments.
        argument: before the key, between key and value, after the value.
        section: before and after a run of calls.
        gap: between two calls.
        argument_gap: between two arguments.
        text_gap: between words and a run of calls.
        always_gap: write `text_gap` without words too.
        string_flag: the text between key and value says whether the value is a string, where it
            has `{}`: "true" or "false". Such a format needs no schema.
        cdata: wrap texts with `<`, `&` or a newline into CDATA.
    """

    call: tuple[str, str, str]
    argument: tuple[str, str, str]
    section: tuple[str, str] = ("", "")
    gap: str = "\n"
    argument_gap: str = ""
    text_gap: str = ""
    always_gap: bool = False
    string_flag: bool = False
    cdata: bool = False

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call.

        Raises:
            DataError: a name, key or value could not be read back.
        """
        gap = self.text_gap if self.always_gap and place.is_first else place.gap(self.text_gap)
        before = gap + self.section[0] if place.is_first else self.gap
        spans = [
            Span(before + self.call[0]),
            Span(_plain(call.name, "name"), Author.ASSISTANT),
            Span(self.call[1]),
        ]
        for index, (key, value) in enumerate(call.arguments.items()):
            spans += self._argument(key, value, gap=self.argument_gap if index else "")
        closing = self.call[2] + (self.section[1] if place.is_last else "")
        return [*spans, Span(closing)]

    def _argument(self, key: str, value: object, *, gap: str) -> list[Span]:
        opening, middle, closing = self.argument
        text = write_value(value)
        if self.cdata and isinstance(value, str) and re.search(r"[<&\n]", text):
            middle, closing = f"{middle}<![CDATA[", f"]]>{closing}"
        if self.string_flag:
            middle = middle.format(str(isinstance(value, str)).lower())
        # The tail keeps a value that ends with the closing tag from looking like the text's end.
        if self._ends.search(text + "\0"):
            raise _uncarried(key, text)
        return [
            Span(gap + opening),
            Span(_plain(key, "key"), Author.ASSISTANT),
            Span(middle),
            Span(text, Author.ASSISTANT),
            Span(closing),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read each call, argument by argument."""
        reader = CallReader(text)
        while (found := self._head.search(text, reader.position)) is not None:
            name = found["name"].strip()
            arguments: dict[str, object] = {}
            position = found.end()
            problem = ""
            while (opened := self._opened.match(text, position)) is not None:
                ended = self._ends.search(text, opened.end())
                if ended is None:
                    problem = f"argument {opened['key']!r} of {name!r} has no end"
                    break
                value = text[opened.end() : ended.start()]
                key = opened["key"].strip()
                schema = property_schema(schemas.get(name), key)
                arguments[key] = self._value(value, schema, opened.groupdict().get("flag"))
                position = ended.end()
            closed = self._closed.match(text, position)
            if not problem and closed is None:
                problem = f"the call of {name!r} has no end marker"
            reader.add(problem or ToolCall(name, arguments))
            reader.skip(found.start(), position if closed is None else closed.end())
        opening = self.call[0].strip()
        left = text.find(opening, reader.position)
        if left >= 0:
            reader.add(f"a call without a name: {text[left:].strip()[:120]!r}")
        return reader.result(*(marker.strip() for marker in self.section if marker.strip()))

    def _value(self, text: str, schema: object, flag: str | None) -> object:
        # A newline that the format puts around values is not the value's.
        if self.argument[1].endswith("\n"):
            text = text.removeprefix("\n")
        if self.argument[2].startswith("\n"):
            text = text.removesuffix("\n")
        if flag == "true":
            return text
        if self.cdata and text.startswith("<![CDATA[") and text.endswith("]]>"):
            return text[len("<![CDATA[") : -len("]]>")]
        return read_value(text, None if flag else schema)

    @cached_property
    def _head(self) -> re.Pattern[str]:
        return re.compile(loosely(self.call[0]) + r'(?P<name>[^<>"\n]+)' + loosely(self.call[1]))

    @cached_property
    def _opened(self) -> re.Pattern[str]:
        middle = self.argument[1].rstrip("\n")
        if self.string_flag:
            before, _, after = middle.partition("{}")
            pattern = re.escape(before) + "(?P<flag>true|false)" + re.escape(after)
        else:
            pattern = loosely(middle)
        key = r'(?P<key>[^<>"\n]+)'
        return re.compile(r"\s*" + loosely(self.argument[0].strip()) + key + pattern)

    @cached_property
    def _closed(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + loosely(self.call[2].strip()))

    @cached_property
    def _ends(self) -> re.Pattern[str]:
        """A value's end: its closing tag, and behind it another argument or the call's end."""
        following = f"{loosely(self.argument[0].strip())}|{loosely(self.call[2].strip())}"
        return re.compile(re.escape(self.argument[2].strip()) + rf"(?=\s*(?:{following}|\Z))")


def _plain(text: str, what: str) -> str:
    if not text or text != text.strip() or re.search(r'[<>"\n]', text):
        raise DataError(
            f"a call's {what} can't be written in this format",
            where="tool_call",
            found=text[:80],
            expected='a text without <, >, " and line breaks',
            do="rename it, or choose an agent template whose calls are JSON, such as hermes",
        )
    return text


def _uncarried(key: str, text: str) -> DataError:
    return DataError(
        "an argument holds the very tags that would end it",
        where=f"tool_call.arguments.{key}",
        found=text[:80],
        expected="a value that can be read back",
        do="change the value, or choose an agent template whose calls are JSON, such as hermes",
    )
