"""Choosing among scored candidates, by hand; parts of a dataset; settings that fit together."""

import json
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.data import normalize_rows
from swiftcore.errors import AnswerFailed, ArtifactDamaged, RecipeError, UsageError
from swiftcore.evaluation.answering import Prompt
from swiftcore.evaluation.benchmarks.endpoint import EndpointModel, EndpointSettings
from swiftcore.generation import Completion, SamplingParams
from swiftcore.inference.questions import Question
from swiftcore.inference.result_file import ResultFile
from swiftcore.progress import Silent
from swiftcore.recipe.loading import read_section
from swiftcore.recipe.sections import SampleSection
from swiftcore.rejection_sampling.candidates import (
    Candidate,
    ScoredCandidates,
    cached_candidates,
    candidates_path,
    read_candidates,
)
from swiftcore.rejection_sampling.drawing import EndpointDrawer, EngineDrawer
from swiftcore.rejection_sampling.questions import name_questions, part_of
from swiftcore.rejection_sampling.running import Work, draw_and_score
from swiftcore.rejection_sampling.scoring import RewardAsScorer, Scorer
from swiftcore.rejection_sampling.selection import Rule, select
from swiftcore.rejection_sampling.writing import write_rows
from swiftcore.rewards import get_reward
from swiftcore.template import get_template
from tests.tiny_model import build_tokenizer


def answers(*texts: str, reference: str | None = None) -> list[Candidate]:
    found = [Candidate(text, "stop", len(text)) for text in texts]
    return [*found, Candidate.reference(reference)] if reference is not None else found


def scored(candidates, orm=None, prm=None, error=None) -> ScoredCandidates:
    return ScoredCandidates("q", candidates, orm, prm, error)


def test_right_answers_come_first_and_among_them_the_better_process():
    found = scored(answers("a", "b", "c", "d"), [0, 1, 1, 0], [9.0, 1.0, 3.0, 0.5])
    selection = select(found, Rule(n_best=5))
    # 10 * orm + (prm - 0.5) / 8.5: a 1.0, b 10.06, c 10.29, d 0.
    assert selection.kept == (2, 1)
    assert selection.rejected == (3, 3)
    assert select(found, Rule(n_best=1)).kept == (2,)
    assert select(found, Rule(prm_threshold=1.0)).kept == (2,)  # above, not at the threshold


def test_process_scores_alone_choose_too():
    found = scored(answers("a", "b", "c"), None, [-1.0, 2.0, 0.5])
    assert select(found, Rule()).kept == (1, 2)
    assert select(found, Rule(prm_threshold=-2.0)).kept == (1, 2, 0)
    # The worst answer is not rejected in favour of itself.
    assert select(found, Rule(prm_threshold=-2.0)).rejected == (0, 0, None)


def test_equals_come_in_the_order_drawn_and_the_dataset_s_answer_last():
    found = scored(answers("a", "b", "wrong", reference="r"), [1, 1, 0, 1])
    assert select(found, Rule()).kept == (0, 1, 3)
    nobody = scored(answers("a", "b", reference="r"), [0, 0, 1])
    assert select(nobody, Rule()).kept == (2,)
    assert select(nobody, Rule()).rejected == (0,)


def test_of_equal_texts_the_first_counts():
    found = scored(answers("a", "a", "b"), [1, 1, 1])
    assert select(found, Rule()).kept == (0, 2)
    assert select(found, Rule()).rejected == (None, None)


def test_what_is_cut_off_empty_or_failed_is_not_kept():
    candidates = [
        Candidate("whole", "stop"),
        Candidate("cut", "length"),
        Candidate(" ", "stop"),
        Candidate.failed("500"),
    ]
    selection = select(scored(candidates, [1, 1, None, None]), Rule())
    assert selection.kept == (0,)
    assert select(scored(candidates), Rule()).kept == (0,)
    worse = scored(candidates, [1, 0, None, None])
    assert select(worse, Rule()).rejected == (1,)


