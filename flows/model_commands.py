"""`swift promote`, `swift rollback` and `swift compare`: commands about registered models."""

import json
from collections.abc import Sequence
from typing import Any

from flows.environment import prepare_environment
from swiftcore.artifacts import Store
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.tables import print_table
from swiftcore.errors import UsageError
from swiftcore.stages.deploy import serving_root
from tasks.models_uri import find_version
from tasks.registry import Registry, Version


def promote_command(argv: Sequence[str]) -> int:
    """Make a registered version the champion."""
    parser = Parser("swift promote", "Make a registered version the champion.")
    parser.add_argument("name", help="registered model, such as demo")
    parser.add_argument("version", help="version number, or @challenger")
    parser.add_argument("--reason", default="by hand", help="goes into the journal")
    add_store(parser)
    options = parser.parse_args(list(argv))
    registry = _registry(opened_store(options))
    alias = options.version.removeprefix("@")
    reference = f"{options.name}@{alias}" if alias != options.version else None
    wanted = find_version(registry, reference or f"{options.name}/{options.version}")
    made = registry.promote(wanted.name, wanted.version, reason=options.reason)
    text = f"{made.reference} is the champion; serve it with: swift deploy --name {made.name} "
    _answer(options.json, _as_dict(made), text + f"--model models:/{made.name}@champion")
    return 0


def rollback_command(argv: Sequence[str]) -> int:
    """Put the previous version back: the endpoint first, then the champion alias."""
    parser = Parser("swift rollback", "Put the previous version back into service.")
    parser.add_argument("name", help="registered model, such as demo")
    parser.add_argument("--reason", default="by hand", help="goes into the journal")
    add_store(parser)
    options = parser.parse_args(list(argv))
    store = opened_store(options)
    registry = _registry(store)
    previous = registry.previous(options.name)
    url = _serve_previous(store, previous)
    made = registry.rollback(options.name, reason=options.reason)
    served = f"and served at {url}" if url else "no endpoint serves it; run the recipe to start one"
    _answer(
        options.json,
        {**_as_dict(made), "url": url},
        f"{made.reference} is the champion again, {served}",
    )
    return 0


def compare_command(argv: Sequence[str]) -> int:
    """Set the evaluations of two registered versions side by side."""
    parser = Parser("swift compare", "Compare the evaluations of two registered versions.")
    parser.add_argument("first", help="such as models:/demo@champion")
    parser.add_argument("second", help="such as models:/demo@challenger")
    add_store(parser)
    options = parser.parse_args(list(argv))
    registry = _registry(opened_store(options))
    versions = [find_version(registry, uri) for uri in (options.first, options.second)]
    first, second = (_evaluation(version) for version in versions)
    names = sorted(first["metrics"].keys() | second["metrics"].keys())
    comparable = first["test_digest"] == second["test_digest"]
    if options.json:
        found = {v.reference: e for v, e in zip(versions, (first, second), strict=True)}
        print_json({"versions": found, "comparable": comparable})
        return 0
    rows = [_row(name, first["metrics"].get(name), second["metrics"].get(name)) for name in names]
    print_table(["metric", *(version.reference for version in versions), "change"], rows)
    if not comparable:
        print("measured on different test rows: the figures can't be compared")
    return 0


def _registry(store: Store) -> Registry:
    prepare_environment()
    return Registry(store)


def _serve_previous(store: Store, previous: Version) -> str | None:
    """Switch the endpoint back if it runs, and return its address."""
    from swiftcore.serving import rollback, status

    folder = serving_root(store) / previous.name
    condition = status(folder)
    if condition is None or condition["status"] in ("stopped", "dead"):
        return None
    if condition["current"]["version"] == previous.version:
        return condition["url"]
    return rollback(folder).url


def _evaluation(version: Version) -> dict[str, Any]:
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


def _as_dict(version: Version) -> dict[str, Any]:
    return {"name": version.name, "version": version.version, "fingerprint": version.fingerprint}


def _answer(as_json: bool, fields: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(fields)
    else:
        print(text)
