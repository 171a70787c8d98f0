"""Starting a serving tool's own OpenAI server in its environment, and looking after it.

    with start_tool_server(order, log=log, runtime=runtime, timeout_seconds=300) as server:
        httpx.post(server.url + "/v1/completions", headers=server.headers, json=...)

The server listens on a private port of 127.0.0.1, with a key that only its process knows. A guard
stands above it (see `tool_guard`): when this process ends, in whatever way, the server and all that
it started end too. Nobody can remove the environment while it runs.
"""

import contextlib
import secrets
import socket
import time
from pathlib import Path

import psutil

from swiftcore.backends.environment import open_environment
from swiftcore.backends.serving import Place, ServeOrder, ServingTool
from swiftcore.backends.tool_failure import PortTaken, never_ready, told, why_ended
from swiftcore.backends.tool_process import ToolProcess
from swiftcore.backends.tools import serving_tool
from swiftcore.errors import BackendFailed, ModelMissing, SwiftError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime

_POLL_SECONDS = 0.1
_HEALTH_SECONDS = 5.0
_ADAPTER_SECONDS = 120.0
_GRACE_SECONDS = 10.0
# Between asking for a free port and the tool's binding it, another program may take it.
_PORT_ATTEMPTS = 3
_TOLD_CHARACTERS = 500


def start_tool_server(
    order: ServeOrder,
    *,
    log: Path,
    runtime: Runtime,
    timeout_seconds: float,
    progress: Progress | None = None,
    tool: ServingTool | None = None,
) -> "ToolServer":
    """Start a tool's server and wait until it answers; it may take minutes.

    Args:
        order: what to serve.
        log: file that takes what the tool prints, after what is there.
        runtime: threads, the folder of environments, and whether to install what is missing.
        timeout_seconds: longest wait.
        progress: hears what the tool says meanwhile.
        tool: instead of the one that the order names.

    Raises:
        UsageError: the tool can't do what the order says.
        ModelMissing: the model's folder holds no model.
        BackendMissing: the tool is not installed, or can't be on this machine.
        BackendFailed: it ended, or did not become ready; with the errors of its log.
    """
    progress = progress or Silent()
    tool = tool or serving_tool(order.backend, order.device)
    _require_model(order.model_dir)
    log.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_PORT_ATTEMPTS - 1):
        with contextlib.suppress(PortTaken):
            return _start(tool, order, log, runtime, timeout_seconds, progress)
    return _start(tool, order, log, runtime, timeout_seconds, progress)


class ToolServer:
    """A running server of a tool; made by `start_tool_server`, ended by `stop` or `with`.

    Attributes:
        url: its address, http://127.0.0.1:PORT.
        key: its key; a request carries `headers`.
        model: the model's name in requests.
        tool: what serves.
        log: file of what the tool prints.
    """

    def __init__(
        self, tool: ServingTool, model: str, port: int, key: str, process: ToolProcess
    ) -> None:
        self.tool = tool
        self.model = model
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.key = key
        self.log = process.log
        self._process = process

    def __enter__(self) -> "ToolServer":
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def headers(self) -> dict[str, str]:
        """What a request to the server must carry."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def running(self) -> bool:
        """Whether its processes are there."""
        return self._process.running

    @property
    def pid(self) -> int:
        """Number of the process that all its processes are below."""
        return self._process.pid

    def healthy(self) -> bool:
        """Tell whether it runs and answers its health check."""
        import httpx

        try:
            address = self.url + "/health"
            answer = httpx.get(address, timeout=_HEALTH_SECONDS, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and self._process.listens_on(self.port)

    def printed(self) -> str:
        """Return what it printed since its start, at most the last 200 kB."""
        return self._process.printed()

    def why_ended(self) -> SwiftError:
        """Return why it ended by itself, with the errors of its log."""
        code = self._process.exit_code()
        return why_ended(self.tool.label, code, self.log, self.printed())

    def load_adapter(self, name: str, folder: Path) -> None:
        """Make a LoRA adapter answer under a name, while the server runs.

        Raises:
            UsageError: the tool takes none while it runs, or refuses this one.
            BackendFailed: it does not answer.
        """
        self._post_adapter("load", {"lora_name": name, "lora_path": str(folder.absolute())})

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            UsageError: there is none of this name, or the tool forgets none while it runs.
            BackendFailed: it does not answer.
        """
        self._post_adapter("unload", {"lora_name": name})

    def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """End the server and all its processes; calling it twice is fine."""
        self._process.end(grace_seconds)

    def _post_adapter(self, what: str, fields: dict[str, str]) -> None:
        import httpx

        label, routes = self.tool.label, self.tool.adapter_routes
        if routes is None:
            raise UsageError(
                f"{label} takes adapters only at its start",
                where=f"adapter {fields['lora_name']}",
                do="name all adapters when the model is deployed, or use infer_backend vllm",
            )
        address = self.url + (routes.load if what == "load" else routes.unload)
        try:
            answer = httpx.post(
                address,
                json=fields,
                headers=self.headers,
                timeout=_ADAPTER_SECONDS,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise BackendFailed(
                f"{label} does not answer",
                where=address,
                found=f"{type(error).__name__}: {error}; {told(self.printed())}",
                do="read the log",
            ) from error
        if answer.status_code != 200:
            raise UsageError(
                f"{label} does not {what} this adapter",
                where=fields.get("lora_path", fields["lora_name"]),
                found=f"{answer.status_code}: {answer.text[:_TOLD_CHARACTERS]}",
                do="name it when the model is deployed, or allow its rank (vllm_max_lora_rank)"
                if what == "load"
                else "name an adapter that is loaded",
            )


def _start(
    tool: ServingTool,
    order: ServeOrder,
    log: Path,
    runtime: Runtime,
    timeout_seconds: float,
    progress: Progress,
) -> ToolServer:
    environment = open_environment(tool.backend, runtime)
    place = _place(runtime)
    command = tool.command(order, place)
    key = secrets.token_urlsafe(32)
    with contextlib.ExitStack() as held:
        python = held.enter_context(environment.in_use(install=runtime.install_backends))
        process = ToolProcess.start(tool, command, place, python, key, log)
        process.held = held.pop_all()
    server = ToolServer(tool, order.name, place.port, key, process)
    try:
        _wait_until_ready(server, timeout_seconds, progress)
    except BaseException:
        server.stop()
        raise
    return server


def _place(runtime: Runtime) -> Place:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return Place(port, runtime.threads(), psutil.virtual_memory().available)


def _require_model(folder: Path) -> None:
    for name in ("config.json", "*.safetensors"):
        if not any(folder.glob(name)):
            raise ModelMissing(
                "there is no model to serve",
                where=folder,
                found=f"no {name}",
                expected="a model's folder",
                do="name the folder of a finished model",
            )


def _wait_until_ready(server: ToolServer, timeout_seconds: float, progress: Progress) -> None:
    started = time.monotonic()
    label = server.tool.label
    while server.running:
        if server.healthy():
            return
        seconds = time.monotonic() - started
        if seconds > timeout_seconds:
            raise never_ready(label, timeout_seconds, server.log, server.printed())
        progress.update(seconds, None, f"starting {label}: {_last_line(server.printed())}")
        time.sleep(_POLL_SECONDS)
    raise server.why_ended()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:_TOLD_CHARACTERS]
