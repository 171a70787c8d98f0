"""Adapters that come and go in a running server: what clients see, and what happens on bad days.

One endpoint serves all tests; its tool is `fake_tool.py`, everything above it is real. An adapter
of that tool says one token of its own, again and again.
"""

import asyncio
import http.client
import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from fake_tool import counting
from test_serving_supervisor import decisions, until
from test_serving_tools import tool_pids
from tiny_model import build_tokenizer

from flows.model_commands import rollback_command
from swiftcore.artifacts import Store
from swiftcore.cli import deploy as deploy_command
from swiftcore.errors import ArtifactDamaged, GateRefused, ModelMissing, UsageError
from swiftcore.progress import Silent
from swiftcore.recipe import DeploySection, Runtime
from swiftcore.serving import Golden, Release, deploy_release, rollback, status, stop
from swiftcore.serving.adapter_set import RequestsUnderWay
from swiftcore.serving.adapter_swap import AdapterSwap, NotInPlace
from swiftcore.serving.control import ControlClient, Deployment
from swiftcore.serving.endpoint import EndpointFolder
from swiftcore.serving.gateway import Gateway
from swiftcore.serving.probe import probe
from swiftcore.serving.release import AdapterChange
from swiftcore.serving.server import ADAPTER_PATH, TOKEN_VARIABLE
from swiftcore.stages.contract import input_ref
from swiftcore.stages.deploy import serving_root
from swiftcore.stages.releases import ModelToServe, make_release, named_adapters
from swiftcore.stages.resolve import resolve_reference
from swiftcore.template import get_template, write_template_settings

TESTS = Path(__file__).parent
KEY = {"Authorization": "Bearer secret"}
SECONDS = 60


