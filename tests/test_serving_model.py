"""The real server process with a real (tiny) model behind the real gateway."""

import json
import shutil
import subprocess
import sys

import httpx
import openai
import pytest
from tiny_model import build_model, build_tokenizer

from swiftcore.errors import EnvironmentMissing, GateRefused
from swiftcore.serving import Golden, Release, deploy_release, rollback, status, stop
from swiftcore.template import get_template, read_template_settings, write_template_settings
from tests.evaluated_answers import evaluated_answers

TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
]
ROWS = [
    {"messages": [{"role": "user", "content": "what is the weather in Paris?"}]},
    {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "add 12 and 30 <|im_end|>"},
            {"role": "tool_call", "content": '{"name": "f", "arguments": {"a": 12}}'},
            {"role": "tool_response", "content": "42"},
        ],
        "tools": json.dumps(TOOLS),
    },
]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    build_model(tokenizer, max_position_embeddings=1024).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = get_template("chatml", tokenizer, max_length=16)  # shorter than the prompts
    write_template_settings(folder, template.settings)
    return folder


@pytest.fixture(scope="module")
def evaluated(model_dir):
    """Answers made as the evaluate stage makes them."""
    golden = evaluated_answers(model_dir, ROWS)
    prompt = golden[0].trained_ids
    return [*golden, Golden(golden[0].expected, prompt_ids=prompt, max_tokens=16)]


def test_model_is_served_as_it_was_evaluated(model_dir, evaluated, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTCORE_API_KEY", "secret")
    state_dir = tmp_path / "demo"
    release = Release("a" * 64, "demo", "1", model_dir, num_threads=1, max_new_tokens=32)
    try:
        first = deploy_release(release, state_dir=state_dir, golden=evaluated)
        assert first.golden_matched == 3
        client = openai.OpenAI(base_url=first.url + "/v1", api_key="secret", max_retries=0)
        asked = {"messages": ROWS[0]["messages"], "max_tokens": 16, "temperature": 0}
        for name in ("demo", "demo@1"):
            answer = client.chat.completions.create(model=name, **asked)
            assert answer.choices[0].message.content == evaluated[0].expected
        chunks = client.chat.completions.create(model="demo", stream=True, **asked)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == evaluated[0].expected
        assert httpx.get(first.url + "/v1/models").status_code == 401
        asked = {"model": "demo", "messages": ROWS[0]["messages"]}
        assert httpx.post(first.url + "/v1/tokenize", json=asked).status_code == 401
        key = {"Authorization": "Bearer secret"}
        made = httpx.post(first.url + "/v1/tokenize", json=asked, headers=key).json()
        assert made["tokens"] == evaluated[0].trained_ids
        assert "secret" not in "".join(
            path.read_text() for path in state_dir.rglob("*") if path.is_file()
        )

        second = Release("b" * 64, "demo", "2", model_dir, num_threads=1, max_new_tokens=32)
        deploy_release(second, state_dir=state_dir, golden=evaluated)
        assert rollback(state_dir).version == "1"
        assert status(state_dir)["current"]["version"] == "1"
    finally:
        stop(state_dir)


def test_a_server_whose_template_differs_is_refused(model_dir, evaluated, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    settings = read_template_settings(other)
    write_template_settings(other, settings | {"system": "You are somebody else."})
    release = Release("c" * 64, "demo", "3", other, num_threads=1, max_new_tokens=32)
    only_tokens = [Golden(None, g.messages, g.tools, trained_ids=g.trained_ids) for g in evaluated]
    with pytest.raises(GateRefused, match="other tokens of a conversation") as caught:
        deploy_release(release, state_dir=tmp_path / "state", golden=only_tokens[:1])
    assert caught.value.exit_code == 4
    assert "token 1 of prompt" in caught.value.where
    assert "system" in caught.value.found
    assert "user" in caught.value.expected
    assert status(tmp_path / "state")["current"] is None


def serve(*flags):
    command = [sys.executable, "-m", "swiftcore.serving.server", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_missing_model_folder_is_one_clear_block_and_exit_5(tmp_path):
    error_file = tmp_path / "error.json"
    done = serve(
        *("--model", tmp_path / "nothing", "--name", "x", "--port", 0),
        *("--error-file", error_file),
    )
    assert done.returncode == EnvironmentMissing.exit_code
    assert "Traceback" not in done.stderr
    assert json.loads(error_file.read_text())["error"] == "ModelMissing"


def test_server_command_refuses_a_taken_port_before_it_loads_the_model(model_dir):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = serve("--model", model_dir, "--name", "x", "--port", port)
    assert done.returncode == EnvironmentMissing.exit_code
    assert str(port) in done.stderr
    assert "torch" not in done.stderr
