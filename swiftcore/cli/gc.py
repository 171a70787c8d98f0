"""`swift gc`: remove artifacts that nothing uses."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from swiftcore.artifacts import Store
from swiftcore.artifacts.sweep import find_garbage, remove
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.tables import print_table, size
from swiftcore.stages.deploy import serving_root


def main(argv: Sequence[str]) -> int:
    """List what can go, and remove it with --yes."""
    parser = Parser("swift gc", "Remove old artifacts, dead work in progress and damaged copies.")
    parser.add_argument("--keep", type=int, default=3, help="newest of each stage to keep")
    parser.add_argument("--yes", action="store_true", help="remove; without it, only list")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store = opened_store(options)
    garbage = find_garbage(store, keep=max(options.keep, 1), roots=_roots(store))
    freed = remove(garbage) if options.yes else 0
    if options.json:
        listed = [{"path": str(g.path), "bytes": g.size_bytes, "reason": g.reason} for g in garbage]
        print_json({"garbage": listed, "freed_bytes": freed})
        return 0
    rows = [
        [str(item.path.relative_to(store.root)), size(item.size_bytes), item.reason]
        for item in garbage
    ]
    print_table(["folder", "size", "why"], rows)
    total = sum(item.size_bytes for item in garbage)
    print(f"{size(freed)} freed." if options.yes else f"{size(total)} would be freed with --yes.")
    return 0


def _roots(store: Store) -> set[str]:
    """Return what must stay: models in service, and what plugins (the registry) still name."""
    from swiftcore.serving import list_endpoints

    roots = {
        release["fingerprint"]
        for endpoint in list_endpoints(serving_root(store)).values()
        for release in (endpoint["current"], endpoint["previous"])
        if release
    }
    for point in entry_points(group="swift.gc_roots"):
        roots |= set(point.load()(store))
    return roots