class Endpoint:
    """A model, adapters of it, and the endpoint that serves some of them."""

    def __init__(self, folder):
        self.folder, self.store = folder, Store(folder / "store")
        self.state_dir = serving_root(self.store) / "demo"
        self.tokenizer = build_tokenizer()
        self.template = get_template("chatml", self.tokenizer)
        self.model = folder / "model"
        self.tokenizer.save_pretrained(self.model)
        config = {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "vocab_size": len(self.tokenizer),
            "max_position_embeddings": 256,
        }
        (self.model / "config.json").write_text(json.dumps(config))
        (self.model / "model.safetensors").touch()
        write_template_settings(self.model, self.template.settings)
        for token, name in enumerate(("law", "news", "tax"), 301):
            self.adapter(name, token)

    def adapter(self, name, token=310, behaviour="", rank=4):
        """Write an adapter that says a token."""
        place = self.folder / name
        place.mkdir()
        (place / "adapter_config.json").write_text(json.dumps({"r": rank}))
        (place / "token.txt").write_text(str(token))
        (place / "behaviour.txt").write_text(behaviour)
        write_template_settings(place, self.template.settings)
        return place

    def flags(self, *names):
        return [f"{name}={self.folder / name}" for name in names]

    def release(self, *names) -> Release:
        """Return what `swift deploy` would serve, but for the tool."""
        section = DeploySection(name="demo", infer_backend="vllm", adapters=self.flags(*names))
        found = resolve_reference(str(self.model), self.store)
        digest = input_ref(found, self.store.digests).digest
        made = make_release(
            section,
            ModelToServe(self.model, digest, digest),
            named_adapters(section, self.store),
            self.store,
            Runtime(device="cpu", num_threads=1),
            version=digest[:12],
        )
        return replace(made, server="tool_stub_server")

    def deploy(self, *names, **options):
        return deploy_release(
            self.release(*names),
            state_dir=self.state_dir,
            start_timeout_seconds=SECONDS,
            **options,
        )

    @property
    def state(self):
        found = status(self.state_dir)
        assert found is not None
        return found

    @property
    def names(self):
        """The names of the adapters that clients see."""
        listed = httpx.get(self.state["url"] + "/v1/models", headers=KEY).json()["data"]
        return [row["id"] for row in listed if not row["id"].startswith("demo")]

    def ask(self, model, **fields):
        body = {"model": model, "prompt": [300], "max_tokens": 3, "temperature": 0, **fields}
        url = self.state["url"] + "/v1/completions"
        return httpx.post(url, json=body, headers=KEY, timeout=SECONDS)

    def said(self, model):
        answer = self.ask(model)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def says(self, token, times=3):
        return self.tokenizer.decode([token] * times)

    @property
    def log(self):
        logs = sorted((self.state_dir / "logs").glob("backend-*.log"))
        return "".join(log.read_text() for log in logs)

    def journal(self):
        lines = (self.state_dir / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def unchanged(self, before):
        """Check that what was served before still is, by the same process."""
        now = self.state
        assert now["current"] == before["current"]
        assert now["previous"] == before["previous"]
        assert self.names == list(before["current"]["adapters"])
        assert self.said("law") == self.says(301)
        return now["backend_pid"] == before["backend_pid"]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
        patch.setenv("SWIFTCORE_API_KEY", "secret")
        made = Endpoint(tmp_path_factory.mktemp("adapters"))
        yield made
        stop(made.state_dir)
        assert all(not psutil.pid_exists(pid) for pid in tool_pids(made.state_dir))


@pytest.fixture
def served(endpoint):
    """The endpoint with the adapters law and news."""
    endpoint.deploy("law", "news")
    return endpoint


def golden(served, expected=None):
    ids = [300]
    for _ in range(3):
        ids.append(counting(ids, "demo"))
    said = served.tokenizer.decode(ids[1:])
    return [Golden(expected or said, prompt_ids=[300], max_tokens=3)]


def test_an_adapter_is_added_and_a_rollback_takes_it_back_in_the_same_process(served):
    before = served.state
    added = served.deploy("law", "news", "tax", golden=golden(served))
    assert added.in_place == AdapterChange(("tax",), (), ("law", "news"))
    assert (added.pid, added.golden_matched, added.reused) == (before["backend_pid"], 1, False)
    assert served.names == ["law", "news", "tax"]
    texts = {served.said(name) for name in ("law", "news", "tax")}
    assert texts == {served.says(token) for token in (301, 302, 303)}
    now = served.state
    assert now["current"]["fingerprint"] == added.fingerprint != before["current"]["fingerprint"]
    assert now["previous"] == before["current"]
    assert served.ask("demo").json()["system_fingerprint"] == added.fingerprint
    assert added.fingerprint[:12] in httpx.get(now["url"] + "/ready").json()["release"]
    private = EndpointFolder(served.state_dir).read_state()["backend"]["port"]
    ready = httpx.get(f"http://127.0.0.1:{private}/ready").json()
    assert ready["fingerprint"] == added.fingerprint
    assert served.deploy("law", "news", "tax").reused

    back = rollback(served.state_dir)
    assert back.in_place == AdapterChange((), ("tax",), ("law", "news"))
    assert back.fingerprint == before["current"]["fingerprint"]
    assert back.pid == before["backend_pid"]
    assert served.names == ["law", "news"]
    assert served.ask("tax").status_code == 404
    again = rollback(served.state_dir)
    assert (again.in_place.loaded, again.golden_matched) == (("tax",), 1)
    assert served.said("tax") == served.says(303)
    assert served.journal()[-1]["in_place"] == again.in_place.as_dict()


def test_a_removed_adapter_finishes_its_answer_and_is_then_unloaded(served):
    served.adapter("slow", 304, "slow")
    served.deploy("law", "slow")
    body = {"model": "slow", "prompt": [300], "max_tokens": 30, "stream": True}
    url = served.state["url"] + "/v1/completions"
    with httpx.stream("POST", url, json=body, headers=KEY, timeout=SECONDS) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        removed = served.deploy("law")
        assert removed.in_place == AdapterChange((), ("slow",), ("law",))
        refused = served.ask("slow")
        assert "unload_lora_adapter slow" not in served.log
        events = [first, *lines]
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    pieces = [json.loads(line[6:]) for line in events if line.startswith("data: {")]
    assert "".join(p["choices"][0]["text"] for p in pieces) == served.says(304, 30)
    until(lambda: "unload_lora_adapter slow" in served.log)


def test_every_request_is_answered_while_adapters_come_and_go(served):
    answers, stopping = [], threading.Event()

    def load(name):
        url = served.state["url"] + "/v1/completions"
        body = {"model": name, "prompt": [300], "max_tokens": 3, "temperature": 0}
        with httpx.Client(timeout=SECONDS, headers=KEY) as client:
            while not stopping.is_set():
                choices = client.post(url, json=body).json().get("choices")
                answers.append((name, choices and choices[0]["text"]))

    clients = [threading.Thread(target=load, args=[name]) for name in ("demo", "law")]
    for client in clients:
        client.start()
    for names in (("law", "tax"), ("law", "news"), ("law", "news", "tax")):
        assert served.deploy(*names).in_place
    stopping.set()
    for client in clients:
        client.join()
    assert set(answers) == {("demo", served.said("demo")), ("law", served.says(301))}
    assert len(answers) > 10


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        ("refuse", UsageError, "does not load this adapter"),
        ("mute", GateRefused, "did not answer the probe"),
        ("no template", ModelMissing, "template"),
        ("golden", GateRefused, "does not repeat golden answer"),
    ],
)
def test_an_adapter_that_fails_is_unloaded_and_nothing_changed(served, behaviour, kind, said):
    place = served.adapter(behaviour, behaviour=behaviour)
    if behaviour == "no template":
        for file in place.glob("*template*"):
            file.unlink()
    wrong = golden(served, "other words") if behaviour == "golden" else []
    before, known = served.state, len(served.log)
    release = served.release("law", "news")
    release = replace(release, fingerprint="b" * 64, adapters={**release.adapters, "bad": place})
    with pytest.raises(kind, match=said):
        deploy_release(release, state_dir=served.state_dir, golden=wrong)
    assert served.unchanged(before)
    assert served.ask("bad").status_code == 404
    assert served.journal()[-1]["decision"] == "refused"
    loaded = re.findall(r"^load_lora_adapter (bad@.*)$", served.log[known:], re.M)
    unloaded = re.findall(r"^unload_lora_adapter (bad@.*)$", served.log[known:], re.M)
    assert loaded == unloaded
    assert len(loaded) == (behaviour in ("mute", "golden"))
    assert [served.ask(hidden).status_code for hidden in loaded] == [404] * len(loaded)


