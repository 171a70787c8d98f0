"""Filters of rows by length and language; each says in words why a row goes.

A reason names the limit, not the row's own figure: quarantine counts rows by reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from swiftcore.data.cleaning.language import UNDETERMINED, detect, known_languages
from swiftcore.data.cleaning.text import row_text, units
from swiftcore.errors import UsageError


@dataclass(frozen=True, slots=True)
class LengthFilter:
    """Keeps rows whose length is inside limits; None is no limit.

    Args:
        min_characters: fewest characters of all messages together.
        max_characters: most characters.
        min_words: fewest words; characters in scripts without spaces.
        max_words: most words.
        min_turns: fewest user messages.
        max_turns: most user messages.

    Raises:
        UsageError: a limit is negative, or a lower one is above its upper one.
    """

    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_turns: int | None = None
    max_turns: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 0:
                raise UsageError("a length limit is negative", where=field.name, found=value)
        for unit in ("characters", "words", "turns"):
            low, high = self._limits(unit)
            if low is not None and high is not None and low > high:
                raise UsageError(
                    "no row can pass this filter",
                    where=f"min_{unit} and max_{unit}",
                    found=f"{low} and {high}",
                    expected=f"min_{unit} <= max_{unit}",
                )

    def reason(self, row: Mapping[str, object]) -> str | None:
        """Return why a standard row is too short or too long, or None when it may stay."""
        text = row_text(row)
        return (
            self._outside("characters", len(text))
            or (self._limited("words") and self._outside("words", len(units(text))))
            or (self._limited("turns") and self._outside("turns", _num_turns(row)))
            or None
        )

    def _limits(self, unit: str) -> tuple[int | None, int | None]:
        return getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")

    def _limited(self, unit: str) -> bool:
        return self._limits(unit) != (None, None)

    def _outside(self, unit: str, value: int) -> str | None:
        low, high = self._limits(unit)
        if low is not None and value < low:
            return f"the row has fewer than {low:,} {unit}"
        if high is not None and value > high:
            return f"the row has more than {high:,} {unit}"
        return None


def _num_turns(row: Mapping[str, object]) -> int:
    messages = row.get("messages")
    if not isinstance(messages, list):
        return 0
    return sum(isinstance(item, dict) and item.get("role") == "user" for item in messages)


@dataclass(frozen=True, slots=True)
class LanguageFilter:
    """Keeps rows in some languages.

    Args:
        languages: ISO 639 codes that may stay.
        min_confidence: below it the language counts as undetermined.
        keep_undetermined: whether rows with too little text to tell may stay.

    Raises:
        UsageError: no language is named, or one that the detector does not know.
    """

    languages: tuple[str, ...]
    min_confidence: float = 0.5
    keep_undetermined: bool = True

    def __post_init__(self) -> None:
        known = known_languages()
        unknown = sorted(set(self.languages) - known)
        if unknown or not self.languages:
            raise UsageError(
                "the language filter names no language that can be detected",
                where="languages",
                found=", ".join(unknown) or "an empty list",
                expected=" ".join(sorted(known)),
                do="use ISO 639 codes such as en, zh, de",
            )

    def reason(self, row: Mapping[str, object]) -> str | None:
        """Return why a standard row is in the wrong language, or None when it may stay."""
        code, confidence = detect(conversation_text(row))
        if code == UNDETERMINED or confidence < self.min_confidence:
            return None if self.keep_undetermined else "the language can't be told"
        if code in self.languages:
            return None
        return f"the language is {code}, not {' or '.join(self.languages)}"


def conversation_text(row: Mapping[str, object]) -> str:
    """Return what people and the model say in a row; all its text when nobody says anything."""
    messages = row.get("messages")
    if isinstance(messages, list):
        said = [
            str(item.get("content"))
            for item in messages
            if isinstance(item, dict) and item.get("role") in ("user", "assistant")
        ]
        if said:
            return "\n".join(said)
    return row_text(row)
