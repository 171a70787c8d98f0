"""vLLM behind our endpoint and in our evaluation, for real: `make test-backends` runs these."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from swiftcore.errors import UsageError
from swiftcore.models import load_tokenizer
from swiftcore.serving import Release, deploy_release, rollback, status, stop
from swiftcore.template import get_template, write_template_settings
from tests.evaluated_answers import evaluated_answers
from tests.roads import swift_here
from tests.test_benchmarks_endpoint import flags  # noqa: F401  # a fixture
from tests.test_serving_supervisor import decisions, processes_of, until
from tests.test_vllm_server import folder  # noqa: F401  # a fixture

pytestmark = pytest.mark.backend("vllm_cpu")

START_SECONDS = 600
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ROWS = [
    {"messages": [{"role": "user", "content": "what is the weather in Paris?"}]},
    {"messages": [{"role": "user", "content": "and in Köln?"}], "tools": json.dumps(TOOLS)},
]


@pytest.fixture(scope="module")
def model_dir(folder):  # noqa: F811  # the fixture
    """The tiny model with its template and room for long prompts; an adapter is beside it."""
    path = folder / "model"
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    for each in (path, folder / "adapter"):
        template = get_template("chatml", load_tokenizer(path), agent_template="hermes")
        write_template_settings(each, template.settings)
    return path


@pytest.fixture(scope="module")
def evaluated(model_dir):
    """Answers of our own engine, as the evaluate stage makes them."""
    return evaluated_answers(model_dir, ROWS)


@pytest.fixture
def state_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTCORE_API_KEY", "secret")
    path = tmp_path / "serving"
    yield path
    stop(path)
    assert processes_of(path) == []


def servers_below(pid):
    """Return the processes of the tool below a server's process."""
    return psutil.Process(pid).children(recursive=True)


def test_vllm_serves_what_was_evaluated_and_can_be_rolled_back(state_dir, model_dir, evaluated):
    ours = Release("a" * 64, "demo", "1", model_dir, num_threads=1, max_new_tokens=32)
    deploy_release(ours, state_dir=state_dir, golden=evaluated)
    theirs = replace(
        ours,
        fingerprint="b" * 64,
        version="2",
        infer_backend="vllm",
        device="cpu",
        max_model_len=700,
        max_logprobs=25,
        adapters={"law": model_dir.parent / "adapter"},
    )
    deployed = deploy_release(
        theirs, state_dir=state_dir, golden=evaluated, start_timeout_seconds=START_SECONDS
    )
    assert deployed.golden_matched == 2
    client = openai.OpenAI(base_url=deployed.url + "/v1", api_key="secret", max_retries=0)
    asked = {"messages": ROWS[0]["messages"], "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(model="demo", **asked)
    assert whole.choices[0].message.content == evaluated[0].expected
    assert whole.usage.prompt_tokens == len(evaluated[0].trained_ids)
    chunks = client.chat.completions.create(model="demo@2", stream=True, **asked)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == evaluated[0].expected
    told = client.chat.completions.create(model="demo", logprobs=True, top_logprobs=25, **asked)
    content = told.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace") == (
        evaluated[0].expected
    )
    assert all(len(entry.top_logprobs) == 25 for entry in content)
    law = client.chat.completions.create(model="law", **asked).choices[0].message.content
    assert law != evaluated[0].expected
    with_tools = client.chat.completions.create(model="demo", tools=TOOLS, **asked)
    assert with_tools.usage.prompt_tokens > whole.usage.prompt_tokens
    for path in ("models", "chat/completions", "completions", "load_lora_adapter", "likelihood"):
        assert httpx.post(f"{deployed.url}/v1/{path}", json={}).status_code == 401
    assert httpx.get(deployed.url + "/metrics").status_code == 404

    family = servers_below(deployed.pid)
    assert family
    family[-1].send_signal(signal.SIGKILL)
    until(lambda: "restarted" in decisions(state_dir), START_SECONDS)
    assert all(not process.is_running() for process in family)
    again = client.chat.completions.create(model="demo", **asked)
    assert again.choices[0].message.content == evaluated[0].expected

    family = servers_below(status(state_dir)["backend_pid"])
    assert rollback(state_dir).version == "1"
    assert client.chat.completions.create(model="demo", **asked).choices[0].message.content
    until(lambda: not any(process.is_running() for process in family), 60)


