"""How the rows of one registered dataset are read: names of columns and keys, or a function."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from swiftcore.data.quarantine import RejectedRow
from swiftcore.errors import UsageError

Row = dict[str, object]
Preprocess = Callable[[Row], object]

_ROLES = {"user_role": "user", "assistant_role": "assistant", "system_role": "system"}


@dataclass(frozen=True)
class FunctionInFile:
    """A function of a Python file that the recipe names, found again in another process.

    Args:
        path: the file.
        sha256: its content when it was registered; other content is not run.
        name: the function, at the top level of the file.
    """

    path: Path
    sha256: str
    name: str


@dataclass(frozen=True)
class RowOptions:
    """What is done to a raw row before it becomes a standard row.

    Args:
        columns: `{source name: standard name}`, renamed first.
        messages: keys of the messages: role_key, content_key, inner_key, and user_role,
            assistant_role, system_role, each a name or a list of names.
        preprocess: function that gets the row and returns one; None or an exception sets it aside.
        column_names: names of the columns of csv and tsv files without a header line.
    """

    columns: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str | list[str]] = field(default_factory=dict)
    preprocess: FunctionInFile | None = None
    column_names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.columns or self.messages or self.preprocess)

    def apply(self, value: object) -> object:
        """Return the row as the standard formats expect it; anything but an object stays as it is.

        Raises:
            RejectedRow: the function refuses the row.
            UsageError: the function's file changed since it was registered.
        """
        if not isinstance(value, Mapping):
            return value
        row: Row = dict(value)
        if self.preprocess is not None:
            row = self._preprocessed(row)
        for source, target in self.columns.items():
            if source in row:
                row[target] = row.pop(source)
        if self.messages:
            for name in ("messages", "conversation", "conversations"):
                if isinstance(row.get(name), list):
                    row["messages"] = self._messages(row.pop(name))
        return row

    def _preprocessed(self, row: Row) -> Row:
        assert self.preprocess is not None
        function = _function(self.preprocess)
        try:
            found = function(row)
        except Exception as err:
            problem = f"{self.preprocess.name} failed: {type(err).__name__}: {err}"
            raise RejectedRow(problem) from err
        if not isinstance(found, Mapping):
            raise RejectedRow(f"{self.preprocess.name} gave no row for it")
        return dict(found)

    def _messages(self, items: object) -> object:
        if not isinstance(items, list):
            return items
        inner = self.messages.get("inner_key")
        return [self._message(item[inner] if _has(item, inner) else item) for item in items]

    def _message(self, item: object) -> object:
        if not isinstance(item, Mapping):
            return item
        message = dict(item)
        for option, standard in (("role_key", "role"), ("content_key", "content")):
            key = self.messages.get(option)
            if isinstance(key, str) and key in message:
                message[standard] = message.pop(key)
        for option, standard in _ROLES.items():
            names = self.messages.get(option, [])
            if message.get("role") in ([names] if isinstance(names, str) else names):
                message["role"] = standard
        return message


def run_file(path: Path, where: str) -> tuple[ModuleType, str]:
    """Run a Python file that the recipe names, and return its module and the sha256 of its text.

    Raises:
        UsageError: there is no such file, or running it failed.
    """
    try:
        source = path.read_bytes()
    except OSError as err:
        raise UsageError(
            "a file that registers datasets can't be read", where=where, found=err.strerror
        ) from err
    sha256 = hashlib.sha256(source).hexdigest()
    name = f"swift_registered_{sha256[:16]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None, "a name alone always makes a spec"
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        # These bytes and no others were hashed: the file is not read a second time.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except UsageError:
        raise
    except (Exception, SystemExit) as err:
        line = _failed_line(err, path)
        raise UsageError(
            "a file that registers datasets failed",
            where=f"{where}:{line}" if line else where,
            found=f"{type(err).__name__}: {err}",
            do="mend the file, or take it out of custom_register_path",
        ) from err
    return module, sha256


def _function(place: FunctionInFile) -> Preprocess:
    module = sys.modules.get(f"swift_registered_{place.sha256[:16]}")
    if module is None:
        from swiftcore.data.sources.registered import rerun

        module = rerun(place)
    return getattr(module, place.name)


def _has(item: object, key: object) -> bool:
    return isinstance(item, Mapping) and key is not None and key in item


def _failed_line(err: BaseException, path: Path) -> int | None:
    if isinstance(err, SyntaxError):
        return err.lineno
    line, trace = None, err.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
