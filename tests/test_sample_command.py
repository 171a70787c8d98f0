"""`swift sample` on a tiny model, a teacher and a reward model: the same rows however it ran."""

import json
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from swiftcore.errors import ArtifactDamaged, UsageError
from swiftcore.models.tasks import write_task
from swiftcore.recipe import TemplateSection
from swiftcore.recipe.tasks import Task
from swiftcore.rejection_sampling.reward_model import RewardModel
from swiftcore.stages.model_folders import ModelFolders, model_to_ask
from swiftcore.template import get_template, write_template_settings
from tests.answering_stub import answering
from tests.made_once import made_once
from tests.roads import SWIFT, swift_here, write_rows
from tests.test_vllm_server import folder as tiny_model_for_vllm  # noqa: F401  # a fixture
from tests.tiny_model import SENTENCES, build_model, build_tokenizer

REWARD = """
from swiftcore.rewards import register_reward

@register_reward("vowels")
def vowels(completions, **columns):
    assert all(solution == "an answer" for solution in columns["solution"])
    return [sum(text.count(letter) for letter in "aeiou") for text in completions]
"""
NUM_QUESTIONS, NUM_ANSWERS = 4, 6
# A random model writes no end token; one of these letters soon comes and ends its answers whole.
STOPS = ["t", "e", "r", "o", "n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    def make(folder: Path) -> None:
        tokenizer = build_tokenizer()
        for part in (build_model(tokenizer), tokenizer):
            part.save_pretrained(folder / "model")
        rows = [
            {"query": f"{sentence} {n}", "response": "an answer"}
            for n, sentence in enumerate(SENTENCES)
        ]
        write_rows(folder / "questions.jsonl", rows)
        (folder / "reward.py").write_text(REWARD)

    return made_once(tmp_path_factory, "sampling", make)


def drawn_by(folder: Path) -> list[object]:
    return ["--model", folder / "model", "--template", "chatml", "--max_new_tokens", 12,
            "--num_threads", 1,
            "--num_return_sequences", NUM_ANSWERS, "--stop_words", *STOPS]  # fmt: skip


def scored_by(folder: Path) -> list[object]:
    return ["--orm_model", "vowels", "--external_plugins", folder / "reward.py",
            "--n_best_to_keep", 2]  # fmt: skip


def sample(folder: Path, out: Path, *flags: object) -> dict:
    given = ["--dataset", folder / "questions.jsonl", "--output_dir", out, "--store", out / "store"]
    done = swift_here("sample", *given, *flags, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def read(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_best_answers_are_the_same_in_any_batch_part_and_number_of_steps(folder, tmp_path):
    model, rewards = drawn_by(folder), scored_by(folder)
    once = sample(folder, tmp_path / "a", *model, *rewards, "--output_file", "rows.jsonl")
    rows = read(once["files"]["rows"])
    assert once["drawn"] == NUM_QUESTIONS * NUM_ANSWERS
    assert 0 < once["right"] <= once["drawn"]
    assert once["kept"] == NUM_QUESTIONS
    kept = [row["messages"][-1]["content"] for row in rows]
    assert len({*kept}) > NUM_QUESTIONS  # streams of their own
    lines = read(tmp_path / "a/rows.candidates.jsonl")
    for line in lines:
        scores = {c["text"]: sum(c["text"].count(v) for v in "aeiou") for c in line["candidates"]}
        assert line["orm"] == [scores[c["text"]] or (None if not c["text"].strip() else 0)
                               for c in line["candidates"]]  # fmt: skip
        mine = [row for row in rows if row["sampling"]["id"] == line["id"]]
        best = [text for text in scores if text in {r["messages"][-1]["content"] for r in mine}]
        assert min(scores[text] for text in best) > 0
    small = ["--num_sampling_batch_size", 1, "--max_batch_size", 5]
    parts = [
        sample(folder, tmp_path / "b", *model, *rewards, *small, "--data_range", part, 3)
        for part in range(3)
    ]
    assert [row for part in parts for row in read(part["files"]["rows"])] == rows

    first = sample(folder, tmp_path / "c", *model, "--output_file", "drawn.jsonl")
    whole = [c for line in lines for c in line["candidates"] if c["finish_reason"] == "stop"]
    raw = read(first["files"]["rows"])
    assert [r["messages"][-1]["content"] for r in raw] == [
        c["text"] for c in whole if c["text"].strip()
    ]
    cached = ["--sampler_engine", "no", "--cache_files", first["files"]["rows"]]
    second = sample(folder, tmp_path / "c", *cached, *rewards)
    assert read(second["files"]["rows"]) == rows


def test_a_killed_run_goes_on_where_it_was(folder, tmp_path):
    reached, killed = threading.Event(), threading.Event()

    def rule(text: str) -> str:
        if text.endswith(" 2") and not killed.is_set():
            reached.set()
            killed.wait(60)
        return f"{text} has {len(text)}"

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    with answering(rule) as url:
        flags = ["--sampler_type", "distill", "--base_url", url, "--num_return_sequences", 2,
                 "--num_sampling_batch_size", 1, *scored_by(folder)]  # fmt: skip
        given = ["--dataset", folder / "questions.jsonl", "--output_dir", cut]
        named = ["--output_file", "rows.jsonl", "--store", cut / "store"]
        process = subprocess.Popen([*SWIFT, "sample", *map(str, [*given, *named, *flags])])
        assert reached.wait(60)
        process.kill()
        process.wait()
        killed.set()
        before = (cut / "rows.candidates.jsonl").read_bytes()
        assert before.count(b"\n") == 2
        assert not (cut / "rows.jsonl").exists()
        # Without a name the unfinished work is found by what it is made of.
        again = sample(folder, cut, *flags)
        assert Path(again["files"]["rows"]).name == "rows.jsonl"
        sample(folder, whole, *flags, "--output_file", "rows.jsonl")
        for name in ("rows.jsonl", "rows.candidates.jsonl"):
            assert (cut / name).read_bytes() == (whole / name).read_bytes()
        assert (cut / "rows.candidates.jsonl").read_bytes().startswith(before)

        done = swift_here("sample", *given, *named, *flags)
        assert done.returncode == 2
        assert "--override_exist_file" in done.stderr
        # Another threshold chooses among the same candidates.
        fewer = [*flags[:-1], 1, "--override_exist_file"]
        assert sample(folder, cut, *fewer, "--output_file", "rows.jsonl")["rows"] == NUM_QUESTIONS
        assert (cut / "rows.candidates.jsonl").read_bytes().startswith(before)


def test_a_teacher_is_distilled_through_its_endpoint(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with answering(lambda text: f"Answer: {len(text)}", fail=lambda number: number == 2) as url:
        teacher = ["--sampler_type", "distill", "--base_url", url, "--num_return_sequences", 2]
        report = sample(folder, tmp_path, *teacher, "--system", "be brief")
    assert (report["drawn"], report["failed"], report["rows"]) == (8, 0, 8)
    row = read(report["files"]["rows"])[0]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == f"Answer: {len(SENTENCES[0]) + 2}"


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory) -> Path:
    def make(folder: Path) -> None:
        from transformers import Qwen3ForSequenceClassification

        tokenizer = build_tokenizer()
        config = build_model(tokenizer).config
        config.num_labels = 1
        torch.manual_seed(1)
        for part in (Qwen3ForSequenceClassification(config), tokenizer):
            part.save_pretrained(folder)
        settings = {"template": "chatml", "agent_template": None, "loss_scale": "default"}
        settings |= {"max_length": None, "truncation_strategy": "delete", "system": None}
        told = {**settings, "use_chat_template": True, "schema": 1}
        (folder / "swift_template.json").write_text(json.dumps(told))

    return made_once(tmp_path_factory, "reward-model", make)


def loaded(model: Path, adapter: Path | None = None) -> RewardModel:
    asked = model_to_ask(ModelFolders("rewards", model, adapter), TemplateSection())
    return RewardModel.load(asked, batch_size=2)


def test_a_reward_model_scores_conversations_as_transformers_does(reward_folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = ["yes", "no, the brown fox jumps over it", "what is the weather?"]
    talks = [
        [{"role": "user", "content": "well?"}, {"role": "assistant", "content": t}] for t in texts
    ]
    found = loaded(reward_folder).score(talks)
    tokenizer = AutoTokenizer.from_pretrained(reward_folder)
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder).eval()
    expected = []
    for talk in talks:
        ids = tokenizer(tokenizer.apply_chat_template(talk, tokenize=False), return_tensors="pt")
        with torch.no_grad():
            expected.append(model(ids.input_ids).logits.item())
    assert found == pytest.approx(expected, abs=1e-5)
    too_long = [{"role": "user", "content": "w " * 300}, {"role": "assistant", "content": "x"}]
    assert loaded(reward_folder).score([too_long, talks[0]]) == [
        None,
        pytest.approx(expected[0], abs=1e-5),
    ]


def test_an_adapter_is_a_reward_model_over_its_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base, adapter = folder / "model", tmp_path / "adapter"
    torch.manual_seed(2)
    body = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False
    )
    adapted = get_peft_model(body, config).eval()
    adapted.save_pretrained(adapter)
    write_task(adapter, Task(task_type="seq_cls", num_labels=1, problem_type="regression"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_template_settings(adapter, get_template("chatml", tokenizer).settings)
    talk = [{"role": "user", "content": "well?"}, {"role": "assistant", "content": "yes"}]
    ids = tokenizer(tokenizer.apply_chat_template(talk, tokenize=False), return_tensors="pt")
    with torch.no_grad():
        expected = adapted(input_ids=ids.input_ids).logits.item()
    assert loaded(base, adapter).score([talk]) == [pytest.approx(expected, abs=1e-5)]


def test_only_a_whole_reward_model_is_taken(folder, reward_folder, tmp_path):
    with pytest.raises(UsageError, match="no reward model"):
        loaded(folder / "model")
    from safetensors.torch import load_file, save_file

    headless = tmp_path / "headless"
    headless.mkdir()
    for file in reward_folder.iterdir():
        (headless / file.name).write_bytes(file.read_bytes())
    weights = load_file(reward_folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactDamaged, match="no head"):
        loaded(headless)


def test_the_command_ranks_with_a_reward_model(folder, reward_folder, tmp_path):
    flags = [*drawn_by(folder), "--prm_model", reward_folder, "--prm_threshold", -100]
    report = sample(folder, tmp_path, *flags, "--n_best_to_keep", 1)
    lines = read(str(report["files"]["rows"]).replace(".jsonl", ".candidates.jsonl"))
    for row, line in zip(read(report["files"]["rows"]), lines, strict=True):
        whole = [
            score
            for score, c in zip(line["prm"], line["candidates"], strict=True)
            if score is not None and c["finish_reason"] != "length"
        ]
        assert row["sampling"]["prm"] == max(whole)


def test_nothing_to_keep_is_bad_data_and_every_question_is_listed(folder, tmp_path):
    drawn = sample(folder, tmp_path, *drawn_by(folder), "--output_file", "drawn.jsonl")
    other = write_rows(tmp_path / "other.jsonl", [{"query": "another?"}, {"wrong": 1}])
    flags = ["--sampler_engine", "no", "--cache_files", drawn["files"]["rows"]]
    out = ["--output_dir", tmp_path, "--output_file", "none.jsonl"]
    done = swift_here("sample", "--dataset", other, *flags, *out)
    assert done.returncode == 3
    assert "1 left out: the question is not in cache_files" in done.stdout
    assert read(tmp_path / "none.jsonl") == []
    origins = [Path(each["origin"]).name for each in read(tmp_path / "none.left_out.jsonl")]
    assert origins == ["other.jsonl:1", "other.jsonl:2"]


@pytest.mark.backend("vllm_cpu")
def test_vllm_draws_candidates_from_streams_of_their_own(
    tiny_model_for_vllm,  # noqa: F811
    folder,
    tmp_path,
):
    given = ["--model", tiny_model_for_vllm / "model", "--template", "chatml"]
    given += ["--sampler_engine", "vllm", "--device", "cpu", "--max_new_tokens", 12]
    given += ["--num_return_sequences", 3, "--engine_kwargs", '{"max_model_len": 128}']
    report = sample(folder, tmp_path, *given, "--stop_words", *STOPS)
    assert (report["drawn"], report["failed"]) == (3 * NUM_QUESTIONS, 0)
    texts = [row["messages"][-1]["content"] for row in read(report["files"]["rows"])]
    assert len({*texts}) > 3
    assert all(text.endswith(tuple(STOPS)) for text in texts)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "No model is named"),
        (["--model", "m", "--val_dataset", "v.jsonl"], "--val_dataset"),
        (["--model", "m", "--lora_rank", "3"], "--lora_rank"),
        (["--model", "m", "--nproc_per_node", "2"], "--nproc_per_node"),
        (["--model", "m", "--orm_model", "acuracy"], "accuracy?"),
        (["--model", "m", "--sampler_type", "dvts"], "tree search"),
        (["--model", "m", "--rollout_depth", "3"], "tree search"),
        (["--model", "m", "--output_file", "sub/rows.jsonl"], "--output_dir"),
        (["--model", "m", "--orm_model", "x", "--external_plugins", "none.py"], "none.py"),
        (["--sampler_engine", "no", "--cache_files", "none.jsonl"], "no candidates"),
        (
            ["--sampler_engine", "no", "--cache_files", "none.jsonl", "--model", "m"],
            "--model",
        ),
        (["--sampler_type", "distill", "--base_url", "h:1"], "--base_url"),
        (
            ["--sampler_type", "distill", "--base_url", "http://h/v1", "--template", "qwen"],
            "--template",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(folder, tmp_path, flags, text):
    given = ["--dataset", folder / "questions.jsonl", "--output_dir", tmp_path]
    flags = [folder / "model" if flag == "m" else flag for flag in flags]
    done = swift_here("sample", *given, *flags)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