@pytest.fixture(scope="module")
def other_adapter(model_dir):
    """An adapter that answers otherwise than the one beside the model."""
    from safetensors.torch import load_file, save_file

    place = shutil.copytree(model_dir.parent / "adapter", model_dir.parent / "other")
    file = place / "adapter_model.safetensors"
    weights = {k: -v if "lora_A" in k else v for k, v in load_file(file).items()}
    save_file(weights, file)
    return place


def own_answer(model_dir, adapter, prompt):
    """Return what our own engine says with an adapter."""
    from swiftcore.generation import SamplingParams
    from swiftcore.generation.engine import TransformersEngine

    engine = TransformersEngine.load(model_dir, adapter_dir=adapter, num_threads=1)
    params = SamplingParams(max_new_tokens=16)
    (answer,) = engine.generate([prompt], params, batch_size=1)
    return answer.text


def test_vllm_changes_its_adapters_while_it_runs(state_dir, model_dir, evaluated, other_adapter):
    law = shutil.copytree(model_dir.parent / "adapter", model_dir.parent / "law")
    # Longer than a block of vLLM's cache of prompts, which holds whole blocks alone.
    messages = [{"role": "user", "content": "what is the weather in Paris tomorrow? " * 30}]
    fields = {"infer_backend": "vllm", "device": "cpu", "num_threads": 1, "max_model_len": 700}

    def deploy(fingerprint, **adapters):
        release = Release(
            fingerprint * 64, "demo", "1", model_dir, max_new_tokens=32, adapters=adapters, **fields
        )
        return deploy_release(
            release, state_dir=state_dir, golden=evaluated, start_timeout_seconds=START_SECONDS
        )

    first = deploy("a", law=law)
    client = openai.OpenAI(base_url=first.url + "/v1", api_key="secret", max_retries=0)
    tokenized = client.post("/tokenize", body={"model": "demo", "messages": messages}, cast_to=dict)
    assert len(tokenized["tokens"]) > 256
    expected = [own_answer(model_dir, each, tokenized["tokens"]) for each in (law, other_adapter)]
    assert expected[0] != expected[1]

    def said(name):
        asked = {"messages": messages, "max_tokens": 16, "temperature": 0}
        return client.chat.completions.create(model=name, **asked).choices[0].message.content

    assert said("law") == expected[0]
    added = deploy("b", law=law, tax=other_adapter)
    assert (added.pid, added.in_place.loaded) == (first.pid, ("tax",))
    assert added.seconds < 20
    assert added.golden_matched == 2
    assert [said("law"), said("tax")] == expected

    assert deploy("c", tax=other_adapter).in_place.removed == ("law",)
    with pytest.raises(openai.NotFoundError):
        said("law")
    # The name and folder of before over other weights, with the prompt still in vLLM's cache.
    shutil.copytree(other_adapter, law, dirs_exist_ok=True)
    assert deploy("d", tax=other_adapter, law=law).in_place.loaded == ("law",)
    assert said("law") == expected[1]
    assert rollback(state_dir).in_place.removed == ("law",)
    assert {model.id for model in client.models.list()} == {"demo", "demo@1", "tax"}

    broken = shutil.copytree(law, model_dir.parent / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="does not load this adapter"):
        deploy("e", tax=other_adapter, broken=broken)
    assert [said("tax"), status(state_dir)["backend_pid"]] == [expected[1], first.pid]

    servers_below(first.pid)[-1].send_signal(signal.SIGKILL)
    until(lambda: "restarted" in decisions(state_dir), START_SECONDS)
    assert said("tax") == expected[1]


def test_swift_eval_over_vllm_is_that_of_our_own_engine(tmp_path, model_dir, flags):  # noqa: F811
    def evaluated_by(*engine):
        given = ["--model", model_dir, "--max_new_tokens", "8", "--device", "cpu", *flags, *engine]
        done = swift_here("eval", *given, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        samples = next(Path(found["path"]).glob("samples/*/*.jsonl")).read_text()
        return found, re.sub(r'"seconds": [\d.]+', "", samples)

    ours, our_samples = evaluated_by()
    theirs, their_samples = evaluated_by("--infer_backend", "vllm")
    assert their_samples == our_samples
    assert theirs["metrics"] == ours["metrics"]
    assert theirs["generated_tokens"] == ours["generated_tokens"] > 0
    assert os.path.getsize(next(Path(tmp_path).rglob("engine.log"))) > 0
