"""Metrics of plain text: ROUGE-L, exact match, and the final number of a solution."""

import re
from collections.abc import Sequence
from decimal import Decimal

# Scripts written without spaces between words: each character is a token of its own.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?![\d])")
_ANSWER_MARK = "####"
_THINKING = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)


def without_thinking(text: str) -> str:
    """Drop the `<think>` block that an answer starts with, also one that never ends."""
    return _THINKING.sub("", text).strip()


def tokenize(text: str) -> list[str]:
    """Split text into case-folded words; a Chinese, Japanese or Korean character is one word.

    Punctuation and white space separate words and are no words themselves.
    """
    return _TOKEN.findall(text.casefold())


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two token lists.

    One Python integer holds a whole row of the usual table, so the cost is one addition a token.

    Source: Hyyro, "Bit-Parallel LCS-length Computation Revisited", 2004.
    """
    masks: dict[str, int] = {}
    for position, token in enumerate(left):
        masks[token] = masks.get(token, 0) | (1 << position)
    every_bit = (1 << len(left)) - 1
    row = every_bit
    for token in right:
        matches = row & masks.get(token, 0)
        row = ((row + matches) | (row - matches)) & every_bit
    return len(left) - row.bit_count()


def rouge_l(prediction: str, reference: str) -> float:
    """Return the ROUGE-L F-measure (0 to 1) of one prediction, precision and recall weighing equal.

    Two texts without a single word agree when both have none.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, with beta = 1.
    """
    predicted, expected = tokenize(prediction), tokenize(reference)
    if not predicted or not expected:
        return float(predicted == expected)
    common = lcs_length(predicted, expected)
    return 2 * common / (len(predicted) + len(expected))


def exact_match(prediction: str, reference: str) -> float:
    """Return 1.0 when both texts are equal apart from white space around them, else 0.0."""
    return float(prediction.strip() == reference.strip())


def final_number(text: str) -> Decimal | None:
    """Return the number a solution ends with: the one after the last `####`, else the last one.

    Thousands separators, a sign and a dollar sign are understood. None when there is no number.

    Source: the answer format of Cobbe et al., "Training Verifiers to Solve Math Word Problems"
    (GSM8K), 2021.
    """
    _, mark, answer = text.rpartition(_ANSWER_MARK)
    if mark:
        marked = _NUMBER.search(answer)
        return _decimal(marked.group()) if marked else None
    found = _NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def numbers_agree(prediction: str, reference: str) -> float | None:
    """Return 1.0 when both texts end with the same number, 0.0 when not.

    None when the reference has no number, so the metric does not apply to the row.
    """
    expected = final_number(reference)
    if expected is None:
        return None
    return float(final_number(prediction) == expected)


def _decimal(written: str) -> Decimal:
    return Decimal(written.replace(",", "").replace("$", ""))
