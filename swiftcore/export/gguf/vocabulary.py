"""The tokenizer inside a GGUF file: tokens, merges, and the name of the rule that cuts text.

llama.cpp holds the rules (pre-tokenizers) as code and finds them by name. A file with another rule
than the model's loads and answers, a little worse than it should. So the name is chosen by the
model's own pattern, and a pattern that llama.cpp does not have is refused.
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.models.files import read_json

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
# Pattern in tokenizer.json -> name in llama.cpp.
# Source: src/llama-vocab.cpp of llama.cpp, where the same patterns stand beside the names.
PRE_TOKENIZERS = {
    _WORDS + r"|\p{N}" + _REST: "qwen2",
    _WORDS + r"|\p{N}{1,3}" + _REST: "llama-bpe",
}
_BYTE_LEVEL_PATTERN = "gpt-2"  # ByteLevel with its own pattern, that of GPT-2


class TokenKind(IntEnum):
    """What llama.cpp does with a token: match control and user-defined ones whole."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE tokenizer as GGUF stores it; `tokens` and `kinds` are by id."""

    pre_tokenizer: str
    tokens: list[str]
    kinds: list[TokenKind]
    merges: list[str]


def read_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """Return the tokenizer of a model folder.

    Args:
        folder: holds tokenizer.json.
        vocab_size: rows of the model's embedding; ids without a token are filled.

    Raises:
        UsageError: the tokenizer is no byte-level BPE, cuts text by a rule that llama.cpp does not
            have, or has more tokens than the model.
    """
    file = folder / "tokenizer.json"
    content = read_json(file)
    model = content["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or content.get("normalizer"):
        found = f"type {model.get('type')}, byte_fallback {model.get('byte_fallback')}"
        raise _refusal("is no byte-level BPE", file, found)
    pre_tokenizer = _pre_tokenizer(content.get("pre_tokenizer") or {}, file)
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in content["added_tokens"]}
    largest = max((*by_id, *added))
    if largest >= vocab_size:
        raise UsageError(
            "the tokenizer has more tokens than the model",
            where=file,
            found=f"id {largest} and vocab_size {vocab_size}",
            do="use the tokenizer that belongs to the model",
        )
    entries = [_entry(index, by_id, added) for index in range(vocab_size)]
    return Vocabulary(
        pre_tokenizer=pre_tokenizer,
        tokens=[token for token, _ in entries],
        kinds=[kind for _, kind in entries],
        merges=[pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
    )


def _entry(
    index: int, by_id: dict[int, str], added: dict[int, dict[str, Any]]
) -> tuple[str, TokenKind]:
    if index in added:
        kind = TokenKind.CONTROL if added[index]["special"] else TokenKind.USER_DEFINED
        return added[index]["content"], kind
    if index in by_id:
        return by_id[index], TokenKind.NORMAL
    return f"[PAD{index}]", TokenKind.UNUSED


def _pre_tokenizer(settings: dict[str, Any], file: Path) -> str:
    parts = settings.get("pretokenizers") or [settings]
    split = next((part for part in parts if part.get("type") == "Split"), None)
    if not any(part.get("type") == "ByteLevel" for part in parts) or len(parts) > 2:
        raise _refusal("is no byte-level BPE", file, [part.get("type") for part in parts])
    if split is None:
        return _BYTE_LEVEL_PATTERN
    pattern = split["pattern"].get("Regex")
    if pattern not in PRE_TOKENIZERS or split["behavior"] != "Isolated" or split["invert"]:
        raise _refusal("cuts text by a pattern that llama.cpp does not have", file, pattern)
    return PRE_TOKENIZERS[pattern]


def _refusal(what: str, file: Path, found: object) -> UsageError:
    return UsageError(
        f"the tokenizer {what}",
        where=file,
        found=found,
        expected="byte-level BPE with the pattern of "
        + ", ".join([_BYTE_LEVEL_PATTERN, *PRE_TOKENIZERS.values()]),
        do="serve the safetensors folder (swift deploy); a GGUF file would cut text otherwise "
        "than the model learned",
    )
