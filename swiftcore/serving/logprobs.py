"""Log-probabilities as the OpenAI API writes them: tokens as text, in one shape for each route."""

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.generation.text import decode_tokens
from swiftcore.template.token_text import letter_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What OpenAI writes of a probability that is 0; JSON has no infinity.
_LEAST = -9999.0
_CACHED_TOKENS = 1 << 16


class TokenTexts:
    """What single tokens are, as text and as bytes: a token may hold a part of a character only."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        # Word-based decoders leave out the space before a first word, so another one goes first.
        self._before = tokenizer.encode("a", add_special_tokens=False)
        self.bytes_of = functools.lru_cache(_CACHED_TOKENS)(self._bytes_of)

    def _bytes_of(self, token: int, first: bool) -> bytes:
        """Return the bytes of a token, as they are where it begins an answer or goes on with it."""
        before = [] if first else self._before
        text = self._decode([*before, token]).removeprefix(self._decode(before))
        if _BROKEN not in text:
            return text.encode()
        piece = cast(str, self._tokenizer.convert_ids_to_tokens(token))
        single = _BYTE_TOKEN.fullmatch(piece)
        if single:
            return bytes([int(single[1], 16)])
        letters = letter_bytes()
        if all(letter in letters for letter in piece):
            return bytes(letters[letter] for letter in piece)
        return text.encode()

    def _decode(self, ids: list[int]) -> str:
        return decode_tokens(self._tokenizer, ids, False) if ids else ""


def chat_logprobs(texts: TokenTexts, shown: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a chat answer, or of a piece of it."""

    def entry(token: int, logprob: float, first: bool) -> dict[str, Any]:
        found = texts.bytes_of(token, first)
        # Half a character is written as OpenAI does: \xf0\x9f.
        text = found.decode("utf-8", errors="backslashreplace")
        return {"token": text, "logprob": _finite(logprob), "bytes": list(found)}

    content = [
        {
            **entry(each.token, each.logprob, each.offset == 0),
            "top_logprobs": [entry(*likely, each.offset == 0) for likely in each.top],
        }
        for each in shown
    ]
    return {"content": content, "refusal": None}


def text_logprobs(texts: TokenTexts, shown: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a plain completion, or of a piece of it.

    Offsets count characters from the start of the answer. The likeliest tokens of a place are named
    by their texts, the token itself always among them.
    """

    def name(token: int, first: bool) -> str:
        found = texts.bytes_of(token, first)
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + found.decode("utf-8", errors="backslashreplace")

    def likeliest(each: TokenLogprob) -> dict[str, float]:
        named: dict[str, float] = {}
        for token, logprob in (*each.top, (each.token, each.logprob)):
            # Of two tokens with one text the likelier is told.
            named.setdefault(name(token, each.offset == 0), _finite(logprob))
        return named

    return {
        "tokens": [name(each.token, each.offset == 0) for each in shown],
        "token_logprobs": [_finite(each.logprob) for each in shown],
        "top_logprobs": [likeliest(each) for each in shown],
        "text_offset": [each.offset for each in shown],
    }


def _finite(logprob: float) -> float:
    return logprob if logprob > _LEAST else _LEAST
