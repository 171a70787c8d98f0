"""Serving: an OpenAI-compatible server for one model, and blue/green deployment around it."""

from typing import TYPE_CHECKING, Any

from swiftcore.serving.release import DeployResult, Golden, Release

if TYPE_CHECKING:
    from swiftcore.serving.supervisor import (
        deploy_release,
        list_endpoints,
        rollback,
        status,
        stop,
    )

__all__ = [
    "DeployResult",
    "Golden",
    "Release",
    "deploy_release",
    "list_endpoints",
    "rollback",
    "status",
    "stop",
]


def __getattr__(name: str) -> Any:
    """Import the supervisor when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from swiftcore.serving import supervisor

    return getattr(supervisor, name)
