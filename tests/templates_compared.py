"""Every published chat template of the shared folder beside the registered family that claims it.

python -m tests.templates_compared     writes docs/templates-compared.md

A family claims a template when it stands in `CLAIMS` for the template's folder. Texts are compared,
with a tokenizer that has the control tokens of both. Each reason is a property that is computed
here, so a reason that no longer holds changes the page.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from template_fixtures import chat, published_templates, tokenizer_for_template

from swiftcore.errors import SwiftError
from swiftcore.template import get_template
from swiftcore.template.conversation import read_conversation
from swiftcore.template.jinja import JinjaTemplate
from swiftcore.template.registry import find_definition

PAGE = Path(__file__).parents[1] / "docs" / "templates-compared.md"
TODAY = "2024-07-26"
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city."}},
            "required": ["city"],
        },
    },
}
_CALLED = [
    {"role": "user", "content": "Weather?"},
    {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'},
    {"role": "tool_response", "content": '{"t": 21}'},
]
PROMPTS: dict[str, dict[str, Any]] = {
    "one question": {"messages": chat("one")},
    "history": {"messages": chat("one", "two", "three")},
    "system": {"messages": chat("one", "two", "three", system="Be kind.")},
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one round": {"messages": chat("one", "two")},
    "two rounds": {"messages": chat("one", "two", "three", "four")},
}
TOOL_PROMPTS: dict[str, dict[str, Any]] = {
    "tools": {"messages": chat("Weather?"), "tools": [_TOOL]},
    "tool response": {"messages": _CALLED, "tools": [_TOOL]},
}

# Folder: the tokenizer's bos and eos token, and the families in order of preference.
CLAIMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "baichuan": ("<s>", "</s>", ("baichuan",)),
    "chatglm": ("<s>", "</s>", ("chatglm2", "chatglm3")),
    "chatml": ("<s>", "<|im_end|>", ("chatml", "yi_coder")),
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", ("aya",)),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("deepseek_r1",)),
    "deepseek-v2v3": (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        ("deepseek_v2_5", "deepseek", "deepseek_r1"),
    ),
    "deepseek-v3.1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("deepseek_v3_1",)),
    "gemma": ("<bos>", "<eos>", ("gemma",)),
    "gemma2": ("<bos>", "<eos>", ("gemma",)),
    "gemma3": ("<bos>", "<eos>", ("gemma3_text",)),
    "glm4": ("[gMASK]", "<|endoftext|>", ("glm4", "chatglm4")),
    "gpt-oss": ("<|startoftext|>", "<|return|>", ("gpt_oss",)),
    "hermes": ("<s>", "<|im_end|>", ("chatml", "qwen2_5")),
    "internlm": ("<s>", "</s>", ("internlm2",)),
    "kimi-k2": ("[BOS]", "[EOS]", ("moonlight", "kimi_k2")),
    "llama2": ("<s>", "</s>", ("llama",)),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ("llama3",)),
    "llama3.1": ("<|begin_of_text|>", "<|eot_id|>", ("llama3_2", "llama3")),
    "llama3.2": ("<|begin_of_text|>", "<|eot_id|>", ("llama3_2", "llama3")),
    "llava": ("<s>", "</s>", ("llava1_5_hf", "llava1_6_mistral_hf")),
    "minicpm": ("<s>", "<|im_end|>", ("minicpmv4_5",)),
    "mistral": ("<s>", "</s>", ("llama", "mistral_nemo")),
    "mistral-nemo": ("<s>", "</s>", ("mistral_nemo",)),
    "mistral-small3": ("<s>", "</s>", ("mistral_2501", "mistral_2503")),
    "phi3": ("<s>", "<|endoftext|>", ("phi3", "phi3_vision")),
    "phi4": ("<|endoftext|>", "<|endoftext|>", ("phi4", "phi3")),
    "qwen-vl": ("<s>", "<|im_end|>", ("qwen2_vl", "qwen2_5_vl", "qwen2_audio")),
    "qwen2.5": ("<s>", "<|im_end|>", ("qwen2_5", "qwen", "chatml")),
    "qwen3": ("<s>", "<|im_end|>", ("qwen3", "qwen3_nothinking")),
    "qwen3-coder": ("<s>", "<|im_end|>", ("qwen3_coder", "qwen3_nothinking")),
    "qwq": ("<s>", "<|im_end|>", ("qwq",)),
    "seed-oss": ("<seed:bos>", "<seed:eos>", ("seed_oss",)),
    "zephyr": ("<s>", "</s>", ("zephyr",)),
}


@dataclass(frozen=True)
class Outcome:
    """How one template compares.

    Args:
        name: the template.
        family: the family that claims it; None for none.
        prompts, conversations, tools: which kinds are equal, of those that it renders.
        reasons: why the others are not.
    """

    name: str
    family: str | None
    prompts: tuple[int, int] = (0, 0)
    conversations: tuple[int, int] = (0, 0)
    tools: tuple[int, int] = (0, 0)
    reasons: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        if self.family is None:
            return "not claimed"
        same = self.prompts[0] == self.prompts[1] > 0
        same = same and self.conversations[0] == self.conversations[1]
        return "equal" if same else "different"


def compare(name: str, source: str) -> Outcome:
    """Compare one template with the families that may claim it, and keep the best."""
    claim = CLAIMS.get(name.partition("/")[0])
    best: Outcome | None = None
    for family in _known(claim[2]) if claim else ():
        outcome = _with_family(name, source, family, claim[0], claim[1])
        if outcome and (best is None or _score(outcome) > _score(best)):
            best = outcome
    return best or Outcome(name, None)


def _known(families: tuple[str, ...]) -> list[str]:
    found = []
    for family in families:
        try:
            find_definition(family)
        except SwiftError:
            continue
        found.append(family)
    return found


def _score(outcome: Outcome) -> tuple[int, int]:
    return outcome.prompts[0] * 2 + outcome.conversations[0], outcome.tools[0]


def _with_family(name: str, source: str, family: str, bos: str, eos: str) -> Outcome | None:
    wanted = "".join(find_definition(family).control_tokens)
    tokenizer = tokenizer_for_template(source + wanted, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = source
    try:
        ours = get_template(family, tokenizer, today=TODAY)
        theirs = JinjaTemplate(tokenizer, ours.options, is_reference=True)
    except SwiftError:
        return None
    reasons: list[str] = []
    counts = []
    for kind, rows in (
        ("prompt", PROMPTS),
        ("conversation", CONVERSATIONS),
        ("tools", TOOL_PROMPTS),
    ):
        equal = rendered = 0
        for label, row in rows.items():
            result = _reason(ours, theirs, row, is_prompt=kind != "conversation")
            rendered += result is not None
            equal += result == ""
            if result:
                reasons.append(f"{label}: {result}")
            elif result is None and kind != "tools":
                reasons.append(f"{label}: the model's template refuses it")
        counts.append((equal, rendered))
    return Outcome(name, family, *counts, tuple(_joined(reasons)))


def _joined(reasons: list[str]) -> list[str]:
    """Put the labels of equal reasons together."""
    by_text: dict[str, list[str]] = {}
    for reason in reasons:
        label, _, text = reason.partition(": ")
        by_text.setdefault(text, []).append(label)
    return [f"{', '.join(labels)}: {text}" for text, labels in by_text.items()]


def _reason(
    ours: Any, theirs: JinjaTemplate, row: dict[str, Any], *, is_prompt: bool
) -> str | None:
    """Return "" for equal texts, None for a row the model's template can't render, else why."""
    try:
        other = theirs.written(read_conversation(row), prompt=is_prompt)
    except SwiftError:
        return None
    try:
        text = _text(ours, row, is_prompt=is_prompt)
    except SwiftError:
        return "the family has no place for it"
    if not is_prompt and any(text.rstrip().endswith(word) for word in ours.stop_words):
        # As in the parity report: what follows the last stop token is never reached.
        rest = other.removeprefix(text.rstrip())
        if rest != other and theirs.is_only_special(rest):
            return ""
    return "" if text == other else _why(text, other, ours, is_prompt=is_prompt)


def _text(template: Any, row: dict[str, Any], *, is_prompt: bool) -> str:
    decode = template.tokenizer.decode
    pieces = template.plan(row, "infer" if is_prompt else "train")
    return "".join(piece.text or (decode(list(piece.ids)) if piece.ids else "") for piece in pieces)


def _why(text: str, other: str, ours: Any, *, is_prompt: bool) -> str:
    if "".join(text.split()) == "".join(other.split()):
        return "white space only"
    bos = ours.tokenizer.bos_token
    if text.removeprefix(bos) == other.removeprefix(bos):
        return f"only ours begins with {bos}" if text.startswith(bos) else "only ours has no bos"
    short, long = sorted((text, other), key=len)
    if long.startswith(short):
        rest = long[len(short) :]
        if is_prompt and "think" in rest.lower():
            whose = "ours" if len(text) > len(other) else "the model's"
            return f"{whose} opens a think block"
        whose = "ours" if len(text) > len(other) else "the model's"
        return f"{whose} goes on with {_quoted(rest)}"
    place = next(at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b)
    return f"{_quoted(text[place:])} against {_quoted(other[place:])}"


def _quoted(text: str) -> str:
    shown = text
    if len(text) > 36:  # cut between words
        shown = (text[:36].rpartition(" ")[0] or text[:36]) + "…"
    escaped = shown.replace("\\", "\\\\").replace("\n", "\\n").replace("|", "\\|")
    return f"<code>{escaped.replace('<', '&lt;')}</code>"


def compare_all() -> list[Outcome]:
    """Compare every template of the shared folder."""
    return [compare(name, source) for name, source in published_templates()]


def page(outcomes: list[Outcome]) -> str:
    """Return the page as Markdown."""
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    folders = {outcome.name.partition("/")[0] for outcome in outcomes}
    lines = [
        "# Published chat templates and our families",
        "",
        "Made by `python -m tests.templates_compared` from real chat templates that are no part of",
        "this project, and checked by `tests/test_templates_compared.py` where they are at hand.",
        "Texts are compared: prompts (one question, with history, with a system prompt),",
        "conversations of one and two rounds, and prompts with tools and with a tool's response.",
        "A count is the equal ones of those that the model's template renders. Reasons read *ours",
        "against the model's*, from the first difference on.",
        "",
        f"{len(outcomes)} templates in {len(folders)} folders: "
        + ", ".join(f"{verdicts[v]} {v}" for v in ("equal", "different", "not claimed"))
        + ". A template that is not claimed, or different, is trained through `template: jinja`.",
        "",
        "| template | family | verdict | prompts | conversations | tools | reasons |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        counts = [f"{equal}/{of}" for equal, of in (outcome.prompts, outcome.conversations)]
        counts.append(f"{outcome.tools[0]}/{outcome.tools[1]}")
        cells = [outcome.name, outcome.family or "", outcome.verdict]
        cells += counts if outcome.family else ["", "", ""]
        lines.append("| " + " | ".join([*cells, "; ".join(outcome.reasons)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(compare_all()), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8").splitlines()[10])