@pytest.mark.parametrize(("share", "kept"), [(0.49, ()), (0.5, (0, 1)), (None, (0, 1)), (0.0, ())])
def test_easy_questions_are_left_out_above_the_share(share, kept):
    found = scored(answers("a", "b", "c", "d", reference="r"), [1, 1, 0, 0, 1])
    selection = select(found, Rule(n_best=2, easy_threshold=share))
    assert selection.kept == kept
    assert bool(selection.reason) == (kept == ())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (scored([], error="UsageError: too long"), "UsageError: too long"),
        (scored([Candidate.failed("500")] * 2, [None, None]), "no answer came: 500"),
        (scored(answers("", " ")), "every answer is empty"),
        (scored([Candidate("x", "length")]), "cut off"),
        (scored(answers("a"), [None]), "a solution to compare with"),
        (scored(answers("a"), [0.0]), "no answer passes"),
        (scored(answers("a"), [-1.0]), "no answer passes"),
    ],
)  # fmt: skip
def test_a_question_without_an_answer_says_why(found, reason):
    assert reason in (select(found, Rule()).reason or "")


def question(number: int, answer: str | None = None, **columns) -> Question:
    asked = {"messages": [{"role": "user", "content": f"question {number}"}]}
    row = {**asked, **columns}
    if answer is not None:
        row["messages"] = [*asked["messages"], {"role": "assistant", "content": answer}]
    return Question(f"q.jsonl:{number + 1}", row, asked, answer)


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_hold_every_row_once_and_differ_by_at_most_one(num_rows, num_parts):
    questions = name_questions(question(n) for n in range(num_rows))
    parts = [part_of(questions, [part, num_parts]) for part in range(num_parts)]
    assert [q.id for part in parts for q in part] == [q.id for q in questions]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_questions_are_known_by_their_content_and_draw_from_streams_of_their_own():
    first, second, third = name_questions([question(1), question(2), question(1)], "be brief")
    assert third.id == f"{first.id}-2"
    (again,) = name_questions([question(2)])
    assert again.id == second.id
    assert again.stream(3) == second.stream(3)
    assert len({q.stream(n) for q in (first, second, third) for n in range(20)}) == 60
    assert first.messages[0] == {"role": "system", "content": "be brief"}
    assert again.messages[0]["role"] == "user"


class Numbers:
    """Draws the numbers 0, 1, 2 ... as answers; dies at a call where it is told to."""

    def __init__(self, num_answers: int, dies_at: int | None = None) -> None:
        self.num_answers, self.dies_at, self.asked = num_answers, dies_at, []

    def draw(self, questions, progress):
        if self.dies_at == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append([q.origin for q in questions])
        return [answers(*map(str, range(self.num_answers))) for _ in questions]

    @contextmanager
    def opened(self):
        yield self


def run(folder, drawer, questions, *, batch_size=2, made_of="numbers"):
    scorer = Scorer(RewardAsScorer("math", get_reward("math")))
    output = folder / "out.jsonl"
    with ResultFile(candidates_path(output), {"made_of": made_of}) as file:
        work = Work(drawer.opened, lambda: scorer, batch_size)
        draw_and_score(work, questions, file, Silent())
        return write_rows(questions, read_candidates(file.path), Rule(n_best=1), output)


