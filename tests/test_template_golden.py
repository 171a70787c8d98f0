"""The recorded ms-swift encodings of the registered families, id by id.

Where ms-swift differs from us on purpose the case stands in EXCEPTIONS with its reason.
"""

import functools
import json
import re
from collections.abc import Callable

import pytest
from template_fixtures import SHARED, shared_file
from transformers import AutoTokenizer

from swiftcore.template import get_template, list_agent_templates, list_templates
from swiftcore.template.loss_scale import list_loss_scales

RECORDS = SHARED / "reference" / "golden_examples"


def _without_placeholder(text: str) -> str:
    """Without a system prompt ms-swift leaves the placeholder itself in Mistral-Nemo's last turn.

    The model's published template writes nothing there, and so do we.
    """
    return text.replace("{{SYSTEM}}\n\n", "")


def _with_json(text: str) -> str:
    """ms-swift prints the arguments of GLM-4's calls as a Python dict; ours are JSON."""
    return re.sub(
        r"(?<=get_weather\n)\{'city': '(\w+)'\}", lambda found: f'{{"city": "{found[1]}"}}', text
    )


def _asked_as_trained(text: str) -> str:
    """ms-swift asks DeepSeek-V3.1 for the answer to a tool's output with </think> before it.

    It trains such answers without, as the model's published template writes and asks for them.
    """
    return text.removesuffix("</think>")


# Case id -> what ours is, made from the record; see docs/templates.md and docs/agents.md.
EXCEPTIONS: dict[str, Callable[[str], str]] = {
    "plain/mistral_nemo/edge_whitespace/train": _without_placeholder,
    "plain/mistral_nemo/mixed_think/train": _without_placeholder,
    "plain/mistral_nemo/starts_with_assistant/train": _without_placeholder,
    "agent/glm4/glm4/tools_parallel/train": _with_json,
    "agent/glm4/glm4/tools_json_string/train": _with_json,
    "agent/glm4/glm4/tools_after_response/train": _with_json,
    "agent/glm4/glm4/tools_after_response/infer": _with_json,
    "agent/glm4/chatglm4/tools_single/train": _with_json,
    "agent/glm4/chatglm4/tools_after_response/train": _with_json,
    "agent/chatglm4/chatglm4/tools_parallel/train": _with_json,
    "agent/chatglm4/chatglm4/tools_after_response/train": _with_json,
    "agent/chatglm4/glm4/tools_single/train": _with_json,
    "agent/chatglm4/glm4/tools_parallel/train": _with_json,
    "agent/deepseek_v3_1/deepseek_v3_1/tools_after_response/train": _asked_as_trained,
}
LOSS_SCALES = set(list_loss_scales())


def _cases() -> list[dict]:
    path = RECORDS / "templates.jsonl"
    if not path.exists():
        return []
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [case for case in cases if _is_supported(case)]


def _is_supported(case: dict) -> bool:
    options = case["template_kwargs"]
    return (
        case["template"] in list_templates()
        and options.get("agent_template", "hermes") in list_agent_templates()
        and set(options.get("loss_scale", "default").split("+")) <= LOSS_SCALES
    )


@functools.cache
def _tokenizer(name: str):
    return AutoTokenizer.from_pretrained(RECORDS / "tokenizers" / name)


def test_the_recorded_cases_are_there():
    shared_file("reference", "golden_examples", "templates.jsonl")
    assert len(_cases()) == 338


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["id"])
def test_encoding_equals_the_record(case):
    template = get_template(
        case["template"],
        _tokenizer(case["tokenizer"]),
        today="2026-11-21",
        **case["template_kwargs"],
    )
    encoded = template.encode(case["input"], mode=case["mode"])
    expected = case["expected"]
    if case["id"] in EXCEPTIONS:
        mended = EXCEPTIONS[case["id"]](expected["text"])
        assert mended != expected["text"]
        assert encoded.text == mended
        return
    assert encoded.text == expected["text"]
    assert encoded.input_ids == expected["input_ids"]
    if case["mode"] == "infer":
        assert encoded.labels is None
        return
    weights = [0.0] * len(expected["input_ids"])
    for span in expected["loss_spans"]:
        for place in range(span["token_start"], span["token_end"]):
            weights[place] = span["weight"]
    assert [label != -100 for label in encoded.labels] == [weight > 0 for weight in weights]
    ours = encoded.loss_scale or [float(label != -100) for label in encoded.labels]
    assert ours == weights