def test_a_tool_that_dies_while_it_loads_comes_back_with_the_set_of_before(served):
    served.adapter("deadly", behaviour="die")
    served.deploy("law", "news", "tax")
    before, known = served.state, decisions(served.state_dir)
    with pytest.raises(GateRefused, match="did not take over"):
        served.deploy("law", "deadly")
    until(lambda: "restarted" in decisions(served.state_dir)[len(known) :])
    assert not served.unchanged(before)
    # Started with the set that the process before it was changed to.
    assert served.names == ["law", "news", "tax"]
    fingerprint = before["current"]["fingerprint"]
    assert served.ask("tax").json()["system_fingerprint"] == fingerprint


def test_a_deployer_that_goes_away_leaves_nothing_loaded(served):
    before = served.state
    order = {
        "release": served.release("law", "tax").as_dict(),
        "api_key": "secret",
        "start_timeout_seconds": SECONDS,
    }
    with ControlClient(EndpointFolder(served.state_dir), timeout_seconds=SECONDS) as gateway:
        event = gateway.ask(command="deploy", **order)
        hidden = event["names"]["tax"]
        assert served.said(hidden) == served.says(303)
        assert served.ask("tax").status_code == 404
        assert served.names == ["law", "news"]
        known = len(decisions(served.state_dir))
    until(lambda: "refused" in decisions(served.state_dir)[known:])
    assert served.ask(hidden).status_code == 404
    assert f"unload_lora_adapter {hidden}" in served.log
    assert served.unchanged(before)


def test_two_deployments_at_once_follow_each_other(served):
    wanted, results = [("law", "tax"), ("law", "news", "tax")], []
    threads = [
        threading.Thread(target=lambda names=names: results.append(served.deploy(*names)))
        for names in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.in_place is not None for result in results] == [True, True]
    current = served.state["current"]
    assert current["fingerprint"] in {result.fingerprint for result in results}
    assert tuple(current["adapters"]) in wanted
    assert served.names == list(current["adapters"])


