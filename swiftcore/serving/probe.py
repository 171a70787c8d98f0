"""Asking a server that is not public yet, and comparing its answers with the golden ones."""

import json
from collections.abc import Sequence
from typing import Any

from swiftcore.errors import GateRefused
from swiftcore.progress import Progress
from swiftcore.serving.release import Golden, Release

_SHOWN_CHARACTERS = 600


def probe(
    release: Release,
    base_url: str,
    golden: Sequence[Golden],
    *,
    api_key: str | None,
    timeout_seconds: float,
    progress: Progress,
) -> int:
    """Check that a server answers, and repeats every golden answer; return how many it repeated.

    Raises:
        GateRefused: it answers wrongly or not at all; prompt, expected and found are named.
    """
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(
        base_url=base_url, headers=headers, timeout=timeout_seconds, trust_env=False
    ) as client:
        _ask(
            client, release, Golden("", messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
        )
        for number, answer in enumerate(golden, 1):
            _compare(client, release, answer, number)
            progress.update(
                number, len(golden), f"golden answer {number} of {len(golden)} repeated"
            )
    return len(golden)


def _compare(client: Any, release: Release, golden: Golden, number: int) -> None:
    found = _ask(client, release, golden)
    if found == golden.expected:
        return
    prompt = golden.messages[-1].get("content") if golden.messages else golden.prompt_ids
    raise GateRefused(
        f"{release.label} does not repeat golden answer {number}",
        where=f"prompt: {str(prompt)[:_SHOWN_CHARACTERS]}",
        found=repr(found[:_SHOWN_CHARACTERS]),
        expected=repr(golden.expected[:_SHOWN_CHARACTERS]),
        do="the model is not served as it was evaluated: compare template settings, dtype and "
        "files with the evaluated ones; what was served before still is",
    )


def _ask(client: Any, release: Release, golden: Golden) -> str:
    import httpx

    body: dict[str, Any] = {"model": release.name, "temperature": 0}
    body["max_tokens"] = min(golden.max_tokens or release.max_new_tokens, release.max_new_tokens)
    if golden.messages is not None:
        tools = json.loads(golden.tools) if isinstance(golden.tools, str) else golden.tools
        body |= {"messages": golden.messages, "tools": tools or None, "raw": True}
        path = "/v1/chat/completions"
    else:
        body["prompt"] = golden.prompt_ids
        path = "/v1/completions"
    try:
        response = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise _no_answer(release, str(error) or type(error).__name__) from error
    if response.status_code != 200:
        raise _no_answer(release, f"status {response.status_code}: {response.text[:1000]}")
    choice = response.json()["choices"][0]
    return choice["message"]["content"] if golden.messages is not None else choice["text"]


def _no_answer(release: Release, found: str) -> GateRefused:
    return GateRefused(
        f"{release.label} did not answer the probe",
        found=found,
        expected="an answer with status 200",
        do="see the server's log; what was served before still is",
    )
