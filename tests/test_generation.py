import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SENTENCES, build_model, build_tokenizer

from swiftcore.errors import UsageError
from swiftcore.generation import Batcher, SamplingParams, TransformersEngine
from swiftcore.generation.text import IncrementalText


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def engine(tokenizer):
    import torch

    torch.set_num_threads(1)
    return TransformersEngine(build_model(tokenizer), tokenizer)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer.encode(text)[:n] for text in SENTENCES for n in (2, 7, 12, 30)]


GREEDY = SamplingParams(max_new_tokens=24)


@pytest.mark.parametrize("sliding_window", [None, 8], ids=["full", "sliding"])
def test_batched_greedy_answers_equal_those_one_by_one(tokenizer, prompts, sliding_window):
    engine = TransformersEngine(build_model(tokenizer, sliding_window=sliding_window), tokenizer)
    alone = engine.generate(prompts, GREEDY, batch_size=1)
    together = engine.generate(prompts, GREEDY, batch_size=8)
    assert together == alone
    assert len({completion.text for completion in alone}) > 4  # answers do depend on the prompt


def test_greedy_tokens_equal_those_of_transformers_generate(engine, prompts):
    import torch

    prompt = prompts[3]
    with torch.inference_mode():
        expected = engine.model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False
        )[0, len(prompt) :].tolist()
    assert engine.generate([prompt], GREEDY, batch_size=1)[0].token_ids == expected


def test_seeded_sampling_repeats_and_does_not_depend_on_the_batch(engine, prompts):
    params = SamplingParams(
        max_new_tokens=20, temperature=1.0, top_p=0.9, top_k=50, seed=7, num_return=2
    )
    first = engine.generate(prompts, params, batch_size=3)
    again = engine.generate(prompts, params, batch_size=16)
    assert first == again
    assert first[0].text != first[1].text
    other = SamplingParams(max_new_tokens=20, temperature=1.0, seed=8)
    assert engine.generate(prompts, other, batch_size=4)[0].text != first[0].text


def test_sampled_tokens_follow_the_distribution():
    import torch

    from swiftcore.generation.sampling import Choice, choose

    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    params = SamplingParams(temperature=1.0, seed=0, top_p=0.9)
    rows = [Choice(params, [], index=i) for i in range(4000)]
    counts = torch.bincount(
        torch.tensor(choose(probabilities.log().repeat(4000, 1), rows)), minlength=4
    )
    # top_p keeps the smallest set that reaches 0.9: the first three, renormalised.
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert (counts / 4000 - expected).abs().max() < 0.03
    assert counts[3] == 0


def test_top_k_one_and_a_tiny_temperature_are_greedy(engine, prompts):
    greedy = engine.generate(prompts[:4], GREEDY, batch_size=4)
    for params in (
        SamplingParams(max_new_tokens=24, temperature=2.0, top_k=1),
        SamplingParams(max_new_tokens=24, temperature=1e-30),
    ):
        assert [c.token_ids for c in engine.generate(prompts[:4], params, batch_size=4)] == [
            c.token_ids for c in greedy
        ]


def test_repetition_penalty_avoids_what_was_said(engine, prompts):
    params = SamplingParams(max_new_tokens=24, repetition_penalty=1e6)
    tokens = engine.generate(prompts[:1], params, batch_size=1)[0].token_ids
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & set(prompts[0])


def test_stop_string_ends_the_answer_and_is_cut(engine, prompts):
    full = engine.generate(prompts[3:4], GREEDY, batch_size=1)[0]
    stop = full.text[6:9]
    params = SamplingParams(max_new_tokens=24, stop=(stop,))
    cut = engine.generate(prompts[3:4], params, batch_size=1)[0]
    assert cut.finish_reason == "stop"
    assert cut.text == full.text[: full.text.index(stop)]
    assert cut.completion_tokens < full.completion_tokens
    streamed = list(engine.stream(prompts[3], params))
    assert "".join(delta.text for delta in streamed) == cut.text


def test_stop_token_ends_the_answer_and_stays_out_of_the_text(tokenizer, engine, prompts):
    free = engine.generate(prompts[:1], GREEDY, batch_size=1)[0]
    word = tokenizer.convert_ids_to_tokens(free.token_ids[3])
    stopping = TransformersEngine(engine.model, tokenizer, stop_words=[word])
    answer = stopping.generate(prompts[:1], GREEDY, batch_size=1)[0]
    end = free.token_ids.index(free.token_ids[3])
    assert answer.token_ids == free.token_ids[: end + 1]
    assert answer.text == engine.decode(free.token_ids[:end], True)
    assert answer.finish_reason == "stop"


def test_stream_gives_the_same_answer_in_pieces(engine, prompts):
    for prompt in prompts:
        deltas = list(engine.stream(prompt, GREEDY))
        whole = engine.generate([prompt], GREEDY, batch_size=1)[0]
        assert deltas[-1].completion == whole
        assert "".join(delta.text for delta in deltas) == whole.text


def test_bad_parameters_and_prompts_are_refused_by_name(engine):
    with pytest.raises(UsageError, match=r"max_new_tokens.*temperature.*top_p"):
        SamplingParams(max_new_tokens=0, temperature=-1, top_p=0)
    with pytest.raises(UsageError, match="no tokens"):
        engine.generate([[]], GREEDY, batch_size=1)
    with pytest.raises(UsageError, match="no room") as caught:
        engine.generate([[1], [1] * 256], GREEDY, batch_size=1)
    assert caught.value.where == "prompt 1"
    with pytest.raises(UsageError, match="doesn't have"):
        engine.generate([[99999]], GREEDY, batch_size=1)


