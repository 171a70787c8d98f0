"""What made an artifact: interpreter, machine, packages and the state of the code."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_RECORDED_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "pyarrow", "bitsandbytes")


def environment() -> dict[str, Any]:
    """Return what a person needs to know about the machine and the code that made an artifact."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: found for name in _RECORDED_PACKAGES if (found := _version(name))},
        **_code_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code_state() -> dict[str, Any]:
    here = Path(__file__)
    try:
        # An installed copy may lie inside the user's own repository; its commit is not ours.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return {
            "git_commit": _git(here.parent, "rev-parse", "HEAD"),
            "git_dirty": bool(_git(here.parent, "status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
