"""An engine over a tool's HTTP server: the tool chooses tokens, everything else is as at home."""

import threading
import time
from dataclasses import replace

import pytest
from fake_tool import counting, fake_tool
from tiny_model import SENTENCES, build_model, build_tokenizer

from swiftcore.errors import AnswerFailed, BackendFailed, UsageError
from swiftcore.evaluation.benchmarks.responding import LocalModel
from swiftcore.generation import Batcher, SamplingParams, ToolEngine, ToolPlace, TransformersEngine
from swiftcore.generation.dialects import dialect_of
from swiftcore.generation.limits import folder_limits
from swiftcore.generation.protocol import Load
from swiftcore.progress import Silent
from swiftcore.stages.answering_engines import PromptedEngine, PromptedTool
from swiftcore.template import get_template

STOP_WORDS = ("<|im_end|>", "ou")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def home(tokenizer):
    """The engine of this process, over the model that the fake tool asks too."""
    return TransformersEngine(
        build_model(tokenizer, max_position_embeddings=96), tokenizer, stop_words=STOP_WORDS
    )


@pytest.fixture(scope="module")
def folder(home, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    home.model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def likeliest(home):
    """The rule of a tool that serves the same weights: greedy, one whole forward a token."""
    import torch

    lock = threading.Lock()

    def rule(ids, model):
        with lock, torch.inference_mode():
            return int(home.model(torch.tensor([ids])).logits[0, -1].argmax())

    return rule


@pytest.fixture
def engine_at(folder, tokenizer):
    """Make engines that end with the test."""
    made = []

    def make(tool, name="vllm", **place):
        limits, stops = folder_limits(folder, tokenizer, STOP_WORDS, None)
        engine = ToolEngine(
            ToolPlace(tool.url, "tiny", **place), dialect_of(name), tokenizer, limits, stops
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def prompts_of(tokenizer):
    return [tokenizer.encode(text) for text in SENTENCES]


def test_a_folder_says_of_its_model_what_the_loaded_model_says(folder, tokenizer, home):
    limits, stops = folder_limits(folder, tokenizer, STOP_WORDS, None)
    assert (limits.max_model_len, limits.vocab_size) == (home.max_model_len, home.vocab_size)
    assert (stops.tokens, stops.strings) == (home.stop_tokens, home.stop_strings)
    assert folder_limits(folder, tokenizer, (), 90)[0].max_model_len == 90


PARAMS = {
    "greedy": SamplingParams(max_new_tokens=24),
    "special": SamplingParams(max_new_tokens=24, skip_special_tokens=False, num_return=2),
    "stop": SamplingParams(max_new_tokens=24, stop=("a", "the")),
    "ignore_eos": SamplingParams(max_new_tokens=24, ignore_eos=True),
    "context": SamplingParams(max_new_tokens=1000),
}


@pytest.mark.parametrize(
    ("name", "asked"),
    [*(("vllm", asked) for asked in PARAMS), ("sglang", "greedy"), ("lmdeploy", "greedy")],
)
def test_answers_are_those_of_our_own_engine(engine_at, home, tokenizer, likeliest, name, asked):
    params = PARAMS[asked]
    prompts = prompts_of(tokenizer)[:2]
    with fake_tool(likeliest) as tool:
        engine = engine_at(tool, name)
        assert engine.generate(prompts, params, batch_size=2) == home.generate(
            prompts, params, batch_size=2
        )
    sent = tool.asked[0]
    assert sent.get("prompt", sent.get("input_ids")) in prompts


def test_streamed_pieces_are_those_of_our_own_batcher(engine_at, home, tokenizer, likeliest):
    params = SamplingParams(max_new_tokens=40, stop=("zz",))
    batcher = Batcher(home)
    with fake_tool(likeliest) as tool:
        heard = [
            collect(one, prompts_of(tokenizer)[2], params) for one in (batcher, engine_at(tool))
        ]
    batcher.close()
    ours, theirs = heard
    assert "".join(delta.text for delta in theirs) == theirs[-1].completion.text
    assert theirs == ours


def collect(engine, prompt, params, *, enough=lambda heard: False):
    """Submit a prompt and return what the listener heard, until the end or enough of it."""
    heard, done = [], threading.Event()

    def listener(item):
        heard.append(item)
        if isinstance(item, Exception) or item.completion or enough(heard):
            done.set()

    ticket = engine.submit(prompt, params, listener)
    assert done.wait(20)
    ticket.cancel()
    return heard


def test_a_stop_string_ends_the_request_in_the_tool_too(engine_at, tokenizer):
    with fake_tool(counting) as tool:
        tool.pause = 0.01
        engine = engine_at(tool)
        text = tokenizer.decode([330])
        params = SamplingParams(max_new_tokens=200, stop=(text,))
        (done,) = engine.generate([[300]], params, batch_size=1)
        assert done.finish_reason == "stop"
        assert text not in done.text
        until(lambda: tool.num_open == 0)


def test_cancelled_request_ends_in_the_tool_and_is_not_counted(engine_at):
    with fake_tool(counting) as tool:
        tool.pause = 0.02
        engine = engine_at(tool)
        params = SamplingParams(max_new_tokens=200)
        heard = collect(engine, [300], params, enough=lambda heard: len(heard) == 2)
        until(lambda: engine.num_requests == 0 and tool.num_open == 0)
        assert len(heard) < 10


def test_every_setting_is_written_out_for_the_tool(engine_at):
    params = SamplingParams(
        max_new_tokens=3, temperature=0.7, top_p=0.9, top_k=5, repetition_penalty=1.2, seed=1,
        num_return=2,
    )  # fmt: skip
    with fake_tool(counting, key="secret") as tool:
        engine_at(tool, api_key="secret").generate([[301]], params, batch_size=1)
    first, second = tool.asked
    sent = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.2, "min_p": 0.0}
    assert first | sent == first
    assert (first["max_tokens"], first["ignore_eos"]) == (3, False)
    assert first["seed"] != second["seed"]  # two answers of one seed differ
    assert 0 <= first["seed"] < 2**31


@pytest.mark.parametrize(
    ("name", "setting", "word"),
    [
        ("sglang", {"repetition_penalty": 1.1}, "repetition_penalty"),
        ("sglang", {"logprobs": True, "top_logprobs": 1}, "top_logprobs"),
        ("lmdeploy", {"temperature": 1.0, "seed": 3}, "seed"),
        ("lmdeploy", {"logprobs": True}, "logprobs"),
    ],
)
def test_what_a_tool_can_not_do_is_refused_with_the_reason(engine_at, name, setting, word):
    with fake_tool(counting) as tool:
        engine = engine_at(tool, name)
        params = SamplingParams(**setting)
        assert word in engine.why_not(params)
        with pytest.raises(UsageError, match=word):
            engine.submit([300], params, lambda item: None)
    assert tool.asked == []


@pytest.mark.parametrize(
    ("trouble", "word", "tries"),
    [
        ("500", "on purpose", 3),
        ("closed", "Error", 3),
        ("broken", "no JSON", 1),
        ("garbage", "no JSON object", 1),
        ("error", "out of memory", 1),
        ("hangs", "no token for 0.3 s", 1),
    ],
)
def test_a_request_that_fails_is_one_clear_error_and_the_others_go_on(
    engine_at, trouble, word, tries
):
    def spoils(number):
        return trouble if tool.asked[number - 1]["prompt"] == [302] else None

    params = SamplingParams(max_new_tokens=6)
    with fake_tool(counting, trouble=spoils) as tool:
        engine = engine_at(tool, token_timeout_seconds=0.3)
        outcomes = engine.answer_each([[300], [302], [304]], params, batch_size=3)
    good, bad, also_good = outcomes
    assert isinstance(bad, AnswerFailed)
    assert word in bad.found
    assert [done.completion_tokens for done in (good, also_good)] == [6, 6]
    assert sum(body["prompt"] == [302] for body in tool.asked) == tries


def test_every_tenth_request_that_fails_once_is_answered_when_asked_again(engine_at):
    params = SamplingParams(max_new_tokens=3)
    with fake_tool(counting, trouble=lambda n: "500" if n % 10 == 0 else None) as tool:
        answers = engine_at(tool).generate([[300 + i] for i in range(40)], params, batch_size=8)
    assert len(answers) == 40
    assert len(tool.asked) > 40


def test_a_request_that_the_tool_refuses_is_a_usage_error(engine_at):
    refuses = pytest.raises(UsageError, match="refuses")
    with fake_tool(counting, trouble=lambda n: "400") as tool, refuses as caught:
        engine_at(tool).generate([[300]], SamplingParams(), batch_size=1)
    assert "too hot" in caught.value.found
    assert len(tool.asked) == 1


def test_nobody_there_is_said_once_and_a_dead_process_ends_everything(engine_at):
    with fake_tool(counting) as tool:
        engine = engine_at(tool)
        dead = engine_at(tool, is_running=lambda: False)
    (outcome,) = engine.answer_each([[300]], SamplingParams(), batch_size=1)
    assert isinstance(outcome, AnswerFailed)
    assert not dead.alive
    with pytest.raises(BackendFailed, match="has ended"):
        dead.answer_each([[300], [301]], SamplingParams(), batch_size=1)


def test_an_engine_is_alive_as_long_as_its_tool_is_healthy(engine_at, monkeypatch):
    monkeypatch.setattr("swiftcore.generation.tool_engine._HEALTH_PERIOD_SECONDS", 0.02)
    with fake_tool(counting) as tool:
        engine = engine_at(tool)
        assert engine.alive
        tool.healthy = False
        until(lambda: not engine.alive)


def test_closing_ends_what_is_under_way_with_an_error(engine_at):
    heard = []
    with fake_tool(counting) as tool:
        tool.pause = 0.05
        engine = engine_at(tool)
        engine.submit([300], SamplingParams(max_new_tokens=90), heard.append)
        until(lambda: heard)
        engine.close()
    assert isinstance(heard[-1], Exception)
    assert not engine.alive


def test_likelihoods_of_given_tokens(engine_at, home, tokenizer):
    import torch

    def score(ids):
        with torch.inference_mode():
            logs = home.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        pairs = [
            {str(i): {"logprob": float(logs[at, i])} for i in {token, int(logs[at].argmax())}}
            for at, token in enumerate(ids[1:])
        ]
        return [None, *pairs]

    prompt, continuation = prompts_of(tokenizer)[:2]
    greedy = home.generate([prompt], SamplingParams(max_new_tokens=5), batch_size=1)[0].token_ids
    with fake_tool(counting, score=score) as tool:
        engine = engine_at(tool)
        (found,) = engine.log_likelihoods([(prompt, continuation)], batch_size=1)
        gaps = [score.gap for score in engine.scores(prompt, greedy)]
        with pytest.raises(UsageError, match="does not tell"):
            engine_at(tool, "sglang").scores(prompt, continuation)
    (expected,) = home.log_likelihoods([(prompt, continuation)], batch_size=1)
    assert found == pytest.approx(expected, abs=1e-4)
    assert gaps == [0.0] * 5
    windows = engine.text_windows(SENTENCES[2])
    assert [i for _, ids in windows for i in ids] == tokenizer.encode(SENTENCES[2])[1:]


def test_log_probabilities_of_a_tool_are_read_by_id(engine_at, home, tokenizer):
    import torch

    def likely(ids):
        with torch.inference_mode():
            return dict(
                enumerate(home.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).tolist())
            )

    def second(ids, model):
        told = likely(ids)
        return sorted(told, key=told.get)[-2]

    prompts = prompts_of(tokenizer)[:2]
    params = SamplingParams(max_new_tokens=6, logprobs=True, top_logprobs=1)
    with fake_tool(second, likely=likely) as tool:
        (first, _) = engine_at(tool).generate(prompts, params, batch_size=2)
        assert (tool.asked[0]["logprobs"], tool.asked[0]["return_tokens_as_token_ids"]) == (1, True)
        alone = replace(params, top_logprobs=0)
        (same, _) = engine_at(tool, "sglang").generate(prompts, alone, batch_size=2)
    ids = list(prompts[0])
    for told in first.logprobs:
        best, chosen = sorted(likely(ids).items(), key=lambda each: -each[1])[:2]
        assert (told.token, told.logprob) == pytest.approx(chosen)
        assert told.top == (pytest.approx(best),)
        ids.append(told.token)
    assert same.logprobs == [replace(told, top=()) for told in first.logprobs]
    (expected,) = home.log_likelihoods([(prompts[0], first.token_ids)], batch_size=1)
    assert sum(told.logprob for told in first.logprobs) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("likely", "word"),
    [(None, "tokens without"), (lambda ids: dict.fromkeys(range(400), "x"), "that are none")],
)
def test_tokens_without_the_log_probabilities_asked_for_are_no_answer(engine_at, likely, word):
    params = SamplingParams(max_new_tokens=3, logprobs=True)
    with fake_tool(counting, likely=likely) as tool:
        (outcome,) = engine_at(tool).answer_each([[300]], params, batch_size=1)
    assert isinstance(outcome, AnswerFailed)
    assert word in outcome.found


