"""Serving: an OpenAI-compatible server for one model, and blue/green deployment around it."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names
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

__getattr__ = late_names(
    __name__,
    {
        "supervisor": ("deploy_release", "list_endpoints", "rollback", "status", "stop"),
    },
)
