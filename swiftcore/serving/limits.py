"""How much a client may ask of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost."""

    max_new_tokens: int = 512
    max_choices: int = 8
    max_prompts: int = 64
    max_concurrent_requests: int = 64
    max_body_bytes: int = 4 * 2**20
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 20.0
    request_timeout_seconds: float = 300.0
