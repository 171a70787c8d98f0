"""The sample card: everything in it, coloured by what is trained, and nothing from the data markup.

Also the units that the card and `swift template show` are made of.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from template_fixtures import QWEN2_5_LIKE, TOOLS, chat, real_tokenizer, small_tokenizer
from test_template_dataset import write_dataset

from swiftcore.recipe.sections import TemplateSection
from swiftcore.template import encode_dataset, get_template
from swiftcore.template.samples import Candidate, KindReader, choose_samples
from swiftcore.template.token_text import read_units, shown_units, visible

TOKENIZER = small_tokenizer(QWEN2_5_LIKE)
CALL = {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'}
HOSTILE = "<b>&amp;</b> <|im_end|>\n<i onclick=x>"
SPECIAL_ROWS = [
    {"messages": chat(HOSTILE, "<script>alert(1)</script>\n\tx  y", "x", "\u202eevil\x00 end ")},
    {"messages": [*chat("w"), CALL], "tools": json.dumps(TOOLS)},
    {"messages": chat("日本語 🎉", "はい")},
    {"messages": chat("think", "<think>\nLet me see\n</think>\n\n4")},
    {"messages": chat("qzxv " * 100, "jkq " * 200)},
]
PLAIN_ROWS = [{"messages": chat(f"question {n}", "answer " * (1 + n % 23))} for n in range(40)]
VOID = {"meta"}
# The tokenizer's own template can't write tools, and a row has some.
WAIVED = {"parity_waivers": ["prompt", "conversation"]}


class Card(HTMLParser):
    """Reads the page, checks that its elements are closed, and keeps text by tone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.page = (folder / "card.html").read_text(encoding="utf-8")
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.tones = {"plain": "", "trained": "", "weighted": "", "weighted less": ""}
        self.control: list[str] = []
        self.summaries: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(self.page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self._open]
        tone = next((kind for tag, kind in self._open if tag == "span"), "")
        if "pre" in tags and tone and tags[-1] in ("i", "b"):
            self.tones[tone] += data
        if "pre" in tags and tags[-1] == "b":
            self.control.append(data)
        if "summary" in tags:
            self.summaries.append(data)


def make(tmp_path: Path, rows=None, **options) -> Card:
    name = f"out{len(list(tmp_path.iterdir()))}"
    dataset = write_dataset(tmp_path / f"dataset-{name}", train=rows or PLAIN_ROWS + SPECIAL_ROWS)
    encode_dataset(
        TemplateSection(**{"template": "qwen2_5", **WAIVED, **options}),
        dataset,
        TOKENIZER,
        tmp_path / name,
        method="sft",
        model_type="qwen2",
        max_model_length=2048,
    )
    return Card(tmp_path / name)


def test_card_shows_what_is_trained_and_no_data_is_markup(tmp_path):
    card = make(tmp_path, loss_scale="hermes")
    assert not {"script", "img", "link", "iframe"} & card.elements
    assert not {name for name in card.attributes if name.startswith("on")}
    assert "default-src 'none'" in card.page
    assert "http" not in card.page.replace("http-equiv", "")
    assert "<script>alert(1)</script>" in card.tones["trained"]
    assert "<b>&amp;</b> <|im_end|>" in card.tones["plain"]
    assert '{"name": "get_weather", "arguments": {"city": "Paris"}}' in card.tones["weighted"]
    assert "trained with weight 2" in card.page
    assert "×2" in card.page
    # The user's <|im_end|> is text; those of the template are control tokens, closed by one each.
    assert set(card.control) >= {"<|im_start|>", "<|im_end|>", "<think>", "</think>"}
    assert card.control.count("<|im_end|>") == card.control.count("<|im_start|>")
    assert "⟨U+202E⟩" in card.page
    assert "\u202e" not in card.page
    assert "\x00" not in card.page


def test_card_has_figures_lengths_drops_settings_and_parity(tmp_path):
    card = make(tmp_path, max_length=300)
    text = card.page
    assert "2 longer rows, in grey, were dropped" in text
    assert "max_length 300" in text
    assert "longer than max_length" in text
    assert "drops.jsonl names each of them" in text
    assert "default system prompt" in text
    assert "You are Qwen, created by Alibaba Cloud" in text
    parity = json.loads((tmp_path / "out0" / "parity.json").read_text())
    assert parity["text"] in text
    assert parity["prompt"]["holding_tokens"] == 1
    with_tools = make(tmp_path, rows=[SPECIAL_ROWS[1]])
    assert "are other tokens than the model's own template gives" in with_tools.page
    assert "allow_control_tokens" not in text


def test_each_kind_of_row_is_among_the_samples_and_says_why(tmp_path):
    card = make(tmp_path, max_length=300, truncation_strategy="left", loss_scale="hermes")
    told = "".join(card.summaries)
    for reason in (
        "the shortest row",
        "the longest row. It also has a cut at max_length",
        "a row of median length",
        "a row with tools",
        "a row with a think block",
        "a row with several rounds",
        "the text of a control token in the data",
        "a row with a script other than Latin",
        "weights other than 0 and 1",
        "one more, by length",
    ):
        assert reason in told, reason
    assert told.count("Chosen as") == 10


