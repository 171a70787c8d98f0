"""vLLM itself, in its environment for CPUs: `make test-backends` runs these."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from swiftcore.backends import ServeOrder, ToolServer, start_tool_server
from swiftcore.errors import UsageError
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections import ToolSettings
from tests.test_backends import ended
from tests.test_tool_servers import stopped
from tests.tiny_model import SENTENCES, build_tokenizer

pytestmark = pytest.mark.backend("vllm_cpu")

NUM_TOKENS = 12
START_SECONDS = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a LoRA adapter whose answers differ."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    place = tmp_path_factory.mktemp("vllm")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    targets = ["q_proj", "v_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(place / "adapter")
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ToolServer]:
    order = ServeOrder(
        "vllm",
        folder / "model",
        adapters={"first": folder / "adapter"},
        settings=ToolSettings(vllm_max_model_len=128),
        dtype="float32",
        device="cpu",
        name="tiny",
    )
    runtime = Runtime(num_threads=1)
    log = folder / "tool.log"
    started = start_tool_server(order, log=log, runtime=runtime, timeout_seconds=START_SECONDS)
    with started:
        yield started


def post(server: ToolServer, path: str, body: dict) -> httpx.Response:
    return httpx.post(
        server.url + path, headers=server.headers, json=body, timeout=120, trust_env=False
    )


def prompts() -> list[list[int]]:
    return [build_tokenizer()(text)["input_ids"] for text in SENTENCES]


def greedy_ids(server: ToolServer, model: str, prompt: list[int]) -> list[int]:
    """Return the ids that the server answers greedily."""
    options = {"temperature": 0, "max_tokens": NUM_TOKENS, "return_token_ids": True}
    answer = post(server, "/v1/completions", {"model": model, "prompt": prompt, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def our_ids(folder: Path, adapter: Path | None = None) -> list[list[int]]:
    """Return what our own engine answers greedily."""
    from swiftcore.generation import SamplingParams
    from swiftcore.generation.engine import TransformersEngine

    engine = TransformersEngine.load(folder / "model", adapter_dir=adapter, num_threads=1)
    params = SamplingParams(max_new_tokens=NUM_TOKENS)
    return [done.token_ids for done in engine.generate(prompts(), params, batch_size=1)]


def test_its_greedy_tokens_are_those_of_our_own_engine(server: ToolServer, folder: Path):
    theirs = [greedy_ids(server, "tiny", prompt) for prompt in prompts()]
    assert theirs == our_ids(folder)
    assert len({tuple(ids) for ids in theirs}) == len(theirs)


def test_its_log_probabilities_are_those_of_our_own_engine(server: ToolServer, folder: Path):
    from swiftcore.generation import SamplingParams, ToolEngine, ToolPlace, TransformersEngine
    from swiftcore.generation.dialects import dialect_of
    from swiftcore.generation.limits import folder_limits

    tokenizer = build_tokenizer()
    place = ToolPlace(server.url, "tiny", server.key)
    theirs = ToolEngine(
        place, dialect_of("vllm"), tokenizer, *folder_limits(folder / "model", tokenizer, (), 128)
    )
    ours = TransformersEngine.load(folder / "model", num_threads=1)
    asked = SamplingParams(max_new_tokens=NUM_TOKENS, logprobs=True, top_logprobs=3)
    sampled = replace(asked, temperature=1.5, top_p=0.8, seed=3)
    answers = {
        params: theirs.generate(prompts(), params, batch_size=4) for params in (asked, sampled)
    }
    theirs.close()
    for completions in answers.values():
        told = [sum(each.logprob for each in done.logprobs) for done in completions]
        pairs = [
            (prompt, done.token_ids) for prompt, done in zip(prompts(), completions, strict=True)
        ]
        assert told == pytest.approx(ours.log_likelihoods(pairs, batch_size=4), abs=1e-3)
    greedy = ours.generate(prompts(), asked, batch_size=4)
    for mine, its in zip(greedy, answers[asked], strict=True):
        for here, there in zip(mine.logprobs, its.logprobs, strict=True):
            assert [token for token, _ in there.top] == [token for token, _ in here.top]
            assert [value for _, value in there.top] == pytest.approx(
                [value for _, value in here.top], abs=1e-3
            )


def test_it_chats_streams_and_wants_its_key(server: ToolServer):
    talk = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
    }
    whole = post(server, "/v1/chat/completions", talk).json()["choices"][0]["message"]["content"]
    body = post(server, "/v1/chat/completions", {**talk, "stream": True}).text
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data")]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
    assert len(deltas) > 2
    assert "".join(deltas) == whole
    keyless = httpx.post(server.url + "/v1/chat/completions", json=talk, trust_env=False)
    assert keyless.status_code == 401
    assert server.key not in server.printed()


def test_adapters_answer_from_the_start_and_when_loaded_later(server: ToolServer, folder: Path):
    with pytest.raises(UsageError, match="does not load this adapter"):
        server.load_adapter("nothing", folder / "nothing")
    ours = our_ids(folder, folder / "adapter")
    assert ours != our_ids(folder)
    assert [greedy_ids(server, "first", prompt) for prompt in prompts()] == ours
    server.load_adapter("later", folder / "adapter")
    assert [greedy_ids(server, "later", prompt) for prompt in prompts()] == ours
    assert greedy_ids(server, "first", prompts()[0]) == ours[0]
    server.unload_adapter("later")
    answer = post(server, "/v1/completions", {"model": "later", "prompt": [5]})
    assert answer.status_code == 404


def test_a_dead_engine_ends_the_server_and_nothing_stays(server: ToolServer):
    """The last test of the file: it ends the server that the others ask."""
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) >= 3
    engine = next(process for process in family if "EngineCore" in " ".join(process.cmdline()))
    engine.kill()
    assert stopped(server, seconds=60)
    server.stop()
    assert all(ended(process.pid) for process in family)
