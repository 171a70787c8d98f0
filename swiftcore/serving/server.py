"""The command that serves one model folder: `python -m swiftcore.serving.server --model DIR`."""

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.atomic import write_text_synced
from swiftcore.errors import SwiftError
from swiftcore.lazy import import_without, uncollected
from swiftcore.models.quiet import quiet_imports
from swiftcore.processes import die_with_parent

if TYPE_CHECKING:
    from fastapi import FastAPI

    from swiftcore.serving.limits import Limits

API_KEY_VARIABLE = "SWIFTCORE_API_KEY"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    command = argparse.ArgumentParser(
        prog="python -m swiftcore.serving.server",
        allow_abbrev=False,
        description="Serve a model over the OpenAI API. Clients must send the key in "
        f"{API_KEY_VARIABLE} when that variable is set.",
    )
    add = command.add_argument
    add("--model", type=Path, required=True, help="model folder")
    add("--adapter", type=Path, help="adapter folder to put on the model")
    add("--name", required=True, help="model name that clients use")
    add("--alias", action="append", default=[], help="further name; may be repeated")
    add("--host", default="127.0.0.1", help="address to bind (default: this machine only)")
    add("--port", type=int, default=8000, help="port to bind; 0 takes a free one")
    add("--fd", type=int, help="listening socket inherited from the parent, instead of a port")
    add("--device", default="cpu", help="torch device")
    add("--num-threads", type=int, help="CPU threads of torch")
    add("--dtype", help="data type of the weights; default: as stored")
    add("--max-batch-size", type=int, default=8, help="requests generated together")
    add("--max-model-len", type=int, help="longest prompt plus answer, in tokens")
    add("--max-new-tokens", type=int, default=512, help="longest answer, in tokens")
    add("--max-concurrent-requests", type=int, default=64, help="more than these get a 429")
    add("--request-timeout", type=float, default=300.0, help="longest answer, in seconds")
    add("--fingerprint", help="identity of the release, shown to clients")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add("--error-file", type=Path, help="where to write, as JSON, why the server did not start")
    add("--parent", type=int, help="process id of a parent to die with")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code."""
    arguments = parser().parse_args(argv)
    quiet_imports()
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        serve(arguments)
    except SwiftError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if arguments.error_file:
            write_text_synced(arguments.error_file, json.dumps(error.as_dict()))
        return error.exit_code
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Load the model, bind, and serve.

    Raises:
        SwiftError: the model can't be loaded or the port is taken.
    """
    from swiftcore.serving.http_server import bind, make_server

    # Bound before the model is loaded: a taken port must not cost the minutes of loading.
    with (
        bind(arguments.host, arguments.port)
        if arguments.fd is None
        else socket.socket(fileno=arguments.fd)
    ) as listener:
        app, limits = _build_app(arguments)
        server = make_server(
            app,
            header_timeout_seconds=limits.header_timeout_seconds,
            log_level=arguments.log_level,
        )
        host, port = listener.getsockname()[:2]
        logging.getLogger(__name__).info("serving %s on http://%s:%d", arguments.name, host, port)
        server.run(sockets=[listener])


def _build_app(arguments: argparse.Namespace) -> "tuple[FastAPI, Limits]":
    from swiftcore.models import require_model_folder

    # Before the libraries are loaded: what is not there is said at once.
    require_model_folder(arguments.model)
    with uncollected():
        _import_engine(arguments)
    from swiftcore.generation.batcher import Batcher
    from swiftcore.generation.engine import TransformersEngine
    from swiftcore.models import load_tokenizer
    from swiftcore.serving.app import create_app
    from swiftcore.serving.chat import load_serving_template
    from swiftcore.serving.limits import Limits
    from swiftcore.serving.service import ModelService

    tokenizer = load_tokenizer(arguments.model)
    template = load_serving_template(arguments.adapter or arguments.model, tokenizer)
    engine = TransformersEngine.load(
        arguments.model,
        adapter_dir=arguments.adapter,
        tokenizer=tokenizer,
        device=arguments.device,
        num_threads=arguments.num_threads,
        dtype=arguments.dtype,
        stop_words=template.stop_words,
        max_model_len=arguments.max_model_len,
    )
    limits = Limits(
        max_new_tokens=arguments.max_new_tokens,
        max_concurrent_requests=arguments.max_concurrent_requests,
        request_timeout_seconds=arguments.request_timeout,
    )
    service = ModelService(
        Batcher(engine, max_batch_size=arguments.max_batch_size),
        template,
        names=[arguments.name, *arguments.alias],
        limits=limits,
        fingerprint=arguments.fingerprint,
    )
    return create_app(service, api_key=os.environ.get(API_KEY_VARIABLE) or None), limits


def _import_engine(arguments: argparse.Namespace) -> None:
    # Losses of object detection want scipy, accelerate's settings for SageMaker boto3.
    import_without("swiftcore.generation.engine", ("boto3", "scipy"))
    if arguments.adapter is None:
        return
    from swiftcore.models.loading import is_quantized

    if not is_quantized(arguments.model):
        # peft alone takes 0.4 CPU seconds, with bitsandbytes 2.6.
        import_without("peft", ("bitsandbytes", "datasets", "torchao"))


if __name__ == "__main__":
    sys.exit(main())
