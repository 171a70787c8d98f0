import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import openai
import pytest
from serving_app import serve_in_thread

from swiftcore.generation import SamplingParams

HELLO = [{"role": "user", "content": "what is the weather?"}]


@pytest.fixture(scope="module")
def served():
    with serve_in_thread(
        max_concurrent_requests=48,
        max_body_bytes=200_000,
        header_timeout_seconds=1.0,
        body_timeout_seconds=1.0,
    ) as (address, service):
        yield address, service


@pytest.fixture(scope="module")
def address(served):
    return served[0]


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)


def chat(address, client=httpx, **fields):
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0, **fields}
    return client.post(address + "/v1/chat/completions", json=body, timeout=60)


def refusal(response, status):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


def wait_until_idle(service):
    deadline = time.monotonic() + 15
    while service.engine.num_requests:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_chat_answers_the_openai_client(client):
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=12, temperature=0
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.system_fingerprint == "f00d"


def test_streamed_chat_equals_the_whole_answer_and_ends_with_usage(client):
    asked = {"model": "tiny@1", "messages": HELLO, "max_completion_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_completions_take_text_tokens_and_lists(client, served):
    tokenizer = served[1].engine.tokenizer
    asked = {"model": "tiny", "max_tokens": 6, "temperature": 0}
    texts = ["the quick brown", "Grüße"]
    both = client.completions.create(prompt=texts, **asked)
    assert [choice.index for choice in both.choices] == [0, 1]
    for i, text in enumerate(texts):
        alone = client.completions.create(prompt=tokenizer.encode(text), **asked)
        assert alone.choices[0].text == both.choices[i].text
    streamed = client.completions.create(prompt=texts[0], stream=True, **asked)
    assert "".join(c.choices[0].text for c in streamed) == both.choices[0].text


def test_seed_repeats_and_n_gives_different_answers(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 1, "n": 3}
    first = client.chat.completions.create(seed=5, **asked)
    again = client.chat.completions.create(seed=5, **asked)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3
    assert first.usage.completion_tokens == 36
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(seed=5, stream=True, **asked):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_stop_string_ends_the_answer(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 30, "temperature": 0}
    full = client.chat.completions.create(**asked).choices[0].message.content
    stop = full[8:10]
    answer = client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert answer.message.content == full[: full.index(stop)]
    assert answer.finish_reason == "stop"


def spoken(entries):
    """Return the text of chat log-probabilities, from their bytes."""
    return b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace")


def as_bytes(token):
    """Return the bytes of a token of a completion's log-probabilities."""
    if not token.startswith("bytes:"):
        return token.encode()
    return token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")


def test_chat_tells_log_probabilities_whole_and_streamed(client, served):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 20, "temperature": 0, "n": 2}
    asked |= {"logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**asked).choices
    streamed = [[], []]
    for chunk in client.chat.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            streamed[choice.index] += choice.logprobs.content if choice.logprobs else []
    for choice, entries in zip(whole, streamed, strict=True):
        told = choice.logprobs.content
        assert spoken(told) == choice.message.content
        assert all(entry.top_logprobs[0].token == entry.token for entry in told)  # greedy
        assert all(len(entry.top_logprobs) == 3 for entry in told)
        assert [(e.token, e.bytes) for e in entries] == [(e.token, e.bytes) for e in told]
        assert [e.logprob for e in entries] == pytest.approx([e.logprob for e in told], abs=1e-5)
    service = served[1]
    prompt = service.template.encode({"messages": HELLO}, mode="infer").input_ids
    engine = service.engine.engine
    (done,) = engine.generate([prompt], SamplingParams(max_new_tokens=20), batch_size=1)
    shown = done.token_ids[: len(whole[0].logprobs.content)]
    (expected,) = engine.log_likelihoods([(prompt, shown)], batch_size=1)
    assert sum(entry.logprob for entry in whole[0].logprobs.content) == pytest.approx(
        expected, abs=1e-4
    )
    stop = whole[0].message.content[5]
    cut = client.chat.completions.create(**{**asked, "n": 1, "stop": stop}).choices[0]
    assert spoken(cut.logprobs.content).startswith(cut.message.content)
    assert len(cut.logprobs.content) < len(whole[0].logprobs.content)
    silent = client.chat.completions.create(**{**asked, "logprobs": False, "top_logprobs": 0})
    assert silent.choices[0].logprobs is None


def test_completions_tell_log_probabilities_whole_and_streamed(client):
    asked = {"model": "tiny", "prompt": "Grüße", "max_tokens": 12, "temperature": 0, "logprobs": 2}
    whole = client.completions.create(**asked).choices[0]
    told = whole.logprobs
    assert b"".join(map(as_bytes, told.tokens)).decode(errors="replace") == whole.text
    assert any(token.startswith("bytes:") for token in told.tokens)
    assert told.text_offset[0] == 0
    for token, start in zip(told.tokens, told.text_offset, strict=True):
        assert whole.text[start:].startswith(token) or token.startswith("bytes:")
    for token, logprob, top in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values())
        assert len(top) == 2
    pieces = [c.choices[0].logprobs for c in client.completions.create(stream=True, **asked)]
    assert [t for p in pieces for t in p.tokens] == told.tokens
    assert [o for p in pieces for o in p.text_offset] == told.text_offset
    alone = client.completions.create(**{**asked, "logprobs": 0}).choices[0].logprobs
    assert [list(top) for top in alone.top_logprobs] == [[token] for token in told.tokens]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "the weather",
            "parameters": {"type": "object", "zz": 1, "aa": 2},
        },
    }
]


