"""`swift promote`, `swift rollback` and `swift compare`: commands about registered models."""

from collections.abc import Sequence
from typing import Any

from flows.comparing import compare_command
from flows.environment import prepare_environment
from swiftcore.artifacts import Store
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.recipe import Runtime
from swiftcore.serving import DeployResult
from swiftcore.stages.deploy import serving_root
from swiftcore.stages.releases import start_patience, verify_release
from tasks.models_uri import find_version
from tasks.registry import Registry, Version

__all__ = ["compare_command", "promote_command", "rollback_command"]


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
    if _same_version_before(store, options.name):
        return _roll_back_endpoint(store, options.name, as_json=options.json)
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


def _registry(store: Store) -> Registry:
    prepare_environment()
    return Registry(store)


def _same_version_before(store: Store, name: str) -> bool:
    """Tell whether an endpoint that runs served this version before: with other adapters, say."""
    from swiftcore.serving import status

    found = status(serving_root(store) / name)
    if found is None or found["status"] in ("stopped", "dead") or found["previous"] is None:
        return False
    return found["previous"]["version"] == found["current"]["version"]


def _roll_back_endpoint(store: Store, name: str, *, as_json: bool) -> int:
    """Serve the release before; the champion is the same version and stays."""
    result = _release_before(store, name)
    text = f"{result.in_place.told(result.seconds)}; " if result.in_place else ""
    fields = {"name": name, "version": result.version, "fingerprint": result.fingerprint}
    _answer(
        as_json,
        {**fields, "url": result.url},
        f"{text}version {result.version} is served as before at {result.url}",
    )
    return 0


def _serve_previous(store: Store, previous: Version) -> str | None:
    """Switch the endpoint back if it runs, and return its address."""
    from swiftcore.serving import status

    condition = status(serving_root(store) / previous.name)
    if condition is None or condition["status"] in ("stopped", "dead"):
        return None
    if condition["current"]["version"] == previous.version:
        return condition["url"]
    return _release_before(store, previous.name).url


def _release_before(store: Store, name: str) -> DeployResult:
    """Serve what an endpoint served before; a tool gets the time that it takes to start."""
    from swiftcore.serving import rollback, status

    folder = serving_root(store) / name
    before = (status(folder) or {}).get("previous") or {}
    patience = start_patience(before.get("infer_backend", "pt"), Runtime())
    return rollback(
        folder,
        start_timeout_seconds=patience,
        verify=lambda release: verify_release(release, store),
    )


def _as_dict(version: Version) -> dict[str, Any]:
    return {"name": version.name, "version": version.version, "fingerprint": version.fingerprint}


def _answer(as_json: bool, fields: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(fields)
    else:
        print(text)
