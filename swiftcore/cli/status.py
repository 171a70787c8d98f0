"""`swift status`: artifacts in the store and endpoints that answer."""

from collections.abc import Sequence
from typing import Any

from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.tables import duration, print_table, size
from swiftcore.stages.deploy import serving_root


def main(argv: Sequence[str]) -> int:
    """Print what is in the store and what is being served."""
    from swiftcore.serving import list_endpoints

    parser = Parser("swift status", "List artifacts and endpoints.")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store = opened_store(options)
    artifacts = list(store.artifacts())
    endpoints = list_endpoints(serving_root(store))
    if options.json:
        rows = [
            {
                "label": a.label,
                "fingerprint": a.fingerprint,
                "finished": a.record.finished,
                "seconds": a.record.seconds,
                "size_bytes": a.record.size_bytes,
                "path": str(a.path),
            }
            for a in artifacts
        ]
        print_json({"store": str(store.root), "artifacts": rows, "endpoints": endpoints})
        return 0
    print_table(
        ["artifact", "finished (UTC)", "took", "size"],
        [
            [a.label, a.record.finished[:19], duration(a.record.seconds), size(a.record.size_bytes)]
            for a in artifacts
        ],
    )
    print()
    print_table(
        ["endpoint", "state", "address", "serves", "pid"],
        [
            [name, e["status"], e["url"], served_label(e), str(e["gateway_pid"] or "")]
            for name, e in endpoints.items()
        ],
    )
    return 0


def served_label(endpoint: dict[str, Any]) -> str:
    """Return `name@version` of what an endpoint serves."""
    release = endpoint["current"]
    return f"{release['name']}@{release['version']}" if release else "nothing"
