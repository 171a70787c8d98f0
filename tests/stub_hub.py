"""A small server that speaks the used part of the APIs of both hubs, and a fixture around it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from swiftcore.data.sources.hub_clients import HuggingFace

COMMIT = "a" * 40
CARD = """---
configs:
- config_name: chat
  default: true
  data_files:
  - split: train
    path: chat/train-*.jsonl
  - split: test
    path: [chat/test.jsonl]
- config_name: tools
  data_files: "tools/**"
---
# A set
"""


def text_row(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


FILES = {
    "README.md": CARD.encode(),
    "set.py": b"raise SystemExit('a script of a dataset was run')",
    "chat/train-0.jsonl": text_row("chat train 0"),
    "chat/train-1.jsonl": text_row("chat train 1"),
    "chat/test.jsonl": text_row("chat test"),
    "tools/a.jsonl": text_row("tools a"),
}


class Hub(ThreadingHTTPServer):
    """Serves datasets by name; `broken` says which downloads give other bytes than listed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.datasets: dict[str, dict[str, bytes]] = {"org/set": dict(FILES)}
        self.commit = COMMIT
        self.codes: list[int] = []
        self.altered: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        self.server.asked.append(f"{self.command} {path}")
        if self.server.codes:
            self._send(self.server.codes.pop(0), b"{}")
        elif path.startswith("/api/v1/datasets/"):
            self._model_scope(path.removeprefix("/api/v1/datasets/"), query)
        elif path.startswith("/api/datasets/"):
            self._facts(path.removeprefix("/api/datasets/"))
        else:
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            self._content(name, rest.partition("/")[2])

    def _facts(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        files = self.server.datasets.get(name)
        if files is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("", "main", "v1", self.server.commit):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for path, content in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            item: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": blob}
            if path.endswith(".jsonl"):
                digest = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 1}
            siblings.append(item)
        facts = {"id": name, "sha": self.server.commit, "siblings": siblings, "tags": []}
        self._send(200, json.dumps(facts).encode())

    def _content(self, name: str, path: str) -> None:
        content = self.server.datasets[name].get(path)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if path in self.server.altered:
            content = content[::-1]
        self._send(200, content, {"X-Repo-Commit": self.server.commit, "ETag": etag})

    def _model_scope(self, rest: str, query: dict[str, list[str]]) -> None:
        name, _, what = rest.partition("/repo")
        files = self.server.datasets.get(name)
        if files is None:
            self._send(404, b'{"Code": 10010205001, "Message": "not found"}')
        elif what == "/tree":
            items = [
                {
                    "Path": path,
                    "Size": len(content),
                    "Sha256": hashlib.sha256(content).hexdigest(),
                    "Type": "blob",
                }
                for path, content in files.items()
            ]
            self._send(200, json.dumps({"Code": 200, "Data": {"Files": items}}).encode())
        else:
            path = query["FilePath"][0]
            content = files[path][::-1] if path in self.server.altered else files[path]
            self._send(200, content)

    def _send(self, code: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | (fields or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants

    server = Hub()
    for name, value in {
        "SWIFTCORE_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": server.url,
        "MODELSCOPE_ENDPOINT": server.url,
        "MODELSCOPE_HOME": str(tmp_path / "modelscope"),
        "MODELSCOPE_CACHE": str(tmp_path / "modelscope_cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # The library reads its switches when it is imported, long before this test.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(HuggingFace, "waits_seconds", (0.01, 0.01))
    monkeypatch.chdir(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
