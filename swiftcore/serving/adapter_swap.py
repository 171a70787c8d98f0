"""A candidate that is the running server with other adapters, as the gateway sees it."""

import logging
from typing import Any

import httpx

from swiftcore.errors import BackendFailed, GateRefused, SwiftError, from_dict
from swiftcore.serving.backend import Backend
from swiftcore.serving.control import Deployment
from swiftcore.serving.release import AdapterChange, Release
from swiftcore.serving.server import ADAPTER_PATH

logger = logging.getLogger(__name__)
_PUBLISH_SECONDS = 30.0
_DISCARD_SECONDS = 10.0


class NotInPlace(Exception):
    """The running server can't become the wanted release; the text says why."""


class AdapterSwap:
    """A change of a backend's adapters, staged; make one with `AdapterSwap.stage`.

    Attributes:
        release: what the backend is to serve.
        change: what comes and goes.
    """

    def __init__(
        self,
        backend: Backend,
        release: Release,
        change: AdapterChange,
        files: list[tuple[str, int, int]],
        names: dict[str, str],
    ) -> None:
        self.release, self.change = release, change
        self._backend, self._files, self._names = backend, files, names

    @classmethod
    async def stage(
        cls, backend: Backend, wanted: Deployment, change: AdapterChange
    ) -> "AdapterSwap":
        """Load the adapters that come into the running server; clients don't see them yet.

        Raises:
            NotInPlace: this server can't take them, or what it serves from has changed.
            SwiftError: it refuses one of them.
            GateRefused: it ended, or did not answer in time.
        """
        files = wanted.release.files()
        if not _is_unchanged(backend, change):
            raise NotInPlace("files that it serves from have changed")
        adapters = {name: str(wanted.release.adapters[name]) for name in change.loaded}
        order = {"command": "stage", "adapters": adapters}
        try:
            reply = await _ask(backend, wanted.release, order, wanted.start_timeout_seconds)
        except BackendFailed as error:
            await _discard(backend)
            raise _no_answer(backend, wanted.release, error.found or error.message) from error
        except BaseException:
            await _discard(backend)
            raise
        return cls(backend, wanted.release, change, files, reply["names"])

    def as_event(self) -> dict[str, Any]:
        """Return what the deployer probes, and the names that the new adapters have until then."""
        told = {"names": self._names, "in_place": self.change.as_dict()}
        return {**self._backend.as_event(), **told}

    async def take_over(self) -> Backend:
        """Publish the new adapters, withdraw those that go, and return the server.

        Raises:
            GateRefused: the server ended, or does not tell whether it did.
        """
        release, backend = self.release, self._backend
        names, fingerprint = list(release.adapters), release.fingerprint
        order = {"command": "publish", "names": names, "fingerprint": fingerprint}
        try:
            await _ask(backend, release, order, _PUBLISH_SECONDS)
        except SwiftError:
            # Which adapters it serves now is not known: it is started again with those of before.
            await backend.stop()
            raise
        if not backend.running:
            raise _no_answer(backend, release, "it has ended")
        # No await from the check to the end: a server that dies is started again as what it was.
        backend.release, backend.files = release, self._files
        return backend

    async def stop(self) -> None:
        """Unload what was staged."""
        await _discard(self._backend)


def _is_unchanged(backend: Backend, change: AdapterChange) -> bool:
    """Tell whether the files of what stays are those that the server was started from."""
    release = backend.release
    above = [] if release.adapter_dir is None else [release.adapter_dir]
    folders = [release.model_dir, *above, *(release.adapters[name] for name in change.kept)]

    def staying(files: list[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
        return {file for file in files if any(_is_below(file[0], folder) for folder in folders)}

    return staying(release.files()) == staying(backend.files)


def _is_below(path: str, folder: Any) -> bool:
    return path.startswith(f"{folder}/")


async def _ask(
    backend: Backend, release: Release, order: dict[str, Any], timeout_seconds: float
) -> dict[str, Any]:
    """Send an order on the private road and return the answer."""
    headers = {"Authorization": f"Bearer {backend.token}"}
    try:
        reply = await backend.client.post(
            ADAPTER_PATH, json=order, headers=headers, timeout=timeout_seconds
        )
    except httpx.TimeoutException as error:
        found = f"no answer after {timeout_seconds:g} s"
        raise _no_answer(backend, release, found) from error
    except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: client just closed
        raise _no_answer(backend, release, str(error) or type(error).__name__) from error
    if reply.status_code in (404, 405):
        raise NotInPlace("it takes no adapters while it runs")
    if reply.status_code not in (200, 400, 409):
        raise _no_answer(backend, release, f"status {reply.status_code}: {reply.text[:500]}")
    answer = reply.json()
    if "needs_new_server" in answer:
        raise NotInPlace(answer["needs_new_server"])
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


async def _discard(backend: Backend) -> None:
    try:
        await _ask(backend, backend.release, {"command": "discard"}, _DISCARD_SECONDS)
    except (SwiftError, NotInPlace) as error:
        # It forgets what was staged when it ends, or before it stages again.
        logger.info("nothing to discard: %s", error)


def _no_answer(backend: Backend, release: Release, found: str) -> GateRefused:
    return GateRefused(
        f"the running server did not take over {release.label}",
        where=backend.log,
        found=f"{found}; log: {backend.log_tail()}",
        do="see the log; what was served before still is, or is being started again",
    )
