"""Turning tokens into text one at a time: no half characters, no trace of a stop string."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class IncrementalText:
    """Text of a growing token sequence, released only when it can't change any more.

    A token may hold part of a character, so text that ends in a replacement character is held until
    its other bytes arrive. A suffix that could still become a stop string is held as well. The
    pieces given out add up to the decoded sequence, cut before the first stop string, or behind it
    where it is one to keep.

    Args:
        decode: turns token ids into text.
        stop: strings that end the text.
        kept_stop: strings that end the text and belong to it.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stop: Sequence[str] = (),
        kept_stop: Sequence[str] = (),
    ) -> None:
        self._decode = decode
        self._stop = (*stop, *kept_stop)
        self._num_cut = len(stop)
        self._tokens: list[int] = []
        # Tokens before _context are never decoded again; those up to _decoded are only decoded
        # again as context, because a decoder may write a token differently at the start of a text.
        self._context = 0
        self._decoded = 0
        self._context_text = ""
        self._held = ""
        self.stopped = False
        self._position = 0
        self._last_text = ""
        self.start = 0
        """Character of the decoded sequence at which the text of the newest token begins."""

    def push(self, token: int) -> str:
        """Take the next token and return the text that is certain now (often empty)."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._context :])
        self.start = self._position + self._begin_of_newest(text) - len(self._context_text)
        self._last_text = text
        if len(text) <= len(self._context_text) or text.endswith(_INCOMPLETE):
            return ""
        piece = text[len(self._context_text) :]
        self._position += len(piece)
        self._context, self._decoded = self._decoded, len(self._tokens)
        self._context_text = self._last_text = self._decode(self._tokens[self._context :])
        return self._release(piece)

    def finish(self) -> str:
        """Return what was held back, once no token can follow."""
        if self.stopped:
            return ""
        text = self._decode(self._tokens[self._context :])
        piece = self._release(text[len(self._context_text) :])
        rest, self._held = self._held, ""
        return piece + rest

    def _begin_of_newest(self, text: str) -> int:
        """Return where the newest token begins: in a character that is not whole, if it goes on."""
        before = self._last_text
        if text.startswith(before) and len(text) > len(before):
            return len(before)
        return len(before.rstrip(_INCOMPLETE))

    def _release(self, piece: str) -> str:
        text = self._held + piece
        ends = [
            (start, start if place < self._num_cut else start + len(stop))
            for place, stop in enumerate(self._stop)
            if (start := text.find(stop)) >= 0
        ]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        keep = self._open_suffix(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _open_suffix(self, text: str) -> int:
        """Return the length of the longest suffix that begins a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


def decode_tokens(
    tokenizer: "PreTrainedTokenizerBase", ids: list[int], skip_special_tokens: bool
) -> str:
    """Return the text of token ids, exactly as they stand."""
    text = tokenizer.decode(
        ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return cast(str, text)
