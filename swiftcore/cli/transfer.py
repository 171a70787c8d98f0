"""`swift push` and `swift pull`: artifacts to and from a folder or an S3 bucket."""

from collections.abc import Sequence

from swiftcore.artifacts.remote import open_remote, pull, push
from swiftcore.cli.options import Parser, add_store, opened_store, print_json


def main(argv: Sequence[str]) -> int:
    """Copy one artifact to or from a remote."""
    verb = argv[0]
    parser = Parser(f"swift {verb}", f"{verb.capitalize()} an artifact by digest.")
    parser.add_argument("reference", help="stage/name-fingerprint12 or a fingerprint")
    parser.add_argument("--remote", required=True, help="a folder or s3://bucket/prefix")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store, remote = opened_store(options), open_remote(options.remote)
    if verb == "push":
        artifact = store.find(options.reference)
        sent = push(store, artifact, remote)
        text = f"{artifact.label}: {sent} of {len(artifact.record.files)} files had to travel."
    else:
        artifact = pull(store, options.reference, remote)
        text = f"{artifact.label} is in the store."
    if options.json:
        print_json({"label": artifact.label, "fingerprint": artifact.fingerprint})
    else:
        print(text)
    return 0
