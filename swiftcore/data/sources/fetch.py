"""Files from `https://`: fetched once, asked about afterwards, verified, resumed.

A second fetch asks the server whether the file changed (ETag, Last-Modified) and keeps the copy
that is here when it did not. With `#sha256=` the copy in the cache needs no question at all.
"""

import base64
import contextlib
import http.client
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import IO

from swiftcore.data.sources.cache import ContentCache, Fetched, is_offline, place_key
from swiftcore.data.sources.download import TIMEOUT_SECONDS, Answer, Away, download
from swiftcore.data.sources.links import require_safe_url, shown_url
from swiftcore.errors import DataError, EnvironmentMissing, TransientError
from swiftcore.progress import Progress

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_NOT_FOUND = {404, 410}
_REFUSED = {401, 402, 403, 407}
_DIGEST_FIELD = re.compile(r"(sha-256|md5|sha256)=:?([A-Za-z0-9+/]+=*):?", re.IGNORECASE)


class _Unchanged(Exception):
    """The server says that the copy which is here is still the file."""


def fetch_url(
    url: str,
    *,
    sha256: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Return the file at an `https://` address; `http://` is for this machine only.

    Args:
        url: the address, without fragment.
        sha256: digest the file must have.
        offline: use the copy that is here and ask nobody; default: as the environment says.
        progress: told the bytes that are here.

    Raises:
        UsageError: an address that may not be asked.
        DataError: nothing is there, or the file is not the expected one.
        EnvironmentMissing: offline and not fetched before, or the server refuses.
        TransientError: the server is away.
    """
    require_safe_url(url)
    cache, key, shown = ContentCache(), place_key(url), shown_url(url)
    name = _file_name(url)
    with cache.lock(key):
        known = cache.noted(key)
        path = cache.find(sha256 or known.get("sha256", ""), known.get("name", name))
        if path is not None and (sha256 is not None or is_offline_now(offline)):
            return Fetched(path, shown, _provenance(shown, known, sha256))
        if is_offline_now(offline):
            raise not_here(cache, shown)
        source = _Source(url, shown, known if path is not None else {})
        try:
            part, found = download(source.ask, cache, key, shown, sha256=sha256, progress=progress)
        except _Unchanged:
            assert path is not None, "the server was only asked about a copy that is here"
            return Fetched(path, shown, _provenance(shown, known, None))
        name += ".gz" if source.is_packed and not name.lower().endswith(".gz") else ""
        facts = {"url": shown, "name": name, "sha256": found} | source.validators
        path = cache.keep(part, found, name)
        cache.note(key, facts)
        return Fetched(path, shown, _provenance(shown, facts, None))


def is_offline_now(offline: bool | None) -> bool:
    """Return what the caller says, or else what the environment says."""
    return is_offline() if offline is None else offline


def not_here(cache: ContentCache, shown: str) -> EnvironmentMissing:
    """Return the error for an address that was never fetched and may not be asked."""
    nearest = cache.nearest(shown)
    return EnvironmentMissing(
        "the file was not fetched before, and this process is offline",
        where=shown,
        found=f"no copy of it in {cache.root}",
        expected=f"perhaps {nearest}" if nearest else "a local file",
        do="unset SWIFTCORE_OFFLINE, or download it and give the local file",
    )


class _Source:
    """One address, asked again until the file is whole.

    Args:
        url: the address.
        shown: the address as messages may show it.
        known: validators of the copy that is here.
    """

    def __init__(self, url: str, shown: str, known: dict[str, str]) -> None:
        self._url, self._shown, self._known = url, shown, known
        self._opener = urllib.request.build_opener(_SafeRedirects())
        self.validators: dict[str, str] = {}
        self.is_packed = False

    def ask(self, start: int, validator: str) -> Answer:
        """Open the file from a byte on."""
        fields = {"Accept-Encoding": "identity", "User-Agent": "swiftcore"}
        if start:
            fields |= {"Range": f"bytes={start}-", "If-Range": validator}
        elif "etag" in self._known:
            fields["If-None-Match"] = self._known["etag"]
        elif "last_modified" in self._known:
            fields["If-Modified-Since"] = self._known["last_modified"]
        request = urllib.request.Request(self._url, headers=fields)
        try:
            answer = self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as err:
            with contextlib.closing(err):
                return self._refused(err, start)
        except urllib.error.URLError as err:
            raise self._unreachable(err) from err
        except (OSError, http.client.HTTPException) as err:
            raise Away(str(err) or type(err).__name__) from err
        return self._answer(answer)

    def _answer(self, answer: "http.client.HTTPResponse") -> Answer:
        fields = answer.headers
        names = {"etag": "ETag", "last_modified": "Last-Modified"}
        self.validators = {k: fields[name] for k, name in names.items() if fields[name]}
        self.is_packed = (fields["Content-Encoding"] or "").lower() in ("gzip", "x-gzip")
        start, size = 0, _whole_number(fields["Content-Length"])
        if answer.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", fields["Content-Range"] or "")
            if match is None:
                raise Away(f"a part without its place: {fields['Content-Range']}")
            start, size = int(match.group(1)), _whole_number(match.group(2))
        etag = self.validators.get("etag", "")
        # A weak ETag promises no equal bytes, so nothing can be resumed by it.
        strong = etag if not etag.startswith("W/") else ""
        validator = strong or self.validators.get("last_modified", "")
        return Answer(answer, start, size, validator, _digests(fields, answer.status))

    def _refused(self, err: urllib.error.HTTPError, start: int) -> Answer:
        if err.code == 304:
            raise _Unchanged
        if err.code == 416 and start:
            # The part that is here is longer than the file: it changed. Begin again.
            return self.ask(0, "")
        found = f"HTTP {err.code} {err.reason}"
        if err.code in _BUSY:
            raise Away(found)
        if err.code in _REFUSED:
            raise EnvironmentMissing(
                "the server refuses the file to this user",
                where=self._shown,
                found=found,
                do="use an address that needs no login, or download it and give the local file",
            ) from err
        problem = "nothing is at this address" if err.code in _NOT_FOUND else "the server refuses"
        raise DataError(problem, where=self._shown, found=found, do="correct the address") from err

    def _unreachable(self, err: urllib.error.URLError) -> Exception:
        reason = err.reason
        if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
            return DataError(
                "the server of this address is not known",
                where=self._shown,
                found=reason.strerror,
                do="correct the address, or check the network",
            )
        if isinstance(reason, socket.gaierror):
            return TransientError(
                "the server's name can't be looked up for the moment",
                where=self._shown,
                found=reason.strerror,
                do="check the network and run the same command again, or give a local file",
            )
        return Away(str(reason))


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to where the address itself could have led."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        require_safe_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _digests(fields: Message, status: int) -> dict[str, str]:
    """Return the digests of the whole file that a server states (RFC 9530 and older habits)."""
    stated = [fields["Repr-Digest"], fields["Digest"], fields["x-goog-hash"]]
    amazon = fields["x-amz-checksum-sha256"]
    stated.append(f"sha-256={amazon}" if amazon and "-" not in amazon else None)
    if status == 200 and fields["Content-MD5"]:
        stated.append(f"md5={fields['Content-MD5']}")
    found: dict[str, str] = {}
    for algorithm, value in _DIGEST_FIELD.findall(" ".join(text for text in stated if text)):
        with contextlib.suppress(ValueError):
            name = algorithm.lower().replace("-", "")
            found[name] = base64.b64decode(value, validate=True).hex()
    return {name: digest for name, digest in found.items() if len(digest) in (32, 64)}


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _file_name(url: str) -> str:
    """Return the last part of the path, without what no file name may hold."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rstrip("/").rpartition("/")[2]
    safe = re.sub(r"[^\w.-]", "_", last).lstrip(".")
    return safe[-120:] or "file"


def _provenance(shown: str, facts: dict[str, str], sha256: str | None) -> dict[str, str]:
    names = ("etag", "last_modified", "sha256")
    known = {name: facts[name] for name in names if facts.get(name)}
    # A pin says what the content is; the validators may belong to another content by now.
    return {"url": shown} | ({"sha256": sha256} if sha256 else known)
