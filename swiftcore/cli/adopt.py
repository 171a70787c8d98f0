"""`swift adopt`: take a finished artifact folder (from DVC or another machine) into the store."""

from collections.abc import Sequence
from pathlib import Path

from swiftcore.artifacts.adopt import adopt
from swiftcore.cli.options import Parser, add_store, opened_store, print_json


def main(argv: Sequence[str]) -> int:
    """Verify a folder against its record and copy it into the store."""
    parser = Parser("swift adopt", "Take a finished artifact folder into the store.")
    parser.add_argument("folder", type=Path, help="a folder with record.json")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    artifact = adopt(opened_store(options), options.folder)
    if options.json:
        print_json({"label": artifact.label, "path": str(artifact.path)})
    else:
        print(f"{artifact.label} is in the store.")
    return 0
