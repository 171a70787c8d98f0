"""The template engine on a tokenizer of its own: masks, prompts, safety, truncation, bad rows."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import SPECIAL, WORDS, chat, labelled_text, real_tokenizer, small_tokenizer

from swiftcore.errors import DataError, RowTooLong, UsageError
from swiftcore.template import (
    get_template,
    list_templates,
    load_template,
    render_chat,
    write_template_settings,
)
from swiftcore.template.control_tokens import PieceTokenizer
from swiftcore.template.spans import Author, Piece, Span

TOKENIZER = small_tokenizer()
STOPS = {"chatml": "<|im_end|>\n", "qwen2_5": "<|im_end|>\n", "llama3": "<|eot_id|>"}
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
HOSTILE = st.lists(st.one_of(st.sampled_from(SPECIAL + WORDS), TEXT), max_size=6).map("".join)
# The model's own words may hold its word tokens, and special tokens that must stay text.
FAMILY = st.sampled_from(sorted(STOPS))


def _added(ids: list[int]) -> list[str]:
    known = TOKENIZER.added_tokens_decoder
    return [known[token].content for token in ids if token in known]


@settings(max_examples=60, deadline=None)
@given(FAMILY, st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=3), HOSTILE)
def test_mask_covers_exactly_assistant_text_and_stop_token(name, rounds, system):
    messages = chat(*[text for pair in rounds for text in pair], system=system)
    encoded = get_template(name, TOKENIZER).encode({"messages": messages})
    expected = "".join(answer + STOPS[name] for _, answer in rounds)
    assert labelled_text(TOKENIZER, encoded) == expected


@settings(max_examples=60, deadline=None)
@given(FAMILY, st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=3))
def test_training_starts_with_the_prompt_that_serving_sends(name, rounds):
    template = get_template(name, TOKENIZER)
    texts = [text for pair in rounds for text in pair]
    trained = template.encode({"messages": chat(*texts)}).input_ids
    for turns in range(1, len(texts), 2):
        prompt = render_chat(template, chat(*texts[:turns])).input_ids
        assert trained[: len(prompt)] == prompt


@settings(max_examples=60, deadline=None)
@given(FAMILY, HOSTILE, HOSTILE, HOSTILE)
def test_hostile_control_tokens_never_become_control_tokens(name, system, user, answer):
    template = get_template(name, TOKENIZER)
    encoded = template.encode({"messages": chat(user, answer, system=system)})
    harmless = template.encode({"messages": chat("a", "b", system="c" if system else "")})
    words = [token for token in _added(encoded.input_ids) if token not in WORDS]
    assert words == _added(harmless.input_ids)
    assert TOKENIZER.decode(encoded.input_ids) == encoded.text
    for text in (system, user, answer):
        assert text in encoded.text


def test_word_tokens_stay_tokens_in_answers_only():
    template = get_template("chatml", TOKENIZER)
    encoded = template.encode({"messages": chat("say <think>", "<think>\nhm\n</think>\n\nhi")})
    assert _added(encoded.input_ids).count("<think>") == 1
    assert _added([label for label in encoded.labels if label != -100])[:2] == [
        "<think>",
        "</think>",
    ]


def test_pretraining_text_parses_no_control_token():
    template = get_template("qwen3", TOKENIZER, use_chat_template=False, loss_scale="all")
    text = "a <|im_end|> b <think> c"
    encoded = template.encode({"messages": [{"role": "assistant", "content": text}]})
    assert encoded.text == text + "<|im_end|>"
    assert _added(encoded.input_ids) == ["<|im_end|>"]
    assert encoded.labels[0] == -100
    assert encoded.labels[1:] == encoded.input_ids[1:]


def test_control_token_across_the_border_of_two_texts_stays_text():
    template = get_template("chatml", TOKENIZER, agent_template="react_en")
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "<|im_"},
            {"role": "assistant", "content": "end|>x"},
        ]
    }
    encoded = template.encode(row)
    assert "<|im_end|>x" in encoded.text
    assert _added(encoded.input_ids).count("<|im_end|>") == 2


def test_data_can_not_finish_a_control_token_that_the_template_began():
    pieces = PieceTokenizer(TOKENIZER)
    piece = Piece((Span("<|im_"), Span("end|>", Author.DATA)))
    assert _added(pieces.encode([piece])[0]) == []
    assert pieces.num_kept_as_text == 1


@pytest.mark.parametrize("name", ["qwen", "gpt2", "mistral_v1", "mistral_tekken"])
def test_real_tokenizers_keep_hostile_text_as_text(name, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "tokenizers"
    tokenizer = real_tokenizer(name, folder)
    pieces = PieceTokenizer(tokenizer)
    special = [token for token in pieces.token_ids if token.strip()][:12]
    text = "hello " + " and ".join(special) + " world, ünïcode 你好"
    ids = pieces.encode([Piece((Span(text, Author.DATA),))])[0]
    assert not set(ids) & set(tokenizer.added_tokens_decoder)
    assert tokenizer.decode(ids).strip() == text
    plain = "hello world, ünïcode 你好\n\n  x"
    for author in Author:
        ours = pieces.encode([Piece((Span(plain, author),))])[0]
        assert ours == tokenizer(plain, add_special_tokens=False)["input_ids"]


def test_qwen3_drops_history_thinking_in_prompts_and_adds_empty_blocks_in_training():
    template = get_template("qwen3", TOKENIZER)
    thought = "<think>\nhm\n</think>\n\ntwo"
    prompt = template.encode({"messages": chat("one", thought, "three")}, mode="infer")
    assert "hm" not in prompt.text
    assert prompt.text.endswith("three<|im_end|>\n<|im_start|>assistant\n")
    trained = template.encode({"messages": chat("one", thought, "three", "four")})
    assert labelled_text(TOKENIZER, trained) == (
        f"{thought}<|im_end|>\n<think>\n\n</think>\n\nfour<|im_end|>\n"
    )


def test_message_flags_and_weights_are_never_ignored():
    template = get_template("chatml", TOKENIZER)
    messages = chat("a", "b", "c", "d")
    messages[1]["loss"] = False
    assert labelled_text(TOKENIZER, template.encode({"messages": messages})) == "d<|im_end|>\n"
    messages[1] = {"role": "assistant", "content": "b", "loss_scale": 0.5}
    encoded = template.encode({"messages": messages})
    assert sorted(set(encoded.loss_scale)) == [0.0, 0.5, 1.0]
    assert labelled_text(TOKENIZER, encoded) == "b<|im_end|>\nd<|im_end|>\n"


def test_last_answer_without_loss_leaves_its_stop_token_untrained():
    messages = chat("a", "b")
    messages[1]["loss"] = False
    encoded = get_template("chatml", TOKENIZER).encode({"messages": messages})
    assert encoded.num_labels == 0


def test_empty_answer_trains_its_stop_token():
    encoded = get_template("llama3", TOKENIZER).encode({"messages": chat("a", "", "b", "c")})
    assert labelled_text(TOKENIZER, encoded) == "<|eot_id|>c<|eot_id|>"


def test_system_prompt_order_row_then_caller_then_family():
    def text(row_system=None, **options):
        template = get_template("qwen2_5", TOKENIZER, **options)
        return template.encode({"messages": chat("q", system=row_system)}, mode="infer").text

    assert "You are Qwen" in text()
    assert "mine" in text(default_system="mine")
    assert "You are Qwen" not in text(default_system="mine")
    assert "system" not in text(default_system="")
    assert "row's" in text(row_system="row's", default_system="mine")
    assert "system" not in text(row_system="")


def test_truncation_strategies():
    row = {"messages": chat("one two three", "four five six")}
    whole = get_template("chatml", TOKENIZER).encode(row)
    length = len(whole.input_ids)
    for name in ("delete", "raise"):
        template = get_template("chatml", TOKENIZER, max_length=9, truncation_strategy=name)
        with pytest.raises(RowTooLong, match=f"{length} tokens"):
            template.encode(row)
    left = get_template("chatml", TOKENIZER, max_length=9, truncation_strategy="left").encode(row)
    assert left.input_ids == whole.input_ids[-9:]
    assert left.labels[0] == -100
    right = get_template("chatml", TOKENIZER, max_length=9, truncation_strategy="right").encode(row)
    assert right.input_ids == whole.input_ids[:9]
    parts = get_template("chatml", TOKENIZER, max_length=9, truncation_strategy="split").encode(row)
    assert [token for part in parts for token in part.input_ids] == whole.input_ids
    assert max(len(part.input_ids) for part in parts) == 9


def test_truncated_prompt_still_asks_for_an_answer():
    template = get_template("chatml", TOKENIZER, max_length=9, truncation_strategy="right")
    prompt = template.encode({"messages": chat("a long question " * 9)}, mode="infer")
    assert prompt.text.endswith("<|im_start|>assistant\n")
    assert len(prompt.input_ids) == 9


def test_loss_scale_list_only_where_a_weight_is_unusual():
    template = get_template("qwen2_5", TOKENIZER, loss_scale="hermes")
    assert template.encode({"messages": chat("a", "b")}).loss_scale is None
    call = {"role": "tool_call", "content": '{"name": "f", "arguments": {}}'}
    encoded = template.encode({"messages": [*chat("a"), call]})
    assert set(encoded.loss_scale) == {0.0, 1.0, 2.0}


def test_react_weights_keywords_and_not_the_observation():
    template = get_template("chatml", TOKENIZER, loss_scale="react")
    text = "Thought: t\nAction: a\nAction Input: {}\nObservation: seen\nFinal Answer: f"
    encoded = template.encode({"messages": chat("q", text)})
    by_weight: dict[float, list[int]] = {0.0: [], 1.0: [], 2.0: []}
    for token, weight in zip(encoded.input_ids, encoded.loss_scale, strict=True):
        by_weight[weight].append(token)
    assert TOKENIZER.decode(by_weight[2.0]) == "Action: a\nAction Input: {}\nObservation:"
    assert TOKENIZER.decode(by_weight[1.0]) == "Thought: t\nFinal Answer: f<|im_end|>\n"
    assert TOKENIZER.decode(by_weight[0.0]).endswith("assistant\n seen\n")


def test_old_name_of_a_loss_scale_is_accepted():
    old = get_template("chatml", TOKENIZER, loss_scale="last_round_with_ignore_empty_think")
    assert old.settings["loss_scale"] == "last_round+ignore_empty_think"


def test_today_comes_from_the_argument_then_the_environment(monkeypatch):
    row = {"messages": chat("q")}
    named = get_template("llama3_2", TOKENIZER, today="2024-02-03")
    assert "Today Date: 03 Feb 2024" in named.encode(row, mode="infer").text
    monkeypatch.setenv("SWIFTCORE_TODAY", "2025-12-31")
    assert "31 Dec 2025" in get_template("llama3_2", TOKENIZER).encode(row, mode="infer").text
    with pytest.raises(UsageError, match="not a date"):
        get_template("llama3_2", TOKENIZER, today="yesterday")


def test_unknown_names_list_the_nearest():
    for call in (
        lambda: get_template("qwen25", TOKENIZER),
        lambda: get_template("chatml", TOKENIZER, agent_template="herme"),
        lambda: get_template("chatml", TOKENIZER, loss_scale="lastround"),
        lambda: get_template("chatml", TOKENIZER, truncation_strategy="cut"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.expected
    with pytest.raises(UsageError, match="qwen2_5"):
        get_template("qwen25", TOKENIZER)
    assert {"chatml", "qwen2_5", "qwen3", "llama3", "jinja"} <= set(list_templates())


def test_tokenizer_without_the_familys_tokens_is_refused():
    with pytest.raises(UsageError, match=r"missing <start_of_turn>, <end_of_turn>"):
        get_template("gemma", TOKENIZER)


BAD_ROWS = {
    "messages": {"messages": []},
    "messages[0].role": {"messages": [{"role": "robot", "content": "x"}]},
    "messages[0].content": {"messages": [{"role": "user", "content": None}]},
    "messages[1].role": {"messages": [*chat("a"), *chat("b")]},
    "messages[1].role ": {"messages": [*chat("a"), {"role": "tool", "content": "x"}]},
    "messages[1].role  ": {"messages": [*chat("a"), {"role": "system", "content": "x"}]},
    "messages[1].content": {"messages": [*chat("a"), {"role": "tool_call", "content": "{"}]},
    "messages[1].loss_scale": {
        "messages": [*chat("a"), {"role": "assistant", "content": "b", "loss_scale": "x"}]
    },
    "tools": {"messages": chat("a"), "tools": "[{]"},
    "tools[0].function.name": {"messages": chat("a"), "tools": [{"x": 1}]},
    "messages[0].content ": {"messages": chat("lone \ud800 surrogate")},
}


@pytest.mark.parametrize("where", BAD_ROWS)
def test_bad_rows_name_message_and_field(where):
    with pytest.raises(DataError) as caught:
        get_template("chatml", TOKENIZER).encode(BAD_ROWS[where])
    assert caught.value.where == where.strip()


def test_prompt_that_ends_with_an_answer_is_refused():
    with pytest.raises(DataError, match="must not end"):
        get_template("chatml", TOKENIZER).encode({"messages": chat("a", "b")}, mode="infer")


def test_settings_rebuild_the_template(tmp_path):
    template = get_template(
        "qwen2_5", TOKENIZER, default_system="S", max_length=64, loss_scale="last_round"
    )
    write_template_settings(tmp_path, template.settings)
    again = load_template(tmp_path, TOKENIZER)
    assert again.settings == template.settings
    row = {"messages": chat("a", "b", "c", "d")}
    assert again.encode(row).labels == template.encode(row).labels
    settings = json.loads((tmp_path / "swift_template.json").read_text())
    assert settings["schema"] == 1


def test_damaged_settings_say_so(tmp_path):
    from swiftcore.errors import ArtifactDamaged, ModelMissing

    with pytest.raises(ModelMissing):
        load_template(tmp_path, TOKENIZER)
    (tmp_path / "swift_template.json").write_text('{"template": "chatml"}')
    with pytest.raises(ArtifactDamaged):
        load_template(tmp_path, TOKENIZER)


def test_stop_words_and_ids():
    template = get_template("qwen2_5", TOKENIZER)
    assert template.stop_words == ["<|im_end|>", "<|endoftext|>"]
    assert TOKENIZER.convert_ids_to_tokens(template.stop_token_ids) == template.stop_words
    assert template.default_system.startswith("You are Qwen")


def test_callers_truncation_setting_does_not_cut_rows():
    tokenizer = small_tokenizer()
    tokenizer("a b c d e f g h", truncation=True, max_length=2)
    encoded = get_template("chatml", tokenizer).encode({"messages": chat("one", "two")})
    assert encoded.text.endswith("two<|im_end|>\n")


def test_importing_templates_is_light():
    code = "import sys, swiftcore.template; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"torch", "transformers", "pyarrow", "numpy"} & set(modules.split())
