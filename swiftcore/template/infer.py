"""Which template a model wants, when nobody says.

A tokenizer with a chat template of its own settles it: a family that writes the same, token by
token, on a few conversations is the model's. The architecture narrows down which families are
compared; only when none of those fits are the others looked at, as far as the tokenizer has their
control tokens. A model without a chat template must leave one possibility by architecture and
control tokens.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.errors import SwiftError, UsageError
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.factory import get_template
from swiftcore.template.families import FAMILIES
from swiftcore.template.model_types import TEMPLATES_OF, model_type_of
from swiftcore.template.registry import JINJA, find_definition
from swiftcore.template.template import Template

_CHATML_TOKENS = {"<|im_start|>", "<|im_end|>"}
_PLACEHOLDER = re.compile(r"\{\{[^}]*\}\}")
_MAX_NEAR = 5
_PROBES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "one"),),
    (("system", "Be kind."), ("user", "one")),
    (("user", "one"), ("assistant", "two"), ("user", "three")),
    (("user", "one"), ("assistant", "<think>\nhm\n</think>\n\ntwo"), ("user", "three")),
    (("user", "one"), ("assistant", "two")),
)
_Ids = list[int] | None


@dataclass(frozen=True, slots=True)
class InferredModel:
    """What a model folder says about itself.

    Args:
        model_type: ms-swift's name of the model's kind; None where only its own template is known.
        template: the template; "jinja": its own, which no family equals.
        near: families that write some of the probed conversations alike, the nearest first.
    """

    model_type: str | None
    template: str
    near: tuple[str, ...] = ()


def infer_template(tokenizer: Any, config: Mapping[str, Any] | None) -> str:
    """Return the name of the template a model was made for.

    Args:
        tokenizer: the model's Hugging Face tokenizer.
        config: the contents of its config.json, where there is one.

    Raises:
        UsageError: several are possible, or none is; the message lists them, the nearest first.
    """
    return _infer(tokenizer, config).template


def infer_model(folder: Path, tokenizer: Any) -> InferredModel:
    """Return a local model's kind, its template, and the families that come near to it.

    Raises:
        UsageError: it has no chat template, and several families are possible or none is.
    """
    from swiftcore.models.files import read_json

    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    return _infer(tokenizer, config)


def _infer(tokenizer: Any, config: Mapping[str, Any] | None) -> InferredModel:
    architecture = str((config or {}).get("model_type") or "")
    candidates = [find_definition(name) for name in TEMPLATES_OF.get(architecture, ())]
    known = {entry.content for entry in tokenizer.added_tokens_decoder.values()}
    fitting = [family for family in candidates if known.issuperset(family.control_tokens)]
    if getattr(tokenizer, "chat_template", None):
        found = _compare(get_template(JINJA, tokenizer), fitting, known)
        if found.template == JINJA:
            return found
        return InferredModel(model_type_of(architecture, found.template), found.template)
    name = _by_tokens(architecture, [family.name for family in fitting], known)
    if name is None:
        raise _ambiguous(architecture, [family.name for family in fitting])
    return InferredModel(model_type_of(architecture, name), name)


def _by_tokens(architecture: str, fitting: list[str], known: set[str]) -> str | None:
    if len(fitting) == 1:
        return fitting[0]
    if known >= _CHATML_TOKENS:
        # A base model of these kinds: the plain form that its later tunes share.
        if architecture in ("qwen3", "qwen3_moe"):
            return "qwen3"
        if architecture in ("llama", ""):
            return "chatml"
    return None


def _compare(theirs: Template, fitting: list[ChatTemplate], known: set[str]) -> InferredModel:
    """Find the family that writes what the tokenizer's own template writes."""
    expected = [_ids(theirs, probe) for probe in _PROBES]
    scores: dict[str, int] = {}
    written = theirs.decode(expected[0] or [])
    likely = (family for family in FAMILIES if family not in fitting and _may_fit(family, written))
    others = (family for family in likely if known.issuperset(family.control_tokens))
    for family in _chain(fitting, others):
        score = _score(family.name, theirs, expected)
        if score == len(_PROBES):
            return InferredModel(None, family.name)
        scores[family.name] = score
    near = sorted((name for name in scores if scores[name]), key=lambda name: -scores[name])
    return InferredModel(None, JINJA, tuple(near[:_MAX_NEAR]))


def _chain(*groups: Iterable[ChatTemplate]) -> Iterable[ChatTemplate]:
    for group in groups:
        yield from group


def _may_fit(family: ChatTemplate, written: str) -> bool:
    """Tell whether a question's text could come from this family, without encoding anything."""
    fixed = _PLACEHOLDER.split(family.prompt)
    return all(part in written for part in fixed)


def _score(name: str, theirs: Template, expected: list[_Ids]) -> int:
    """Count the probes that a family writes like the model's own template."""
    try:
        ours = get_template(name, theirs.tokenizer, today=theirs.options.today)
    except UsageError:
        return 0
    alike = 0
    for probe, theirs_ids in zip(_PROBES, expected, strict=True):
        ids = _ids(ours, probe)
        if probe[-1][0] == "assistant":
            # What follows the last stop token is never reached; templates differ there at will.
            ids, theirs_ids = _to_last_stop(ids, ours), _to_last_stop(theirs_ids, ours)
        alike += ids == theirs_ids
    return alike


def _to_last_stop(ids: _Ids, template: Template) -> _Ids:
    stop = template.stop_ids[:1]
    if ids is None or not stop or stop[0] not in ids:
        return ids
    return ids[: len(ids) - ids[::-1].index(stop[0])]


def _ids(template: Template, probe: tuple[tuple[str, str], ...]) -> _Ids:
    messages = [{"role": role, "content": content} for role, content in probe]
    mode = "train" if probe[-1][0] == "assistant" else "infer"
    try:
        pieces = template.plan({"messages": messages}, mode)
    except SwiftError:
        return None
    return [token for ids in template.pieces.encode(pieces) for token in ids]


def _ambiguous(architecture: str, candidates: list[str]) -> UsageError:
    return UsageError(
        "the model does not show which template it wants",
        where="template.template",
        found=f"model_type {architecture or 'unknown'}, and no chat template of its own",
        expected="one of " + ", ".join(candidates) if candidates else "the name of a template",
        do="set template.template in the recipe, or pass --template; "
        "swift template lists all names",
    )
