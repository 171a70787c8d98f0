"""One backend's environment on this machine: made once, shared between clones, never half there.

    <root>/<backend>/<digest12>.json          record; with it the environment exists
    <root>/<backend>/<digest12>.lock          held shared by users, alone by who builds or removes
    <root>/<backend>/<digest12>.log           what the installer said
    <root>/<backend>/<digest12>-<random>/     the virtual environment

An environment is built in a folder that nobody knows, and published by renaming its record into
place: scripts inside an environment name its folder, so the folder itself can't be renamed. A
folder without a record was never finished and goes at the next installation. The kernel drops the
locks of dead processes, so nothing is ever locked by one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from swiftcore.artifacts.space import says_full
from swiftcore.atomic import write_text_synced
from swiftcore.backends.building import fill, no_room, python_of
from swiftcore.backends.spec import Backend
from swiftcore.errors import BackendMissing, LeaseHeld
from swiftcore.recipe import Runtime

State = Literal["ready", "missing", "outdated", "broken", "being built"]

_DIGEST_LENGTH = 12
_CHECK_SECONDS = 300
_TOLD_CHARACTERS = 500
_VERSIONS = """
import json, importlib.metadata as m
print(json.dumps({d.metadata["Name"].lower(): d.version for d in m.distributions()}))
"""


class Installed(BaseModel):
    """The record of a finished environment.

    `folder` lies beside the record; `packages` maps distributions to versions as installed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str
    version: str
    digest: str
    folder: str
    installer: str
    packages: dict[str, str]
    size_bytes: int
    seconds: float
    installed_at: str


def open_environment(backend: Backend, runtime: Runtime | None = None) -> "Environment":
    """Return a backend's environment where the runtime keeps them; nothing is made."""
    return Environment(backend, backends_root(runtime))


def backends_root(runtime: Runtime | None = None) -> Path:
    """Return the folder of all environments: the runtime's, SWIFTCORE_BACKENDS, or the cache."""
    if runtime is not None and runtime.backends_dir is not None:
        return runtime.backends_dir.expanduser()
    named = os.environ.get("SWIFTCORE_BACKENDS")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "swiftcore" / "backends"


