"""`swift infer`: answers to rows, through kills and bad rows, and conversations."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from swiftcore.artifacts import Identity, InputRef, Produced, Store, make
from swiftcore.data import build_dataset
from swiftcore.generation import SamplingParams, TransformersEngine
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.tasks import write_task
from swiftcore.recipe import DataSection
from swiftcore.scores.nlg import nlg_metrics
from swiftcore.template import get_template, write_template_settings
from tests.fake_tool import fake_tool
from tests.making import wait_until
from tests.roads import SWIFT, swift_here, write_rows
from tests.task_setup import CLASSES, EMBEDDING, RERANKER, user
from tests.tiny_model import build_model, build_tokenizer

QUESTIONS = ["what is the weather in Paris?", "please add 12 and 30", "Grüße aus 東京", "the fox"]
SHORT = ("--max_new_tokens", "12", "--num_threads", "1")


def answered(text: str, answer: str) -> dict:
    return {"messages": [user(text), {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny model that says which template it was trained with."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("infer") / "base"
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = get_template("chatml", tokenizer, default_system="Be brief.")
    write_template_settings(folder, template.settings)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter that changes the base's answers."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    folder = base.parent / "adapter"
    get_peft_model(load_model(base), config).save_pretrained(folder)
    shutil.copy(base / "swift_template.json", folder)
    return folder


@pytest.fixture(scope="module")
def engine(base: Path) -> TransformersEngine:
    return TransformersEngine.load(base, stop_words=["<|im_end|>"])


def prompt(engine, messages: list[dict], system: str = "Be brief.") -> list[int]:
    """The tokens of a conversation, written without our template."""
    turns = [{"role": "system", "content": system}, *messages] if system else messages
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in turns)
    return engine.tokenizer.encode(f"{text}<|im_start|>assistant\n", add_special_tokens=False)


def direct(engine, messages: list[dict], system: str = "Be brief.", **params) -> str:
    """What the engine itself answers."""
    chosen = SamplingParams(**{"max_new_tokens": 12, **params})
    ids = prompt(engine, messages, system)
    return engine.generate([ids], chosen, batch_size=1)[0].text


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """Stores and results of these tests are not left in the repository."""
    monkeypatch.chdir(tmp_path)


def run_here(*flags: object) -> subprocess.CompletedProcess[str]:
    return swift_here("infer", *flags, cwd=Path.cwd())


def infer(*flags: object, code: int = 0) -> str:
    done = run_here(*SHORT, *flags)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def lines_at(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_of_any_form_are_answered_and_bad_ones_stay_in_their_place(base, engine, tmp_path):
    rows = [
        {"query": QUESTIONS[0], "response": "sunny", "id": 7, "tags": ["a"], "labels": "old"},
        {"messages": [user(QUESTIONS[1])]},
        {"messages": "nonsense", "id": 8},
        answered("fox " * 300, "too long"),
        {"messages": [user("one"), {"role": "assistant", "content": "1"}, user(QUESTIONS[2])]},
    ]
    source, path = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    told = json.loads(
        infer("--model", base, "--val_dataset", source, "--result_path", path, "--json", code=3)
    )
    lines = lines_at(path)
    first = direct(engine, [user(QUESTIONS[0])])
    assert lines[0] == {
        "id": 7,
        "tags": ["a"],
        "messages": [user(QUESTIONS[0]), {"role": "assistant", "content": first}],
        "response": first,
        "labels": "sunny",
        "finish_reason": lines[0]["finish_reason"],
        "prompt_tokens": len(prompt(engine, [user(QUESTIONS[0])])),
        "completion_tokens": lines[0]["completion_tokens"],
    }
    assert lines[1]["response"] == direct(engine, [user(QUESTIONS[1])])
    assert lines[1]["labels"] is None
    assert lines[2]["row"] == rows[2]
    assert lines[2]["origin"] == f"{source}:3"
    assert lines[3]["response"] is lines[2]["response"] is None
    assert "no room" in lines[3]["error"]
    assert lines[3]["labels"] == "too long"
    assert lines[4]["response"] == direct(engine, rows[4]["messages"])
    assert (told["rows"], told["failed"], sum(told["errors"].values())) == (5, 2, 2)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(base, adapter, tmp_path):
    texts = [f"{QUESTIONS[n % 4]} {n}" for n in range(24)]
    source = write_rows(tmp_path / "rows.jsonl", [answered(text, "x") for text in texts])
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    common = ("--model", base, "--adapters", adapter, "--val_dataset", source, "--temperature")
    flags = (*SHORT, *common, "0.7", "--write_batch_size", "1")
    command = [*SWIFT, "infer", *map(str, flags), "--result_path", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: path.exists() and path.stat().st_size > 0, seconds=60)
    process.kill()
    process.wait()
    kept = path.read_bytes()
    assert 0 < kept.count(b"\n") < len(texts)
    path.write_bytes(kept + b'{"messages": [{"ro')
    # Another batch size makes the same answers: each row draws its own numbers.
    infer(*flags[len(SHORT) :], "--result_path", path, "--max_batch_size", "3")
    infer(*flags[len(SHORT) :], "--result_path", whole, "--max_batch_size", "8")
    assert path.read_bytes() == whole.read_bytes()
    assert path.read_bytes().startswith(kept)
    over = TransformersEngine.load(base, adapter_dir=adapter, stop_words=["<|im_end|>"])
    lines = lines_at(path)
    assert [line["labels"] for line in lines] == ["x"] * 24
    greedy = tmp_path / "greedy.jsonl"
    infer(*common[:-1], "--val_dataset_sample", "3", "--result_path", greedy)
    expected = [direct(over, [user(text)]) for text in texts[:3]]
    assert [line["response"] for line in lines_at(greedy)] == expected
    assert expected != [direct(TransformersEngine.load(base), [user(t)]) for t in texts[:3]]


def test_a_file_of_other_work_is_refused_and_a_finished_one_is_read_again(base, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [answered(q, "x") for q in QUESTIONS])
    common = ("--model", base, "--val_dataset", source)
    first = infer(*common).splitlines()[-1]
    path = tmp_path / first
    assert path.parts[-4:-1] == ("result", path.parts[-3], "infer_result")
    before = path.stat().st_mtime_ns
    assert infer(*common).splitlines()[-1] == first
    assert path.stat().st_mtime_ns == before
    refused = run_here(*SHORT, *common, "--system", "Be long.", "--result_path", path)
    assert refused.returncode == 2
    assert "other values of template" in refused.stderr


def test_metrics_count_a_failed_row_as_wrong(base, engine, tmp_path):
    right = direct(engine, [user(QUESTIONS[0])])
    rows = [
        answered(QUESTIONS[0], right),
        answered(QUESTIONS[1], "the weather"),
        answered("fox " * 300, "too long"),
        {"messages": [user(QUESTIONS[2])]},
    ]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    common = ("--model", base, "--val_dataset", source, "--json")
    for metric, name in (("acc", "acc"), ("rouge", "rouge-l")):
        path = tmp_path / f"{metric}.jsonl"
        told = json.loads(infer(*common, "--metric", metric, "--result_path", path, code=3))
        found = told["metrics"][name]
        second = lines_at(path)[1]["response"]
        scores = [
            nlg_metrics(right, right)["rouge-l"],
            nlg_metrics(second, "the weather")["rouge-l"],
        ]
        expected = 1 / 3 if metric == "acc" else sum(scores) / 3
        assert (found["n"], found["value"]) == (3, pytest.approx(expected))
    alone = write_rows(tmp_path / "alone.jsonl", rows[3:])
    refused = infer("--model", base, "--val_dataset", alone, "--metric", "acc", "--json", code=3)
    assert "No row has an answer to compare with" in refused


def test_stop_words_end_an_answer_and_stay_in_it(base, engine, tmp_path):
    whole = direct(engine, [user(QUESTIONS[0])])
    word = whole[3:6]
    source = write_rows(tmp_path / "rows.jsonl", [{"messages": [user(QUESTIONS[0])]}])
    for streams in ("false", "true"):
        path = tmp_path / f"{streams}.jsonl"
        flags = ("--val_dataset", source, "--result_path", path, "--stream", streams)
        shown = infer("--model", base, *flags, "--stop_words", word, "unseen")
        (line,) = lines_at(path)
        assert line["response"] == whole[: whole.index(word) + len(word)]
        assert line["finish_reason"] == "stop"
        assert (line["response"] + "\n" in shown) == (streams == "true")


def test_rows_held_out_of_a_training_are_found_by_its_record(base, adapter, engine, tmp_path):
    store = Store(tmp_path / "store")
    files = {
        split: write_rows(tmp_path / f"{split}.jsonl", [answered(text, "x")])
        for split, text in (("train", QUESTIONS[0]), ("val", QUESTIONS[3]))
    }

    def ingest(area):
        section = DataSection(dataset=[str(files["train"])], val_dataset=[str(files["val"])])
        build_dataset(section, area.out)
        return Produced()

    def publish(stage, body, **inputs):
        refs = {
            role: InputRef(found.artifact.digest, found.artifact.fingerprint, role)
            for role, found in inputs.items()
        }
        return make(store, Identity(stage, 1, "demo", {}, refs), body)

    def copied(source):
        def body(area):
            shutil.copytree(source, area.out, dirs_exist_ok=True)
            return Produced()

        return body

    dataset = publish("ingest", ingest)
    model = publish("scratch", copied(base), dataset=dataset)
    encoded = publish("template", copied(base.parent / "adapter"), dataset=dataset, tokenizer=model)
    trained = publish("train", copied(adapter), model=model, encoded=encoded)
    path = tmp_path / "out.jsonl"
    reference = f"artifact:{trained.artifact.fingerprint}"
    flags = ("--store", store.root, "--load_data_args", "true", "--result_path", path)
    infer("--adapters", reference, *flags)
    (line,) = lines_at(path)
    assert line["messages"][0] == user(QUESTIONS[3])
    over = TransformersEngine.load(base, adapter_dir=adapter, stop_words=["<|im_end|>"])
    assert line["response"] == direct(over, [user(QUESTIONS[3])])
    refused = run_here("--model", base, *flags)
    assert refused.returncode == 2
    assert "Nothing records which rows" in refused.stderr


@contextmanager
def tool_in_place(monkeypatch, engine, **settings):
    """A tool's server that has the tiny model's weights stands where vLLM would."""
    model = engine.model

    def likeliest(ids, _):
        with torch.inference_mode():
            return int(model(torch.tensor([ids])).logits[0, -1].argmax())

    with fake_tool(likeliest, **settings) as tool:
        place = SimpleNamespace(url=tool.url, model="model", key=None, running=True)

        @contextmanager
        def start(order, **_):
            tool.order = order
            yield place

        monkeypatch.setattr("swiftcore.backends.start_tool_server", start)
        monkeypatch.setattr("swiftcore.cli.infer.require_engine", lambda *_: None)
        yield tool


def test_vllm_gives_the_same_answers_and_one_that_fails_spoils_no_other(
    base, engine, tmp_path, monkeypatch
):
    rows = [{"messages": [user(text)]} for text in QUESTIONS]
    source, path = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    flags = ("--model", base, "--val_dataset", source, "--result_path", path)
    with tool_in_place(monkeypatch, engine, trouble=lambda n: "400" if n == 2 else None) as tool:
        more = ("--vllm_max_num_seqs", "1", "--max_model_len", "200")
        infer(*flags, "--infer_backend", "vllm", *more, code=3)
        assert (tool.order.backend, tool.order.max_model_len) == ("vllm", 200)
        assert tool.order.settings.vllm_max_num_seqs == 1
    lines = lines_at(path)
    assert [line.get("error") is not None for line in lines] == [False, True, False, False]
    for place in (0, 2, 3):
        assert lines[place]["response"] == direct(engine, [user(QUESTIONS[place])])


def test_a_tool_streams_a_conversation(base, engine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTIONS[0]}\nquit\nnever asked\n"))
    with tool_in_place(monkeypatch, engine) as tool:
        shown = infer("--model", base, "--infer_backend", "vllm")
        assert len(tool.asked) == 1
    assert shown == direct(engine, [user(QUESTIONS[0])]) + "\n"


def test_log_probabilities_are_those_of_the_model(base, engine, tmp_path, monkeypatch):
    source = write_rows(tmp_path / "rows.jsonl", [{"messages": [user("the fox")]}])
    flags = ("--logprobs", "true", "--top_logprobs", "2")
    path = tmp_path / "out.jsonl"
    infer("--model", base, "--val_dataset", source, "--result_path", path, *flags)
    (line,) = lines_at(path)
    ids = prompt(engine, [user("the fox")])
    done = engine.generate([ids], SamplingParams(max_new_tokens=12), batch_size=1)[0]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([ids + done.token_ids])).logits[0, len(ids) - 1 : -1]
    expected = logits.log_softmax(-1).topk(2)
    told = line["logprobs"]["content"]
    assert len(told) >= 3
    assert [each["logprob"] for each in told] == pytest.approx(
        expected.values[: len(told), 0].tolist(), abs=1e-4
    )
    assert [[top["logprob"] for top in each["top_logprobs"]] for each in told] == [
        pytest.approx(pair, abs=1e-4) for pair in expected.values[: len(told)].tolist()
    ]
    (said,) = map(json.loads, talk(monkeypatch, base, "the fox", *flags, "--json").splitlines())
    assert said["logprobs"] == line["logprobs"]


def test_a_prefix_is_where_answers_start(base, engine, tmp_path, monkeypatch):
    ids = prompt(engine, [user("the fox")])
    ids += engine.tokenizer.encode("Sure: ", add_special_tokens=False)
    whole = (
        "Sure: " + engine.generate([ids], SamplingParams(max_new_tokens=12), batch_size=1)[0].text
    )
    source = write_rows(tmp_path / "rows.jsonl", [{"messages": [user("the fox")]}])
    flags = ("--response_prefix", "Sure: ")
    infer("--model", base, "--val_dataset", source, "--result_path", tmp_path / "out.jsonl", *flags)
    assert lines_at(tmp_path / "out.jsonl")[0]["response"] == whole
    assert talk(monkeypatch, base, "the fox", *flags) == whole + "\n"


def talk(monkeypatch, base: Path, text: str, *flags: object, code: int = 0) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return infer("--model", base, *flags, code=code)


def test_a_conversation_through_a_pipe(base, engine, monkeypatch):
    shown = talk(
        monkeypatch,
        base,
        "one\n\ntwo\nclear\nthree\nsystem\nBe kind.\nfour\nsystem\ndefault-system\nfive\n"
        "multi-line\na\nb#\nsingle-line\nsix",
    )

    def turn(said: list[dict], text: str, system: str = "Be brief.") -> tuple[list[dict], str]:
        asked = [*said, user(text)]
        answer = direct(engine, asked, system)
        return [*asked, {"role": "assistant", "content": answer}], answer

    said, one = turn([], "one")
    _, two = turn(said, "two")
    _, three = turn([], "three")
    _, four = turn([], "four", "Be kind.")
    said, five = turn([], "five")
    said, lines = turn(said, "a\nb")
    _, six = turn(said, "six")
    assert shown == "\n".join([one, two, three, four, five, lines, six, ""])


def test_a_conversation_as_json_goes_on_after_a_question_that_is_too_long(
    base, engine, monkeypatch
):
    shown = talk(monkeypatch, base, f"{'fox ' * 300}\nthe fox\n", "--json", code=3)
    failed, good = map(json.loads, shown.splitlines())
    assert failed["response"] is None
    assert "no room" in failed["error"]
    assert good["response"] == direct(engine, [user("the fox")])
    assert good["prompt_tokens"] == len(prompt(engine, [user("the fox")]))


def scoring_model(base: Path, folder: Path, task) -> Path:
    """The tiny base with a new head, or without one."""
    torch.manual_seed(2)
    load_model(base, task=task).save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    shutil.copy(base / "swift_template.json", folder)
    write_task(folder, task)
    return folder


def scored_rows(tmp_path: Path, folder: Path, rows: list[dict], *flags: object) -> list[dict]:
    source = write_rows(tmp_path / "rows.jsonl", rows)
    path = tmp_path / f"{folder.name}-{len(flags)}.jsonl"
    done = run_here("--model", folder, "--val_dataset", source, "--result_path", path, *flags)
    assert done.returncode in (0, 3), done.stderr
    return lines_at(path)


def chatml(engine, messages: list[dict], *, ends: bool) -> torch.Tensor:
    ids = prompt(engine, messages)
    opening = len(engine.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False))
    return torch.tensor([ids[:-opening] if ends else ids])


def test_a_classifier_gives_classes_and_their_probabilities(base, engine, tmp_path):
    folder = scoring_model(base, tmp_path / "classes", CLASSES)
    rows = [{"messages": [user(text)], "label": n % 3} for n, text in enumerate(QUESTIONS)]
    rows.append({"messages": [user("no label")]})
    lines = scored_rows(tmp_path, folder, rows, "--metric", "acc", "--max_batch_size", "2")
    model = load_model(folder)
    for row, line in zip(rows, lines, strict=True):
        logits = model(chatml(engine, row["messages"], ends=False)).logits[0]
        assert line["scores"] == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
        assert line["response"] == int(logits.argmax())
        assert line["labels"] == row.get("label")


def test_a_reranker_scores_each_document_with_a_sigmoid_or_without(base, engine, tmp_path):
    folder = scoring_model(base, tmp_path / "reranker", RERANKER)
    query, documents = [user("about foxes")], ["a fox", "a train to Paris"]
    row = {
        "messages": query,
        "positive_messages": [[user(documents[0])]],
        "negative_messages": [[user(documents[1])]],
    }
    (activated,) = scored_rows(tmp_path, folder, [row])
    (plain,) = scored_rows(tmp_path, folder, [row], "--reranker_use_activation", "false")
    model = load_model(folder)
    for place, document in enumerate(documents):
        said = [*query, {"role": "assistant", "content": document}]
        score = model(chatml(engine, said, ends=True)).logits[0, 0].item()
        assert plain["response"][place] == pytest.approx(score, abs=1e-5)
        sigmoid = float(torch.tensor(score).sigmoid())
        assert activated["response"][place] == pytest.approx(sigmoid, abs=1e-5)


def test_an_embedding_is_a_vector_of_length_one_and_writes_no_text(base, tmp_path):
    folder = scoring_model(base, tmp_path / "embedding", EMBEDDING)
    rows = [{"messages": [user("a fox")]}, {"messages": [user("a fox")]}, {"messages": "bad"}]
    same, again, bad = scored_rows(tmp_path, folder, rows)
    assert torch.tensor(same["response"]).norm() == pytest.approx(1)
    assert same["response"] == again["response"]
    assert (bad["response"], bad["row"]) == (None, rows[2])
    for flags in (["--temperature", "1"], ["--infer_backend", "vllm"], ["--metric", "rouge"]):
        source = ("--val_dataset", tmp_path / "rows.jsonl")
        refused = run_here("--model", folder, *source, *flags)
        assert refused.returncode == 2
    assert "holds no conversation" in run_here("--model", folder).stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "No model is named"),
        (["--model", "m", "--metric", "acc"], "--metric"),
        (["--model", "m", "--columns", '{"a": "query"}'], "--columns"),
        (["--model", "m", "--val_dataset", "a", "--dataset", "b"], "Rows are named twice"),
        (["--model", "m", "--val_dataset", "a", "--split_dataset_ratio", "0.1"], "does nothing"),
        (["--model", "m", "--val_dataset", "a", "--attn_impl", "eager"], "--attn_impl"),
        (["--model", "m", "--num_beams", "4"], "searches in beams"),
        (["--model", "m", "--logprobs", "true"], "--logprobs"),
        (["--model", "m", "--top_logprobs", "2"], "does nothing without logprobs"),
        (["--model", "m", "--stream", "true", "--json"], "--stream"),
        (["--model", "m", "--vllm_max_num_seqs", "3"], "do nothing with infer_backend pt"),
        (
            ["--model", "m", "--infer_backend", "vllm", "--max_batch_size", "3"],
            "max_batch_size does nothing with infer_backend vllm",
        ),
        (["--model", "m", "--max_batch_size", "0"], "0 is no size"),
        (["--model", "m", "--nproc_per_node", "2"], "--nproc_per_node"),
        (["--model", "m", "--learning_rate", "1"], "does not act in swift infer"),
    ],
)
def test_what_would_do_nothing_is_refused(flags, said):
    refused = run_here(*flags)
    assert refused.returncode == 2
    assert said in refused.stderr + refused.stdout


def test_variables_of_a_training_in_several_processes_are_not_ignored(monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    refused = run_here("--model", "m")
    assert refused.returncode == 2
    assert "vllm_data_parallel_size" in refused.stderr
