"""Rendering a model's own Jinja chat template, which is somebody else's program.

The environment is Jinja's immutable sandbox with the names that transformers offers to chat
templates, plus limits that a hostile or broken template runs into: time, loop steps, and size of
the output.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from swiftcore.errors import DataError

MAX_SECONDS = 5.0
MAX_STEPS = 2_000_000
MAX_CHARACTERS = 20_000_000
# Private-use characters: no chat template looks for them, and stripping leaves them alone.
MARKS = "\U000f1a01", "\U000f1a02"
"""Characters that stand around generated text while rendering; data must not hold them."""

_MAX_WIDTH = 10_000
_WIDTH = re.compile(r"[%{][^%{}\s]{0,8}\d{5,}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Args:
        text: the prompt.
        generated: character ranges inside `{% generation %}` blocks.
    """

    text: str
    generated: tuple[tuple[int, int], ...]


class _LimitReached(Exception):
    """A template used more than it may."""


class _Budget:
    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.deadline = time.monotonic() + MAX_SECONDS

    def spend(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _LimitReached(f"more than {MAX_STEPS} loop steps")
        if self.steps % 256 == 0 and time.monotonic() > self.deadline:
            raise _LimitReached(f"more than {MAX_SECONDS:.0f} seconds")


# One compiled environment serves all threads; each rendering has its own limits.
_BUDGET: ContextVar[_Budget] = ContextVar("budget")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Sandbox in which loops, calls and large products are counted."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    @property
    def budget(self) -> _Budget:
        return _BUDGET.get()

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(jinja2.nodes.For)):
            loop.iter = jinja2.nodes.Filter(loop.iter, "counted", [], [], None, None)
        return tree

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.spend()
            yield item

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend()
        receiver = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        if isinstance(receiver, str):
            _refuse_widths(receiver, *args, *kwargs.values())
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.budget.spend()
        if operator == "%":
            if isinstance(left, str):
                _refuse_widths(left)
            return super().call_binop(context, operator, left, right)
        sizes = [len(side) if hasattr(side, "__len__") else abs(side) for side in (left, right)]
        if operator == "**" and max(sizes) > 1000:
            raise _LimitReached("a power of large numbers")
        total = sizes[0] + sizes[1] if operator == "+" else sizes[0] * sizes[1]
        if (hasattr(left, "__len__") or hasattr(right, "__len__")) and total > MAX_CHARACTERS:
            raise _LimitReached(f"a text of more than {MAX_CHARACTERS} characters")
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """The `{% generation %}` block of transformers: what is inside was written by the assistant."""

    tags = {"generation"}  # noqa: RUF012 - the name and shape jinja2 asks for

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return caller().join(MARKS)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without underscore names, which lead to Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        names = dict(*rest, **kwargs)
        for name in names:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def render(source: str, *, today: date, **names: Any) -> Rendered:
    """Render a chat template.

    Args:
        source: the Jinja text.
        today: what `strftime_now` tells.
        names: messages, tools, add_generation_prompt, bos_token and so on, as plain JSON values.

    Raises:
        DataError: the template raised, is no Jinja, or ran into a limit.
    """
    try:
        template = _compile(source)
        _BUDGET.set(budget := _Budget())
        parts: list[str] = []
        size = 0
        now = datetime(today.year, today.month, today.day)
        for part in template.generate(strftime_now=now.strftime, **names):
            budget.spend()
            size += len(part)
            if size > MAX_CHARACTERS:
                raise _LimitReached(f"more than {MAX_CHARACTERS} characters")
            parts.append(part)
    except (jinja2.TemplateError, _LimitReached, TypeError, ValueError, RecursionError) as err:
        raise DataError(
            "the model's chat template could not render this row",
            where="chat_template",
            found=f"{type(err).__name__}: {err}",
            expected="a prompt",
            do="mend the row, or choose a registered template instead of 'jinja'",
        ) from err
    return _take_marks("".join(parts))


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.filters["counted"] = environment.counted
    environment.filters["format"] = _format
    environment.filters["center"] = _center
    environment.globals.update(
        raise_exception=_raise_exception, namespace=_Namespace, dict=_make_dict
    )
    return environment.from_string(source)


def _take_marks(text: str) -> Rendered:
    parts: list[str] = []
    ranges: list[tuple[int, int]] = []
    length = 0
    for index, chunk in enumerate(text.split(MARKS[0])):
        inside, marker, after = chunk.partition(MARKS[1]) if index else ("", "", chunk)
        if marker:
            ranges.append((length, length + len(inside)))
        parts += [inside, after]
        length += len(inside) + len(after)
    return Rendered("".join(parts), tuple(ranges))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _format(text: str, *arguments: object, **names: object) -> str:
    _refuse_widths(text, *arguments, *names.values())
    return text % (names or arguments)


def _center(text: str, width: int = 80) -> str:
    _refuse_widths("", width)
    return text.center(width)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _refuse_widths(text: str, *arguments: object) -> None:
    # "%999999999d", "{:999999999}".format and "a".center pad a short text to any length.
    wide = any(isinstance(value, int) and value > _MAX_WIDTH for value in arguments)
    if wide or _WIDTH.search(text):
        raise _LimitReached(f"a width of more than {_MAX_WIDTH}")


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.TemplateError(f"a namespace may not hold {name!r}")
