"""A tool behind our own server: one API, whoever chooses the tokens, and one life."""

import contextlib
import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import psutil
import pytest
from fake_tool import counting, fake_tool
from serving_app import serve_in_thread
from test_serving_supervisor import decisions, processes_of, until
from tiny_model import build_model, build_tokenizer

from swiftcore.artifacts import Store
from swiftcore.errors import BackendFailed, GateRefused
from swiftcore.evaluation import Candidate
from swiftcore.generation import ToolEngine, ToolPlace
from swiftcore.generation.dialects import dialect_of
from swiftcore.generation.limits import PromptLimits, Stops
from swiftcore.recipe import DeploySection, EvaluateSection, Runtime
from swiftcore.serving import Golden, Release, deploy_release, rollback, server, status, stop
from swiftcore.serving.probe import ROUNDING_NATS, probe
from swiftcore.serving.release import release_fingerprint
from swiftcore.stages.evaluate_tools import tool_benchmarks
from swiftcore.stages.releases import ModelToServe, make_release, named_adapters
from swiftcore.template import get_template, write_template_settings
from tests.roads import swift_here

HELLO = [{"role": "user", "content": "what is the weather in Paris?"}]


@contextlib.contextmanager
def served_by(tool, name="vllm", **settings):
    """Serve the tiny model's API with the tokens of a tool."""

    def engine_of(ours):
        limits = PromptLimits(ours.max_model_len, ours.vocab_size)
        stops = Stops(ours.stop_tokens, ours.stop_strings)
        place = ToolPlace(tool.url, "tiny", token_timeout_seconds=0.5)
        return ToolEngine(place, dialect_of(name), ours.tokenizer, limits, stops)

    with serve_in_thread(engine_of=engine_of, **settings) as (address, service):
        yield address, service


def likeliest():
    """The rule of a tool that has the weights of the served tiny model."""
    import torch

    model, lock = build_model(build_tokenizer()), threading.Lock()

    def after(ids):
        with lock, torch.inference_mode():
            return model(torch.tensor([ids])).logits[0, -1]

    def rule(ids, name):
        return int(after(ids).argmax())

    rule.likely = lambda ids: dict(enumerate(after(ids).log_softmax(-1).tolist()))
    return rule


def post(address, path, **fields):
    body = {"model": "tiny", "max_tokens": 12, "temperature": 0, **fields}
    return httpx.post(address + path, json=body, timeout=60)


def told(response):
    """Return a response without what differs from one request to the next."""
    return response.status_code, re.sub(r'"(id|created)": ?("[^"]*"|\d+)', "", response.text)


def test_the_api_over_a_tool_is_that_of_our_own_engine():
    tools = [{"type": "function", "function": {"name": "weather"}}]
    chat, plain = "/v1/chat/completions", "/v1/completions"
    asked = [
        (chat, {"messages": HELLO}),
        (chat, {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}),
        (chat, {"messages": HELLO, "tools": tools, "n": 2, "max_tokens": 4}),
        (chat, {"messages": HELLO, "stop": ["e"], "stream": True}),
        (chat, {"messages": HELLO, "max_tokens": 100_000}),
        (plain, {"prompt": ["one", "two"]}),
        (plain, {"prompt": [5, 6, 7], "ignore_eos": True}),
        (plain, {"prompt": "one", "logprobs": 21}),
        ("/v1/tokenize", {"messages": HELLO, "max_tokens": 1}),
    ]
    with contextlib.ExitStack() as opened:
        rule = likeliest()
        tool = opened.enter_context(fake_tool(rule, likely=rule.likely))
        theirs, _ = opened.enter_context(served_by(tool))
        ours, _ = opened.enter_context(serve_in_thread())
        for path, fields in asked:
            assert told(post(theirs, path, **fields)) == told(post(ours, path, **fields))
        logprobs = {"logprobs": True, "top_logprobs": 2, "max_tokens": 6}
        likelihoods = [
            post(address, chat, messages=HELLO, **logprobs).json()["choices"][0]["logprobs"][
                "content"
            ]
            for address in (ours, theirs)
        ]
        models = [httpx.get(address + "/v1/models").json() for address in (ours, theirs)]
    assert models[0] == models[1]
    for mine, its in zip(*likelihoods, strict=True):
        assert (its["token"], its["bytes"]) == (mine["token"], mine["bytes"])
        assert its["logprob"] == pytest.approx(mine["logprob"], abs=1e-5)
        assert [top["token"] for top in its["top_logprobs"]] == [
            top["token"] for top in mine["top_logprobs"]
        ]


