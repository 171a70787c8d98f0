"""Which addresses may be asked, and how they are shown."""

import os
import re
import urllib.parse

from swiftcore.errors import UsageError

_HERE = {"localhost", "127.0.0.1", "::1"}
_SECRET = re.compile(r"sig|token|key|cred|secret|auth|pass|session", re.IGNORECASE)


def require_safe_url(url: str) -> None:
    """Check that an address is https, or http to this machine.

    Raises:
        UsageError: another scheme, no host, or plain http to another machine.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError as err:
        raise UsageError("an address can't be read", where=shown_url(url), found=err) from err
    allowed = parts.scheme == "http" and (
        host in _HERE or os.environ.get("SWIFTCORE_ALLOW_HTTP") == "1"
    )
    if not host or not (parts.scheme == "https" or allowed):
        raise UsageError(
            "the address is not one that data is fetched from",
            where=shown_url(url),
            found=f"{parts.scheme}:// to {host or 'no host'}",
            expected="https://, or http:// to this machine",
            do="use https, or set SWIFTCORE_ALLOW_HTTP=1 where everyone on the way is trusted",
        )


def shown_url(url: str) -> str:
    """Return an address without passwords and signatures, for messages, reports and records."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return re.sub(r"//[^/@]*@|\?.*", "//", url)
    query = [
        (name, "..." if _SECRET.search(name) else value)
        for name, value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urllib.parse.urlunsplit(
        (parts.scheme, host, parts.path, urllib.parse.urlencode(query), "")
    )
