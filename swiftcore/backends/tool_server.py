"""Starting a serving tool's own OpenAI server in its environment, and looking after it.

    with start_tool_server(order, log=log, runtime=runtime, timeout_seconds=300) as server:
        httpx.post(server.url + "/v1/completions", headers=server.headers, json=...)

The server listens on a private port of 127.0.0.1, with a key that only its process knows. A guard
stands above it (see `tool_guard`): when this process ends, in whatever way, the server and all that
it started end too. Nobody can remove the environment while it runs.
"""

import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from swiftcore.backends.environment import open_environment
from swiftcore.backends.serving import Command, Place, ServeOrder, ServingTool
from swiftcore.backends.tool_failure import never_ready, told, took_port, why_ended
from swiftcore.backends.tool_start import KEY_VARIABLE
from swiftcore.backends.tools import serving_tool
from swiftcore.errors import BackendFailed, ModelMissing, SwiftError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime

_GUARD = Path(__file__).with_name("tool_guard.py")
_START = Path(__file__).with_name("tool_start.py")
_POLL_SECONDS = 0.1
_HEALTH_SECONDS = 5.0
_ADAPTER_SECONDS = 120.0
_GRACE_SECONDS = 10.0
_KILL_SECONDS = 5.0
# Between asking for a free port and the tool's binding it, another program may take it.
_PORT_ATTEMPTS = 3
# Without bytecode a tool of many modules compiles them at each start, for a minute or more.
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", _NO_BYTECODE, KEY_VARIABLE)
_PRIVATE = 0o600
_TOLD_CHARACTERS = 500
_READ_BYTES = 200_000


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
        BackendFailed: it ended, or did not become ready; with the end of its log.
    """
    progress = progress or Silent()
    tool = tool or serving_tool(order.backend, order.device)
    _require_model(order.model_dir)
    tool.command(order, _place(runtime))
    log.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        server = _start(tool, order, log, runtime)
        try:
            _wait_until_ready(server, timeout_seconds, progress)
        except BaseException:
            server.stop()
            if attempt < _PORT_ATTEMPTS and not server.running and took_port(server.printed()):
                continue
            raise
        return server
    raise AssertionError("the last attempt returns or raises")


class ToolServer:
    """A running server of a tool; made by `start_tool_server`, ended by `stop` or `with`.

    Attributes:
        url: its address, http://127.0.0.1:PORT.
        key: its key; a request carries `headers`.
        model: the model's name in requests.
        tool: what serves.
        log: what the tool prints.
    """

    def __init__(
        self, tool: ServingTool, order: ServeOrder, port: int, key: str, started: "_Started"
    ) -> None:
        self.tool = tool
        self.model = order.name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.key = key
        self.log = started.log
        self._started = started

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
        return self._started.process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the process that all its processes are below."""
        return self._started.process.pid

    def healthy(self) -> bool:
        """Tell whether it runs and answers its health check."""
        import httpx

        try:
            address = self.url + "/health"
            answer = httpx.get(address, timeout=_HEALTH_SECONDS, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and self._owns_port()

    def printed(self) -> str:
        """Return what it printed since its start, at most the last 200 kB."""
        with self.log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._started.log_offset, end - _READ_BYTES))
            return stream.read().decode(errors="replace")

    def why_ended(self) -> SwiftError:
        """Return why it ended by itself, with the end of its log."""
        code = self._started.process.wait()
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
        self._started.end(grace_seconds)

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
                do="start the server with vllm_enable_lora and a vllm_max_lora_rank that is enough"
                if what == "load"
                else "name an adapter that is loaded",
            )

    def _owns_port(self) -> bool:
        """Tell whether the port is listened on by a process of this server, not by a stranger."""
        try:
            guard = psutil.Process(self.pid)
            family = guard.children(recursive=True)
        except psutil.Error:
            return False
        return any(_listens(process, self.port) for process in family)


class _Started:
    """A started guard with what must be let go when it ends."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, offset: int) -> None:
        self.process = process
        self.log = log
        self.log_offset = offset
        self.held = contextlib.ExitStack()

    def end(self, grace_seconds: float) -> None:
        """Ask the guard to stop the server, then to kill it; then kill the group."""
        process = self.process
        for seconds in (grace_seconds, _KILL_SECONDS):
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
        # Also when the guard is gone: somebody may have killed it alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self.held.close()


def _start(tool: ServingTool, order: ServeOrder, log: Path, runtime: Runtime) -> ToolServer:
    environment = open_environment(tool.backend, runtime)
    place = _place(runtime)
    command = tool.command(order, place)
    key = secrets.token_urlsafe(32)
    with contextlib.ExitStack() as held:
        python = held.enter_context(environment.in_use(install=runtime.install_backends))
        variables = _variables(command, key, python, place)
        started = _spawn(_words(command, python), variables, log, _described(tool, command))
        started.held = held.pop_all()
    return ToolServer(tool, order, place.port, key, started)


def _described(tool: ServingTool, command: Command) -> str:
    """Return what the log begins with: the build that was taken, and its command line."""
    backend = tool.backend
    words = shlex.join([command.module, *command.arguments])
    return f"{backend.name} {backend.version} on {tool.device}: {words}\n"


def _spawn(words: list[str], variables: dict[str, str], log: Path, first_line: str) -> _Started:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE)
    with os.fdopen(descriptor, "ab") as stream:
        offset = stream.tell()
        stream.write(first_line.encode())
        stream.flush()
        process = subprocess.Popen(
            words,
            # The guard waits for the end of this pipe, which comes with ours.
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=variables,
            # What a tool drops where it stands is dropped there.
            cwd=log.parent,
            start_new_session=True,
        )
    return _Started(process, log, offset)


def _words(command: Command, python: Path) -> list[str]:
    """Return the command line of the guard with that of the tool behind it."""
    start = [str(_START), command.key_flag] if command.key_flag else ["-m"]
    tool = [str(python), "-Pu", *start, command.module, *command.arguments]
    return [str(python), "-I", str(_GUARD), *tool]


def _variables(command: Command, key: str, python: Path, place: Place) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    # Removed with the environment: what tools compile belongs to their version.
    cache = python.parent.parent / "cache"
    return {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "XDG_CACHE_HOME": str(cache),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(place.threads),
        **command.variables,
        command.key_variable or KEY_VARIABLE: key,
    }


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


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            connection.laddr and connection.laddr.port == port
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        )
    return False
