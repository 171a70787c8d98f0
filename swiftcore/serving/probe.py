"""Asking a server that is not public yet, and comparing its tokens and answers with golden ones."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from swiftcore.errors import GateRefused
from swiftcore.progress import Progress
from swiftcore.serving.release import Golden, Release

_SHOWN_CHARACTERS = 600
_SHOWN_TOKENS = 16
# Written out: a server may have other settings for requests without them.
_GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
# Least and most likely token of an exact tie, each wrong by half of bfloat16's step at logits of 16
# to 32 (0.125), twice: once in the tool, once where the answer was made.
ROUNDING_NATS = 0.25
_HELLO = Golden("", messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
_PAUSE_SECONDS = 0.2


def probe(
    release: Release,
    base_url: str,
    golden: Sequence[Golden],
    *,
    api_key: str | None,
    timeout_seconds: float,
    progress: Progress,
    names: Mapping[str, str] | None = None,
) -> int:
    """Check that a server answers, and repeats every golden answer; return how many it repeated.

    Each adapter has to answer too. `names` holds what to ask those by that are not public yet.

    Our own engine repeats an answer letter by letter. vLLM rounds otherwise, so that it may take
    the other one of two tokens that are as likely: there an answer passes as well when none of its
    tokens is `ROUNDING_NATS` less likely than what vLLM prefers in its place.

    Raises:
        GateRefused: it answers wrongly or not at all; prompt, expected and found are named.
    """
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(
        base_url=base_url, headers=headers, timeout=timeout_seconds, trust_env=False
    ) as client:
        for model in (release.names[0], *release.adapters):
            _ask(client, release, _HELLO, (names or {}).get(model, model))
        for each in golden:
            if each.trained_ids is not None:
                _compare_tokens(client, release, each)
        answers = [each for each in golden if each.expected is not None]
        for number, answer in enumerate(answers, 1):
            _compare(client, release, answer, number)
            progress.update(
                number, len(answers), f"golden answer {number} of {len(answers)} repeated"
            )
    return len(answers)


def _compare_tokens(client: Any, release: Release, golden: Golden) -> None:
    body = {"model": release.names[0], "messages": golden.messages, "tools": _tools(golden)}
    found = _post(client, release, "/v1/tokenize", body)["tokens"]
    expected = golden.trained_ids or []
    if found == expected:
        return
    place = next(
        (at for at, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    prompt = golden.messages[-1].get("content") if golden.messages else ""
    raise GateRefused(
        f"{release.label} makes other tokens of a conversation than training did",
        where=f"token {place} of prompt: {str(prompt)[:_SHOWN_CHARACTERS]}",
        found=_shown(client, release, found, place),
        expected=_shown(client, release, expected, place),
        do="serve the model's own swift_template.json and tokenizer files, as training wrote them; "
        "what was served before still is",
    )


def _shown(client: Any, release: Release, tokens: list[int], place: int) -> str:
    body = {"model": release.names[0], "tokens": tokens[place : place + _SHOWN_TOKENS]}
    text = _post(client, release, "/v1/detokenize", body)["prompt"]
    return f"{tokens[place : place + _SHOWN_TOKENS]} {text!r}"


def _compare(client: Any, release: Release, golden: Golden, number: int) -> None:
    found = _ask(client, release, golden)
    if found == golden.expected:
        return
    gap = None
    if release.infer_backend == "vllm" and golden.messages is not None:
        gap = _largest_gap(client, release, golden)
        if gap <= ROUNDING_NATS:
            return
    prompt = golden.messages[-1].get("content") if golden.messages else golden.prompt_ids
    expected = golden.expected or ""
    told = "" if gap is None else f"\n(it finds a token of the expected one {gap:.2f} nats less "
    told += "" if gap is None else f"likely than another; rounding explains {ROUNDING_NATS})"
    raise GateRefused(
        f"{release.label} does not repeat golden answer {number}",
        where=f"prompt: {str(prompt)[:_SHOWN_CHARACTERS]}",
        found=repr(found[:_SHOWN_CHARACTERS]) + told,
        expected=repr(expected[:_SHOWN_CHARACTERS]),
        do="the model is not served as it was evaluated: compare template settings, dtype and "
        "files with the evaluated ones; what was served before still is",
    )


def _largest_gap(client: Any, release: Release, golden: Golden) -> float:
    """Return by how many nats the served model would rather say something else, at its most.

    It is led along the expected answer, token by token: where it would have said the same but for
    rounding, each of its tokens is nearly the likeliest one.
    """
    body = {"model": release.names[0], "messages": golden.messages, "tools": _tools(golden)}
    body["answer"] = golden.expected
    return max(_post(client, release, "/v1/likelihood", body)["gaps"])


def _ask(client: Any, release: Release, golden: Golden, model: str | None = None) -> str:
    body: dict[str, Any] = {"model": model or release.names[0], **_GREEDY}
    body["max_tokens"] = min(golden.max_tokens or release.max_new_tokens, release.max_new_tokens)
    if golden.messages is not None:
        body |= {"messages": golden.messages, "tools": _tools(golden), "raw": True}
        path = "/v1/chat/completions"
    else:
        body["prompt"] = golden.prompt_ids
        path = "/v1/completions"
    choice = _post(client, release, path, body)["choices"][0]
    return choice["message"]["content"] if golden.messages is not None else choice["text"]


def _tools(golden: Golden) -> Any:
    tools = json.loads(golden.tools) if isinstance(golden.tools, str) else golden.tools
    return tools or None


def _post(client: Any, release: Release, path: str, body: dict[str, Any]) -> Any:
    import httpx

    deadline = time.monotonic() + client.timeout.read
    try:
        response = client.post(path, json=body)
        # A server that answers others already may have no place free.
        while response.status_code == 429 and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
            response = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise _no_answer(release, str(error) or type(error).__name__) from error
    if response.status_code != 200:
        raise _no_answer(release, f"status {response.status_code}: {response.text[:1000]}")
    return response.json()


def _no_answer(release: Release, found: str) -> GateRefused:
    return GateRefused(
        f"{release.label} did not answer the probe",
        found=found,
        expected="an answer with status 200",
        do="see the server's log; what was served before still is",
    )
