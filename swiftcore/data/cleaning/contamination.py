"""Training rows that hold evaluation rows, found by shared n-grams and by MinHash.

A training row is contaminated when it shares an n-gram of 13 units with an evaluation row (Brown et
al. 2020, "Language Models are Few-Shot Learners", appendix C); n-grams that many evaluation rows
have in common are instructions, not contents, and don't count. Texts of fewer than n units have no
n-gram: there a whole text (the row's, or one user message's) must be equal after normalisation.
Rows that were reworded are found by the estimated Jaccard similarity of their 5-grams. System
prompts don't count.

The index holds hashes of 64 bits and signatures, no text, and can be pickled.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from swiftcore.data.cleaning.near_duplicates import (
    band_keys,
    banding,
    needed_minima,
    signature,
    signature_table,
)
from swiftcore.data.cleaning.text import ngram_keys, row_text, text_key, units
from swiftcore.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_NGRAM = 13
DEFAULT_SIMILARITY = 0.8
# GPT-3 ignored n-grams that occur more than ten times as likely boilerplate.
MAX_SHARING_ROWS = 10

# A question of fewer units, such as "who are you?", is no proof.
_MIN_QUESTION_UNITS = 5
_MAX_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Match:
    """Why a training row counts as contaminated.

    Args:
        eval_row: index of the evaluation row that it shares most with.
        kind: ngram, text (equal short text) or similar (MinHash).
        text: the first shared n-gram or text, normalised; empty for similar rows.
        share: share of the evaluation row's n-grams found here; the estimated similarity for
            similar rows; 1 for equal texts.
    """

    eval_row: int
    kind: Literal["ngram", "text", "similar"]
    text: str
    share: float

    def reason(self) -> str:
        """Return the reason for quarantine; it counts by kind, so it names no row."""
        words = {
            "ngram": "the row shares an n-gram with an evaluation row",
            "text": "the row has the text of a short evaluation row",
            "similar": "the row is nearly an evaluation row",
        }
        return words[self.kind]


class ContaminationIndex:
    """Answers whether a row holds one of the evaluation rows it was made from.

    Make it with `from_rows`. It is not changed by `check`, so processes can share a pickled copy.
    """

    def __init__(
        self,
        n: int,
        similarity: float | None,
        grams: "_Postings",
        texts: dict[int, int],
        signatures: "_Signatures | None",
    ) -> None:
        self.n = n
        self.similarity = similarity
        self._grams = grams
        self._texts = texts
        self._signatures = signatures

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, object]],
        n: int = DEFAULT_NGRAM,
        similarity: float | None = DEFAULT_SIMILARITY,
    ) -> "ContaminationIndex":
        """Build the index of evaluation rows.

        Args:
            rows: standard rows that are evaluated; `Match.eval_row` counts them from 0.
            n: units of an n-gram.
            similarity: Jaccard similarity from which a row counts as reworded; None leaves the
                MinHash out, which takes most of the time of a check.

        Raises:
            UsageError: n or the similarity has no meaning.
        """
        if n < 2:
            raise UsageError("an n-gram has at least two units", where="n", found=n)
        bands = None if similarity is None else banding(similarity)
        postings: list[tuple[int, NDArray[np.uint64]]] = []
        texts: dict[int, int] = {}
        signatures: list[bytes] = []
        for place, row in enumerate(rows):
            text = row_text(row, system=False)
            words = units(text)
            if len(words) >= n:
                postings.append((place, ngram_keys(words, n)))
            for short in _short_texts(row, words, n):
                texts.setdefault(text_key(short), place)
            if bands is not None:
                signatures.append(signature(text))
        index = None if bands is None or not signatures else _Signatures.of(signatures, *bands)
        return cls(n, similarity, _Postings.of(postings), texts, index)

    def check(self, row: Mapping[str, object]) -> Match | None:
        """Return what a row shares with the evaluation row it is nearest to, or None."""
        text = row_text(row, system=False)
        words = units(text)
        match = self._shared_ngram(words)
        if match is not None:
            return match
        for short in _short_texts(row, words, self.n) if self._texts else ():
            place = self._texts.get(text_key(short))
            if place is not None:
                return Match(place, "text", short[:_MAX_SHOWN_CHARACTERS], 1.0)
        if self._signatures is None or self.similarity is None:
            return None
        return self._signatures.nearest(signature(text), self.similarity)

    def _shared_ngram(self, words: list[str]) -> Match | None:
        if len(words) < self.n:
            return None
        keys = ngram_keys(words, self.n)
        hit = self._grams.best(keys)
        if hit is None:
            return None
        place, share, at = hit
        shown = " ".join(words[at : at + self.n])
        return Match(place, "ngram", shown[:_MAX_SHOWN_CHARACTERS], share)


@dataclass(slots=True)
class ContaminationCounts:
    """Evaluation rows that training rows hold; merges over chunks in their order.

    Args:
        rows: training rows that were checked.
        contaminated: training rows with a match.
        by_kind: the same, by kind of match.
        eval_rows: for each evaluation row met, the greatest share found in one training row.
    """

    rows: int = 0
    contaminated: int = 0
    by_kind: Counter[str] = field(default_factory=Counter[str])
    eval_rows: dict[int, float] = field(default_factory=dict[int, float])

    def add(self, match: Match | None) -> None:
        """Count one checked training row."""
        self.rows += 1
        if match is not None:
            self.contaminated += 1
            self.by_kind[match.kind] += 1
            self._raise_share(match.eval_row, match.share)

    def merge(self, other: "ContaminationCounts") -> None:
        """Add the counts of another chunk."""
        self.rows += other.rows
        self.contaminated += other.contaminated
        self.by_kind.update(other.by_kind)
        for place, share in other.eval_rows.items():
            self._raise_share(place, share)

    def _raise_share(self, place: int, share: float) -> None:
        self.eval_rows[place] = max(share, self.eval_rows.get(place, 0.0))


def _short_texts(row: Mapping[str, object], words: list[str], n: int) -> Iterator[str]:
    """Yield the normalised texts of a row that are too short for an n-gram."""
    if len(words) < n:
        yield " ".join(words) or row_text(row, system=False)
    messages = row.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            question = units(str(message.get("content")))
            if _MIN_QUESTION_UNITS <= len(question) < n:
                yield " ".join(question)


@dataclass(frozen=True, slots=True)
class _Postings:
    """N-grams of the evaluation rows: sorted hashes, and beside each the row that has it."""

    keys: "NDArray[np.uint64]"
    rows: "NDArray[np.int64]"
    num_grams: dict[int, int]

    @classmethod
    def of(cls, postings: "list[tuple[int, NDArray[np.uint64]]]") -> "_Postings":
        import numpy as np

        if not postings:
            empty = np.empty(0, dtype=np.uint64)
            return cls(empty, empty.astype(np.int64), {})
        distinct = [(place, np.unique(keys)) for place, keys in postings]
        keys = np.concatenate([item for _, item in distinct])
        rows = np.concatenate([np.full(len(item), place) for place, item in distinct])
        order = np.lexsort((rows, keys))
        keys, rows = keys[order], rows[order]
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        telling = counts[inverse] <= MAX_SHARING_ROWS
        num_grams = {place: len(item) for place, item in distinct}
        return cls(keys[telling], rows[telling], num_grams)

    def best(self, keys: "NDArray[np.uint64]") -> tuple[int, float, int] | None:
        """Return (row, share of its n-grams, place of the first shared one) of the nearest row."""
        import numpy as np

        if not len(self.keys):
            return None
        first = np.searchsorted(self.keys, keys)
        found = np.flatnonzero(self.keys[np.minimum(first, len(self.keys) - 1)] == keys)
        if not len(found):
            return None
        counts: Counter[int] = Counter()
        seen: set[int] = set()
        first_place: dict[int, int] = {}
        for place in found.tolist():
            key = int(keys[place])
            if key in seen:
                continue
            seen.add(key)
            last = int(np.searchsorted(self.keys, keys[place], side="right"))
            for row in self.rows[int(first[place]) : last].tolist():
                counts[row] += 1
                first_place.setdefault(row, place)
        shares = {row: count / self.num_grams[row] for row, count in counts.items()}
        nearest = min(shares, key=lambda row: (-shares[row], row))
        return nearest, round(shares[nearest], 4), first_place[nearest]


@dataclass(frozen=True, slots=True)
class _Signatures:
    """Signatures of the evaluation rows, and their bands as one sorted array."""

    table: "NDArray[np.uint32]"
    keys: "NDArray[np.uint64]"
    rows: "NDArray[np.int64]"
    bands: int
    width: int

    @classmethod
    def of(cls, signatures: list[bytes], bands: int, width: int) -> "_Signatures":
        import numpy as np

        table = signature_table(signatures)
        keys = band_keys(table, bands, width)
        rows = np.repeat(np.arange(len(table), dtype=np.int64), bands)
        order = np.argsort(keys.ravel(), kind="stable")
        return cls(table, keys.ravel()[order], rows[order], bands, width)

    def nearest(self, row_signature: bytes, similarity: float) -> Match | None:
        import numpy as np

        wanted = signature_table([row_signature])
        keys = band_keys(wanted, self.bands, self.width)[0]
        first = np.searchsorted(self.keys, keys)
        last = np.searchsorted(self.keys, keys, side="right")
        met = [self.rows[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True) if a < b]
        if not met:
            return None
        candidates = np.unique(np.concatenate(met))
        equal = np.count_nonzero(self.table[candidates] == wanted[0], axis=1)
        best = int(equal.argmax())
        if equal[best] < needed_minima(similarity):
            return None
        share = round(int(equal[best]) / self.table.shape[1], 4)
        return Match(int(candidates[best]), "similar", "", share)