def test_a_tool_s_bad_days_are_clear_answers_and_the_next_request_is_answered():
    days = iter(["broken", "400", "500", "500", "500", "hangs"])
    with contextlib.ExitStack() as opened:
        tool = opened.enter_context(fake_tool(counting, trouble=lambda _: next(days, None)))
        address, service = opened.enter_context(served_by(tool, "sglang"))
        asked = {"prompt": [300]}
        lines = post(address, "/v1/completions", stream=True, **asked).text.split("\n\n")
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "internal_error"
        statuses = [post(address, "/v1/completions", **asked).status_code for _ in range(4)]
        assert statuses == [400, 500, 500, 200]
        refused = post(address, "/v1/completions", repetition_penalty=1.1, **asked)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "repetition_penalty"
        scored = {"model": "tiny", "messages": HELLO, "answer": "blue"}
        refused = httpx.post(address + "/v1/likelihood", json=scored)
        assert refused.status_code == 400
        assert "does not tell" in refused.json()["error"]["message"]
        tool.healthy = False
        until(lambda: httpx.get(address + "/ready").status_code == 503)
        assert service.engine.num_requests == 0


def golden_on(answers, gaps):
    """Probe a fake endpoint that says `answers` and tells `gaps`; return what is repeated."""
    asked = []

    def answer(request):
        asked.append(request.url.path)
        if request.url.path == "/v1/likelihood":
            return httpx.Response(200, json={"gaps": gaps})
        message = {"content": answers}
        return httpx.Response(200, json={"choices": [{"message": message, "text": answers}]})

    return answer, asked


@pytest.mark.parametrize(
    ("backend", "gaps", "passes"),
    [
        ("vllm", [0.0, ROUNDING_NATS, 0.0], True),
        ("vllm", [0.0, ROUNDING_NATS + 0.01], False),
        ("sglang", [0.0], False),
        ("pt", [0.0], False),
    ],
)
def test_another_golden_answer_passes_only_where_rounding_explains_it(
    tmp_path, monkeypatch, backend, gaps, passes
):
    answer, asked = golden_on("blue sky", gaps)
    client = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(answer), **kw)
    )
    release = Release("f" * 64, "demo", "1", tmp_path, infer_backend=backend)
    golden = [Golden("blue sea", messages=HELLO)]
    refusal = contextlib.nullcontext() if passes else pytest.raises(GateRefused, match="golden")
    with refusal as caught:
        probe(release, "http://x", golden, api_key=None, timeout_seconds=5, progress=_Silent())
    assert ("/v1/likelihood" in asked) == (backend == "vllm")
    if backend == "vllm" and not passes:
        assert "0.26 nats" in caught.value.found


class _Silent:
    def update(self, done, total, text):
        pass


def test_a_release_is_known_by_its_engine_too_but_not_by_ours():
    model = "a" * 64
    assert release_fingerprint(model, "pt", {}, {}) == model
    others = [
        release_fingerprint(model, "vllm", {}, {}),
        release_fingerprint(model, "vllm", {"vllm_max_num_seqs": 4}, {}),
        release_fingerprint(model, "vllm", {}, {"law": "d1"}),
        release_fingerprint(model, "vllm", {}, {"law": "d2"}),
        release_fingerprint(model, "sglang", {}, {}),
    ]
    assert len({model, *others}) == 6


def test_names_limits_and_log_of_a_release_are_the_server_s_and_make_it_another(tmp_path):
    store = Store(tmp_path / "store")
    model = ModelToServe(tmp_path, "a" * 64, "b" * 64)

    def made(**fields):
        section = DeploySection(name="demo", **fields)
        return make_release(section, model, {}, store, Runtime(), version="3")

    assert made().fingerprint == model.fingerprint
    changes = {
        "served_model_name": "org/gpt",
        "owned_by": "us",
        "max_logprobs": 50,
        "max_new_tokens": 64,
        "max_batch_size": 4,
        "max_model_len": 128,
        "verbose": True,
        "log_interval": -1,
        "temperature": 0,
    }
    releases = [made(**{name: value}) for name, value in changes.items()]
    assert len({made().fingerprint, *(each.fingerprint for each in releases)}) == 10
    release = made(**changes)
    assert release.names == ("org/gpt", "org/gpt@3")
    assert Release.from_dict(json.loads(json.dumps(release.as_dict()))) == release
    flags = vars(server.parser().parse_args(release.command()))
    assert flags | {name: value for name, value in changes.items() if name in flags} == flags
    assert flags["name"] == "org/gpt"
    assert server.defaults_of(SimpleNamespace(**flags)).temperature == 0
    older = {name: value for name, value in made().as_dict().items() if name not in changes}
    assert Release.from_dict(older) == made()


