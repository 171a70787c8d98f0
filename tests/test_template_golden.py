"""The recorded ms-swift encodings of the registered families, id by id.

Where ms-swift differs from us on purpose the case stands in EXCEPTIONS with its reason.
"""

import functools
import json

import pytest
from template_fixtures import SHARED, shared_file
from transformers import AutoTokenizer

from swiftcore.template import get_template, list_agent_templates, list_templates

RECORDS = SHARED / "reference" / "golden_examples"
# Case id -> why ours differs, here and in docs/templates.md.
_NO_SYSTEM = (
    "without a system prompt ms-swift leaves the placeholder itself, {{SYSTEM}}, in the last turn; "
    "the model's published template writes nothing there, and so do we"
)
EXCEPTIONS: dict[str, str] = {
    "plain/mistral_nemo/edge_whitespace/train": _NO_SYSTEM,
    "plain/mistral_nemo/mixed_think/train": _NO_SYSTEM,
    "plain/mistral_nemo/starts_with_assistant/train": _NO_SYSTEM,
}
LOSS_SCALES = {"default", "last_round", "all", "ignore_empty_think", "hermes", "react"}


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
    assert len(_cases()) >= 278


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
        assert "{{SYSTEM}}" in expected["text"]
        assert encoded.text == expected["text"].replace("{{SYSTEM}}\n\n", "")
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