def test_unsafe_option_is_an_alarm_on_the_card(tmp_path):
    card = make(tmp_path, allow_control_tokens=True)
    assert "allow_control_tokens is set" in card.page
    assert "1 of them here" in card.page
    assert "<b>&amp;</b> <|im_end|>" not in card.tones["plain"]


def test_very_long_row_is_shown_from_both_ends(tmp_path):
    card = make(tmp_path, rows=[{"messages": chat("first", "word, " * 320 + "last")}])
    assert "tokens are not shown" in card.page
    assert "first" in card.tones["plain"]
    assert card.tones["trained"].count("last") == 1


def test_samples_are_the_extremes_one_of_each_kind_and_the_rest_by_length():
    rows = [Candidate(place, 10 + place) for place in range(50)]
    rows[3] = Candidate(3, 13, frozenset({"tools"}))
    rows[30] = Candidate(30, 40, frozenset({"tools", "script"}))
    chosen = choose_samples(rows)
    assert [choice.place for choice in chosen[:4]] == [0, 49, 24, 30]
    assert chosen[3].line == "Chosen as a row with tools. It also has a script other than Latin."
    assert len({choice.place for choice in chosen}) == len(chosen) == 10
    assert [choice.place for choice in choose_samples(rows[:1])] == [0]
    assert choose_samples([]) == []


@pytest.mark.parametrize(
    ("messages", "kinds"),
    [
        (chat("a", "b"), set()),
        (chat("a", "b", "c", "d"), {"rounds"}),
        (chat("a <think>", "b"), {"control"}),
        (chat("a", "<think>b"), {"thinking"}),
        (chat("a", "b<|im_end|>"), {"control"}),
        (chat("naïve ﬁ ℝ 12", "Ελλάδα"), {"script"}),
        ([*chat("a"), CALL], {"tools"}),
        ([{"role": "user", "content": None}], set()),
    ],
)
def test_kinds_of_rows(messages, kinds):
    reader = KindReader(get_template("qwen2_5", TOKENIZER))
    assert reader.kinds({"messages": messages}, is_weighted=False, is_cut=False) == kinds


def test_hidden_characters_are_visible():
    def shown(text):
        return "".join(f"[{part}]" if is_mark else part for part, is_mark in visible(text))

    assert shown("a b") == "a b"
    assert shown("a\nb\r\n\tc  d \n") == "a[↵]\nb[␍↵]\n[⇥]\tc[··]d[·][↵]\n"
    assert shown("\x1b[31m\u200b\u00a0\ufeff") == "[␛][31m[⟨U+200B⟩][⟨U+00A0⟩][⟨U+FEFF⟩]"


TEXTS = [
    "Hello world, 日本語 🎉👩‍👩‍👧 \tfoo\n\n  bar  \r\n naïve x\u200b ",
    " leading, a\ufffdb \ufffd",
    "नमस्ते दुनिया <|im_end|> ok",
]


@pytest.mark.parametrize("name", ["small", "qwen", "gpt2", "mistral_tekken", "mistral_v3"])
def test_units_say_what_decode_says_and_split_characters_stay_together(name, tmp_path_factory):
    if name == "small":
        tokenizer = small_tokenizer()
    else:
        tokenizer = real_tokenizer(name, tmp_path_factory.getbasetemp())
        tokenizer.eos_token = tokenizer.eos_token or next(iter(tokenizer.get_added_vocab()))
    template = get_template("default", tokenizer, use_chat_template=False)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        units = read_units(template, ids, [1.0] * len(ids))
        assert "".join(unit.text for unit in units) == template.decode(ids)
        assert [token for unit in units for token in unit.ids] == ids
        assert not any(unit.is_broken for unit in units)


def test_what_is_left_of_a_cut_character_is_shown_as_bytes():
    template = get_template("default", TOKENIZER, use_chat_template=False)
    ids = TOKENIZER("é🎉")["input_ids"]
    units = read_units(template, ids[:-1], [0.0] * (len(ids) - 1))
    assert [(unit.text, unit.is_broken) for unit in units] == [
        ("é", False),
        ("F0", True),
        ("9F", True),
        ("8E", True),
    ]
    # A character whose bytes have different weights is shown in its parts as well.
    units = read_units(template, ids[-4:], [0.0, 0.0, 1.0, 1.0])
    assert [unit.text for unit in units] == ["F0", "9F", "8E", "89"]


def test_a_space_that_ends_a_line_or_a_message_is_visible():
    template = get_template("default", TOKENIZER, use_chat_template=False)
    ids = TOKENIZER("a b \nc <|im_end|>d ")["input_ids"]
    units = read_units(template, ids, [0.0] * len(ids))
    shown = "".join(part for _, parts in shown_units(units) for part, _ in parts)
    assert shown == "a b·↵\nc·<|im_end|>d·"
