"""A tokenizer with the control tokens of registered families."""

import re

from template_fixtures import small_tokenizer
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from swiftcore.template.definition import ChatTemplate

_MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{3,30}\]|\[gMASK\]|\]~!?b\[|\]~b\]|\[e~\[")


def marks_of(family: ChatTemplate) -> list[str]:
    """Return what looks like a control token in a family's texts, and what it says is one."""
    texts = [getattr(family, field) for field in ("prefix", "system_prefix", "prompt", "suffix")]
    texts += [family.system_prompt, family.chat_sep, family.answer_opening, *family.stop_words]
    found = {mark for text in texts if text for mark in _MARK.findall(text)}
    return sorted(found | set(family.control_tokens))


def family_tokenizer(*families: ChatTemplate) -> PreTrainedTokenizerFast:
    """Build a tokenizer that has the control tokens of families, and the ids that some name."""
    backend = small_tokenizer().backend_tokenizer
    known = {entry.content for entry in backend.get_added_tokens_decoder().values()}
    marks = [mark for family in families for mark in marks_of(family) if mark not in known]
    names = ["<_user_id>", "<_bot_id>", "<_bos>", "<_eos>"]
    # yi_vl names a token by an id above 8,000.
    padding = [f"<_unused_{index}>" for index in range(8400)] if _names_high_id(families) else []
    new = dict.fromkeys([*marks, *names, *padding])
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in new])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<_bos>", eos_token="<_eos>", pad_token="<|endoftext|>"
    )
    tokenizer.user_token_id = backend.token_to_id("<_user_id>")
    tokenizer.bot_token_id = backend.token_to_id("<_bot_id>")
    return tokenizer


def _names_high_id(families: tuple[ChatTemplate, ...]) -> bool:
    return any("{{ID:8" in family.prompt for family in families)
