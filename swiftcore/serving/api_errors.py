"""Refusals in the shape OpenAI clients understand: `{"error": {...}}` with the right status."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ApiError(Exception):
    """One refused or failed request.

    Args:
        status: HTTP status code.
        message: what was wrong, for a person.
        code: stable word for programs.
        param: the request field it is about.
        headers: further response headers.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        """Return the response body."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, _kind(self.status)),
                "param": self.param,
                "code": self.code,
            }
        }


_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def _kind(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """Return a 400."""
    return ApiError(400, message, code=code or "invalid_value", param=param)


def internal_error() -> ApiError:
    """Return a 500 that tells the client nothing about the inside; the log has the rest."""
    return ApiError(500, "the server failed on this request", code="internal_error")
