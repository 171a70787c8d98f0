"""`swift env`: the isolated environments of backends - list, install, check, remove."""

import sys
from collections.abc import Sequence
from pathlib import Path

from swiftcore.backends import Backend, Environment, all_backends, get_backend
from swiftcore.backends.environment import backends_root
from swiftcore.cli.options import Parser, add_json, print_json
from swiftcore.cli.tables import duration, print_table, size
from swiftcore.errors import EnvironmentMissing, UsageError
from swiftcore.recipe import Runtime

_ACTIONS = ("list", "install", "check", "remove")


def main(argv: Sequence[str]) -> int:
    """Do one of the actions; exit 5 when a checked environment is not as it was installed."""
    parser = Parser("swift env", "Environments of tools whose pins exclude ours.")
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="backends; swift env list")
    parser.add_argument(
        "--backends_dir",
        type=Path,
        help="folder of the environments, as runtime.backends_dir (default: SWIFTCORE_BACKENDS, "
        "else swiftcore/backends in the user's cache)",
    )
    add_json(parser)
    options = parser.parse_args(argv[1:])
    root = backends_root(Runtime(backends_dir=options.backends_dir))
    if options.action == "list":
        _list(root, options.json)
        return 0
    if not options.names:
        raise UsageError(
            "Which backend?",
            where=f"swift env {options.action}",
            found="no name",
            expected=f"one or more of {', '.join(all_backends())}",
            do=f"swift env {options.action} NAME",
        )
    chosen = [Environment(get_backend(name), root) for name in options.names]
    act = {"install": _install, "check": _check, "remove": _remove}[options.action]
    return act(chosen, options.json)


def backend_rows(root: Path) -> list[dict[str, str]]:
    """Return what is known of each backend below a folder, for `env list` and `doctor`."""
    return [_row(backend, Environment(backend, root)) for backend in all_backends().values()]


def print_backends(rows: Sequence[dict[str, str]]) -> None:
    """Print the table of backends."""
    columns = ("backend", "version", "installed", "works here", "why not", "for")
    print_table(columns, [[row[column.replace(" ", "_")] for column in columns] for row in rows])


def _row(backend: Backend, environment: Environment) -> dict[str, str]:
    blocked = backend.why_not_here()
    state = environment.state
    usable = "yes" if state == "ready" else "once installed"
    return {
        "backend": backend.name,
        "version": backend.version,
        "installed": "yes" if state == "ready" else state,
        "works_here": "no" if blocked else usable,
        "why_not": blocked or ("" if state == "ready" else f"swift env install {backend.name}"),
        "for": backend.summary,
    }


def _list(root: Path, as_json: bool) -> None:
    rows = backend_rows(root)
    if as_json:
        print_json(rows)
    else:
        print_backends(rows)


def _install(chosen: Sequence[Environment], as_json: bool) -> int:
    done = []
    for environment in chosen:
        name, version = environment.backend.name, environment.backend.version
        if environment.installed is None:
            print(f"installing {name} {version}; this may take minutes ...", file=sys.stderr)
        done.append(environment.install())
    if as_json:
        print_json([record.model_dump(exclude={"packages"}) for record in done])
        return 0
    for record in done:
        print(
            f"{record.backend} {record.version} is installed: {len(record.packages)} packages, "
            f"{size(record.size_bytes)}, by {record.installer} in {duration(record.seconds)}"
        )
    return 0


def _check(chosen: Sequence[Environment], as_json: bool) -> int:
    found = {environment.backend.name: environment.check() for environment in chosen}
    if as_json:
        print_json([{"backend": name, "problems": wrong} for name, wrong in found.items()])
    else:
        for name, wrong in found.items():
            print("\n  ".join([f"{name}: {'broken' if wrong else 'ok'}", *wrong]))
            if wrong:
                print(f"  -> swift env remove {name}, then swift env install {name}")
    return EnvironmentMissing.exit_code if any(found.values()) else 0


def _remove(chosen: Sequence[Environment], as_json: bool) -> int:
    freed = {environment.backend.name: environment.remove() for environment in chosen}
    if as_json:
        print_json([{"backend": name, "freed_bytes": count} for name, count in freed.items()])
    else:
        for name, count in freed.items():
            print(f"{name}: {size(count)} freed")
    return 0
