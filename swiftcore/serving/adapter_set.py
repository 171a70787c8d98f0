"""The adapters of a running tool's service, and how they change while it answers.

stage    load new ones under names that nobody can guess, for the deployer to ask
publish  from now on these names answer, and no others; what went is unloaded when its requests end
discard  forget what was staged

In the tool each adapter has a name that it never had before: vLLM keeps the cache of prompts by
name and folder, also of an adapter that was unloaded.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swiftcore.backends.serving import ServeOrder, ServingTool
from swiftcore.errors import SwiftError
from swiftcore.serving.service import ModelService, Served

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.05
# After the longest that a request may take: what it still has to write.
_SPARE_SECONDS = 10.0


class AdapterTool(Protocol):
    """A running tool that takes adapters and drops them."""

    tool: ServingTool

    def load_adapter(self, name: str, folder: Path) -> None:
        """Make an adapter answer under a name."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        ...


class NeedsNewServer(Exception):
    """The running tool can't take these adapters, one that is started for them may."""


@dataclass(frozen=True)
class _Adapter:
    """An adapter in the tool, by its name there."""

    tool_name: str
    served: Served


class RequestsUnderWay:
    """Knows when all requests that came before a moment are answered."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._next = 0

    def begin(self) -> int:
        """Count a request; return its number."""
        number, self._next = self._next, self._next + 1
        self._numbers.add(number)
        return number

    def end(self, number: int) -> None:
        """Forget a request that is answered."""
        self._numbers.discard(number)

    async def answered(self, timeout_seconds: float) -> None:
        """Wait until no request is left that is there now, but not for ever."""
        before = self._next
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while any(number < before for number in self._numbers):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_POLL_SECONDS)


class AdapterSet:
    """Changes the adapters of a service; one command at a time.

    Args:
        service: answers; its adapters are those of the order.
        tool: computes.
        order: what the tool was started with.
        serve: makes what answers, from an adapter's folder and its name in the tool.
    """

    def __init__(
        self,
        service: ModelService,
        tool: AdapterTool,
        order: ServeOrder,
        serve: Callable[[Path, str], Served],
    ) -> None:
        self.requests = RequestsUnderWay()
        self._service, self._tool, self._serve = service, tool, serve
        self._label = tool.tool.label
        routes = tool.tool.adapter_routes
        self._limits = None if routes is None else routes.limits(order)
        self._public = {name: _Adapter(name, service.served(name)) for name in order.adapters}
        self._staged: dict[str, _Adapter] = {}
        self._num_held = len(self._public)
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def stage(self, folders: Mapping[str, Path]) -> dict[str, str]:
        """Load adapters; return the names that each can be asked by until it is published.

        Raises:
            NeedsNewServer: the tool takes none while it runs, or not these.
            ModelMissing: a folder does not say which template the adapter was trained with.
            UsageError: the tool refuses one.
            BackendFailed: it does not answer.
        """
        async with self._lock:
            await self._drop_staged()
            self._require_room(folders)
            try:
                for name, folder in folders.items():
                    self._staged[name] = await asyncio.to_thread(self._load, name, folder)
            except BaseException:
                await self._drop_staged()
                raise
            staged = self._staged.values()
            self._service.hidden = {each.tool_name: each.served for each in staged}
            return {name: each.tool_name for name, each in self._staged.items()}

    async def publish(self, names: Sequence[str], fingerprint: str) -> None:
        """Serve these adapters and no others, as the release of a fingerprint.

        Args:
            names: of adapters that are public or staged, in the order they are listed in.
            fingerprint: of the release, shown to clients.
        """
        async with self._lock:
            before, known = self._public, {**self._public, **self._staged}
            self._public = {name: known[name] for name in names}
            self._staged = {}
            adapters = {name: each.served for name, each in self._public.items()}
            self._service.change_adapters(adapters, fingerprint)
            gone = [each for name, each in before.items() if name not in self._public]
        if gone:
            task = asyncio.create_task(self._retire(gone))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def discard(self) -> None:
        """Unload what was staged."""
        async with self._lock:
            await self._drop_staged()

    def _require_room(self, folders: Mapping[str, Path]) -> None:
        if self._limits is None:
            raise NeedsNewServer(f"{self._label} takes adapters only at its start")
        why_not = self._limits(list(folders.values()), self._num_held) if folders else None
        if why_not:
            raise NeedsNewServer(f"{self._label} does not take these adapters: {why_not}")

    def _load(self, name: str, folder: Path) -> _Adapter:
        tool_name = f"{name}@{secrets.token_hex(16)}"
        served = self._serve(folder, tool_name)
        try:
            self._tool.load_adapter(tool_name, folder)
        except BaseException:
            served.engine.close()
            raise
        self._num_held += 1
        logger.info("%s loaded %s from %s", self._label, name, folder)
        return _Adapter(tool_name, served)

    async def _drop_staged(self) -> None:
        dropped, self._staged = list(self._staged.values()), {}
        self._service.hidden = {}
        for adapter in dropped:
            await asyncio.to_thread(self._unload, adapter)

    async def _retire(self, gone: Sequence[_Adapter]) -> None:
        """Unload adapters whose names nobody can ask for any more."""
        longest = self._service.limits.request_timeout_seconds + _SPARE_SECONDS
        await self.requests.answered(longest)
        for adapter in gone:
            await asyncio.to_thread(self._unload, adapter)

    def _unload(self, adapter: _Adapter) -> None:
        adapter.served.engine.close()
        try:
            self._tool.unload_adapter(adapter.tool_name)
        except SwiftError as error:
            # Nobody can ask for it; it takes memory until the tool ends.
            logger.error("an adapter stays in the tool: %s", error)
        else:
            logger.info("%s unloaded %s", self._label, adapter.tool_name)
