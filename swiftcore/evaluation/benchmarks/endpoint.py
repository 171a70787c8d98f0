"""A served model that answers through OpenAI's chat completions, many requests at a time.

What goes wrong for a while (no connection, a time-out, 408, 429, 5xx, an answer that is no chat
completion) is tried again with growing pauses; a row that still has no answer counts as failed. A
refused key ends the evaluation, and so does an endpoint that has stopped answering altogether.
"""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any

from swiftcore.errors import EnvironmentMissing, TransientError, UsageError
from swiftcore.evaluation.answering import Answer, Call, Row
from swiftcore.evaluation.benchmarks.responding import refuse_likelihoods
from swiftcore.generation import Completion, SamplingParams
from swiftcore.progress import Progress

_MAX_BYTES = 32 << 20
_MAX_PAUSE_SECONDS = 30.0
_PASSING = {408, 409, 425, 429}
# Rows in a row without any answer from the address, after which nothing is to be hoped for.
_SILENT_ROWS = 10


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Args:
        url: base address, such as http://127.0.0.1:8000/v1.
        model: name of the model there; None takes the first that it lists.
        num_concurrent: requests at a time.
        timeout_seconds: longest wait for one answer.
        num_retries: further tries of a request.
        backoff_seconds: first pause; each further one is twice as long, and half of it by chance.
    """

    url: str
    model: str | None = None
    num_concurrent: int = 16
    timeout_seconds: float = 300.0
    num_retries: int = 4
    backoff_seconds: float = 1.0


class Unanswered(Exception):
    """One request came to nothing; `silent` when the address did not answer at all."""

    def __init__(self, why: str, *, passing: bool, silent: bool = False, pause: float = 0) -> None:
        super().__init__(why)
        self.passing = passing
        self.silent = silent
        self.pause = pause


class EndpointModel:
    """A served model as a responder.

    Args:
        settings: where and how it is asked.
        api_key: sent as a bearer token.
        flag: that named the address, for errors.

    Raises:
        EnvironmentMissing: nothing answers at the address.
        UsageError: the key is refused, or the endpoint lists no model and none is named.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        api_key: str | None = None,
        flag: str = "--eval_url",
    ) -> None:
        base = settings.url.rstrip("/").removesuffix("/chat/completions")
        if not base.startswith(("http://", "https://")):
            raise UsageError(
                "The address of an endpoint is not one.",
                where=flag,
                found=settings.url,
                expected="http://HOST:PORT/v1",
            )
        self._settings, self._base, self._key, self._flag = settings, base, api_key, flag
        self._count = threading.Lock()
        self._stopped = threading.Event()
        self._silent_rows = 0
        self.num_retried = 0
        self.model = settings.model or self._first_model()

    def as_dict(self) -> dict[str, Any]:
        """Return what the report says about the endpoint."""
        fields = asdict(self._settings) | {"model": self.model, "num_retried": self.num_retried}
        # A key may stand in an address.
        return fields | {"url": self._base.partition("?")[0].rpartition("@")[2]}

    def answer(
        self,
        rows: Sequence[Row],
        params: SamplingParams | Sequence[SamplingParams],
        progress: Progress,
    ) -> list[Answer]:
        """Ask all rows, in one way or each in its own, and return their answers in order.

        Raises:
            UsageError: the key is refused.
            TransientError: the endpoint has stopped answering.
        """
        ways = [params] * len(rows) if isinstance(params, SamplingParams) else params
        answers: list[Answer | None] = [None] * len(rows)
        self._silent_rows = 0
        pool = ThreadPoolExecutor(self._settings.num_concurrent)
        try:
            places: dict[Future[Answer], int] = {
                pool.submit(self._answer, row, way): place
                for place, (row, way) in enumerate(zip(rows, ways, strict=True))
            }
            pending = set(places)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    answers[places[future]] = future.result()
                progress.update(len(rows) - len(pending), len(rows), f"{len(pending)} to come")
        finally:
            self._stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._stopped.clear()
        return [answer for answer in answers if answer is not None]

    def compare(
        self, rows: Sequence[Row], choices: Sequence[Sequence[str]], progress: Progress
    ) -> list[Answer]:
        """Refuse: an endpoint gives no likelihoods of given texts."""
        raise refuse_likelihoods()

    def score_texts(self, texts: Sequence[str], progress: Progress) -> list[Answer]:
        """Refuse: an endpoint gives no likelihoods of given texts."""
        raise refuse_likelihoods()

    def _answer(self, row: Row, params: SamplingParams) -> Answer:
        prompt = "\n".join(f"{m['role']}: {m['content']}" for m in row["messages"])
        try:
            reply = self._tried("/chat/completions", _request(self.model, row, params))
        except Unanswered as err:
            self._note_silence(err)
            return Answer(prompt, None, str(err))
        with self._count:
            self._silent_rows = 0
        return _read_reply(reply, prompt)

    def _note_silence(self, err: Unanswered) -> None:
        with self._count:
            self._silent_rows = self._silent_rows + 1 if err.silent else 0
            silent = self._silent_rows
        if silent >= max(_SILENT_ROWS, self._settings.num_concurrent):
            self._stopped.set()
            raise TransientError(
                "The endpoint has stopped answering.",
                where=self._base,
                found=f"{silent} questions one after another: {err}",
                expected="answers",
                do="see whether the server still runs, then run again",
            ) from err

    def _tried(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Send a request until it is answered, or its tries are used up."""
        pause = self._settings.backoff_seconds
        for left in range(self._settings.num_retries, -1, -1):
            try:
                return self._sent(path, body)
            except Unanswered as err:
                if not err.passing or not left or self._stopped.is_set():
                    raise
                wanted = max(err.pause, pause * (0.5 + random.random() / 2))
            with self._count:
                self.num_retried += 1
            self._stopped.wait(min(wanted, _MAX_PAUSE_SECONDS))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _sent(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, headers)
        limit = self._settings.timeout_seconds
        try:
            with urllib.request.urlopen(request, timeout=limit) as response:
                written = _read_within(response, time.monotonic() + limit)
        except urllib.error.HTTPError as err:
            raise self._refusal(err) from err
        except (OSError, http.client.HTTPException) as err:
            reason = getattr(err, "reason", None) or err
            why = f"no answer from the endpoint: {type(reason).__name__}: {reason}"
            raise Unanswered(why, passing=True, silent=True) from err
        try:
            reply = json.loads(written)
        except ValueError as err:
            raise Unanswered(_garbage(written), passing=True) from err
        if not isinstance(reply, dict) or (body is not None and not _is_completion(reply)):
            raise Unanswered(_garbage(written), passing=True)
        return reply

    def _refusal(self, err: urllib.error.HTTPError) -> Exception:
        said = err.read(500).decode("utf-8", errors="replace")
        if err.code in (401, 403):
            return UsageError(
                "The endpoint refuses the key.",
                where=self._base,
                found=f"status {err.code}: {said}",
                expected="a key that it knows",
                do="set OPENAI_API_KEY",
            )
        pause = err.headers.get("Retry-After", "")
        return Unanswered(
            f"status {err.code} from the endpoint: {said}",
            passing=err.code >= 500 or err.code in _PASSING,
            pause=float(pause) if pause.isdecimal() else 0,
        )

    def _first_model(self) -> str:
        try:
            listed = self._tried("/models", None).get("data")
        except Unanswered as err:
            raise EnvironmentMissing(
                "No endpoint answers there.",
                where=self._base,
                found=str(err),
                expected="an OpenAI-compatible endpoint",
                do=f"start it (swift deploy), or mend {self._flag}; --model names the model there",
            ) from err
        names = [m.get("id") for m in listed or () if isinstance(m, Mapping)]
        if not names or not isinstance(names[0], str):
            raise UsageError(
                "The endpoint lists no model.",
                where=f"{self._base}/models",
                found=listed,
                do="name the model with --model",
            )
        return names[0]


def _read_within(response: Any, deadline: float) -> bytes:
    """Read an answer that may come in drops, up to a time and a size."""
    pieces, size = [], 0
    while piece := response.read1(65536):
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_BYTES:
            raise Unanswered(f"an answer of more than {_MAX_BYTES} bytes", passing=False)
        if time.monotonic() > deadline:
            raise Unanswered("the answer takes longer than the time-out", passing=True)
    return b"".join(pieces)


def _request(model: str, row: Row, params: SamplingParams) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": list(row["messages"]),
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": params.seed,
    }
    # OpenAI's own service refuses fields that it does not know.
    if params.stop:
        body["stop"] = list(params.stop)
    if params.top_k:
        body["top_k"] = params.top_k
    if params.repetition_penalty != 1:
        body["repetition_penalty"] = params.repetition_penalty
    if row.get("tools"):
        body["tools"] = row["tools"]
    return body


def _is_completion(reply: Mapping[str, Any]) -> bool:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        return False
    message = choices[0].get("message")
    return isinstance(message, Mapping) and isinstance(message.get("content"), str | None)


def _read_reply(reply: Mapping[str, Any], prompt: str) -> Answer:
    choice = reply["choices"][0]
    message, usage = choice["message"], reply.get("usage")
    counted = usage if isinstance(usage, Mapping) else {}
    completion = Completion(
        [],
        message.get("content") or "",
        "length" if choice.get("finish_reason") == "length" else "stop",
        _whole(counted.get("prompt_tokens")),
        _whole(counted.get("completion_tokens")),
    )
    calls = message.get("tool_calls")
    read = tuple(map(_call, calls)) if isinstance(calls, list) else ()
    return Answer(prompt, completion, None, read, reasoning=_reasoning(message))


def _reasoning(message: Mapping[str, Any]) -> str:
    """Return thinking that a server parts from the answer, under the names vLLM and others use."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            return message[name]
    return ""


def _call(written: Any) -> Call:
    function = written.get("function") if isinstance(written, Mapping) else None
    if not isinstance(function, Mapping):
        return Call("", None)
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        arguments = None
    known = arguments if isinstance(arguments, dict) else None
    return Call(str(function.get("name", "")), known)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _garbage(written: bytes) -> str:
    shown = written[:200].decode("utf-8", errors="replace")
    return f"what the endpoint answers is no chat completion: {shown!r}"
