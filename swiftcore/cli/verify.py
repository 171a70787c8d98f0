"""`swift verify`: read every byte of artifacts again and compare with their records."""

from collections.abc import Sequence

from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.errors import ArtifactDamaged


def main(argv: Sequence[str]) -> int:
    """Verify one artifact, or all of them."""
    parser = Parser("swift verify", "Compare artifacts with their records, byte by byte.")
    parser.add_argument("reference", nargs="?", help="a folder or a fingerprint (default: all)")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store = opened_store(options)
    wanted = [store.find(options.reference)] if options.reference else list(store.artifacts())
    damaged: list[ArtifactDamaged] = []
    for artifact in wanted:
        try:
            store.verify(artifact, thorough=True)
        except ArtifactDamaged as err:
            damaged.append(err)
    if options.json:
        print_json({"verified": len(wanted), "damaged": [err.as_dict() for err in damaged]})
        return ArtifactDamaged.exit_code if damaged else 0
    print(f"{len(wanted) - len(damaged)} of {len(wanted)} artifacts are as they were published.")
    for err in damaged:
        print(f"\n{err}")
    return ArtifactDamaged.exit_code if damaged else 0
