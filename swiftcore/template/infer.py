"""Which template a model wants, when nobody says."""

from collections.abc import Mapping
from typing import Any

from swiftcore.errors import SwiftError, UsageError
from swiftcore.template.factory import get_template
from swiftcore.template.registry import JINJA, list_templates
from swiftcore.template.template import Template

# Order of preference where several families write the same prompts.
_CANDIDATES: dict[str, tuple[str, ...]] = {
    "qwen2": ("qwen2_5", "qwen", "qwq"),
    "qwen2_moe": ("qwen2_5", "qwen"),
    "qwen3": ("qwen3", "qwen3_nothinking", "qwen3_thinking"),
    "qwen3_moe": ("qwen3", "qwen3_nothinking", "qwen3_thinking"),
    "llama": ("llama3", "llama3_2"),
    "phi3": ("phi3", "phi4"),
    "gemma": ("gemma",),
    "gemma2": ("gemma",),
}
_CHATML_TOKENS = {"<|im_start|>", "<|im_end|>"}
_PROBES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "one"),),
    (("system", "Be kind."), ("user", "one")),
    (("user", "one"), ("assistant", "two"), ("user", "three")),
    (("user", "one"), ("assistant", "<think>\nhm\n</think>\n\ntwo"), ("user", "three")),
    (("user", "one"), ("assistant", "two")),
)


def infer_template(tokenizer: Any, config: Mapping[str, Any] | None) -> str:
    """Return the name of the template a model was made for.

    A tokenizer with a chat template of its own is compared with every family, token by token, on a
    few conversations; a family that writes the same is chosen, and "jinja" where none does.
    Otherwise the model type and the control tokens must leave one possibility.

    Args:
        tokenizer: the model's Hugging Face tokenizer.
        config: the contents of its config.json, where there is one.

    Raises:
        UsageError: several are possible, or none is; the message lists them.
    """
    model_type = str((config or {}).get("model_type") or "")
    candidates = _CANDIDATES.get(model_type, ())
    if getattr(tokenizer, "chat_template", None):
        theirs = get_template(JINJA, tokenizer)
        others = [name for name in list_templates() if name not in (*candidates, JINJA)]
        for name in (*candidates, *others):
            if _writes_the_same(name, theirs):
                return name
        return JINJA
    known = {entry.content for entry in tokenizer.added_tokens_decoder.values()}
    has_chatml = known >= _CHATML_TOKENS
    if model_type in ("qwen3", "qwen3_moe") and has_chatml:
        return "qwen3"
    if model_type in ("llama", "") and has_chatml:
        return "chatml"
    if len(candidates) == 1:
        return candidates[0]
    raise _ambiguous(model_type, candidates)


def _writes_the_same(name: str, theirs: Template) -> bool:
    try:
        ours = get_template(name, theirs.tokenizer, today=theirs.options.today)
    except UsageError:
        return False
    return all(_ids(ours, probe) == _ids(theirs, probe) for probe in _PROBES)


def _ids(template: Template, probe: tuple[tuple[str, str], ...]) -> list[int] | None:
    messages = [{"role": role, "content": content} for role, content in probe]
    mode = "train" if probe[-1][0] == "assistant" else "infer"
    try:
        pieces = template.plan({"messages": messages}, mode)
    except SwiftError:
        return None
    return [token for ids in template.pieces.encode(pieces) for token in ids]


def _ambiguous(model_type: str, candidates: tuple[str, ...]) -> UsageError:
    return UsageError(
        "the model does not show which template it wants",
        where="template.template",
        found=f"model_type {model_type or 'unknown'}, and no chat template of its own",
        expected="one of " + ", ".join(candidates or list_templates()),
        do="set template.template in the recipe, or pass --template",
    )