def test_the_load_is_that_of_the_tool_s_answers(engine_at):
    with fake_tool(counting) as tool:
        engine = engine_at(tool)
        engine.generate([[300, 301], [302]], SamplingParams(max_new_tokens=4), batch_size=2)
        assert engine.load == Load(num_prompt_tokens=3, num_answer_tokens=8)
        tool.pause = 0.05
        engine.submit([300], SamplingParams(max_new_tokens=90), lambda item: None)
        until(lambda: engine.load.num_running == 1)
        assert engine.load.num_waiting == 0


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_an_evaluation_over_a_tool_is_that_of_our_own_engine_and_a_failed_row_is_one(
    engine_at, home, tokenizer, likeliest
):
    template = get_template("chatml", tokenizer)
    rows = [{"messages": [{"role": "user", "content": text}]} for text in SENTENCES]
    rows.append({"messages": [{"role": "user", "content": "too long " * 60}]})
    params = SamplingParams(max_new_tokens=8)
    ours = LocalModel(PromptedEngine(home, template), 4).answer(rows, params, Silent())
    with fake_tool(likeliest) as tool:
        asked = PromptedTool(engine_at(tool), template)
        theirs = LocalModel(asked, 4).answer(rows, params, Silent())
    assert theirs == ours
    assert [answer.error is None for answer in ours] == [True] * 4 + [False]

    def spoils(number):
        return "garbage" if len(tool.asked[number - 1]["prompt"]) == len(failing) else None

    failing = template.encode(rows[1], mode="infer").input_ids
    with fake_tool(likeliest, trouble=spoils) as tool:
        asked = PromptedTool(engine_at(tool), template)
        some = LocalModel(asked, 4).answer(rows[:4], params, Silent())
        assert len(tool.asked) == 4
    assert [answer == our for answer, our in zip(some, ours, strict=False)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert "no JSON object" in some[1].error