def test_answer_ends_where_the_models_context_ends(tokenizer, engine):
    short = TransformersEngine(engine.model, tokenizer, max_model_len=10)
    answer = short.generate([[5, 6, 7, 8]], GREEDY, batch_size=1)[0]
    assert (answer.completion_tokens, answer.finish_reason) == (6, "length")


TEXTS = st.text(alphabet="abc Grüße東京🙂🚀\n", max_size=30)


@given(text=TEXTS, cut=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_streamed_pieces_add_up_and_never_split_a_character(tokenizer, text, cut):
    ids = tokenizer.encode(text)[cut:]  # cutting may start in the middle of a character
    stream = IncrementalText(lambda part: tokenizer.decode(part, skip_special_tokens=True))
    pieces = [stream.push(token) for token in ids]
    last = stream.finish()
    assert "".join(pieces) + last == tokenizer.decode(ids, skip_special_tokens=True)
    if cut == 0:
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces) + last


@given(text=TEXTS, stop=st.lists(st.text(alphabet="abc G🙂", min_size=1, max_size=4), max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_part_of_a_stop_string_is_ever_streamed(tokenizer, text, stop):
    stream = IncrementalText(lambda part: tokenizer.decode(part), stop)
    shown = ""
    for token in tokenizer.encode(text):
        shown += stream.push(token)
        if stream.stopped:
            break
    shown += stream.finish()
    starts = [text.find(word) for word in stop if word in text]
    assert stream.stopped == bool(starts)
    if not starts:
        assert shown == text
    else:
        # The stop string that is complete first wins; nothing of it is shown.
        assert text.startswith(shown)
        assert not any(word in shown for word in stop)
        assert any(text.startswith(word, len(shown)) for word in stop)


def _collect(batcher, prompts, params):
    answers = [None] * len(prompts)
    texts = [""] * len(prompts)
    done = threading.Semaphore(0)

    def listen(i, item):
        if isinstance(item, Exception):
            answers[i] = item
            done.release()
            return
        texts[i] += item.text
        if item.completion:
            answers[i] = item.completion
            done.release()

    tickets = [
        batcher.submit(prompt, params, lambda item, i=i: listen(i, item))
        for i, prompt in enumerate(prompts)
    ]
    return answers, texts, done, tickets


def test_sixteen_requests_at_once_are_served_as_one_batch(engine, prompts):
    batcher = Batcher(engine, max_batch_size=16, window_seconds=0.2)
    try:
        answers, texts, done, _ = _collect(batcher, prompts, GREEDY)
        assert all(done.acquire(timeout=30) for _ in prompts)
        assert answers == engine.generate(prompts, GREEDY, batch_size=1)
        assert texts == [answer.text for answer in answers]
        assert batcher.largest_batch == 16
    finally:
        batcher.close()


def test_requests_join_a_running_batch(engine, prompts):
    batcher = Batcher(engine, max_batch_size=4, window_seconds=0)
    try:
        first = _collect(batcher, prompts[:1], SamplingParams(max_new_tokens=200))
        time.sleep(0.02)
        answers, _, done, _ = _collect(batcher, prompts[1:4], GREEDY)
        assert all(done.acquire(timeout=30) for _ in answers)
        assert answers == engine.generate(prompts[1:4], GREEDY, batch_size=1)
        assert first[2].acquire(timeout=30)
        expected = engine.generate(prompts[:1], SamplingParams(max_new_tokens=200), batch_size=1)
        assert first[0] == expected
    finally:
        batcher.close()


def test_cancelled_request_frees_its_place_and_others_go_on(engine, prompts):
    batcher = Batcher(engine, max_batch_size=1, window_seconds=0)
    try:
        endless = SamplingParams(max_new_tokens=240, ignore_eos=True)
        answers, _, _, tickets = _collect(batcher, prompts[:1], endless)
        later, _, done, _ = _collect(batcher, prompts[1:2], SamplingParams(max_new_tokens=2))
        tickets[0].cancel()
        assert done.acquire(timeout=30)
        assert later[0].completion_tokens == 2
        assert answers[0] is None  # it never finished
    finally:
        batcher.close()


def test_failing_step_ends_its_requests_and_the_next_ones_are_served(engine, prompts, monkeypatch):
    from swiftcore.generation.decoding import Decoder

    batcher = Batcher(engine, max_batch_size=4)
    try:
        real, calls = Decoder.step, itertools.count()

        def break_once(self):
            if next(calls) == 0:
                raise MemoryError("no room for the cache")
            return real(self)

        monkeypatch.setattr(Decoder, "step", break_once)
        answers, _, done, _ = _collect(batcher, prompts[:1], GREEDY)
        assert done.acquire(timeout=30)
        assert isinstance(answers[0], MemoryError)
        answers, _, done, _ = _collect(batcher, prompts[:1], GREEDY)
        assert done.acquire(timeout=30)
        assert answers[0].completion_tokens
    finally:
        batcher.close()


def test_long_prompts_are_prefilled_in_groups_with_the_same_answers(engine, prompts, monkeypatch):
    from swiftcore.generation import rows

    expected = engine.generate(prompts, GREEDY, batch_size=16)
    monkeypatch.setattr(rows, "_PREFILL_TOKENS", {"cpu": 16})
    sizes = []
    real = rows.RowBatch._admit
    monkeypatch.setattr(
        rows.RowBatch,
        "_admit",
        lambda self, group: (sizes.append(len(group)), real(self, group))[1],
    )
    assert engine.generate(prompts, GREEDY, batch_size=16) == expected
    assert sum(sizes) == len(prompts)
    assert len(sizes) > 4