@pytest.fixture
def calling(served, monkeypatch):
    """Make every answer one that calls a tool."""
    call = SimpleNamespace(name="weather", arguments={"city": "Köln"})
    parsed = SimpleNamespace(calls=[call], text="I look. ")
    monkeypatch.setattr(served[1].template, "parse_tool_calls", lambda *_: parsed)


def test_tool_calls_are_answered_whole_and_streamed(client, served, calling):
    asked = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "max_tokens": 8, "temperature": 0}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    call = choice.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Köln"}

    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "I look."
    streamed = [call for delta in deltas for call in delta.tool_calls or []]
    assert [(c.index, c.function.name) for c in streamed] == [(0, "weather")]
    assert json.loads(streamed[0].function.arguments) == {"city": "Köln"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    told = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs.content
    assert len(told) == 8
    pieces = list(client.chat.completions.create(**asked, logprobs=True, stream=True))
    streamed = [
        entry for c in pieces if c.choices[0].logprobs for entry in c.choices[0].logprobs.content
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in told]
    row = served[1].template.rows[-1]
    assert json.loads(row["tools"]) == TOOLS
    assert row["tools"].index('"zz"') < row["tools"].index('"aa"')


def test_raw_chat_answer_is_the_models_own_text(address, calling):
    plain = chat(address).json()["choices"][0]["message"]["content"]
    raw = chat(address, tools=TOOLS, raw=True).json()["choices"][0]
    assert raw["finish_reason"] == "length"
    assert raw["message"]["content"] == plain


def test_tool_history_becomes_a_standard_row(client, served):
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        max_tokens=1,
        user="me",
        metadata={"a": "b"},
    )
    assert [(m["role"], m["content"]) for m in served[1].template.rows[-1]["messages"]] == [
        ("system", "be brief"),
        ("user", HELLO[0]["content"]),
        ("tool_call", '{"name": "f", "arguments": {"a": 1}}'),
        ("tool_response", "sunny"),
    ]