@pytest.fixture
def release(tmp_path):
    """A release whose tool counts, with an adapter beside it."""
    folder, adapter = tmp_path / "model", tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 4}')
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_template_settings(folder, get_template("chatml", tokenizer).settings)
    other = get_template("chatml", tokenizer, default_system="You count down.")
    write_template_settings(adapter, other.settings)
    return Release(
        "c" * 64, "demo", "1", folder, server="tool_stub_server", infer_backend="vllm",
        adapters={"down": adapter}, num_threads=1,
    )  # fmt: skip


@pytest.fixture
def state_dir(tmp_path, monkeypatch):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    monkeypatch.setenv("SWIFTCORE_API_KEY", "secret")
    path = tmp_path / "serving"
    yield path
    stop(path)
    assert processes_of(path) == []
    assert all(not psutil.pid_exists(pid) for pid in tool_pids(path))


def tool_pids(state_dir):
    logs = sorted((state_dir / "logs").glob("backend-*.log"))
    return [int(pid) for log in logs for pid in re.findall(r"^pid (\d+)$", log.read_text(), re.M)]


def test_a_tool_is_deployed_restarted_and_ends_with_its_endpoint(state_dir, release):
    deployed = deploy_release(release, state_dir=state_dir, start_timeout_seconds=60)
    client = openai.OpenAI(base_url=deployed.url + "/v1", api_key="secret", max_retries=0)
    assert {model.id for model in client.models.list()} == {"demo", "demo@1", "down"}
    asked = {"prompt": [300], "max_tokens": 3, "temperature": 0}
    tokenizer = build_tokenizer()
    ids = [300]
    for _ in range(3):
        ids.append(counting(ids, "demo"))
    (first,) = client.completions.create(model="demo", **asked).choices
    assert first.text == tokenizer.decode(ids[1:])
    assert client.completions.create(model="down", **asked).choices[0].text != first.text
    counts = [
        client.chat.completions.create(model=name, messages=HELLO, max_tokens=1).usage.prompt_tokens
        for name in ("demo", "down")
    ]
    assert counts[1] > counts[0]  # the adapter is asked with the template it was trained with
    for path in ("/v1/models", "/v1/completions", "/v1/likelihood", "/v1/load_lora_adapter"):
        assert httpx.post(deployed.url + path, json={}).status_code == 401

    os.kill(tool_pids(state_dir)[0], signal.SIGKILL)
    again = client.completions.create(model="demo", **asked)
    assert again.choices[0].text == first.text
    assert "backend died" in decisions(state_dir)
    assert len(tool_pids(state_dir)) == 2
    assert status(state_dir)["status"] == "ready"


def test_a_tool_that_does_not_start_is_refused_with_its_own_words(state_dir, release):
    broken = replace(release, backend_settings={"vllm_quantization": "dies at once"})
    with pytest.raises(BackendFailed, match="ended by itself") as caught:
        deploy_release(broken, state_dir=state_dir, start_timeout_seconds=60)
    assert "no such kernel" in caught.value.found
    assert status(state_dir)["current"] is None
    with pytest.raises(ValueError, match="nothing to roll back"):
        rollback(state_dir)


