"""An OpenAI-compatible endpoint in a thread, which answers by a rule and can fail on purpose."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def answering(
    rule: Callable[[str], str], *, fail: Callable[[int], bool] = lambda number: False
) -> Iterator[str]:
    """Serve `rule` (last user message -> answer) and yield the address with /v1.

    `fail` gets the number of each request, from 1; where it is true the answer is a 500.
    """
    numbers = iter(range(1, 10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": "stub", "object": "model"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if fail(next(numbers)):
                self._send(500, {"error": {"message": "on purpose"}})
                return
            text = rule(asked["messages"][-1]["content"])
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            body = {"id": "x", "object": "chat.completion", "created": 1, "model": "stub"}
            self._send(200, {**body, "choices": [choice], "usage": usage})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            written = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