def asked(port, path, token):
    """Send an order to forget what is staged, on a path as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        connection.putrequest("POST", path, skip_accept_encoding=True)
        body = b'{"command": "discard"}'
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_the_gateway_reaches_the_private_road(served):
    state = EndpointFolder(served.state_dir).read_state()
    server = psutil.Process(state["backend"]["process"]["pid"])
    token = server.environ()[TOKEN_VARIABLE]
    assert asked(state["backend"]["port"], ADAPTER_PATH, token) == 200
    for other in ("", "secret", token[:-1], token.upper()):
        assert asked(state["backend"]["port"], ADAPTER_PATH, other) == 404
    for path in ("", "/v1/..", "/v1/%2e%2e", "/v1/x/../..", "/v1/.."):
        assert asked(state["port"], path + ADAPTER_PATH, token) == 404
    assert asked(state["port"], "/v1" + ADAPTER_PATH, token) == 401
    family = [server, *server.children(recursive=True)]
    assert all(token not in " ".join(process.cmdline()) for process in family)
    assert all(TOKEN_VARIABLE not in process.environ() for process in family[1:])


def test_what_the_running_server_can_t_become_gets_a_new_server(served):
    served.adapter("large", 305, rank=64)
    before = served.state
    after = served.deploy("law", "large")
    assert after.in_place is None
    assert after.pid != before["backend_pid"]
    assert served.said("large") == served.says(305)
    why = [line for line in served.journal() if line["decision"] == "new server needed"][-1]
    assert "up to 16, and large has rank 64" in why["reason"]


def test_swift_deploy_and_rollback_say_what_happened(served, monkeypatch, capsys):
    monkeypatch.setattr(deploy_command, "require_engine", lambda *_: None)
    monkeypatch.setattr(
        deploy_command,
        "make_release",
        lambda *given, **named: replace(make_release(*given, **named), server="tool_stub_server"),
    )

    def run(*names, more=()):
        place = ["--store", str(served.store.root), "--name", "demo", "--port", "0"]
        engine = ["--infer_backend", "vllm", "--device", "cpu", "--num_threads", "1"]
        given = ["--model", str(served.model), "--adapters", *served.flags(*names), *more]
        assert deploy_command.main(["deploy", *place, *engine, *given]) == 0
        return capsys.readouterr().out

    first, second = run("law", "news", "tax").splitlines()
    loaded = r"adapter tax loaded into the running server in \d\.\d s; law, news kept"
    assert re.fullmatch(loaded, first)
    assert second.startswith("serving demo, demo@")
    told = json.loads(run("law", "tax", more=["--json"]))
    assert told["in_place"] == {"loaded": [], "removed": ["news"], "kept": ["law", "tax"]}
    assert told["pid"] == served.state["backend_pid"]
    other = served.adapter("foreign")
    (other / "base_model.json").write_text('{"name": "other", "weights": {"a": "b"}}')
    before = served.state
    with pytest.raises(UsageError, match="not the base model"):
        run("law", "foreign")
    assert served.unchanged(before)
    assert rollback_command(["demo", "--store", str(served.store.root)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("adapter news loaded into the running server in ")
    assert "; law, tax kept; version " in said
    assert served.names == ["law", "news", "tax"]
    before = served.state
    said_by_tax = served.folder / "tax" / "token.txt"
    content = said_by_tax.read_text()
    said_by_tax.write_text("309")
    with pytest.raises(ArtifactDamaged, match="changed since it was served"):
        rollback_command(["demo", "--store", str(served.store.root)])
    said_by_tax.write_text(content)
    assert served.unchanged(before)


def test_only_requests_that_came_before_are_waited_for_and_not_for_ever():
    async def waits():
        requests, loop = RequestsUnderWay(), asyncio.get_running_loop()
        old = requests.begin()
        waiting = asyncio.create_task(requests.answered(SECONDS))
        await asyncio.sleep(0.01)
        requests.begin()
        assert not waiting.done()
        requests.end(old)
        await waiting
        started = loop.time()
        await requests.answered(0.1)
        assert loop.time() - started < SECONDS / 2

    asyncio.run(waits())


class FakeBackend(SimpleNamespace):
    """A server that answers its private road by a function."""

    def __init__(self, release, answer, **fields):
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://x")
        fixed = {"token": "t", "log": Path("log"), "running": True, "num_stops": 0}
        super().__init__(
            release=release, client=client, files=release.files(), **{**fixed, **fields}
        )

    def log_tail(self):
        return "its last words"

    async def stop(self):
        self.num_stops += 1


@pytest.mark.parametrize(
    "changed", ["model/config.json", "law/weights", "law/further", "news/weights"]
)
def test_a_server_whose_own_files_changed_is_not_changed_in_place(tmp_path, changed):
    folders = {name: tmp_path / name for name in ("law", "news", "tax")}
    for file in ("model/config.json", "law/weights", "news/weights", "tax/weights"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("as deployed")
    here = {name: folders[name] for name in ("law", "news")}
    now = Release("a", "demo", "1", tmp_path / "model", infer_backend="vllm", adapters=here)
    wanted = replace(now, fingerprint="b", adapters={n: folders[n] for n in ("law", "tax")})
    backend = FakeBackend(now, lambda _: httpx.Response(200, json={"names": {"tax": "tax@1"}}))
    (tmp_path / changed).write_text("trained again")
    staging = AdapterSwap.stage(backend, Deployment(wanted, None, 5.0), now.adapter_change(wanted))
    if changed.startswith("news"):  # it goes, whatever it is by now
        assert asyncio.run(staging).change == AdapterChange(("tax",), ("news",), ("law",))
    else:
        with pytest.raises(NotInPlace, match="files that it serves from"):
            asyncio.run(staging)


@pytest.mark.parametrize("ends", ["without a word", "after its answer"])
def test_a_server_that_does_not_say_that_it_published_stays_what_it_was(tmp_path, ends):
    folder = tmp_path / "law"
    now = Release("a", "demo", "1", tmp_path, infer_backend="vllm")
    wanted = replace(now, fingerprint="b", adapters={"law": folder})

    def answer(request):
        command = json.loads(request.content)["command"]
        if command == "publish" and ends == "without a word":
            raise httpx.ReadError("broken")
        backend.running = command != "publish"
        return httpx.Response(200, json={"names": {"law": "law@1"}})

    backend = FakeBackend(now, answer)

    async def swaps():
        deployment = Deployment(wanted, None, 5.0)
        change = now.adapter_change(wanted)
        swap = await AdapterSwap.stage(backend, deployment, change)
        with pytest.raises(GateRefused, match="did not take over") as caught:
            await swap.take_over()
        assert "its last words" in caught.value.found

    asyncio.run(swaps())
    assert backend.release is now
    # One that may have published is ended, for the gateway to start it again.
    assert backend.num_stops == (ends == "without a word")


def test_a_deployment_with_another_key_or_to_another_kind_of_server_is_not_in_place(tmp_path):
    now = Release("a", "demo", "1", tmp_path, infer_backend="vllm")
    wanted = replace(now, fingerprint="b", adapters={"law": tmp_path / "law"})
    backend = FakeBackend(now, lambda _: httpx.Response(404), api_key="secret")
    folder = EndpointFolder(tmp_path / "serving")
    folder.create()
    gateway = Gateway(folder, ("127.0.0.1", 0))

    async def staged(api_key):
        gateway._become("ready", backend)
        return await gateway._stage_adapters(Deployment(wanted, api_key, 5.0))

    backend.as_dict = dict
    assert asyncio.run(staged("another")) is None
    assert not (folder.path / "journal.jsonl").exists()
    assert asyncio.run(staged("secret")) is None
    assert decisions(folder.path) == ["adapters staged", "new server needed"]


def test_a_probe_waits_for_a_place_in_a_full_server_and_asks_hidden_names(tmp_path, monkeypatch):
    asked, statuses = [], iter([429, 429, 200, 200])

    def answer(request):
        asked.append(json.loads(request.content)["model"])
        return httpx.Response(next(statuses), json={"choices": [{"message": {"content": "Hi"}}]})

    client = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **given: client(transport=httpx.MockTransport(answer), **given)
    )
    monkeypatch.setattr("swiftcore.serving.probe._PAUSE_SECONDS", 0.0)
    release = Release("a", "demo", "1", tmp_path, adapters={"law": tmp_path})
    options = {"api_key": None, "timeout_seconds": 5, "progress": Silent()}
    assert probe(release, "http://x", [], names={"law": "law@hidden"}, **options) == 0
    assert asked == ["demo", "demo", "demo", "law@hidden"]


def test_only_added_and_removed_names_leave_the_server_as_it_is(tmp_path):
    here = {"law": tmp_path / "law", "news": tmp_path / "news"}
    now = Release("a", "demo", "1", tmp_path, infer_backend="vllm", adapters=here)

    def change(**fields):
        return now.adapter_change(replace(now, fingerprint="b", **fields))

    assert change(adapters={}) == AdapterChange((), ("law", "news"), ())
    both = change(adapters={"tax": tmp_path / "tax", "news": here["news"]})
    assert both == AdapterChange(("tax",), ("law",), ("news",))
    assert both.told(0.44) == (
        "adapter tax loaded into the running server and adapter law removed from it in 0.4 s; "
        "news kept"
    )
    assert AdapterChange.from_dict(json.loads(json.dumps(both.as_dict()))) == both
    assert change() is None  # the same names over other content
    assert change(adapters={**here, "law": tmp_path / "other"}) is None
    assert change(adapters={}, version="2") is None
    assert change(adapters={}, backend_settings={"vllm_max_num_seqs": 4}) is None
    assert change(adapters={}, infer_backend="sglang") is None
