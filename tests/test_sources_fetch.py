"""Files from a server: fetched once, asked about afterwards, resumed, verified, bounded."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swiftcore.data import source_files
from swiftcore.data.readers.files import read_rows
from swiftcore.data.sources import download
from swiftcore.data.sources.fetch import fetch_url
from swiftcore.data.sources.links import shown_url
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.recipe.sections import DataSection

ROWS = b"".join(json.dumps({"n": n, "text": "x" * 40}).encode() + b"\n" for n in range(5000))
SHA256 = hashlib.sha256(ROWS).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` and misbehaves as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = ROWS
        self.fields: dict[str, str] = {"ETag": '"one"'}
        self.break_after: list[int] = []
        self.codes: list[int] = []
        self.requests: list[dict[str, str]] = []
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/sets/rows.jsonl"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        server.requests.append(dict(self.headers))
        if server.codes:
            self._head(server.codes.pop(0), {"Content-Length": "0"})
            return
        if self.path.startswith("/away"):
            self._head(302, {"Location": "http://example.invalid/x", "Content-Length": "0"})
            return
        if self.headers.get("If-None-Match") == server.fields.get("ETag", "-"):
            self._head(304, {})
            return
        start, code, fields = 0, 200, dict(server.fields)
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == server.fields.get("ETag"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            code = 206
            fields["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        fields.setdefault("Content-Length", str(len(body)))
        self._head(code, fields)
        cut = server.break_after.pop(0) if server.break_after else len(body)
        self.wfile.write(body[:cut])
        server.sent_bytes += len(body[:cut])
        self.close_connection = True

    def _head(self, code: int, fields: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SWIFTCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(download, "_WAITS_SECONDS", (0.01, 0.01, 0.01))
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_asked_about_afterwards(server):
    first = fetch_url(server.url)
    assert first.path.read_bytes() == ROWS
    assert first.path.name == "rows.jsonl"
    assert first.provenance == {"url": server.url, "etag": '"one"', "sha256": SHA256}
    second = fetch_url(server.url)
    assert second == first
    assert server.requests[1]["If-None-Match"] == '"one"'
    assert server.sent_bytes == len(ROWS)


def test_a_changed_file_is_noticed_and_fetched_beside_the_old_one(server):
    old = fetch_url(server.url)
    server.content, server.fields = b'{"n": 1}\n', {"ETag": '"two"'}
    new = fetch_url(server.url)
    assert new.path.read_bytes() == b'{"n": 1}\n'
    assert old.path.read_bytes() == ROWS
    assert new.provenance["etag"] == '"two"'


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server):
    server.break_after = [100_000, 50_000]
    assert fetch_url(server.url).path.read_bytes() == ROWS
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert server.sent_bytes == len(ROWS)


def test_another_process_resumes_what_one_left_unless_the_file_changed(server):
    server.break_after = [100_000] + [0] * 3
    with pytest.raises(TransientError) as caught:
        fetch_url(server.url)
    assert caught.value.exit_code == 6
    server.content, server.fields = ROWS[::-1], {"ETag": '"two"'}
    assert fetch_url(server.url).path.read_bytes() == ROWS[::-1]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server):
    server.codes = [503, 429]
    assert fetch_url(server.url).path.read_bytes() == ROWS
    server.codes = [404]
    with pytest.raises(DataError, match="nothing is at this address"):
        fetch_url(server.url + "x")
    assert len(server.requests) == 4


def test_a_pinned_file_is_verified_and_then_needs_no_question(server):
    entry = f"{server.url}#sha256={SHA256}#7"
    (file,) = source_files(DataSection(dataset=[entry]))
    assert file.spec.sample == 7
    assert file.name == server.url
    assert file.provenance == {"url": server.url, "etag": '"one"', "sha256": SHA256}
    assert sum(1 for _ in read_rows(file.path, file.name)) == 5000
    source_files(DataSection(dataset=[entry]))
    assert len(server.requests) == 1
    with pytest.raises(DataError, match="not the expected one") as caught:
        fetch_url(server.url + "?v=2", sha256="0" * 64)
    assert SHA256 in (caught.value.found or "")


@pytest.mark.parametrize(
    "field",
    [
        {"Repr-Digest": "sha-256=:%s:"},
        {"Digest": "SHA-256=%s"},
        {"x-amz-checksum-sha256": "%s"},
    ],
)
def test_a_digest_that_the_server_states_is_checked(server, field):
    ((name, form),) = field.items()
    server.fields[name] = form % base64.b64encode(hashlib.sha256(ROWS).digest()).decode()
    fetch_url(server.url)
    server.fields[name] = form % base64.b64encode(bytes(32)).decode()
    with pytest.raises(DataError, match="not the expected one"):
        fetch_url(server.url + "?other")


def test_offline_takes_what_is_here_and_fails_at_once_for_the_rest(server, monkeypatch):
    fetched = fetch_url(server.url)
    monkeypatch.setenv("SWIFTCORE_OFFLINE", "1")
    assert fetch_url(server.url) == fetched
    with pytest.raises(EnvironmentMissing) as caught:
        fetch_url(server.url.replace("rows", "row"))
    assert server.url in (caught.value.expected or "")
    assert len(server.requests) == 1


def test_a_server_that_is_away_is_worth_another_try(server):
    with pytest.raises(TransientError):
        fetch_url("http://127.0.0.1:9/rows.jsonl")


def test_a_file_beyond_the_limit_is_refused_said_or_unsaid(server, monkeypatch):
    monkeypatch.setenv("SWIFTCORE_MAX_DOWNLOAD_BYTES", "1000")
    with pytest.raises(EnvironmentMissing, match="larger than allowed"):
        fetch_url(server.url)
    assert server.sent_bytes < 2**20
    monkeypatch.setenv("SWIFTCORE_MAX_DOWNLOAD_BYTES", "much")
    with pytest.raises(UsageError, match="no number"):
        fetch_url(server.url)


@pytest.mark.parametrize("url", ["http://example.com/a.jsonl", "ftp://localhost/a", "https:///a"])
def test_other_addresses_are_never_asked(url):
    with pytest.raises(UsageError):
        fetch_url(url)


def test_a_redirect_leads_nowhere_the_address_itself_could_not(server):
    with pytest.raises(UsageError, match="not one that data is fetched from"):
        fetch_url(server.url.replace("/sets/", "/away/"))


def test_signatures_and_passwords_are_shown_nowhere(server):
    url = server.url.replace("//", "//me:secret@") + "?X-Amz-Signature=abc&part=3"
    assert shown_url(url) == server.url + "?X-Amz-Signature=...&part=3"


def test_a_body_that_the_server_packed_is_read_as_packed(server):
    import gzip

    server.content = gzip.compress(ROWS)
    server.fields["Content-Encoding"] = "gzip"
    found = fetch_url(server.url)
    assert found.path.name == "rows.jsonl.gz"
    assert sum(1 for _ in read_rows(found.path)) == 5000


def test_an_address_of_unknown_scheme_names_those_that_work(server):
    with pytest.raises(EnvironmentMissing, match="gopher") as caught:
        source_files(DataSection(dataset=["gopher://host/a.jsonl"]))
    assert "s3" in (caught.value.found or "")
