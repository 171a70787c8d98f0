"""Cutting a text into the windows that an engine scores one by one, for its perplexity."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Logits of every token of a window are held at once.
_WINDOW = 1024


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the tokens of plain text, without any that start or end a sequence."""
    return tokenizer(text, add_special_tokens=False).input_ids


def text_windows(
    tokenizer: "PreTrainedTokenizerBase", text: str, longest: int
) -> list[tuple[list[int], list[int]]]:
    """Cut a text into (token before, tokens to score) windows that cover it.

    The first token is scored after the tokenizer's start token, where it has one.

    Args:
        tokenizer: of the model.
        text: any text.
        longest: most tokens of a window, with the one before.
    """
    ids = text_ids(tokenizer, text)
    start = tokenizer.bos_token_id
    ids = [start, *ids] if isinstance(start, int) else ids
    width = min(longest, _WINDOW) - 1
    return [([ids[i]], ids[i + 1 : i + 1 + width]) for i in range(0, len(ids) - 1, width)]
