"""A served tiny model inside the test process, on a real socket."""

import contextlib
import threading
import time
from types import SimpleNamespace

from tiny_model import build_model, build_tokenizer


class ToyTemplate:
    """ChatML with hermes calls, as far as the server's tests need a template."""

    stop_words = ("<|im_end|>",)

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.rows = []

    def encode(self, row, *, mode):
        assert mode == "infer"
        self.rows.append(row)
        text = "".join(
            f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"]
        )
        return SimpleNamespace(input_ids=self._tokenizer.encode(text + "<|im_start|>assistant\n"))

    def parse_tool_calls(self, text, tools):
        return SimpleNamespace(calls=[], text=text)


@contextlib.contextmanager
def serve_in_thread(
    *, api_key=None, max_batch_size=16, engine_of=None, app=None, defaults=None, **limits
):
    """Serve and yield (base address, service).

    `engine_of` makes another engine from ours, `app` holds further settings of the application,
    `defaults` the sampling of requests that name none.
    """
    import torch

    from swiftcore.generation import Batcher, TransformersEngine
    from swiftcore.serving.app import create_app
    from swiftcore.serving.http_server import bind, make_server
    from swiftcore.serving.limits import Limits, SamplingDefaults
    from swiftcore.serving.service import ModelService

    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    template = ToyTemplate(tokenizer)
    engine = TransformersEngine(build_model(tokenizer), tokenizer, stop_words=template.stop_words)
    serving = engine_of(engine) if engine_of else Batcher(engine, max_batch_size=max_batch_size)
    service = ModelService(
        serving,
        template,
        names=["tiny", "tiny@1"],
        limits=Limits(**{"max_new_tokens": 64, **limits}),
        defaults=SamplingDefaults(**(defaults or {})),
        fingerprint="f00d",
    )
    listener = bind("127.0.0.1", 0)
    server = make_server(
        create_app(service, api_key=api_key, **(app or {})),
        header_timeout_seconds=service.limits.header_timeout_seconds,
        log_level="warning",
        drain_seconds=2,
    )
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join(20)
