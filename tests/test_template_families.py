"""The registered families: their texts as rendered, and field by field against the records."""

import json
from datetime import date

import pytest
from template_fixtures import SHARED

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
