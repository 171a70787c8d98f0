"""Blue/green deployment of served models: deploy, roll back, look, stop.

Each endpoint has a folder (see `endpoint`) and a gateway process (see `gateway`) that outlives
whoever deployed. Everything here works from any process that can read the folder.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swiftcore.errors import EnvironmentMissing, TransientError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.serving.control import ControlClient
from swiftcore.serving.endpoint import EndpointFolder
from swiftcore.serving.process import ProcessIdentity, owner_of_port
from swiftcore.serving.release import AdapterChange, DeployResult, Golden, Release

_GATEWAY_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PORT_RELEASE_SECONDS = 5.0
Verify = Callable[[Release], None]


def deploy_release(
    release: Release,
    *,
    state_dir: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    golden: Sequence[Golden] | Callable[[], Sequence[Golden]] = (),
    start_timeout_seconds: float = 120.0,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> DeployResult:
    """Serve a release at an endpoint, without a failed request on the way.

    A new server is started beside the current one, verified, probed and compared with the golden
    answers; then requests are switched to it and the old one finishes and ends. If anything fails
    the old one keeps answering and the new one is gone. A release that is served already stays as
    it is. Where it differs from what is served in added or removed adapters alone, the running
    server loads and drops them instead, if its engine can; they are proven in the same way.

    Args:
        release: what to serve.
        state_dir: the endpoint's folder.
        host, port: public address; port 0 keeps the endpoint's port, or takes a free one.
        golden: greedy answers the new server must repeat; a function is only asked for them when
            there is a server to start.
        start_timeout_seconds: longest wait for the new server to be ready, and for each answer.
        verify: checks the files of the release before they are loaded; raises when they changed.
        progress: hears what is going on.

    Raises:
        GateRefused: the new server does not start, answers wrongly or not at all.
        EnvironmentMissing: the port is taken by someone else, or a file is missing.
        UsageError: the endpoint runs at another address.
    """
    started = time.monotonic()
    folder = EndpointFolder(state_dir)
    folder.create()
    progress = progress or Silent()
    reused = _reuse(folder, release, host, port)
    if reused is None:
        if verify:
            progress.update(0, 4, "verifying files")
            verify(release)
        progress.update(1, 4, "starting the gateway")
        _ensure_gateway(folder, host, port)
        order = {
            "command": "deploy",
            "release": release.as_dict(),
            "api_key": _api_key(),
            "start_timeout_seconds": start_timeout_seconds,
        }
        try:
            expected = golden() if callable(golden) else golden
            return _replace(folder, order, release, expected, started, progress)
        except BaseException:
            _stop_if_unused(folder)
            raise
    progress.update(4, 4, "served already")
    return _result(folder, release, started, golden_matched=0, reused=True)


def rollback(
    state_dir: Path,
    *,
    start_timeout_seconds: float = 120.0,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> DeployResult:
    """Serve the previous release again, by the same road as a deployment.

    It must repeat the golden answers it was deployed with.

    Raises:
        UsageError: there is no endpoint, or no previous release.
        GateRefused, EnvironmentMissing: as `deploy_release`; what is served stays.
    """
    state = EndpointFolder(state_dir).read_state()
    if state is None or state.get("previous") is None:
        raise UsageError(
            "there is nothing to roll back to",
            where=state_dir,
            found="no endpoint" if state is None else "only one release was ever served here",
            do="deploy a release first; `swift status` lists the endpoints",
        )
    previous = state["previous"]
    return deploy_release(
        Release.from_dict(previous["release"]),
        state_dir=state_dir,
        host=state["host"],
        port=state["port"],
        golden=[Golden(**fields) for fields in previous["golden"]],
        start_timeout_seconds=start_timeout_seconds,
        verify=verify,
        progress=progress,
    )


def status(state_dir: Path) -> dict[str, Any] | None:
    """Return what an endpoint is doing; None when there is none.

    `status` is ready, restarting, failed, starting or stopped as the gateway wrote it, or dead when
    the gateway is gone without having said so. `current` and `previous` are releases.
    """
    folder = EndpointFolder(state_dir)
    state = folder.read_state()
    if state is None:
        return None
    alive = folder.gateway() is not None
    condition = state["status"] if alive or state["status"] == "stopped" else "dead"
    return {
        "status": condition,
        "problem": state.get("problem"),
        "url": state["url"],
        "host": state["host"],
        "port": state["port"],
        "gateway_pid": state["gateway"]["pid"] if alive else None,
        "backend_pid": _backend_pid(state) if alive else None,
        "current": _release_fields(state.get("current")),
        "previous": _release_fields(state.get("previous")),
        "state_dir": str(folder.path),
        "logs": str(folder.logs),
    }


def stop(state_dir: Path) -> bool:
    """End an endpoint's gateway and servers; return whether anything was running.

    What it served is remembered, so it can be rolled back. Calling it twice is fine.
    """
    folder = EndpointFolder(state_dir)
    state = folder.read_state()
    if state is None:
        return False
    gateway = folder.gateway()
    if gateway is not None:
        _ask_to_stop(folder, gateway, "stop")
        gateway.end(grace_seconds=5.0)
        state = folder.read_state() or state
    backend = ProcessIdentity.from_dict((state.get("backend") or {}).get("process"))
    leftover = backend is not None and backend.alive
    if backend is not None and leftover:
        backend.end(grace_seconds=5.0)
    if state["status"] != "stopped":
        folder.write_state({**state, "status": "stopped", "backend": None})
    return gateway is not None or leftover


def list_endpoints(serving_root: Path) -> dict[str, dict[str, Any]]:
    """Return the status of every endpoint under a folder, by name."""
    found = {}
    for path in sorted(Path(serving_root).glob("*/state.json")):
        condition = status(path.parent)
        if condition is not None:
            found[path.parent.name] = condition
    return found


def _reuse(folder: EndpointFolder, release: Release, host: str, port: int) -> str | None:
    """Return the URL if this release is served and answers; refuse another address."""
    import httpx

    state = folder.read_state()
    if state is None or folder.gateway() is None:
        return None
    if state["host"] != host or port not in (0, state["port"]):
        raise UsageError(
            "the endpoint runs at another address",
            where=folder.path,
            found=state["url"],
            expected=f"{host}:{port}",
            do=f"keep its address (--set runtime.port={state['port']}), "
            "or stop it first with `swift deploy --stop`",
        )
    current = state.get("current")
    if current is None or current["release"]["fingerprint"] != release.fingerprint:
        return None
    try:
        healthy = httpx.get(state["url"] + "/health", timeout=10, trust_env=False)
    except httpx.HTTPError:
        return None
    return state["url"] if healthy.status_code == 200 else None


def _replace(
    folder: EndpointFolder,
    order: dict[str, Any],
    release: Release,
    golden: Sequence[Golden],
    started: float,
    progress: Progress,
) -> DeployResult:
    # Imported here: FastAPI and httpx cost half a second that `status` and `stop` need not pay.
    from swiftcore.serving.probe import probe

    patience = order["start_timeout_seconds"]
    # Another deployment may be under way; ours waits for it and then has its own time.
    with ControlClient(folder, timeout_seconds=3 * patience + 30) as gateway:
        progress.update(2, 4, f"starting {release.label}")
        event = gateway.ask(**order)
        if event["event"] == "current":
            return _result(folder, release, started, golden_matched=0, reused=True)
        try:
            matched = probe(
                release,
                f"http://127.0.0.1:{event['port']}",
                golden,
                api_key=order["api_key"],
                timeout_seconds=patience,
                progress=progress,
                names=event.get("names"),
            )
        except Exception as error:
            gateway.ask(command="discard", reason=str(error))
            raise
        progress.update(3, 4, "switching")
        gateway.ask(command="switch", golden=[answer.as_dict() for answer in golden])
    progress.update(4, 4, f"{release.label} is served")
    result = _result(folder, release, started, golden_matched=matched, reused=False)
    change = event.get("in_place")
    return result if change is None else replace(result, in_place=AdapterChange.from_dict(change))


def _result(
    folder: EndpointFolder, release: Release, started: float, *, golden_matched: int, reused: bool
) -> DeployResult:
    state = folder.read_state() or {}
    previous = state.get("previous")
    return DeployResult(
        url=state["url"],
        pid=_backend_pid(state) or 0,
        version=release.version,
        previous=Release.from_dict(previous["release"]).label if previous else None,
        seconds=time.monotonic() - started,
        golden_matched=golden_matched,
        reused=reused,
        fingerprint=release.fingerprint,
    )


def _ensure_gateway(folder: EndpointFolder, host: str, port: int) -> None:
    """Start the gateway unless it runs.

    Raises:
        EnvironmentMissing: the port is taken, or the gateway does not start.
    """
    with folder.locked():
        if folder.gateway() is not None:
            return
        listener = _bind(host, port)
        with listener, (folder.logs / "gateway.log").open("ab") as log:
            command = [
                *(sys.executable, "-P", "-m", "swiftcore.serving.gateway"),
                *("--state", str(folder.path), "--host", host, "--fd", str(listener.fileno())),
            ]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.path,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        _wait_for_gateway(folder, process)


def _wait_for_gateway(folder: EndpointFolder, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _GATEWAY_START_SECONDS
    try:
        while time.monotonic() < deadline and process.poll() is None:
            gateway = folder.gateway()
            if gateway is not None and gateway.pid == process.pid:
                return
            time.sleep(0.02)
    except BaseException:
        process.kill()
        raise
    process.kill()
    process.wait()
    log = folder.logs / "gateway.log"
    raise EnvironmentMissing(
        "the endpoint's gateway did not start",
        where=log,
        found=log.read_text(encoding="utf-8", errors="replace")[-1500:].strip(),
        do="see the log",
    )


def _bind(host: str, port: int) -> Any:
    """Return a listening socket; a port that nobody owns is still being given back, so wait for it.

    A killed gateway is gone from the process table before the kernel has closed its last socket.
    """
    from swiftcore.serving.http_server import bind

    deadline = time.monotonic() + _PORT_RELEASE_SECONDS
    while True:
        try:
            return bind(host, port)
        except EnvironmentMissing as error:
            owner = owner_of_port(port)
            if owner is not None:
                raise EnvironmentMissing(
                    error.message,
                    where=error.where,
                    found=f"{error.found}: {owner}",
                    expected=error.expected,
                    do=error.do,
                ) from error
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _stop_if_unused(folder: EndpointFolder) -> None:
    """End a gateway that has nothing to serve after a failed first deployment."""
    gateway = folder.gateway()
    if gateway is not None:
        _ask_to_stop(folder, gateway, "stop if unused")


def _ask_to_stop(folder: EndpointFolder, gateway: ProcessIdentity, command: str) -> None:
    try:
        with ControlClient(folder, timeout_seconds=10.0) as control:
            event = control.ask(command=command)
    except TransientError:
        return  # `stop` goes on by signal
    deadline = time.monotonic() + _STOP_SECONDS
    while event["event"] == "stopping" and gateway.alive and time.monotonic() < deadline:
        time.sleep(0.05)


def _api_key() -> str | None:
    from swiftcore.serving.server import API_KEY_VARIABLE

    return os.environ.get(API_KEY_VARIABLE) or None


def _backend_pid(state: dict[str, Any]) -> int | None:
    process = (state.get("backend") or {}).get("process")
    return process["pid"] if process else None


def _release_fields(served: dict[str, Any] | None) -> dict[str, Any] | None:
    return served["release"] if served else None