def test_models_and_health(address, client):
    assert [model.id for model in client.models.list()] == ["tiny", "tiny@1"]
    assert client.models.retrieve("tiny@1").id == "tiny@1"
    assert httpx.get(address + "/health").json() == {"status": "ok"}
    ready = httpx.get(address + "/ready").json()
    assert ready == {"status": "ready", "model": "tiny", "fingerprint": "f00d"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"n": 1000}, "n"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("1e9")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"min_p": 0.1}, "min_p"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_meaningless_request_is_a_400_that_names_the_field(address, fields, param):
    error = refusal(chat(address, **fields), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert param in error["message"]


def test_too_many_likeliest_tokens_of_a_completion_are_a_400(address):
    body = {"model": "tiny", "prompt": "x", "logprobs": 21}
    error = refusal(httpx.post(address + "/v1/completions", json=body), 400)
    assert (error["param"], "at most 20" in error["message"]) == ("logprobs", True)


def test_neutral_values_are_accepted(address):
    fields = {"logprobs": False, "presence_penalty": 0, "logit_bias": None, "tool_choice": "auto"}
    assert chat(address, **fields).status_code == 200


def test_prompt_over_the_limit_is_context_length_exceeded(address):
    long = [{"role": "user", "content": "fox " * 10_000}]
    error = refusal(chat(address, messages=long), 400)
    assert error["code"] == "context_length_exceeded"
    assert "256" in error["message"]


@pytest.mark.parametrize(
    "body", [b"{nope", b"", b"[1]", b"\xff\xfe", b"[" * 50_000], ids=lambda b: repr(b[:8])
)
def test_malformed_json_is_a_400(address, body):
    headers = {"Content-Type": "application/json"}
    response = httpx.post(address + "/v1/chat/completions", content=body, headers=headers)
    assert refusal(response, 400)["code"] == "invalid_json"


def test_unknown_model_and_unlisted_route_and_method_are_4xx_with_the_same_body(address):
    assert refusal(chat(address, model="other"), 404)["code"] == "model_not_found"
    assert refusal(httpx.get(address + "/v1/secret"), 404)["code"] == "unknown_url"
    assert refusal(httpx.get(address + "/docs"), 404)["code"] == "unknown_url"
    assert refusal(httpx.get(address + "/v1/completions"), 405)["code"] == "method_not_allowed"


def test_huge_body_is_a_413_and_memory_stays_flat(address):
    import psutil

    def pieces():
        for _ in range(100):
            yield b"x" * 2**20

    before = psutil.Process().memory_info().rss
    declared = httpx.post(address + "/v1/completions", content=b"x" * 300_000)
    assert refusal(declared, 413)["code"] == "body_too_large"
    chunked = httpx.post(address + "/v1/completions", content=pieces(), timeout=60)
    refusal(chunked, 413)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_slow_clients_are_cut_off(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as head:
        head.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-A")
        head.settimeout(10)
        assert head.recv(100) == b""  # closed without an answer
    with socket.create_connection((host, int(port))) as body:
        body.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        body.settimeout(10)
        assert b" 408 " in body.recv(4096)
    assert httpx.get(address + "/health").status_code == 200


def test_prompt_of_only_special_tokens_is_answered(client):
    answer = client.completions.create(
        model="tiny", prompt="<|im_end|><|im_end|><|endoftext|>", max_tokens=4
    )
    assert answer.usage.prompt_tokens == 3


def test_client_that_disconnects_frees_its_place(served):
    address, service = served
    body = {"model": "tiny", "prompt": "x", "max_tokens": 64, "ignore_eos": True, "n": 8}
    for stream in (True, False):
        with ThreadPoolExecutor(6) as pool:

            def leave(_, stream=stream):
                with httpx.Client(timeout=0.05 if not stream else 30) as one:
                    try:
                        with one.stream(
                            "POST", address + "/v1/completions", json={**body, "stream": stream}
                        ) as response:
                            next(response.iter_lines())
                    except httpx.TimeoutException:
                        pass

            list(pool.map(leave, range(6)))
        wait_until_idle(service)


def test_two_hundred_at_once_are_answered_or_told_to_wait(address):
    health, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            health.append(httpx.get(address + "/health", timeout=10).status_code)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    # One client: each makes certificates of its own, which would take longer than the answers.
    everyone = httpx.Client(limits=httpx.Limits(max_connections=200))
    with everyone, ThreadPoolExecutor(200) as pool:
        statuses = [r.status_code for r in pool.map(lambda _: chat(address, everyone), range(200))]
    stop.set()
    watcher.join()
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 48
    assert set(health) == {200}
    assert chat(address).status_code == 200


def test_too_many_at_once_is_a_429():
    with serve_in_thread(max_concurrent_requests=1) as (address, _):
        body = {"model": "tiny", "prompt": "x", "max_tokens": 64, "ignore_eos": True}
        url = address + "/v1/completions"
        with httpx.stream("POST", url, json={**body, "stream": True}) as first:
            assert first.status_code == 200
            error = refusal(httpx.post(url, json=body), 429)
            assert error["type"] == "rate_limit_error"
            assert httpx.get(address + "/health").status_code == 200
            first.read()
        assert httpx.post(url, json=body).status_code == 200


def test_the_log_tells_each_request_and_the_speed_but_not_what_was_said(caplog):
    caplog.set_level("INFO", logger="swiftcore.serving.traffic")

    def lines(word):
        return [record.getMessage() for record in caplog.records if word in record.getMessage()]

    def until(condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    told = {"owned_by": "us", "verbose": True, "log_interval_seconds": 0.1}
    with serve_in_thread(app=told, max_logprobs=2) as (address, service):
        assert httpx.get(address + "/v1/models").json()["data"][0]["owned_by"] == "us"
        error = refusal(chat(address, logprobs=True, top_logprobs=3), 400)
        assert "at most 2" in error["message"]
        time.sleep(0.25)
        assert lines("tokens/s") == []
        body = {"model": "tiny", "prompt": "weather", "max_tokens": 60, "ignore_eos": True}
        for stream in (False, True):
            httpx.post(address + "/v1/completions", json={**body, "stream": stream})
        httpx.get(address + "/v1/x%0Aforged")
        until(lambda: len(lines("/v1/completions: 200")) == 2 and lines("tokens/s"))
        until(lambda: service.load.num_running == 0)
        assert service.load.num_answer_tokens == 120
        time.sleep(0.25)
        num_lines = len(lines("tokens/s"))
        time.sleep(0.25)
        assert len(lines("tokens/s")) == num_lines
    prompt_tokens = service.load.num_prompt_tokens // 2
    for line in lines("POST /v1/completions"):
        assert line.endswith(f"tiny, {prompt_tokens} prompt and 60 answer tokens")
    assert lines("chat/completions: 400")[0].endswith("no answer")
    assert lines("%0Aforged: 404")
    assert not lines("weather")


def test_a_request_that_names_no_sampling_has_the_server_s(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12}
    greedy = client.chat.completions.create(**asked, temperature=0).choices[0].message.content
    with serve_in_thread(defaults={"temperature": 0.0}) as (address, _):
        here = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
        assert here.chat.completions.create(**asked).choices[0].message.content == greedy
        sampled = here.chat.completions.create(**asked, temperature=2, seed=1)
        assert sampled.choices[0].message.content != greedy


def test_answer_that_takes_too_long_is_stopped():
    with serve_in_thread(request_timeout_seconds=0.001) as (address, service):
        assert refusal(chat(address, max_tokens=60), 504)["code"] == "timeout"
        streamed = chat(address, max_tokens=60, stream=True).text
        assert '"timeout"' in streamed
        assert "[DONE]" not in streamed
        wait_until_idle(service)


def test_api_key_guards_every_v1_route():
    with serve_in_thread(api_key="right key") as (address, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right key"}):
            for path in ("/v1/models", "/v1/secret"):
                error = refusal(httpx.get(address + path, headers=headers), 401)
                assert error["code"] == "invalid_api_key"
            response = httpx.post(address + "/v1/completions", headers=headers, content=b"{")
            refusal(response, 401)
        assert httpx.get(address + "/health").status_code == 200
        client = openai.OpenAI(base_url=address + "/v1", api_key="right key")
        assert client.models.list().data[0].id == "tiny"


def test_failure_inside_is_a_500_without_details(served, monkeypatch):
    address, service = served

    def broken(*_, **__):
        raise RuntimeError("secret path /etc")

    monkeypatch.setattr(service.engine.tokenizer, "decode", broken)
    error = refusal(chat(address), 500)
    assert "secret" not in error["message"]
    monkeypatch.undo()
    assert chat(address).status_code == 200


def test_tokens_of_a_conversation_and_of_a_text_and_back(address, served):
    def post(path, **fields):
        return httpx.post(f"{address}/v1/{path}", json={"model": "tiny", **fields})

    made = post("tokenize", messages=HELLO).json()
    service = served[1]
    assert made["tokens"] == service.template.encode({"messages": HELLO}, mode="infer").input_ids
    assert (made["count"], made["max_model_len"]) == (len(made["tokens"]), service.max_model_len)
    assert HELLO[0]["content"] in post("detokenize", tokens=made["tokens"]).json()["prompt"]
    text = post("tokenize", prompt="what is the weather?").json()["tokens"]
    assert post("detokenize", tokens=text).json()["prompt"] == "what is the weather?"
    assert refusal(post("tokenize"), 400)["param"] == "messages"
    assert refusal(post("tokenize", messages=HELLO, prompt="x"), 400)["param"] == "messages"
    assert refusal(post("detokenize", tokens=[-1]), 400)["param"] == "tokens"
    assert refusal(post("tokenize", prompt="x", extra=1), 400)["code"] == "unknown_parameter"
    assert post("tokenize", prompt="x", model="nobody").status_code == 404
