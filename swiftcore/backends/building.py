"""Filling a folder with the packages of a lock, by uv where it can be had, else by venv and pip.

A lock is installed as it stands, without resolving anything: lines with hashes are checked against
them. Lines without one are packages that come in several builds under one version, torch above all.
They are installed last, and may bring what their build needs (a CUDA torch its CUDA libraries, a
CPU torch from pip's find-links nothing).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from swiftcore.errors import BackendMissing, StoreFull, SwiftError
from swiftcore.processes import tied_to_this_process

_HASH = "--hash="
_TAIL_CHARACTERS = 1500
_NO_INDEX = re.compile(
    r"connect|connection|timed out|name resolution|dns|tunnel|unreachable|"
    r"failed to fetch|error sending request|network",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left|os error 28|disk quota", re.IGNORECASE)


def fill(folder: Path, lock: str, log: Path, build_variables: Mapping[str, str]) -> str:
    """Make a virtual environment in `folder` with the packages of a lock; return the installer.

    Args:
        folder: must not exist yet.
        lock: text of the lock.
        log: file that keeps what the installer says.
        build_variables: environment variables for packages that are compiled.

    Raises:
        BackendMissing: a package can't be had, or the index can't be reached.
        StoreFull: the disk filled up.
    """
    hashed, loose = split_lock(lock)
    uv = _uv()
    with log.open("w", encoding="utf-8") as stream:
        commands = _Commands(folder, uv, stream.name, build_variables)
        commands.run(commands.environment())
        for name, lines, options in (
            ("hashed.txt", hashed, ["--no-deps", "--require-hashes"]),
            ("loose.txt", loose, []),
        ):
            if lines:
                listed = folder / name
                listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
                commands.run([*commands.install(), *options, "--requirement", str(listed)])
    return "uv" if uv else "pip"


def split_lock(lock: str) -> tuple[list[str], list[str]]:
    """Return a lock's requirements with hashes and those without, each on one line."""
    joined = lock.replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line).strip() for line in joined.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    return [x for x in wanted if _HASH in x], [x for x in wanted if _HASH not in x]


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment's folder."""
    return folder / "bin" / "python"


class _Commands:
    """Command lines of one installer for one folder, and the place of their output."""

    def __init__(
        self, folder: Path, uv: str | None, log: str, build_variables: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._uv = uv
        self._log = Path(log)
        self._variables = _variables(bool(uv)) | dict(build_variables)

    def environment(self) -> list[str]:
        """Return the command that makes the empty environment."""
        if self._uv:
            return [self._uv, "venv", "--no-config", "--python", sys.executable, str(self._folder)]
        return [sys.executable, "-m", "venv", "--without-pip", str(self._folder)]

    def install(self) -> list[str]:
        """Return the beginning of the command that installs packages."""
        python = str(python_of(self._folder))
        if self._uv:
            return [self._uv, "pip", "install", "--no-config", "--python", python]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
        return [*pip, "install"]

    def run(self, command: Sequence[str]) -> None:
        """Run one command to its end.

        Raises:
            BackendMissing: it failed.
            StoreFull: it failed for want of room.
        """
        with self._log.open("a", encoding="utf-8") as stream:
            done = subprocess.run(
                tied_to_this_process(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._variables,
                check=False,
            )
        if done.returncode != 0:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()
            raise _failure(said[-_TAIL_CHARACTERS:], self._log)


def _failure(said: str, log: Path) -> SwiftError:
    if _FULL.search(said):
        return no_room(log.parent, said)
    unreachable = _NO_INDEX.search(said)
    return BackendMissing(
        "the package index can't be reached" if unreachable else "packages could not be installed",
        where=log,
        found=said or "the installer said nothing",
        expected="every package of the lock",
        do="check the network, and where pip is told to look (pip config list); then try again"
        if unreachable
        else "the log says which package failed; then try again",
    )


def no_room(root: Path, found: str) -> StoreFull:
    """Return the error for a disk without room for an environment."""
    return StoreFull(
        "There is no room for the backend's environment.",
        where=root,
        found=found,
        expected="room for all its packages; nothing of it was kept",
        do="free some space (swift env remove NAME), or set SWIFTCORE_BACKENDS to another disk",
    )


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _variables(for_uv: bool) -> dict[str, str]:
    """Return the installer's environment variables; uv is told what pip is configured to do."""
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    wanted = {"find-links": "UV_FIND_LINKS", "index-url": "UV_DEFAULT_INDEX"}
    missing = [setting for setting, name in wanted.items() if name not in variables]
    if for_uv and missing:
        settings = _pip_settings()
        variables |= {wanted[name]: settings[name] for name in missing if name in settings}
    return variables


def _pip_settings() -> dict[str, str]:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return dict(re.findall(r"^[^=\n]*\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
