"""Importing late, and less: names that are looked up when they are asked for, packages left out.

A package that gathers names from heavy modules would make everybody who imports it wait for all of
them: `swift --help` for torch, a worker that reads documents for pyarrow. Such a package lists its
names under `TYPE_CHECKING` for type checkers, and lets this helper find them for everyone else.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def late_names(package: str, modules: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its `__name__`.
        modules: the names that each module gives, by the module's name below the package.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return find


def import_without(module: str, hidden: Iterable[str]) -> None:
    """Import a module while some packages seem not to be installed; afterwards they do again.

    Libraries import what is installed for features that nobody here asks for: a tenth of the CPU
    seconds of a start. Only for a process that imports nothing in another thread meanwhile.
    """
    absent = [name for name in hidden if name not in sys.modules]
    for name in absent:
        # None makes `import name` fail and `find_spec(name)` answer None.
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    try:
        importlib.import_module(module)
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for while heavy modules are imported, nor among them ever after.

    Millions of objects appear that stay until the process ends, and the collector goes through all
    of them again and again: a tenth of the CPU seconds of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
