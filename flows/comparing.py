"""`swift compare`: two report folders, two registered versions, or one of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.environment import prepare_environment
from swiftcore.artifacts import Store
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.tables import print_table
from swiftcore.errors import SwiftError, UsageError

if TYPE_CHECKING:
    from swiftcore.evaluation.comparison import PairedDifference
    from tasks.registry import Version

_TEXT = """Compare two evaluations, question by question where both have been asked the same: the
differences with their 95 % intervals, and McNemar's p-value where answers are right or wrong.

  swift compare models:/demo@champion models:/demo@challenger
  swift compare eval_output/base-... eval_output/tuned-...
  swift compare artifacts/evaluate#base artifacts/evaluate#merged"""


@dataclass(frozen=True)
class Side:
    """One of the two: a report folder with a candidate, and the registered version it is of."""

    label: str
    folder: Path | None
    candidate: str | None
    version: "Version | None" = None


def compare_command(argv: Sequence[str]) -> int:
    """Set two evaluations side by side."""
    parser = Parser("swift compare", _TEXT)
    parser.add_argument("first", help="models:/NAME@ALIAS, a report folder, or FOLDER#CANDIDATE")
    parser.add_argument("second", help="the same")
    add_store(parser)
    options = parser.parse_args(list(argv))
    store = opened_store(options)
    first, second = (_side(reference, store) for reference in (options.first, options.second))
    if first.version and second.version:
        return _compare_versions(first, second, as_json=options.json)
    paired = _paired(first, second)
    if options.json:
        print_json({"first": first.label, "second": second.label, "paired": _as_dicts(paired)})
        return 0
    _print_paired(first, second, paired)
    return 0


def _side(reference: str, store: Store) -> Side:
    if reference.startswith("models:/"):
        return _registered(reference, store)
    place, _, candidate = reference.partition("#")
    folder = Path(place)
    if not folder.is_dir():
        folder = store.find(place).path
    return Side(reference, folder, candidate or None)


def _registered(reference: str, store: Store) -> Side:
    from tasks.models_uri import find_version
    from tasks.registry import Registry

    prepare_environment()
    version = find_version(Registry(store), reference)
    label = version.tags.get("gate.report")
    candidate = version.tags.get("pipeline.candidate")
    try:
        folder = store.find(label).path if label else None
    except UsageError:  # collected, or never in this store
        folder = None
    return Side(version.reference, folder, candidate, version)


def _paired(first: Side, second: Side) -> "list[PairedDifference]":
    from swiftcore.evaluation.comparison import compare, read_evaluated

    for side in (first, second):
        if side.folder is None:
            raise UsageError(
                "The report of a version is not in this store.",
                where=side.label,
                expected="the artifact of its evaluate stage",
                do="pull it, or run its recipe again",
            )
    sides = [read_evaluated(s.folder, s.candidate) for s in (first, second) if s.folder]
    return compare(*sides)


def _compare_versions(first: Side, second: Side, *, as_json: bool) -> int:
    """Show what two versions were registered with, and the paired differences where they can be."""
    assert first.version is not None
    assert second.version is not None
    before, after = _summary(first.version), _summary(second.version)
    comparable = before["test_digest"] == after["test_digest"]
    why = ""
    try:
        paired = _paired(first, second)
    except SwiftError as err:
        paired, why = [], err.message
    if as_json:
        versions = {first.label: before, second.label: after}
        print_json({"versions": versions, "comparable": comparable, "paired": _as_dicts(paired)})
        return 0
    _print_summaries(first.label, before, second.label, after)
    if not comparable:
        print("measured on different test rows: the figures can't be compared")
    print()
    if paired:
        _print_paired(first, second, paired)
    else:
        print(f"not compared question by question: {why}")
    return 0


def _as_dicts(paired: "list[PairedDifference]") -> list[dict[str, Any]]:
    return [found.as_dict() for found in paired]


def _print_paired(first: Side, second: Side, paired: "list[PairedDifference]") -> None:
    from swiftcore.evaluation.comparison import table_rows

    head = [
        "metric",
        first.label,
        second.label,
        "difference",
        "95 % interval",
        "n",
        "p (gained, lost)",
    ]
    print_table(head, table_rows(paired))


def _print_summaries(
    first: str, before: dict[str, Any], second: str, after: dict[str, Any]
) -> None:
    """Print two summaries of evaluations side by side."""
    names = sorted(before["metrics"].keys() | after["metrics"].keys())
    rows = [_row(name, before["metrics"].get(name), after["metrics"].get(name)) for name in names]
    print_table(["metric", first, second, "change"], rows)


def _summary(version: "Version") -> dict[str, Any]:
    """Return the evaluation that a version was registered with.

    Raises:
        UsageError: it has none.
    """
    summary = version.tags.get("gate.summary")
    if summary is None:
        raise UsageError(
            "A version has no evaluation to compare.",
            where=version.reference,
            found="no tag gate.summary",
            expected="a version that a recipe with an evaluate section registered",
            do="run that recipe with an evaluate section",
        )
    return json.loads(summary)


def _row(name: str, before: float | None, after: float | None) -> list[str]:
    if before is None or after is None:
        figures = ["" if value is None else f"{value:.4f}" for value in (before, after)]
        return [name, *figures, ""]
    return [name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
