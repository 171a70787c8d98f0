"""Names of a package whose modules are imported when the name is first asked for.

A package that gathers names from heavy modules would make everybody who imports it wait for all of
them: `swift --help` for torch, a worker that reads documents for pyarrow. Such a package lists its
names under `TYPE_CHECKING` for type checkers, and lets this helper find them for everyone else.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
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
