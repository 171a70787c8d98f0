"""Contamination: test prompts that the training rows hold already."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swiftcore.data.cleaning.contamination import ContaminationCounts, ContaminationIndex

_MAX_EXAMPLES = 5
_EXAMPLE_CHARACTERS = 300


@dataclass(frozen=True)
class ContaminationReport:
    """How many test prompts also occur in training.

    `exact` counts equal prompts, `normalized` those that are equal only after normalisation.
    `shared_ngram` counts further test rows of which a training row holds 13 words in a row; it is
    told and does not gate, because rows made from one form share such runs by nature.
    `examples` holds up to five of them as {"row", "match", "prompt"}, row being the test row.
    """

    num_test: int
    num_train: int
    exact: int
    normalized: int
    shared_ngram: int
    examples: tuple[dict[str, Any], ...]

    @property
    def overlapping(self) -> int:
        """Number of test rows whose prompt was seen in training, either way."""
        return self.exact + self.normalized

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they stand in report.json."""
        return {**asdict(self), "examples": list(self.examples)}


def contamination(
    train_rows: Iterable[Mapping[str, Any]], test_rows: Iterable[Mapping[str, Any]]
) -> ContaminationReport:
    """Compare the prompts of two sets of standard rows.

    A prompt is what the user says in a row; system prompts and tools are shared by whole datasets
    and say nothing. Normalised means Unicode NFKC, case folded, white space runs as one space;
    digits and punctuation stay, because they may be all that tells two prompts apart. Training
    prompts are kept as 16-byte digests, so a large training set fits in memory. Shared n-grams are
    searched as ingest does it (`swiftcore.data.cleaning.contamination`), in whole rows.
    """
    exact_seen: set[bytes] = set()
    normalized_seen: set[bytes] = set()
    num_train = exact = normalized = 0
    test = list(test_rows)
    index = ContaminationIndex.from_rows(test, similarity=None)
    overlaps = ContaminationCounts()
    for row in train_rows:
        num_train += 1
        overlaps.add(index.check(row))
        prompt = prompt_text(row)
        exact_seen.add(_digest(prompt))
        normalized_seen.add(_digest(normalize(prompt)))
    examples: list[dict[str, Any]] = []
    seen: set[int] = set()
    for place, row in enumerate(test):
        prompt = prompt_text(row)
        if not prompt:
            continue
        if _digest(prompt) in exact_seen:
            match, exact = "exact", exact + 1
        elif _digest(normalize(prompt)) in normalized_seen:
            match, normalized = "normalized", normalized + 1
        else:
            continue
        seen.add(place)
        if len(examples) < _MAX_EXAMPLES:
            shown = prompt[:_EXAMPLE_CHARACTERS]
            examples.append({"row": place, "match": match, "prompt": shown})
    further = len(overlaps.eval_rows.keys() - seen)
    return ContaminationReport(len(test), num_train, exact, normalized, further, tuple(examples))


def prompt_text(row: Mapping[str, Any]) -> str:
    """Return what the user says in a row; of a row without a user, all its text."""
    messages = [m for m in row.get("messages") or () if isinstance(m, Mapping)]
    asked = [m for m in messages if m.get("role") == "user"] or messages
    return "\n".join(str(m["content"]) for m in asked if m.get("content") is not None).strip()


def normalize(prompt: str) -> str:
    """Return the form in which prompts count as the same (see `contamination`)."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