QUESTIONS = name_questions(question(n, str(n), topic="t") for n in range(5))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_read_again_and_what_is_left_out_is_listed(tmp_path):
    questions = [*QUESTIONS, *name_questions([question(9), question(8, "8")])]
    report = run(tmp_path, Numbers(3), questions)
    rows = read(tmp_path / "out.jsonl")
    # 3, 4 and 8 are never drawn: the dataset's own answer is kept there.
    assert [row["messages"][-1]["content"] for row in rows] == ["0", "1", "2", "3", "4", "8"]
    assert [row["sampling"]["candidate"] for row in rows] == [0, 1, 2, None, None, None]
    assert [row["rejected_response"] for row in rows] == ["1", "0", "0", "0", "0", "0"]
    assert rows[0]["topic"] == "t"
    assert (report.questions, report.kept, report.rows) == (7, 6, 6)
    assert (report.drawn, report.right, report.failed) == (21, 3, 0)
    assert read(tmp_path / "out.left_out.jsonl") == [
        {
            "id": questions[5].id,
            "origin": "q.jsonl:10",
            "reason": "no answer could be scored: is there a solution to compare with?",
        }
    ]
    assert json.loads((tmp_path / "out.report.json").read_text())["rows"] == 6
    standard, bad = normalize_rows(rows)
    assert not bad
    assert standard[1]["rejected_response"] == "0"
    assert set(standard[1]) == {"messages", "rejected_response"}


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    run(tmp_path / "whole", Numbers(3), QUESTIONS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Numbers(3, dies_at=2), QUESTIONS)
    again = Numbers(3)
    run(tmp_path / "cut", again, QUESTIONS)
    assert again.asked == [["q.jsonl:5"]]
    for name in ("out.jsonl", "out.candidates.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    nothing = Numbers(3)
    run(tmp_path / "cut", nothing, QUESTIONS)
    assert nothing.asked == []
    with pytest.raises(UsageError, match="something else made it"):
        run(tmp_path / "cut", nothing, QUESTIONS, made_of="letters")


def test_candidates_are_read_back_and_a_half_line_is_left_out(tmp_path):
    run(tmp_path, Numbers(3), QUESTIONS)
    path = tmp_path / "out.candidates.jsonl"
    cached = cached_candidates([str(tmp_path / "out.jsonl"), str(path)])
    assert [each.text for each in cached[QUESTIONS[0].id]] == ["0", "1", "2"] * 2
    path.write_text(path.read_text() + '{"id": "x", "cand')
    assert len(list(read_candidates(path))) == 5
    path.write_text('{"id": 1}\n')
    with pytest.raises(ArtifactDamaged, match="can't be read"):
        list(read_candidates(path))
    with pytest.raises(UsageError, match="no candidates"):
        cached_candidates([str(tmp_path / "other.jsonl")])


@pytest.mark.parametrize("values", [[1.0], ["good"], [float("nan")] * 3, 1.0])
def test_a_reward_that_gives_no_numbers_is_refused(values):
    scorer = Scorer(RewardAsScorer("odd", lambda completions, **columns: values))
    with pytest.raises(UsageError, match="reward odd"):
        scorer.score(QUESTIONS[:1], [answers("a", "b")])


def test_a_reward_sees_the_row_s_columns_and_its_solution_first():
    seen = {}

    def watching(completions, **columns):
        seen.update(columns, completions=completions)
        return [1.0] * len(completions)

    questions = name_questions([question(1, "one", solution="1"), question(2, topic="t")])
    Scorer(RewardAsScorer("w", watching)).score(questions, [answers("a", "", "b"), answers("c")])
    assert seen["completions"] == ["a", "b", "one", "c"]
    assert seen["solution"] == ["1", "1", "1", None]
    assert seen["topic"] == [None, None, None, "t"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sampler_type": "mcts"}, "tree search"),
        ({"sampler_type": "distill"}, "base_url"),
        ({"base_url": "http://h/v1"}, "base_url"),
        ({"sampler_type": "distill", "sampler_engine": "vllm", "base_url": "u"}, "not go with"),
        ({"sampler_engine": "client", "base_url": "u"}, "does not go with"),
        ({"sampler_engine": "no"}, "cache_files"),
        ({"cache_files": ["f"]}, "sampler_engine no"),
        ({"sampler_engine": "no", "cache_files": ["f"], "top_k": 3}, "top_k"),
        ({"sampler_engine": "lmdeploy", "seed": 3}, "seed"),
        ({"easy_query_threshold": 0.5}, "orm_model"),
        ({"prm_threshold": 0.0}, "prm_model"),
        ({"n_best_to_keep": 2}, "n_best_to_keep"),
        ({"external_plugins": ["f.py"]}, "external_plugins"),
        ({"num_sampling_per_gpu_batches": 2}, "num_sampling_per_gpu_batch_size"),
        ({"data_range": [3, 3]}, "data_range"),
        ({"temperature": 0}, "num_return_sequences to 1"),
        ({"temperature": 0, "num_return_sequences": 1, "top_k": 5}, "top_k do nothing"),
        ({"data_range": [1]}, "data_range"),
        ({"engine_kwargs": {"gpu_memory": 1}}, "gpu_memory"),
        ({"sampler_engine": "lmdeploy", "engine_kwargs": {"nonsense": 1}}, "cache_max_entry_count"),
        ({"sampler_engine": "vllm", "engine_kwargs": {"port": 1}}, "port"),
        ({"vllm_max_model_len": 9}, "vllm_max_model_len"),
    ],
)  # fmt: skip
def test_settings_that_do_nothing_together_are_refused(values, text):
    with pytest.raises(RecipeError) as caught:
        read_section(SampleSection, values, "sample")
    assert text in str(caught.value)


