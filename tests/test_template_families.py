"""The registered families: their texts as rendered, and field by field against the records."""

import json
from datetime import date

import pytest
from family_fixtures import family_tokenizer, marks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import SHARED, chat

from swiftcore.errors import UsageError
from swiftcore.template import get_template, render_chat
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families import FAMILIES
from swiftcore.template.texts import prepare_texts

FACTS = SHARED / "reference" / "template_meta.json"
DAY = date(2026, 11, 21)
BY_NAME = {family.name: family for family in FAMILIES}
TEXTS = ("prefix", "system_prefix", "prompt", "chat_sep", "suffix")
PLAIN_FIELDS = {
    "stop_words": "stop_words",
    "add_bos": "auto_add_bos",
    "agent_template": "agent_template",
    "is_thinking": "is_thinking",
    "thinking_prefix": "thinking_prefix",
    "non_thinking_prefix": "non_thinking_prefix",
    "history_thinking_prefix": "history_thinking_prefix",
    "preserve_thinking": "preserve_thinking",
}
# (family, field) -> why ours is another text than the one registered in ms-swift.
DIFFERENT = {
    ("c4ai", "system_prefix"): "registered without bos, and its end token without the last '>'",
    ("aya", "system_prefix"): "registered without bos, and its end token without the last '>'",
    ("llava1_6_mistral_hf", "system_prefix"): "registered with {{system}}, which nothing fills",
    ("llava1_6_mistral", "system_prefix"): "registered with {{system}}, which nothing fills",
    ("seed_oss", "prefix"): "registered with a second <seed:bos>, which published prompts lack",
    ("gpt_oss", "prefix"): "ms-swift writes the opening in code",
    ("gpt_oss", "system_prefix"): "ms-swift writes the opening in code",
    ("internvl3_5_gpt", "prefix"): "ms-swift writes the opening in code",
    ("internvl3_5_gpt", "system_prefix"): "ms-swift writes the opening in code",
    ("kimi_k25", "system_prefix"): "ms-swift adds the role in code",
    ("kimi_k3", "system_prefix"): "ms-swift adds the role in code",
}


class _Tokens:
    """Stands in for a tokenizer: its tokens are written as their names."""

    bos_token, eos_token = "{bos_token_id}", "{eos_token_id}"
    user_token_id, bot_token_id = 901, 902

    def __len__(self) -> int:
        return 100_000


def _registered(parts: list | None) -> str | None:
    """Write a recorded text as one string, ids as their name or number in braces."""
    if parts is None:
        return None
    return "".join(part if isinstance(part, str) else f"{{{part[0]}}}" for part in parts)


def _ours(family: ChatTemplate) -> dict[str, str | None]:
    texts = prepare_texts(family, _Tokens(), DAY)
    names = {901: "user_token_id", 902: "bot_token_id"}
    written: dict[str, str | None] = {}
    for name in TEXTS:
        text = getattr(texts, name)
        if text is None or (name == "chat_sep" and family.chat_sep is None):
            written[name] = None
            continue
        written[name] = "".join(
            f"{{{{{part}}}}}"
            if isinstance(part, str)
            else part.text or f"{{{names.get(part.ids[0], part.ids[0])}}}"
            for part in text.parts
        )
    written["prompt"] = f"{written['prompt']}{family.answer_break}"
    written["default_system"] = texts.default_system
    return written


def test_every_family_equals_the_recorded_one_field_by_field():
    if not FACTS.exists():
        pytest.skip("the recorded texts are not here")
    recorded = json.loads(FACTS.read_text(encoding="utf-8"))
    assert set(recorded) == set(BY_NAME)
    different = set()
    for name, facts in recorded.items():
        family = BY_NAME[name]
        ours = _ours(family)
        theirs = {text: _registered(facts[text]) for text in TEXTS}
        theirs["default_system"] = facts["default_system"]
        ours |= {mine: getattr(family, mine) for mine in PLAIN_FIELDS}
        theirs |= {mine: facts[theirs_] for mine, theirs_ in PLAIN_FIELDS.items()}
        theirs["stop_words"] = tuple(theirs["stop_words"])
        different |= {(name, field) for field, value in theirs.items() if ours[field] != value}
    assert different == set(DIFFERENT)


STORY = ("one {mark} <think>", "two", "three", "  four\n{mark}", "five", "six")
"""Questions and answers in turn; a mark is the text of one of the family's control tokens."""


def _story(family: ChatTemplate, turns: int, mark: str) -> list[str]:
    return [text.replace("{mark}", mark) for text in STORY[:turns]]


def _template(family: ChatTemplate, **options):
    tokenizer = family_tokenizer(family)
    return get_template(family.name, tokenizer, today=DAY, **options)


