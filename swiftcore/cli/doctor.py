"""`swift doctor`: can this machine do the work, and what is missing."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from swiftcore.backends.environment import backends_root
from swiftcore.cli.env import backend_rows, print_backends
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.errors import EnvironmentMissing

_PACKAGES = {
    "torch": True,
    "transformers": True,
    "peft": True,
    "pyarrow": True,
    "fastapi": True,
    "prefect": True,
    "mlflow": True,
    "dvc": True,
    "bitsandbytes": False,
    "boto3": False,
}
_LEAST_FREE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    ok: bool
    do: str = ""


def main(argv: Sequence[str]) -> int:
    """Print what was found; exit 5 when something needed is missing."""
    parser = Parser("swift doctor", "Check that this machine can do the work.")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    findings = [*_machine(opened_store(options).root), *_packages()]
    backends = backend_rows(backends_root())
    if options.json:
        print_json({"findings": [asdict(finding) for finding in findings], "backends": backends})
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "MISS"
            hint = f"  -> {finding.do}" if finding.do and not finding.ok else ""
            print(f"{mark} {finding.name:<14}{finding.found}{hint}")
        print()
        print_backends(backends)
    return 0 if all(finding.ok for finding in findings) else EnvironmentMissing.exit_code


def _machine(store: Path) -> list[Finding]:
    existing = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    memory = psutil.virtual_memory()
    return [
        Finding("python", sys.version.split()[0], sys.version_info >= (3, 11), "use Python 3.11"),
        Finding("cpus", str(os.cpu_count()), True),
        Finding(
            "memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free", True
        ),
        Finding(
            "disk", f"{free / 1e9:.1f} GB free", free > _LEAST_FREE_BYTES, "swift gc, or --store"
        ),
        Finding("git", shutil.which("git") or "none", bool(shutil.which("git")), "install git"),
    ]


def _packages() -> list[Finding]:
    found = []
    for name, needed in _PACKAGES.items():
        try:
            found.append(Finding(name, version(name), True))
        except PackageNotFoundError:
            found.append(Finding(name, "not installed", not needed, "make install"))
    return found