def test_engine_kwargs_are_the_tool_s_settings():
    section = SampleSection(
        sampler_engine="lmdeploy", engine_kwargs={"cache_max_entry_count": 0.7}, temperature=0.5
    )
    assert section.engine_section.lmdeploy_cache_max_entry_count == 0.7
    assert section.drawing_seed is None
    section = SampleSection(
        sampler_engine="vllm", engine_kwargs={"max_model_len": 99, "block_size": 8}
    )
    assert section.engine_section.vllm_max_model_len == 99
    assert section.engine_section.vllm_engine_kwargs == {"block_size": 8}


def test_a_batch_keeps_the_engine_busy():
    assert SampleSection(num_return_sequences=8).questions_a_batch == 32
    assert SampleSection(num_return_sequences=999).questions_a_batch == 1
    teacher = {"sampler_type": "distill", "base_url": "u", "num_return_sequences": 1}
    assert SampleSection.model_validate(teacher).questions_a_batch == 64
    assert SampleSection.model_validate(teacher).engine == "client"


class Echo:
    """Answers a prompt with the number of the stream it is drawn from; fails where it is a 9."""

    template = None

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def generate(self, prompts, params, *, batch_size, progress=None, numbers=None):
        if [9] in prompts:
            raise UsageError("no room")
        self.numbers += numbers
        return [Completion([1], str(number), "stop", len(prompts[0]), 1) for number in numbers]

    def stream(self, prompt, params, *, number=0):
        raise NotImplementedError


class EchoEach(Echo):
    def answer_each(self, prompts, params, *, batch_size, progress=None, numbers=None):
        return [
            AnswerFailed("gone") if prompt == [9] else self.generate([prompt], params,
                                                                  batch_size=1, numbers=[number])[0]
            for prompt, number in zip(prompts, numbers, strict=True)
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "error"), [(Echo(), "UsageError: no room"), (EchoEach(), "AnswerFailed: gone")]
)
def test_an_answer_that_fails_spoils_no_other(engine, error, monkeypatch):
    prompts = iter([Prompt([1], "one"), Prompt([], "", "too long"), Prompt([9], "nine")])
    monkeypatch.setattr(
        "swiftcore.rejection_sampling.drawing.written_prompt", lambda *_: next(prompts)
    )
    drawer = EngineDrawer(engine, SamplingParams(temperature=1.0, seed=1), 2, 4)
    first, second, third = drawer.draw(QUESTIONS[:3], Silent())
    streams = [QUESTIONS[0].stream(number) for number in range(2)]
    assert [each.text for each in first] == [str(stream) for stream in streams]
    assert second == "too long"
    assert [each.error for each in third] == [error, error]


@pytest.mark.parametrize("name", ["chatml", "qwen3_thinking", "qwen3_nothinking"])
def test_training_sees_the_tokens_that_were_drawn(name):
    template = get_template(name, build_tokenizer())
    engine = Echo()
    engine.template = template
    (drawn,) = EngineDrawer(engine, SamplingParams(), 1, 1).draw(QUESTIONS[:1], Silent())
    messages = [*QUESTIONS[0].messages, {"role": "assistant", "content": drawn[0].text}]
    trained = template.encode({"messages": messages}, mode="train").text
    prompt = template.encode({"messages": QUESTIONS[0].messages}, mode="infer").text
    assert prompt.endswith("<think>\n") == (name == "qwen3_thinking")
    assert trained.startswith(f"{prompt}{QUESTIONS[0].stream(0)}<|im_end|>")


def test_what_an_endpoint_says_becomes_text(tmp_path):
    calls = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    replies = iter([{"content": "4", "reasoning_content": "2+2\n"}, {"content": "", **calls}])

    class Endpoint(EndpointModel):
        def __init__(self) -> None:
            super().__init__(EndpointSettings("http://h/v1", "m", num_concurrent=1))
            self.asked = []

        def _sent(self, path, body):
            self.asked.append(body)
            return {"choices": [{"message": next(replies), "finish_reason": "stop"}]}

    endpoint = Endpoint()
    seeded = EndpointDrawer(endpoint, SamplingParams(seed=1, top_k=3), 2)
    called = question(7)
    history = Question("q", {}, {"messages": [{"role": "tool_call", "content": "{}"}]})
    found, refused = seeded.draw(name_questions([called, history]), Silent())
    assert found[0].text == "<think>\n2+2\n</think>\n\n4"
    assert "calls tools" in found[1].error
    assert "tool_call" in refused
    assert endpoint.asked[0]["seed"] != endpoint.asked[1]["seed"]
    assert endpoint.asked[0]["top_k"] == 3
