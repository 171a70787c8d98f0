"""Rendering a model's own Jinja chat template, which is somebody else's program.

The environment is Jinja's immutable sandbox with the names that transformers offers to chat
templates, made narrower: of plain data only the methods that read it, of filters only those that
work on texts and lists, nothing random, nothing from files. Loops, calls, filters and everything
that makes a text or a list run on the budget of `limits`.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.visitor

from swiftcore.errors import DataError
from swiftcore.template.jinja import limits
from swiftcore.template.jinja.limits import (
    BUDGET,
    Budget,
    LimitReached,
    check_call,
    check_joined,
    check_operation,
    check_replace,
    check_widths,
)

# Private-use characters: no chat template looks for them, and stripping leaves them alone.
MARKS = "\U000f1a01", "\U000f1a02"
"""Characters that stand around generated text while rendering; data must not hold them."""

_MAX_SOURCE = 1_000_000
# One string reads better than forty.
_FILTERS = """
    abs capitalize count d default dictsort e escape first float forceescape groupby int items join
    last length list lower map max min reject rejectattr replace reverse round safe select
    selectattr sort string sum title trim unique upper wordcount
"""
_TEXT_METHODS = """
    capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit
    islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix
    replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title
    upper
"""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_JINJA_TYPES = (jinja2.runtime.LoopContext, jinja2.runtime.Macro, jinja2.utils.Namespace)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Args:
        text: the prompt.
        generated: character ranges inside `{% generation %}` blocks.
    """

    text: str
    generated: tuple[tuple[int, int], ...]


class _Counting(jinja2.visitor.NodeTransformer):
    """Sends every loop, and every `a ~ b`, through a filter that counts."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:
        self.generic_visit(node)
        node.iter = jinja2.nodes.Filter(node.iter, "counted", [], [], None, None)
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:
        self.generic_visit(node)
        parts = jinja2.nodes.List(node.nodes)
        return jinja2.nodes.Filter(parts, "concatenated", [], [], None, None)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Sandbox in which everything that can grow is counted."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        _Counting().visit(tree)  # in place: the root of a template is neither loop nor `~`
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return isinstance(obj, _JINJA_TYPES)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise jinja2.exceptions.SecurityError(
            f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe."
        )

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        check_call(obj, args, kwargs)
        result = super().call(context, obj, *args, **kwargs)
        BUDGET.get().charge(result)
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the output of a macro, of a block that sets a variable, and the like."""
        pieces = list(parts)
        check_joined(pieces)
        return "".join(pieces)


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
    BUDGET.set(budget := Budget())
    parts: list[str] = []
    size = 0
    try:
        template = _compile(source)
        now = datetime(today.year, today.month, today.day)
        for part in template.generate(strftime_now=_dates(now), **names):
            budget.step()
            parts.append(part)
            size += len(part)
            if size > limits.MAX_CHARACTERS:
                raise LimitReached(f"more than {limits.MAX_CHARACTERS} characters")
    except Exception as err:
        # Somebody else's program: whatever it raises means that it refuses the row.
        raise DataError(
            "the model's chat template could not render this row",
            where="chat_template",
            found=f"{type(err).__name__}: {err}"[:500],
            expected="a prompt",
            do="mend the row, or choose a registered template instead of 'jinja'",
        ) from err
    return _take_marks("".join(parts))


@lru_cache(maxsize=32)
def _compile(source: str) -> jinja2.Template:
    if len(source) > _MAX_SOURCE:
        raise LimitReached(f"a template of more than {_MAX_SOURCE} characters")
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    known = environment.filters
    filters: dict[str, Callable[..., Any]] = {name: known[name] for name in _FILTERS.split()}
    own = {"tojson": _to_json, "indent": _indent, "format": _format, "replace": _replace}
    filters |= own | {"join": _join(known["join"]), "concatenated": _concatenated}
    environment.filters = {name: _charged(function) for name, function in filters.items()}
    environment.filters["counted"] = _counted
    environment.globals = {
        "range": environment.globals["range"],
        "dict": _make_dict,
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
    }
    return environment.from_string(source)


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    # `wraps` also copies what tells Jinja to pass its context as first argument.
    @functools.wraps(function)
    def run(*arguments: Any, **names: Any) -> Any:
        budget = BUDGET.get()
        budget.step()
        budget.check_time()
        result = function(*arguments, **names)
        budget.charge(result)
        return result

    return run


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    budget = BUDGET.get()
    for item in items:
        budget.step()
        yield item


def _concatenated(parts: list[Any]) -> str:
    check_joined(parts)
    return "".join(map(str, parts))


def _join(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def join(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        items = list(value)
        check_joined(items, d)
        return original(eval_ctx, items, d, attribute)

    return join


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    check_replace(text, old, new)
    return text.replace(str(old), str(new), count)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text, size = str(text), len(width) if isinstance(width, str) else _checked_width(width)
    BUDGET.get().build(len(text) + size * (text.count("\n") + 2))
    return jinja2.filters.do_indent(text, width, first, blank)


def _checked_width(width: int) -> int:
    check_widths("", width)
    return width


def _dates(now: datetime) -> Callable[[str], str]:
    def strftime(pattern: str) -> str:
        check_widths(pattern)
        return now.strftime(pattern)

    return strftime


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
    if indent is not None:
        _checked_width(indent if isinstance(indent, int) else len(indent))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _format(text: str, *arguments: object, **names: object) -> str:
    check_operation("%", str(text), names or arguments)
    return text % (names or arguments)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.TemplateError(f"a namespace may not hold {name!r}")
