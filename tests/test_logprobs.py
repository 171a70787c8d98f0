"""How likely the tokens of answers are: the model's own numbers, told with the text they make."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SENTENCES, build_model, build_tokenizer

from swiftcore.errors import UsageError
from swiftcore.generation import SamplingParams, TransformersEngine
from swiftcore.generation.answer import GrowingAnswer, Request
from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.serving.logprobs import TokenTexts, chat_logprobs, text_logprobs


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
    return [tokenizer.encode(text)[:n] for text in SENTENCES for n in (3, 14)]


def log_probs_after(model, prompt, answer):
    """Return log-probabilities [T, V] of each place of an answer, by one plain forward."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


ASKED = {"max_new_tokens": 20, "logprobs": True, "top_logprobs": 4}
PARAMS = {
    "greedy": SamplingParams(**ASKED),
    "sampled": SamplingParams(**ASKED, temperature=1.7, top_p=0.9, top_k=60, seed=3, num_return=2),
    "penalized": SamplingParams(**ASKED, repetition_penalty=1.8),
    "stopped": SamplingParams(**ASKED, stop=("e", "a")),
    "alone": SamplingParams(max_new_tokens=5, logprobs=True),
}


@pytest.mark.parametrize("name", PARAMS)
def test_they_are_those_of_a_plain_forward_whatever_chose_the_tokens(engine, prompts, name):
    params = PARAMS[name]
    answers = engine.generate(prompts, params, batch_size=5)
    for place, answer in enumerate(answers):
        prompt = prompts[place // params.num_return]
        expected = log_probs_after(engine.model, prompt, answer.token_ids)
        assert [told.token for told in answer.logprobs] == answer.token_ids
        for row, told in zip(expected, answer.logprobs, strict=True):
            assert told.logprob == pytest.approx(float(row[told.token]), abs=1e-5)
            likeliest = row.topk(params.top_logprobs)
            assert [token for token, _ in told.top] == likeliest.indices.tolist()
            assert [value for _, value in told.top] == pytest.approx(
                likeliest.values.tolist(), abs=1e-5
            )
    whole = [(prompts[i // params.num_return], each.token_ids) for i, each in enumerate(answers)]
    assert engine.log_likelihoods(whole, batch_size=4) == pytest.approx(
        [sum(told.logprob for told in each.logprobs) for each in answers], abs=1e-4
    )


def test_rows_that_don_t_ask_are_told_nothing_beside_rows_that_do(engine, prompts):
    import torch

    plain = SamplingParams(max_new_tokens=6)
    requests = [engine.request(prompts[0], plain), engine.request(prompts[1], PARAMS["greedy"])]
    done = {}
    with torch.inference_mode():
        decoder = engine.decoder()
        deltas = decoder.admit(requests)
        while len(decoder):
            deltas += decoder.step()
    for request, delta in deltas:
        if delta.completion:
            done[id(request)] = delta.completion
    silent, told = (done[id(request)] for request in requests)
    assert silent == engine.generate(prompts[:1], plain, batch_size=1)[0]
    assert silent.logprobs is None
    alone = engine.generate(prompts[1:2], PARAMS["greedy"], batch_size=1)[0]
    assert told.token_ids == alone.token_ids
    assert [each.logprob for each in told.logprobs] == pytest.approx(
        [each.logprob for each in alone.logprobs], abs=1e-5
    )


def test_a_stream_tells_the_same_with_its_pieces(engine, prompts):
    for params in (PARAMS["greedy"], PARAMS["stopped"]):
        deltas = list(engine.stream(prompts[5], params))
        done = deltas[-1].completion
        streamed = tuple(told for delta in deltas for told in delta.logprobs)
        assert streamed == done.shown_logprobs
        assert len([delta for delta in deltas if delta.logprobs]) > 1


def test_asking_for_likeliest_tokens_alone_is_refused():
    with pytest.raises(UsageError, match="top_logprobs needs logprobs"):
        SamplingParams(top_logprobs=2)
    with pytest.raises(UsageError, match="top_logprobs must be 0 or more"):
        SamplingParams(logprobs=True, top_logprobs=-1)


TEXTS = st.text(alphabet="abc Grüße東京🙂🚀\n", max_size=30)
STOPS = st.lists(st.text(alphabet="abc G🙂", min_size=1, max_size=4), max_size=2)


@given(text=TEXTS, stop=STOPS, cut=st.integers(0, 12), ends=st.booleans())
@settings(max_examples=80, deadline=None)
def test_shown_tokens_are_the_bytes_of_the_text(tokenizer, text, stop, cut, ends):
    ids = [*tokenizer.encode(text), *([tokenizer.eos_token_id] if ends else [])]
    ids = ids[: len(ids) - cut] or [tokenizer.eos_token_id]  # may end within a character
    params = SamplingParams(max_new_tokens=len(ids), logprobs=True, stop=tuple(stop))
    request = Request([5], params, streamed=True)
    answer = GrowingAnswer(
        request,
        frozenset({tokenizer.eos_token_id}),
        lambda part, skip: tokenizer.decode(part, skip_special_tokens=skip),
        1000,
    )
    deltas = []
    for token in ids:
        deltas.append(answer.take(token, TokenLogprob(token, -1.0)))
        if deltas[-1].completion:
            break
    done = deltas[-1].completion
    shown = done.shown_logprobs
    assert [told.token for told in done.logprobs] == done.token_ids
    assert tuple(told for delta in deltas for told in delta.logprobs) == shown
    texts = TokenTexts(tokenizer)
    joined = b"".join(texts.bytes_of(told.token, told.offset == 0) for told in shown)
    made = joined.decode("utf-8", errors="replace")
    # A stop string may begin within the last token.
    assert made == done.text if not stop else made.startswith(done.text)
    before = b""
    for told in shown:
        # A token begins after the characters that are whole before it.
        assert told.offset == len(before.decode("utf-8", errors="ignore"))
        before += texts.bytes_of(told.token, told.offset == 0)


def sentencepiece_tokenizer():
    """Return a tokenizer as Llama 2 has it: spaces are letters, bytes have tokens of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "é"]
    vocab = {word: place for place, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize(
    ("token", "first", "expected"),
    [
        ("▁a", False, b" a"),
        ("▁a", True, b"a"),
        ("é", False, "é".encode()),  # in a byte-level vocabulary this letter is the byte E9
        ("<0xF0>", False, b"\xf0"),
        ("<0x41>", False, b"A"),
        ("</s>", False, b"</s>"),
    ],
)
def test_bytes_of_tokens_that_are_letters(token, first, expected):
    tokenizer = sentencepiece_tokenizer()
    number = tokenizer.convert_tokens_to_ids(token)
    assert TokenTexts(tokenizer).bytes_of(number, first) == expected


def test_half_a_character_is_written_as_bytes_in_both_shapes(tokenizer):
    ids = tokenizer.encode("a🦊")  # no merge knows the whole fox
    rest = tokenizer.encode("b")[0]
    shown = [
        TokenLogprob(ids[0], -0.5, ((ids[0], -0.5), (rest, -1.0)), 0),
        TokenLogprob(ids[1], -2.0, ((rest, -1.0),), 1),
        TokenLogprob(ids[2], float("-inf"), (), 1),
    ]
    texts = TokenTexts(tokenizer)
    chat = chat_logprobs(texts, shown)
    assert [entry["token"] for entry in chat["content"]] == ["a", r"\xf0\x9f", r"\xa6"]
    assert [entry["bytes"] for entry in chat["content"]] == [[0x61], [0xF0, 0x9F], [0xA6]]
    assert chat["content"][2]["logprob"] == -9999.0  # JSON has no infinity
    assert chat["content"][0]["top_logprobs"][1] == {"token": "b", "logprob": -1.0, "bytes": [0x62]}
    assert text_logprobs(texts, shown) == {
        "tokens": ["a", r"bytes:\xf0\x9f", r"bytes:\xa6"],
        "token_logprobs": [-0.5, -2.0, -9999.0],
        "top_logprobs": [
            {"a": -0.5, "b": -1.0},
            {"b": -1.0, r"bytes:\xf0\x9f": -2.0},
            {r"bytes:\xa6": -9999.0},
        ],
        "text_offset": [0, 1, 1],
    }
