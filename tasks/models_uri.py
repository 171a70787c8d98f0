"""Resolves `models:/name@alias` and `models:/name/version` to a verified folder."""

from pathlib import Path

from swiftcore.artifacts import Store
from swiftcore.errors import UsageError
from swiftcore.recipe import Runtime
from tasks.registry import Registry, Version, no_version


def resolve_models_uri(uri: str) -> Path:
    """Return the verified folder of `models:/name@alias` or `models:/name/version`.

    Raises:
        UsageError: no such model, alias or version.
        TransientError: MLflow does not answer.
    """
    registry = Registry(Store(Runtime().store))
    return registry.open(find_version(registry, uri))


def find_version(registry: Registry, uri: str) -> Version:
    """Return the version that `models:/name@alias` or `models:/name/version` names.

    Raises:
        UsageError: no such model, alias or version.
    """
    body = uri.removeprefix("models:/").strip("/")
    name, at, alias = body.partition("@")
    if at and name and alias:
        found = registry.by_alias(name, alias)
        if found is None:
            raise no_version(name, f"@{alias}")
        return found
    name, slash, number = body.partition("/")
    if not slash or not number.isdigit():
        raise UsageError(
            "A model reference can't be read.",
            where=uri,
            found=body or "nothing",
            expected="models:/name@alias or models:/name/version",
            do="write it like models:/demo@champion",
        )
    return registry.version(name, number)