@pytest.mark.parametrize(
    ("section", "fields", "word"),
    [
        (DeploySection, {"vllm_max_num_seqs": 4}, "vllm_max_num_seqs"),
        (EvaluateSection, {"infer_backend": "sglang", "vllm_max_num_seqs": 4}, "vllm_max"),
        (DeploySection, {"adapters": ["law=there"]}, "one model a process"),
        (DeploySection, {"infer_backend": "lmdeploy", "adapters": ["a=b"]}, "LMDeploy"),
        (DeploySection, {"infer_backend": "vllm", "adapters": ["there"]}, "NAME=FOLDER"),
        (DeploySection, {"infer_backend": "vllm", "adapters": ["a=b", "a=c"]}, "of its own"),
        (DeploySection, {"infer_backend": "vllm", "adapters": ["model=b"]}, "of its own"),
        (DeploySection, {"infer_backend": "vllm", "serve": "adapter"}, "whole model"),
        (
            DeploySection,
            {"infer_backend": "vllm", "served_model_name": "law", "adapters": ["law=b"]},
            "of its own",
        ),
        (DeploySection, {"served_model_name": "a@1"}, "served_model_name"),
        (DeploySection, {"log_interval": 0}, "log_interval"),
        (DeploySection, {"infer_backend": "sglang", "repetition_penalty": 1.1}, "the answer alone"),
        (
            DeploySection,
            {"infer_backend": "vllm", "vllm_engine_kwargs": {"max_logprobs": 5}},
            "set by",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(section, fields, word):
    with pytest.raises(ValueError, match=word):
        section(**fields)


@pytest.mark.parametrize(
    "command",
    [
        ["deploy", "--model", "MODEL", "--infer_backend", "vllm", "--vllm_max_num_seqs", "4"],
        ["eval", "--model", "MODEL", "--infer_backend", "vllm", "--eval_dataset", "gsm8k"],
    ],
)
def test_a_tool_that_is_not_installed_is_said_before_anything_runs(command, release, tmp_path):
    place = ["--backends_dir", tmp_path / "nothing", "--store", tmp_path / "store"]
    words = [release.model_dir if word == "MODEL" else word for word in command]
    done = swift_here(*words, *place, "--device", "cpu", "--json")
    assert done.returncode == 5
    said = json.loads(done.stdout)
    assert said["error"] == "BackendMissing"
    assert "swift env install vllm_cpu" in said["do"]


def test_a_plan_warns_of_a_tool_that_is_not_there(tiny_road, tmp_path):
    there = f"runtime.backends_dir={tmp_path / 'nothing'}"
    asked = ["--set", "deploy.infer_backend=vllm", "--set", there, "--set", "runtime.device=cpu"]
    done = swift_here("plan", tiny_road, *asked)
    assert done.returncode == 0
    assert "warning: the backend vllm_cpu is not installed" in done.stdout
    assert "warning" not in swift_here("plan", tiny_road).stdout


def test_an_adapter_of_another_base_is_not_served(release, tmp_path):
    adapter = release.adapters["down"]
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "base_model.json").write_text('{"name": "other", "weights": {"a": "b"}}')
    section = DeploySection(infer_backend="vllm", adapters=[f"down={adapter}"], name="demo")
    store = Store(tmp_path / "store")
    model = ModelToServe(release.model_dir, "a" * 64, "b" * 64)
    with pytest.raises(ValueError, match="not the base model"):
        make_release(section, model, named_adapters(section, store), store, Runtime(), version="1")
    (adapter / "base_model.json").unlink()
    adapters = named_adapters(section, store)
    made = make_release(section, model, adapters, store, Runtime(), version="1")
    assert made.all_names == ("demo", "demo@1", "down")
    assert Release.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    alone = make_release(DeploySection(name="demo"), model, {}, store, Runtime(), version="1")
    assert alone.fingerprint == model.fingerprint != made.fingerprint


def test_a_candidate_s_engine_ends_before_it_is_served_to_another_tool(
    release, tmp_path, monkeypatch
):
    happened = []

    @contextlib.contextmanager
    def served(asked, log, timeout_seconds):
        happened.append(asked)
        yield SimpleNamespace(url="http://x/v1", api_key="key")

    monkeypatch.setattr("swiftcore.serving.temporary.temporarily_served", served)
    (tmp_path / "questions").mkdir()
    inputs = {"encoded": release.model_dir, "gsm8k/files": tmp_path / "questions"}
    area = SimpleNamespace(work=tmp_path / "work", out=tmp_path / "out")
    run = SimpleNamespace(inputs=inputs, area=area, runtime=Runtime(device="cpu"))
    section = EvaluateSection(
        infer_backend="vllm",
        vllm_max_num_seqs=4,
        eval_backend="EvalScope",
        eval_dataset=["gsm8k"],
        eval_dataset_args={"gsm8k": {"local_path": str(tmp_path / "questions")}},
    )
    tool = tool_benchmarks(run, section, before_serving=lambda: happened.append("ended"))
    candidate = Candidate("adapter", release.model_dir, release.adapters["down"], 0)
    with tool._serve(candidate) as asked:
        assert asked.name == "adapter"
    ended, given = happened
    assert ended == "ended"
    assert (given.infer_backend, given.adapter_dir) == ("vllm", None)
    assert given.backend_settings == {"vllm_max_num_seqs": 4}
    assert [*given.adapters] == ["adapter"]