def _keeps_history(family: ChatTemplate) -> dict[str, bool]:
    return {"preserve_thinking": True} if family.is_thinking else {}


def _stated(family: ChatTemplate, contents: list[str], system: str | None) -> tuple[str, str]:
    """Write a conversation and its trained part by replacing texts."""

    def text(template: str | None, index: int = 0, query: str = "") -> str:
        for placeholder, value in (
            ("{{BOS}}", "<_bos>"),
            ("{{EOS}}", "<_eos>"),
            ("{{TODAY:%d %b %Y}}", "21 Nov 2026"),
            ("{{TODAY:%Y-%m-%d}}", "2026-11-21"),
            ("{{TOKEN:user_token_id}}", "<_user_id>"),
            ("{{TOKEN:bot_token_id}}", "<_bot_id>"),
            ("{{ROUND0}}", str(index)),
            ("{{ROUND1}}", str(index + 1)),
            ("{{SYSTEM}}", system or ""),
            ("{{QUERY}}", query),
        ):
            template = (template or "").replace(placeholder, value)
        return template

    rounds = list(zip(contents[::2], contents[1::2], strict=True))
    if family.chat_sep is None:
        rounds = rounds[-1:]
    suffix = text(family.suffix)
    carrier = 0 if family.system_round == "first" else len(rounds) - 1
    whole = text(family.system_prefix if system and family.system_prefix else family.prefix)
    trained = ""
    for index, (query, answer) in enumerate(rounds):
        in_turn = system and family.system_prompt and index == carrier
        separator = text(family.chat_sep) if index else ""
        asked = separator + text(
            family.system_prompt if in_turn else family.prompt, index=index, query=query
        )
        if index and asked.startswith(suffix):
            trained += suffix
        written = answer.strip(family.strips_answers) if family.strips_answers else answer
        written = family.answer_opening + family.non_thinking_prefix + written
        whole += asked + family.answer_break + written
        trained += written
    return whole + suffix, trained + suffix


def test_each_family_renders_what_its_data_says_and_trains_answers_and_stop():
    failures = []
    for family in FAMILIES:
        if "{{ID:" in family.prompt:  # the text of an id is the tokenizer's; see the next test
            continue
        has_place = bool(family.system_prefix or family.system_prompt)
        for turns, system in ((2, None), (6, "be\nkind") if has_place else (4, None)):
            template = _template(family, default_system="", **_keeps_history(family))
            contents = _story(family, turns, "mark")
            encoded = template.encode({"messages": chat(*contents, system=system)})
            if encoded.text != template.decode(encoded.input_ids):
                failures.append((family.name, "decode"))
            labels = [label for label in encoded.labels if label != -100]
            found = (encoded.text, template.decode(labels))
            if found != _stated(family, contents, system):
                failures.append((family.name, found, _stated(family, contents, system)))
    assert failures == []


