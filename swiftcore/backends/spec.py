"""What a backend is, and which ones there are: the packages below `swiftcore.backends`."""

import difflib
import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from swiftcore.errors import UsageError

LOCK_NAME = "requirements.lock"
JOB_NAME = "job.py"
# NVIDIA, NVIDIA under WSL.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Fix:
    """A change to what was installed that the tool needs here; done twice it is done once.

    Args:
        reason: why it is needed, for people and for the day when it no longer is.
        apply: takes the environment's site-packages folder.
    """

    reason: str
    apply: Callable[[Path], None]


@dataclass(frozen=True)
class Backend:
    """A tool and the environment it needs.

    Args:
        name: as it is written in commands.
        summary: what it does, in a few words.
        folder: holds `requirements.lock` and `job.py`.
        package: the distribution whose version is the backend's.
        imports: modules that must load for the backend to work.
        size_bytes: about what the installed environment takes on disk.
        needs_gpu: whether it is of no use without an NVIDIA GPU.
        fixes: applied in order after installation.
        build_variables: environment variables for packages that are compiled at installation.
    """

    name: str
    summary: str
    folder: Path
    package: str
    imports: tuple[str, ...]
    size_bytes: int
    needs_gpu: bool = False
    fixes: tuple[Fix, ...] = ()
    build_variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        """The locked list of packages."""
        return self.folder / LOCK_NAME

    @property
    def job_script(self) -> Path:
        """What runs inside the environment."""
        return self.folder / JOB_NAME

    @property
    def version(self) -> str:
        """The locked version of the tool."""
        return locked_versions(self.lock.read_text(encoding="utf-8"))[self.package.lower()]

    @property
    def digest(self) -> str:
        """sha256 of what decides the content: lock, fixes, variables and Python's version."""
        parts = [
            self.lock.read_text(encoding="utf-8"),
            *(f"{fix.reason}\n{inspect.getsource(fix.apply)}" for fix in self.fixes),
            *(f"{name}={value}" for name, value in sorted(self.build_variables.items())),
            f"{sys.version_info.major}.{sys.version_info.minor}",
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def why_not_here(self) -> str | None:
        """Return why this machine can't use the backend at all; None when it can."""
        if self.needs_gpu and not any(Path(file).exists() for file in _GPU_FILES):
            return "needs an NVIDIA GPU"
        return None


def locked_versions(lock: str) -> dict[str, str]:
    """Return the version of each distribution that a lock names; names are in lower case."""
    return {name.lower(): version for name, version in _PINNED.findall(lock)}


@cache
def all_backends() -> dict[str, Backend]:
    """Return every backend by name."""
    package = importlib.import_module("swiftcore.backends")
    found = [
        importlib.import_module(f"swiftcore.backends.{module.name}").BACKEND
        for module in pkgutil.iter_modules(package.__path__)
        if module.ispkg
    ]
    return {backend.name: backend for backend in sorted(found, key=lambda b: b.name)}


def get_backend(name: str) -> Backend:
    """Return a backend by its name.

    Raises:
        UsageError: there is none of this name.
    """
    known = all_backends()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        "There is no such backend.",
        where="swift env",
        found=name,
        expected=f"{near[0]}?" if near else f"one of {', '.join(known) or 'none yet'}",
        do="swift env list shows all of them",
    )
