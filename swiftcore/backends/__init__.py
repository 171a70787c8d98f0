"""Tools whose pins exclude ours and each other's, each in a locked environment of its own.

`spec` says what a backend is, `environment` keeps its environment, `building` makes one, `jobs`
runs one job in it, `tool_server` starts a tool's own server in it. A backend is a folder here: its
lock, what runs inside (`job.py`), and a module with the types of its jobs and answers.
docs/backends.md shows how to add one.
"""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.backends.environment import Environment, open_environment
    from swiftcore.backends.jobs import Limits, run_job
    from swiftcore.backends.serving import ServeOrder, ServingTool
    from swiftcore.backends.spec import Backend, Fix, all_backends, get_backend
    from swiftcore.backends.tool_server import ToolServer, start_tool_server
    from swiftcore.backends.tools import require_tool, serving_tool

__all__ = [
    "Backend",
    "Environment",
    "Fix",
    "Limits",
    "ServeOrder",
    "ServingTool",
    "ToolServer",
    "all_backends",
    "get_backend",
    "open_environment",
    "require_tool",
    "run_job",
    "serving_tool",
    "start_tool_server",
]

__getattr__ = late_names(
    __name__,
    {
        "environment": ("Environment", "open_environment"),
        "jobs": ("Limits", "run_job"),
        "serving": ("ServeOrder", "ServingTool"),
        "spec": ("Backend", "Fix", "all_backends", "get_backend"),
        "tool_server": ("ToolServer", "start_tool_server"),
        "tools": ("require_tool", "serving_tool"),
    },
)
