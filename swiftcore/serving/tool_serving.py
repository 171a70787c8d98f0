"""A tool such as vLLM behind our own server: our template and API in front, its tokens behind.

The tool listens on a private port with a key that only this process knows, so our server is the
only way to it: one API, one key, one set of limits, whatever the tool's own would let through. The
tool ends with this process, and this process with the tool.
"""

import argparse
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swiftcore.backends.serving import ServeOrder
from swiftcore.backends.tool_server import ToolServer, start_tool_server
from swiftcore.errors import BackendFailed, UsageError
from swiftcore.generation.tool_model import engine_of, stored_dtype
from swiftcore.lazy import import_without, uncollected
from swiftcore.models import load_tokenizer
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections.serve_backends import ToolSettings
from swiftcore.serving.adapter_set import AdapterSet
from swiftcore.serving.chat import load_serving_template
from swiftcore.serving.server import defaults_of, limits_of
from swiftcore.serving.service import ModelService, Served

logger = logging.getLogger(__name__)
# Whoever started us has less patience, and stops us with everything below.
_START_SECONDS = 3600.0
_POLL_SECONDS = 0.1


@contextmanager
def tool_service(arguments: argparse.Namespace) -> Iterator[tuple[ModelService, AdapterSet]]:
    """Start the tool that the server's arguments name, and yield a service over it.

    Beside it stands what changes its adapters.

    Raises:
        UsageError: the tool can't serve this.
        BackendMissing, BackendFailed: it is not there, or does not start.
    """
    if arguments.adapter is not None:
        raise UsageError(
            "a tool serves a whole model; an adapter has a name of its own beside it",
            where="--adapter",
            found=arguments.adapter,
            do="merge the adapter, or give it as --named-adapter NAME=FOLDER",
        )
    order, runtime = order_of(arguments), runtime_of(arguments)
    log = arguments.log_file or Path(tempfile.mkstemp(prefix="swiftcore-tool-", suffix=".log")[1])
    # It would tell of each health check.
    logging.getLogger("httpx").setLevel("WARNING")
    logger.info("starting %s; its log is %s", arguments.infer_backend, log)
    with (
        start_tool_server(
            order, log=log, runtime=runtime, timeout_seconds=_START_SECONDS
        ) as server,
        _ending_with(server),
    ):
        service, adapters = _service(arguments, order, server)
        try:
            yield service, adapters
        finally:
            service.close()


def order_of(arguments: argparse.Namespace) -> ServeOrder:
    """Return what the tool is to serve."""
    adapters = dict(each.split("=", 1) for each in arguments.named_adapter)
    return ServeOrder(
        arguments.infer_backend,
        arguments.model,
        adapters={name: Path(folder) for name, folder in adapters.items()},
        settings=ToolSettings(**arguments.backend_settings),
        max_model_len=arguments.max_model_len,
        dtype=arguments.dtype or stored_dtype(arguments.model),
        device=arguments.device if arguments.device in ("cpu", "cuda") else "auto",
        name=arguments.name,
        max_logprobs=arguments.max_logprobs,
    )


def runtime_of(arguments: argparse.Namespace) -> Runtime:
    """Return threads and places for the tool."""
    given = {"num_threads": arguments.num_threads, "backends_dir": arguments.backends_dir}
    return Runtime(**{name: value for name, value in given.items() if value is not None})


def _import_tokenizers() -> None:
    """Import what encodes and decodes without torch: 2 CPU seconds instead of 6."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    with uncollected():
        import_without("transformers.tokenization_utils_tokenizers", ("torch",))


def _service(
    arguments: argparse.Namespace, order: ServeOrder, server: ToolServer
) -> tuple[ModelService, AdapterSet]:
    _import_tokenizers()
    tokenizer = load_tokenizer(order.model_dir)

    def served(folder: Path, adapter: str | None = None) -> Served:
        template = load_serving_template(folder, tokenizer)
        engine = engine_of(
            server,
            order,
            tokenizer,
            template.stop_words,
            adapter,
            when_ended=lambda: _end_with(server),
        )
        return Served(engine, template)

    whole = served(order.model_dir)
    service = ModelService(
        whole.engine,
        whole.template,
        names=[arguments.name, *arguments.alias],
        limits=limits_of(arguments),
        defaults=defaults_of(arguments),
        fingerprint=arguments.fingerprint,
        adapters={name: served(folder, name) for name, folder in order.adapters.items()},
    )
    return service, AdapterSet(service, server, order, served)


def _end_with(server: ToolServer) -> None:
    """End this process at once: the gateway asks again where connections break unanswered."""
    logger.error("%s", server.why_ended())
    os._exit(BackendFailed.exit_code)


@contextmanager
def _ending_with(server: ToolServer) -> Iterator[None]:
    """End this process when the tool ends inside the block."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if not server.running:
                _end_with(server)

    threading.Thread(target=watch, name="tool watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