PLAIN = [family for family in FAMILIES if "{{ID:" not in family.prompt]
WORDS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(PLAIN))
def test_any_conversation_is_rendered_trained_and_served_alike(data, family):
    template = _template(family, default_system="", response_prefix="", **_keeps_history(family))
    marks = [mark for mark in marks_of(family) if mark in template.pieces.token_ids]
    hostile = st.lists(st.one_of(WORDS, st.sampled_from([*marks, "<think>"])), max_size=4)
    texts = data.draw(st.lists(hostile.map("".join), min_size=2, max_size=4))
    # An answer that begins with a think block gets no empty one.
    contents = [f"{'x' if place % 2 else ''}{text}" for place, text in enumerate(texts)]
    contents = contents[: len(contents) // 2 * 2]
    encoded = template.encode({"messages": chat(*contents)})
    labels = [label for label in encoded.labels if label != -100]
    text, trained = _stated(family, contents, None)
    if text == trained:  # Nothing stands before the answer, so nothing predicts its first token.
        trained = template.decode(encoded.input_ids[1:])
    assert (encoded.text, template.decode(labels)) == (text, trained)
    prompt = render_chat(template, chat(*contents[:-1])).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt


def test_families_that_name_tokens_by_id_write_these_ids():
    tokenizer = family_tokenizer(BY_NAME["baichuan"])
    template = get_template("baichuan", tokenizer)
    ids = template.encode({"messages": chat("q", "a", system="s")}).input_ids
    ask = tokenizer("q", add_special_tokens=False)["input_ids"]
    answer = tokenizer("a<_eos>", add_special_tokens=False)["input_ids"]
    system = tokenizer("s", add_special_tokens=False)["input_ids"]
    assert ids == [*system, 195, *ask, 196, *answer]
    with pytest.raises(UsageError, match="token with id 8308"):
        get_template("yi_vl", tokenizer)
    lacking = family_tokenizer(BY_NAME["telechat"])
    del lacking.user_token_id
    with pytest.raises(UsageError, match="no user_token_id"):
        get_template("telechat", lacking)


def test_each_family_serves_the_prompt_it_trains_and_keeps_hostile_text_as_text():
    failures = []
    for family in FAMILIES:
        # Openings by default are compared below; an empty response prefix is before all of them.
        template = _template(family, response_prefix="", **_keeps_history(family))
        marks = [mark for mark in marks_of(family) if mark in template.pieces.token_ids]
        contents = _story(family, 6, " ".join(marks[:6]))
        trained = template.encode({"messages": chat(*contents)}).input_ids
        rounds = (5,) if family.chat_sep is None else (1, 3, 5)
        for turns in rounds:
            prompt = render_chat(template, chat(*contents[:turns])).input_ids
            if trained[: len(prompt)] != prompt:
                failures.append((family.name, "prompt", turns))
        harmless = template.encode({"messages": chat(*_story(family, 6, "x"))}).input_ids
        added = set(template.pieces.token_ids.values())
        if [i for i in trained if i in added] != [i for i in harmless if i in added]:
            failures.append((family.name, "hostile"))
    assert failures == []


def test_each_family_truncates_between_tokens_and_never_inside_one():
    row = {"messages": chat(*STORY[:2])}
    failures = []
    for family in FAMILIES[::4]:
        whole = _template(family).encode(row).input_ids
        limit = max(len(whole) // 3, 2)
        cuts = {"left": whole[-limit:], "right": whole[:limit]}
        for strategy, expected in cuts.items():
            template = _template(family, max_length=limit, truncation_strategy=strategy)
            if template.encode(row).input_ids != expected:
                failures.append((family.name, strategy))
        template = _template(family, max_length=limit, truncation_strategy="split")
        parts = [part.input_ids for part in template.encode(row)]
        if [i for ids in parts for i in ids] != whole or max(map(len, parts)) > limit:
            failures.append((family.name, "split"))
    assert failures == []


# What two rounds with a system prompt look like, written by hand from the published templates.
PINNED = {
    "llama": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST]b</s><s>[INST] c [/INST]",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral_nemo": "<s>[INST] a[/INST]b</s>[INST] S\n\nc[/INST]",
    "mistral_2501": "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]a[/INST]b</s>[INST]c[/INST]",
    "gemma3_text": (
        "<bos><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    ),
    "deepseek_v3_1": (
        "<｜begin▁of▁sentence｜>S<｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜>"
        "<｜User｜>c<｜Assistant｜></think>"
    ),
    "glm4": "[gMASK]<sop><|system|>\nS<|user|>\na<|assistant|>\nb<|user|>\nc<|assistant|>",
    "glm4_5": (
        "[gMASK]<sop><|system|>\nS<|user|>\na<|assistant|>\n<think></think>\nb<|user|>\nc"
        "<|assistant|>"
    ),
    "glm4_7": "[gMASK]<sop><|system|>S<|user|>a<|assistant|></think>b<|user|>c<|assistant|><think>",
    "chatglm2": "S[Round 1]\n\n问：a\n\n答：b\n\n[Round 2]\n\n问：c\n\n答：",
    "kimi_k2": (
        "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>a<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>b<|im_end|><|im_user|>user<|im_middle|>c<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>"
    ),
    "gpt_oss": (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2026-11-21\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every "
        "message.<|end|><|start|>developer<|message|># Instructions\n\nS\n\n<|end|>"
        "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|end|>"
        "<|start|>user<|message|>c<|end|><|start|>assistant"
    ),
    "seed_oss": (
        "<seed:bos>system\nS<seed:eos><seed:bos>user\na<seed:eos><seed:bos>assistant\nb<seed:eos>"
        "<seed:bos>user\nc<seed:eos><seed:bos>assistant\n"
    ),
    "c4ai": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>a<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>b<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>c<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>a<|im_end|>"
        "<|im_start|>assistant<|im_sep|>b<|im_end|><|im_start|>user<|im_sep|>c<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    ),
    "minicpmv4_5": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb"
        "<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "yuan": "c<sep>",
}


@pytest.mark.parametrize("name", PINNED)
def test_prompt_of_two_rounds_with_system(name):
    has_place = bool(BY_NAME[name].system_prefix or BY_NAME[name].system_prompt)
    messages = chat("a", "b", "c", system="S" if has_place else None)
    assert render_chat(_template(BY_NAME[name]), messages).text == PINNED[name]
