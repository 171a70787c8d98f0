"""The text of a row, and the units and n-grams that texts are compared by.

Texts are compared after the removal of punctuation, NFKC and case folding. A unit is a word; in
scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) it
is a character, so an n-gram of units is a word n-gram or a character n-gram as the script needs.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIALOGUES = (
    *("messages", "rejected_response", "rejected_messages"),
    *("positive_messages", "negative_messages"),
)
_TOOLS = ("tools", "rejected_tools", "positive_tools", "negative_tools")

# Without the rare ideographs beyond U+FFFF: with them `re` would test ranges one by one.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
# Python's \w has no combining marks; without them Hindi or Arabic words would fall apart.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963"
_MARKS += (
    "\u0966-\u0dff\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ece\u0f71-\u0f84\u102b-\u103e"
)
_MARKS += "\u17b4-\u17d3"
_RUN = re.compile(f"[\\w{_MARKS}]+")
_UNSPACED_RUN = re.compile(f"([{UNSPACED}]+)")
_ASCII_UNIT = re.compile(r"\w+", re.ASCII)

_MAX_CACHED_WORDS = 100_000
_STEP = 0x9E3779B97F4A7C15  # an odd multiplier, from the golden ratio
_MIX_1, _MIX_2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53  # finaliser of MurmurHash3


def row_texts(
    row: Mapping[str, object], *, system: bool = True, tools: bool = False
) -> Iterator[str]:
    """Yield the texts of a standard row: messages first, then rejected and paired ones.

    Args:
        row: a standard row.
        system: whether system prompts count.
        tools: whether the descriptions of the offered tools count.
    """
    for column in DIALOGUES:
        value = row.get(column)
        if value is not None:
            yield from _texts_of(value, system)
    if tools:
        for column in _TOOLS:
            if row.get(column) is not None:
                yield str(row[column])


def row_text(row: Mapping[str, object], *, system: bool = True, tools: bool = False) -> str:
    """Return all text of a standard row, its parts joined by newlines; see `row_texts`."""
    return "\n".join(row_texts(row, system=system, tools=tools))


def _texts_of(value: object, system: bool) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of(item, system)
    elif isinstance(value, dict) and (system or value.get("role") != "system"):
        yield from _texts_of(value.get("content", value.get("text")), system)


def units(text: str) -> list[str]:
    """Return the words of a text, and the characters of scripts without spaces, for comparison."""
    if text.isascii():
        return _ASCII_UNIT.findall(text.lower())
    # Punctuation first: full-width commas alone would send Chinese the slow way through NFKC.
    joined = " ".join(_RUN.findall(text))
    whole = unicodedata.normalize("NFKC", joined)
    folded = unicodedata.normalize("NFKC", whole.casefold())
    found: list[str] = []
    # NFKC makes punctuation of a few characters, a fraction stroke of one quarter.
    for run in folded.split() if whole == joined else _RUN.findall(folded):
        if run.isascii():
            found.append(run)
            continue
        # Splitting by a group gives what is between unspaced parts and, in turn, these.
        for place, part in enumerate(_UNSPACED_RUN.split(run)):
            found.extend(part if place % 2 else (part and [part]))
    return found


def normalized(text: str) -> str:
    """Return a text as it is compared: its units with one space between them."""
    return " ".join(units(text))


def text_key(text: str) -> int:
    """Return a 64-bit hash of a text that is the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class _WordKeys(dict[str, int]):
    """Hashes of words, remembered up to a bound: most words of a dataset come again."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_CACHED_WORDS:
            self.clear()
        key = self[word] = text_key(word)
        return key


_word_keys = _WordKeys()


def ngram_keys(words: list[str], n: int) -> "NDArray[np.uint64]":
    """Return a 64-bit hash of each n-gram of a list of units, in order.

    A list shorter than `n` gives one hash, that of the whole list; an empty one gives none.
    """
    import numpy as np

    if not words:
        return np.empty(0, dtype=np.uint64)
    look_up = _word_keys.__getitem__
    keys = np.fromiter(map(look_up, words), dtype=np.uint64, count=len(words))
    return mixed(_windows(keys, min(n, len(words))))


def _windows(keys: "NDArray[np.uint64]", width: int) -> "NDArray[np.uint64]":
    """Return the polynomial hash of each run of `width` keys, built from runs of 1, 2, 4 ..."""
    power, length = keys, 1
    joined, done = keys, 0
    while done < width:
        if width & length:
            joined = _side_by_side(joined, power, done, length) if done else power
            done += length
        power = _side_by_side(power, power, length, length)
        length *= 2
    return joined


def _side_by_side(
    left: "NDArray[np.uint64]", right: "NDArray[np.uint64]", left_length: int, right_length: int
) -> "NDArray[np.uint64]":
    import numpy as np

    step = np.uint64(pow(_STEP, right_length, 1 << 64))
    number = max(len(right) - left_length, 0)
    return left[:number] * step + right[left_length:]


def mixed(keys: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Return 64-bit keys with their bits spread, so that every part of them can be used.

    Source: the finaliser of MurmurHash3 (Austin Appleby, public domain).
    """
    import numpy as np

    shift = np.uint64(33)
    keys = (keys ^ (keys >> shift)) * np.uint64(_MIX_1)
    keys = (keys ^ (keys >> shift)) * np.uint64(_MIX_2)
    return keys ^ (keys >> shift)
