"""How much a client may ask of a server, and what a request means that does not say."""

from dataclasses import dataclass

from swiftcore.serving.release import MAX_LOGPROBS


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost."""

    max_new_tokens: int = 512
    max_choices: int = 8
    max_logprobs: int = MAX_LOGPROBS
    max_prompts: int = 64
    max_concurrent_requests: int = 64
    max_body_bytes: int = 4 * 2**20
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 20.0
    request_timeout_seconds: float = 300.0


@dataclass(frozen=True)
class SamplingDefaults:
    """How tokens are chosen for a request that does not say; OpenAI's values unless set."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
