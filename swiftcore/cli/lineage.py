"""`swift lineage`: the tree of everything a model was made from."""

from collections.abc import Sequence

from swiftcore.artifacts import Artifact
from swiftcore.artifacts.lineage import LineageNode, lineage
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.errors import UsageError
from swiftcore.stages.resolve import resolve_reference


def main(argv: Sequence[str]) -> int:
    """Print the lineage of an artifact, a folder or a registered model."""
    parser = Parser("swift lineage", "Show what an artifact was made from.")
    parser.add_argument("reference", help="models:/name@alias, a folder, or a fingerprint")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store = opened_store(options)
    if ":/" in options.reference:
        found = resolve_reference(options.reference, store)
    else:
        found = store.find(options.reference)
    if not isinstance(found, Artifact):
        raise UsageError(
            "This model was not made here, so nothing is known of its origin.",
            where=options.reference,
            found=f"{found.path}: no record.json",
            expected="an artifact of this project",
            do="swift status lists the artifacts",
        )
    tree = lineage(store, found)
    if options.json:
        print_json(tree.as_dict())
        return 0
    if ":/" in options.reference:
        print(options.reference)
    _print_tree(tree, 0, set())
    return 0


def _print_tree(node: LineageNode, depth: int, shown: set[str]) -> None:
    """Print a node and its inputs; what was shown before is named, and not unfolded again."""
    fingerprint = node.ref.fingerprint
    if node.inputs and fingerprint in shown:
        print(f"{_line(depth, node).partition('  [')[0]}  (as above)")
        return
    print(_line(depth, node))
    if fingerprint:
        shown.add(fingerprint)
    for inner in node.inputs:
        _print_tree(inner, depth + 1, shown)


def _line(depth: int, node: LineageNode) -> str:
    role = f"{node.role}: " if node.role else ""
    if node.artifact:
        record = node.artifact.record
        commit = record.environment.get("git_commit")
        code = f"  code {commit[:10]}" if commit else ""
        dirty = " (with local changes)" if record.environment.get("git_dirty") else ""
        detail = f"{record.finished[:19]} UTC{code}{dirty}"
    elif node.ref.fingerprint:
        detail = "no longer in the store"
    else:
        detail = f"sha256 {node.ref.digest[:12]}"
    return f"{'   ' * depth}{role}{node.ref.label}  [{detail}]"