class Environment:
    """What there is of one backend below one root folder."""

    def __init__(self, backend: Backend, root: Path) -> None:
        self.backend = backend
        self._home = root.absolute() / backend.name
        self._key = backend.digest[:_DIGEST_LENGTH]

    @property
    def installed(self) -> Installed | None:
        """The record, if one can be read and its interpreter is there."""
        record = self._record()
        if record is None or not os.access(self._python(record), os.X_OK):
            return None
        return record

    @property
    def state(self) -> State:
        """How the environment stands, without waiting for anybody."""
        if self.installed is not None:
            return "ready"
        if not self._home.is_dir():
            return "missing"
        with self._locked(fcntl.LOCK_SH | fcntl.LOCK_NB) as free:
            if not free:
                return "being built"
        if self._file(".json").exists() or any(self._folders()):
            return "broken"
        return "outdated" if any(self._home.glob("*.json")) else "missing"

    def install(self) -> Installed:
        """Make the environment unless it is there; whoever asks meanwhile waits and then has it.

        Raises:
            BackendMissing: this machine can't use the backend, or a package can't be had.
            StoreFull: there is no room.
        """
        self._require_usable()
        # Whoever uses it holds its lock, perhaps for hours.
        ready = self.installed
        if ready is not None:
            return ready
        self._home.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            record = self.installed
            return record if record is not None else self._build()

    def require(self, *, install: bool = False) -> None:
        """Say early what a later `in_use` would say; nothing is made or waited for.

        Raises:
            BackendMissing: it is not there and is not to be made, or can't be on this machine.
        """
        self._require_usable()
        if not install and self.installed is None:
            raise self._missing()

    @contextlib.contextmanager
    def in_use(self, *, install: bool = False) -> Iterator[Path]:
        """Yield the interpreter, and let nobody remove the environment meanwhile.

        Args:
            install: make the environment when it is not there.

        Raises:
            BackendMissing: it is not there, and was not to be made or can't be.
        """
        self._require_usable()
        if install and self.installed is None:
            self.install()
        if not self._home.is_dir():
            raise self._missing()
        with self._locked(fcntl.LOCK_SH):
            record = self.installed
            if record is None:
                raise self._missing()
            yield self._python(record)

    def check(self) -> list[str]:
        """Return what is wrong: packages that changed since installation, modules that don't load.

        Raises:
            BackendMissing: there is nothing to check.
        """
        with self.in_use() as python:
            record = self.installed
            assert record is not None  # in_use has seen it, and nobody removes it meanwhile
            there = _packages(python)
            wrong = [
                f"{name} {version} was installed, {there.get(name, 'nothing')} is there"
                for name, version in record.packages.items()
                if there.get(name) != version
            ]
            for module in self.backend.imports:
                said = _import_problem(python, module)
                wrong += [f"import {module}: {said}"] if said else []
            return wrong

    def remove(self) -> int:
        """Remove this and every older environment of the backend; return the bytes freed.

        Raises:
            LeaseHeld: somebody uses it or builds it.
        """
        freed = 0
        for key in sorted({path.stem.partition("-")[0] for path in self._home.glob("*")}):
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB, key) as free:
                if not free:
                    raise LeaseHeld(
                        f"{self.backend.name} is in use, and stays",
                        where=self._home / key,
                        found="a process that holds its lock",
                        expected="nobody",
                        do="wait for the job or the installation to end, then try again",
                    )
                # The record first: from here on nobody takes the rest for an environment.
                self._file(".json", key).unlink(missing_ok=True)
                for folder in self._folders(key):
                    freed += _size(folder)
                    shutil.rmtree(folder)
                self._file(".log", key).unlink(missing_ok=True)
        return freed

    def _build(self) -> Installed:
        self._file(".json").unlink(missing_ok=True)
        for left in self._folders():
            shutil.rmtree(left)
        self._require_room()
        folder = self._home / f"{self._key}-{uuid.uuid4().hex[:8]}"
        started = time.monotonic()
        try:
            lock = self.backend.lock.read_text("utf-8")
            installer = fill(folder, lock, self._file(".log"), self.backend.build_variables)
            for fix in self.backend.fixes:
                fix.apply(next((folder / "lib").glob("python*/site-packages")))
            record = self._record_of(folder, installer, time.monotonic() - started)
            write_text_synced(self._file(".json"), record.model_dump_json(indent=2))
        except BaseException as err:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(err, Exception) and says_full(err):
                raise no_room(self._home, str(err)) from err
            raise
        return record

    def _record_of(self, folder: Path, installer: str, seconds: float) -> Installed:
        return Installed(
            backend=self.backend.name,
            version=self.backend.version,
            digest=self.backend.digest,
            folder=folder.name,
            installer=installer,
            packages=_packages(python_of(folder)),
            size_bytes=_size(folder),
            seconds=round(seconds, 1),
            installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _require_usable(self) -> None:
        why = self.backend.why_not_here()
        if why:
            raise BackendMissing(
                f"{self.backend.name} does not work on this machine",
                where=f"backend {self.backend.name}",
                found=why,
                do="use a machine that has it; swift doctor lists the backends that work here",
            )

    def _require_room(self) -> None:
        free = shutil.disk_usage(self._home).free
        if free < self.backend.size_bytes:
            needed = f"about {self.backend.size_bytes / 1e6:.0f} MB needed"
            raise no_room(self._home, f"{free / 1e6:.0f} MB free, {needed}")

    def _missing(self) -> BackendMissing:
        elsewhere = self._home.parent != backends_root().absolute()
        place = f" --backends_dir {self._home.parent}" if elsewhere else ""
        return BackendMissing(
            f"the backend {self.backend.name} is not installed",
            where=self._home,
            found=self.state,
            expected=f"{self.backend.package} {self.backend.version} in its own environment",
            do=f"swift env install {self.backend.name}{place}, or set "
            "runtime.install_backends: true",
        )

    def _record(self) -> Installed | None:
        try:
            return Installed.model_validate_json(self._file(".json").read_bytes())
        except (OSError, ValidationError):
            return None

    def _python(self, record: Installed) -> Path:
        return python_of(self._home / record.folder)

    def _file(self, suffix: str, key: str | None = None) -> Path:
        return self._home / f"{key or self._key}{suffix}"

    def _folders(self, key: str | None = None) -> Iterator[Path]:
        return (path for path in self._home.glob(f"{key or self._key}-*") if path.is_dir())

    @contextlib.contextmanager
    def _locked(self, how: int, key: str | None = None) -> Iterator[IO[str] | None]:
        """Hold the lock of an environment; yields None when that would mean to wait."""
        with self._file(".lock", key).open("a", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                yield None
                return
            yield lock


def _packages(python: Path) -> dict[str, str]:
    done = subprocess.run(
        [str(python), "-I", "-c", _VERSIONS], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BackendMissing(
            "the environment's Python does not run",
            where=python,
            found=done.stderr.strip()[-_TOLD_CHARACTERS:],
            do="remove the environment and install it again",
        )
    return json.loads(done.stdout)


def _import_problem(python: Path, module: str) -> str | None:
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {_CHECK_SECONDS} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _size(folder: Path) -> int:
    found = (path.lstat() for path in folder.rglob("*"))
    return sum(facts.st_size for facts in found if stat.S_ISREG(facts.st_mode))
