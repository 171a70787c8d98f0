"""The command that serves one model folder: `python -m swiftcore.serving.server --model DIR`."""

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.atomic import write_text_synced
from swiftcore.errors import SwiftError, UsageError
from swiftcore.lazy import import_without, uncollected
from swiftcore.models.quiet import quiet_imports
from swiftcore.processes import die_with_parent
from swiftcore.serving.release import LOG_INTERVAL_SECONDS, MAX_LOGPROBS, OWNER

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from swiftcore.serving.adapter_set import AdapterSet
    from swiftcore.serving.limits import Limits, SamplingDefaults
    from swiftcore.serving.service import ModelService

API_KEY_VARIABLE = "SWIFTCORE_API_KEY"
# What a gateway changes the adapters with, and the path on the private port that it asks.
TOKEN_VARIABLE = "SWIFTCORE_SERVER_TOKEN"
ADAPTER_PATH = "/adapters"


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
    add("--max-logprobs", type=int, default=MAX_LOGPROBS, help="most likeliest tokens of one place")
    add(
        "--sampling-defaults",
        type=json.loads,
        default={},
        help="as JSON: temperature, top_p, top_k and repetition_penalty of a request without them",
    )
    add("--request-timeout", type=float, default=300.0, help="longest answer, in seconds")
    add("--owned-by", default=OWNER, help="whose the model is, in the list of models")
    add("--verbose", action="store_true", help="log every request, but not what it says")
    add(
        "--log-interval",
        type=int,
        default=LOG_INTERVAL_SECONDS,
        help="seconds between lines that say how fast tokens come; -1: never",
    )
    add("--fingerprint", help="identity of the release, shown to clients")
    add("--infer-backend", default="pt", help="engine: pt, vllm, sglang or lmdeploy")
    add("--backend-settings", type=json.loads, default={}, help="the tool's settings, as JSON")
    add("--named-adapter", action="append", default=[], help="NAME=FOLDER; may be repeated")
    add("--backends-dir", type=Path, help="where the environments of tools are")
    add("--log-file", type=Path, help="where this process's output goes, for that of a tool")
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
        SwiftError: the model can't be loaded, its tool does not start, or the port is taken.
    """
    from swiftcore.serving.http_server import bind, make_server

    # Bound before the model is loaded: a taken port must not cost the minutes of loading.
    with (
        (
            bind(arguments.host, arguments.port)
            if arguments.fd is None
            else socket.socket(fileno=arguments.fd)
        ) as listener,
        _service(arguments) as (service, adapters),
    ):
        from swiftcore.serving.app import create_app

        app = create_app(
            service,
            api_key=os.environ.get(API_KEY_VARIABLE) or None,
            owned_by=arguments.owned_by,
            verbose=arguments.verbose,
            log_interval_seconds=arguments.log_interval,
        )
        server = make_server(
            _with_adapter_road(app, adapters),
            header_timeout_seconds=service.limits.header_timeout_seconds,
            log_level=arguments.log_level,
        )
        host, port = listener.getsockname()[:2]
        logging.getLogger(__name__).info("serving %s on http://%s:%d", arguments.name, host, port)
        server.run(sockets=[listener])


def _with_adapter_road(app: "ASGIApp", adapters: "AdapterSet | None") -> "ASGIApp":
    """Put the private road before a tool's service, where a gateway holds the other end."""
    token = os.environ.pop(TOKEN_VARIABLE, None)
    if adapters is None or token is None:
        return app
    from swiftcore.serving.adapter_road import AdapterRoad

    return AdapterRoad(app, adapters, token)


@contextmanager
def _service(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[ModelService, AdapterSet | None]]":
    """Yield what is served, and what changes its adapters; a tool runs as long as the block."""
    from swiftcore.models import require_model_folder

    # Before the libraries are loaded: what is not there is said at once.
    require_model_folder(arguments.model)
    if arguments.infer_backend == "pt":
        yield _own_service(arguments), None
        return
    from swiftcore.serving.tool_serving import tool_service

    with tool_service(arguments) as (service, adapters):
        yield service, adapters


def limits_of(arguments: argparse.Namespace) -> "Limits":
    """Return what a client may ask for."""
    from swiftcore.serving.limits import Limits

    return Limits(
        max_new_tokens=arguments.max_new_tokens,
        max_concurrent_requests=arguments.max_concurrent_requests,
        max_logprobs=arguments.max_logprobs,
        request_timeout_seconds=arguments.request_timeout,
    )


def defaults_of(arguments: argparse.Namespace) -> "SamplingDefaults":
    """Return how a request is answered that does not say."""
    from swiftcore.serving.limits import SamplingDefaults

    return SamplingDefaults(**arguments.sampling_defaults)


def _own_service(arguments: argparse.Namespace) -> "ModelService":
    if arguments.named_adapter:
        raise UsageError(
            "transformers serves one model a process, and no adapters beside it",
            where="--named-adapter",
            found=", ".join(arguments.named_adapter),
            do="serve with infer_backend vllm, or deploy each adapter under a name of its own",
        )
    with uncollected():
        _import_engine(arguments)
    from swiftcore.generation.batcher import Batcher
    from swiftcore.generation.engine import TransformersEngine
    from swiftcore.models import load_tokenizer
    from swiftcore.serving.chat import load_serving_template
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
    return ModelService(
        Batcher(engine, max_batch_size=arguments.max_batch_size),
        template,
        names=[arguments.name, *arguments.alias],
        limits=limits_of(arguments),
        defaults=defaults_of(arguments),
        fingerprint=arguments.fingerprint,
    )


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
