"""A served model on benchmarks: what an endpoint may do wrong, and what becomes of it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swiftcore.artifacts import Store
from swiftcore.errors import EnvironmentMissing, TransientError, UsageError
from swiftcore.evaluation.answering import Call
from swiftcore.evaluation.benchmarks.endpoint import EndpointModel, EndpointSettings
from swiftcore.generation import SamplingParams
from swiftcore.progress import Silent
from swiftcore.stages.model_folders import find_folders
from tests.roads import swift_here
from tests.test_benchmarks import GSM8K, right, write_lines
from tests.tiny_model import build_model, build_tokenizer

ROWS = [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(40)]
PARAMS = SamplingParams(max_new_tokens=9, temperature=0.5, seed=3, stop=("END",))


class Endpoint:
    """A chat endpoint in this process; `behave` maps (number of the request, body) to a reply."""

    def __init__(self):
        self.behave = lambda number, body: (200, completion("fine"))
        self.bodies, self.headers, self.most_at_once = [], [], 0
        self._lock, self._open = threading.Lock(), 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, {"data": [{"id": "served"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint._open += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._open)
                    endpoint.bodies.append(body)
                    endpoint.headers.append(dict(self.headers))
                    number = len(endpoint.bodies)
                try:
                    self.reply(*endpoint.behave(number, body))
                finally:
                    with endpoint._lock:
                        endpoint._open -= 1

            def reply(self, status, content, **headers):
                written = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def model(self, **settings):
        chosen = {"backoff_seconds": 0.001, "timeout_seconds": 5.0, "num_concurrent": 4} | settings
        return EndpointModel(EndpointSettings(self.url, **chosen), api_key="k")


def completion(text, reason="stop", **message):
    message = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def ask(model, rows=ROWS):
    return model.answer(rows, PARAMS, Silent())


def test_settings_reach_the_endpoint_and_answers_keep_their_order(endpoint):
    endpoint.behave = lambda _, body: (200, completion(body["messages"][0]["content"].upper()))
    answers = ask(endpoint.model())
    assert [answer.text for answer in answers] == [f"QUESTION {n}" for n in range(40)]
    body = endpoint.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("served", 9, 0.5)
    assert (body["seed"], body["stop"]) == (3, ["END"])
    assert "top_k" not in body
    assert endpoint.headers[0]["Authorization"] == "Bearer k"
    assert 1 < endpoint.most_at_once <= 4
    assert answers[0].completion.completion_tokens == 2


def every_tenth_fails(number, body):
    return (500, b"overloaded") if number % 10 == 0 else (200, completion("fine"))


def test_every_tenth_request_fails_and_is_tried_again(endpoint):
    endpoint.behave = every_tenth_fails
    model = endpoint.model()
    assert [answer.error for answer in ask(model)] == [None] * 40
    assert model.num_retried == 4
    assert model.as_dict()["num_retried"] == 4


def test_without_further_tries_each_failure_counts_and_is_shown(endpoint):
    endpoint.behave = every_tenth_fails
    failed = [answer for answer in ask(endpoint.model(num_retries=0)) if answer.error]
    assert len(failed) == 4
    assert failed[0].error == "status 500 from the endpoint: overloaded"
    assert failed[0].finish_reason == "error"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"<html>busy</html>", "no chat completion: '<html>"),
        (b"", "no chat completion"),
        ({"choices": []}, "no chat completion"),
        ({"choices": [{"message": {"content": 5}}]}, "no chat completion"),
        ([1], "no chat completion"),
    ],
)
def test_garbage_is_a_failed_answer(endpoint, reply, why):
    endpoint.behave = lambda *_: (200, reply)
    (answer,) = ask(endpoint.model(num_retries=1), ROWS[:1])
    assert why in answer.error
    assert len(endpoint.bodies) == 2


def test_a_request_that_is_wrong_is_not_sent_twice(endpoint):
    endpoint.behave = lambda *_: (400, b"prompt too long")
    (answer,) = ask(endpoint.model(), ROWS[:1])
    assert "prompt too long" in answer.error
    assert len(endpoint.bodies) == 1


def test_a_time_out_is_a_failed_answer(endpoint):
    endpoint.behave = lambda *_: time.sleep(0.5) or (200, completion("late"))
    (answer,) = ask(endpoint.model(num_retries=0, timeout_seconds=0.1), ROWS[:1])
    assert "no answer from the endpoint" in answer.error


def test_a_refused_key_ends_the_evaluation(endpoint):
    endpoint.behave = lambda *_: (401, b"who are you")
    with pytest.raises(UsageError, match="refuses the key"):
        ask(endpoint.model())
    assert len(endpoint.bodies) < 20


def test_an_endpoint_that_stops_answering_ends_the_evaluation(endpoint):
    model = endpoint.model(num_retries=0)
    endpoint.server.shutdown()
    endpoint.server.server_close()
    with pytest.raises(TransientError, match="stopped answering"):
        ask(model)


def test_nothing_at_the_address_is_one_error():
    with pytest.raises(EnvironmentMissing, match="No endpoint answers"):
        EndpointModel(EndpointSettings("http://127.0.0.1:9/v1", num_retries=0))
    with pytest.raises(UsageError):
        EndpointModel(EndpointSettings("ftp://here"))


def test_calls_and_cut_off_answers_are_read(endpoint):
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    bad = {"type": "function", "function": {"name": "g", "arguments": "{a"}}
    endpoint.behave = lambda *_: (200, completion(None, "length", tool_calls=[call, bad, 7]))
    row = {**ROWS[0], "tools": [{"type": "function", "function": {"name": "f"}}]}
    (answer,) = ask(endpoint.model(), [row])
    assert answer.calls == (Call("f", {"a": 1}), Call("g", None), Call("", None))
    assert (answer.text, answer.finish_reason) == ("", "length")
    assert endpoint.bodies[0]["tools"] == row["tools"]


@pytest.fixture
def flags(tmp_path):
    write_lines(tmp_path / "eval/gsm8k_test.jsonl", GSM8K)
    return ["--eval_dataset", "gsm8k", "--eval_dataset_dir", tmp_path / "eval",
            "--eval_dataset_args", '{"gsm8k": {"few_shot_num": 0}}',
            "--eval_output_dir", tmp_path / "out"]  # fmt: skip


def test_swift_eval_asks_an_endpoint_and_writes_a_report(tmp_path, endpoint, flags):
    endpoint.behave = lambda _, body: (200, completion(right(body["messages"][-1]["content"])))
    done = swift_here("eval", "--eval_url", endpoint.url, *flags, "--json")
    found = json.loads(done.stdout)
    assert found["metrics"]["gsm8k/accuracy"]["value"] == 1
    (folder,) = (tmp_path / "out").iterdir()
    assert str(folder) == found["path"]
    report = json.loads((folder / "report.json").read_text())
    assert report["settings"]["endpoint"]["model"] == "served"
    assert (folder / "samples/gsm8k/served.jsonl").is_file()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([], "Nothing to evaluate"),
        (["--model", "m", "--eval_num_proc", "3"], "eval_num_proc"),
        (["--eval_url", "http://x", "--template", "chatml"], "--template"),
        (["--eval_url", "http://x", "--eval_batch_size", "2"], "--eval_batch_size"),
        (["--eval_url", "http://x/v1", "--infer_backend", "vllm"], "--infer_backend"),
        (["--model", "m", "--metrics", "rouge"], "--metrics"),
        (["--model", "m", "--local_dataset", "true"], "local files"),
        (["--model", "m", "--torch_dtype", "float32"], "--torch_dtype"),
        (["--eval_url", "http://x", "--eval_num_proc", "0"], "at least 1"),
    ],
)
def test_flags_that_do_nothing_are_refused(flags, wrong, match):
    done = swift_here("eval", *wrong, *flags)
    assert done.returncode == 2
    assert match in done.stderr


def test_no_benchmark_is_a_wrong_call():
    done = swift_here("eval", "--model", "m")
    assert done.returncode == 2
    assert "--eval_dataset NAME" in done.stderr


def test_a_missing_benchmark_is_told_before_the_model_is_loaded(tmp_path):
    flags = ["--eval_dataset", "mmlu", "--eval_dataset_dir", tmp_path]
    done = swift_here("eval", "--model", "no-such-model", *flags)
    assert done.returncode == 3
    assert "mmlu_test.jsonl" in done.stderr


def test_swift_eval_of_a_model_folder(tmp_path, flags):
    tokenizer = build_tokenizer()
    for part in (build_model(tokenizer, max_position_embeddings=512), tokenizer):
        part.save_pretrained(tmp_path / "base")
    given = ["--model", tmp_path / "base", "--template", "chatml", "--max_new_tokens", "4", *flags]
    found = json.loads(swift_here("eval", *given, "--json").stdout)
    assert found["metrics"]["gsm8k/accuracy"]["n"] == 2
    assert found["generated_tokens"] <= 8
    assert found["size_bytes"] == (tmp_path / "base/model.safetensors").stat().st_size


def test_an_adapter_is_evaluated_over_its_base(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, name in ((base, "config.json"), (adapter, "adapter_config.json")):
        folder.mkdir()
        (folder / name).write_text(json.dumps({"base_model_name_or_path": str(base)}))
    store = Store(tmp_path / "store")
    both = find_folders(str(base), [str(adapter)], store)
    assert (both.model_dir, both.adapter_dir) == (base, adapter)
    named = find_folders(str(adapter), [], store)
    assert (named.model_dir, named.adapter_dir) == (base, adapter)
    assert find_folders(str(base), [], store).adapter_dir is None
    (base / "config.json").unlink()
    with pytest.raises(UsageError, match="base model of an adapter"):
        find_folders(str(adapter), [], store)
    with pytest.raises(UsageError, match="no adapter"):
        find_folders(str(adapter), [str(base)], store)
    with pytest.raises(UsageError, match="One adapter"):
        find_folders(str(base), [str(adapter), str(adapter)], store)
