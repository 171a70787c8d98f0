"""Tools whose pins exclude ours and each other's, each in a locked environment of its own.

`spec` says what a backend is, `environment` keeps its environment, `building` makes one, `jobs`
runs one job in it. A backend is a folder here: its lock, a `job.py` that imports only its tool, and
a module with the types of its jobs and answers. docs/backends.md shows how to add one.
"""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.backends.environment import Environment, open_environment
    from swiftcore.backends.jobs import Limits, run_job
    from swiftcore.backends.spec import Backend, Fix, all_backends, get_backend

__all__ = [
    "Backend",
    "Environment",
    "Fix",
    "Limits",
    "all_backends",
    "get_backend",
    "open_environment",
    "run_job",
]

__getattr__ = late_names(
    __name__,
    {
        "environment": ("Environment", "open_environment"),
        "jobs": ("Limits", "run_job"),
        "spec": ("Backend", "Fix", "all_backends", "get_backend"),
    },
)
