"""A small server that takes uploads of models as the Hugging Face hub does, and keeps them."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest


class ModelHub(ThreadingHTTPServer):
    """`repos` are the repositories by name: private or not, files, and commit messages."""

    daemon_threads = True
    token = "hf_right"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._may():
            return
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._send(200, {"errors": [], "warnings": []})

    def do_GET(self) -> None:
        if not self._may():
            return
        name = self.path.removeprefix("/api/models/").partition("?")[0]
        repo = self.server.repos[name]
        self._send(200, {"id": name, "private": repo["private"], "siblings": [], "tags": []})

    def _may(self) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if not allowed:
            self._send(401, {"error": "Invalid token"})
        return allowed

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        code = 409 if name in self.server.repos else 200
        repo = {
            "private": asked.get("private", asked.get("visibility") == "private"),
            "files": {},
            "messages": [],
        }
        self.server.repos.setdefault(name, repo)
        self._send(code, {"url": f"{self.server.url}/{name}", "id": name, "name": name})

    def _commit(self, body: bytes) -> None:
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        repo = self.server.repos[name]
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                repo["messages"].append(entry["value"]["summary"])
            else:
                content = base64.b64decode(entry["value"]["content"])
                repo["files"][entry["value"]["path"]] = content
        url = f"{self.server.url}/{name}/commit/1"
        self._send(200, {"commitUrl": url, "commitOid": "1", "success": True})

    def _send(self, code: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """Serve until the block ends, as the hub that the environment names, with the right token."""
    server = ModelHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        # The library reads its switches when it is imported, long before this test.
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_TOKEN", server.token)
        yield server
    server.shutdown()
    server.server_close()
