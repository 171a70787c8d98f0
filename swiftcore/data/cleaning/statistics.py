"""Figures of a dataset's rows for its card, gathered row by row and merged over chunks.

Lengths are counted in bins that grow by a twelfth of a doubling (6 %), so a percentile read from
them is at most 3 % off its true value; minimum, maximum and mean are exact. Detecting a language
takes longer than all else together, so only a sample of the rows is asked: those whose text has a
hash divisible by the sampling rate, which is the same rows in every run and on any number of
processes.
"""

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from swiftcore.data.cleaning.language import detect
from swiftcore.data.cleaning.text import UNSPACED
from swiftcore.errors import DataError

BINS_PER_DOUBLING = 12
DEFAULT_LANGUAGE_SAMPLING = 16

_SCHEMA = 1
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_MAX_REMEMBERED_TOOLS = 2048
# Distinct tool names counted one by one; the rest are counted together.
_MAX_TOOL_NAMES = 50_000
_NAME_COUNTERS = ("roles", "columns", "tools_offered", "tools_called", "languages")
_OTHER_TOOLS = "(other tools)"
_NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.){1,200})"')


@dataclass(slots=True)
class Lengths:
    """Counts of lengths in bins that grow by a fixed factor."""

    count: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0
    bins: Counter[int] = field(default_factory=Counter[int])

    def add(self, length: int, times: int = 1) -> None:
        """Count a length."""
        if not self.count or length < self.smallest:
            self.smallest = length
        if length > self.largest:
            self.largest = length
        self.count += times
        self.total += length * times
        self.bins[_bin_of(length)] += times

    def merge(self, other: "Lengths") -> None:
        """Add the counts of another chunk."""
        if other.count:
            self.smallest = min(self.smallest, other.smallest) if self.count else other.smallest
            self.largest = max(self.largest, other.largest)
            self.count += other.count
            self.total += other.total
            self.bins.update(other.bins)

    def percentile(self, share: float) -> int:
        """Return the length that this share of the rows does not exceed, from the bins."""
        wanted, seen = math.ceil(share * self.count), 0
        for place in sorted(self.bins):
            seen += self.bins[place]
            if seen >= wanted:
                return max(self.smallest, min(self.largest, round(_middle(place))))
        return self.largest

    def as_dict(self) -> dict[str, object]:
        """Return the counts, with the usual percentiles, in JSON types."""
        return {
            "count": self.count,
            "total": self.total,
            "min": self.smallest,
            "median": self.percentile(0.5),
            "p95": self.percentile(0.95),
            "max": self.largest,
            "bins": {str(place): self.bins[place] for place in sorted(self.bins)},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> "Lengths":
        """Rebuild what `as_dict` returned."""
        bins = cast(Mapping[str, int], fields["bins"])
        count, total, smallest, largest = (
            cast(int, fields[name]) for name in ("count", "total", "min", "max")
        )
        counted = Counter({int(place): number for place, number in bins.items()})
        return cls(count, total, smallest, largest, counted)


def _bin_of(length: int) -> int:
    return int(math.log2(length) * BINS_PER_DOUBLING) + 1 if length > 0 else 0


def bin_start(place: int) -> float:
    """Return the smallest length that belongs to a bin."""
    return 2 ** ((place - 1) / BINS_PER_DOUBLING) if place > 0 else 0.0


def _middle(place: int) -> float:
    return math.sqrt(bin_start(place) * bin_start(place + 1)) if place > 0 else 0.0


class RowStatistics:
    """Figures of standard rows.

    Args:
        language_sampling: detect the language of one row in this many; 0 for none.
    """

    def __init__(self, language_sampling: int = DEFAULT_LANGUAGE_SAMPLING) -> None:
        self.language_sampling = language_sampling
        self.rows = 0
        self.empty_answers = 0
        self.turns: Counter[int] = Counter()
        self.roles: Counter[str] = Counter()
        self.columns: Counter[str] = Counter()
        self.tools_offered: Counter[str] = Counter()
        self.tools_called: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.characters = Lengths()
        self.words = Lengths()
        self._tool_names: dict[str, tuple[str, ...]] = {}

    def add(self, row: Mapping[str, object]) -> None:
        """Count one standard row."""
        self.rows += 1
        messages = row.get("messages")
        texts: list[str] = []
        turns, answer = 0, None
        roles = self.roles
        for message in messages if isinstance(messages, list) else ():
            role, text = message["role"], message["content"]
            roles[role] += 1
            texts.append(text)
            if role == "user":
                turns += 1
            elif role == "assistant":
                answer = text
            elif role == "tool_call":
                answer = text
                self._count(self.tools_called, _called_names(text))
        self.turns[turns] += 1
        if answer is None or not answer.strip():
            self.empty_answers += 1
        for column in row:
            self.columns[column] += 1
        if texts and messages[0]["role"] == "system":  # type: ignore[index]
            self.columns["(system prompt)"] += 1
        tools = row.get("tools")
        if isinstance(tools, str):
            self._count(self.tools_offered, self._offered_names(tools))
        self._add_text("\n".join(texts))

    def _add_text(self, text: str) -> None:
        self.characters.add(len(text))
        self.words.add(_num_words(text))
        rate = self.language_sampling
        if rate and zlib.crc32(text.encode("utf-8", "surrogatepass")) % rate == 0:
            self.languages[detect(text)[0]] += 1

    def _count(self, counter: Counter[str], names: tuple[str, ...]) -> None:
        for name in names:
            full = len(counter) >= _MAX_TOOL_NAMES and name not in counter
            counter[_OTHER_TOOLS if full else name] += 1

    def _offered_names(self, tools: str) -> tuple[str, ...]:
        """Return the names in a list of tools; rows share lists, so these are remembered."""
        names = self._tool_names.get(tools)
        if names is None:
            names = _names_of_tools(tools)
            if len(self._tool_names) >= _MAX_REMEMBERED_TOOLS:
                self._tool_names.clear()
            self._tool_names[tools] = names
        return names

    def merge(self, other: "RowStatistics") -> None:
        """Add the figures of another chunk.

        Raises:
            DataError: the two sampled languages at different rates.
        """
        if self.language_sampling != other.language_sampling:
            raise DataError(
                "statistics with different sampling can't be merged",
                where="language_sampling",
                found=f"{self.language_sampling} and {other.language_sampling}",
            )
        self.rows += other.rows
        self.empty_answers += other.empty_answers
        self.turns.update(other.turns)
        for name in _NAME_COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.characters.merge(other.characters)
        self.words.merge(other.words)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_tool_names": {}}

    def as_dict(self) -> dict[str, object]:
        """Return all figures in JSON types; the most frequent names come first."""
        return {
            "schema": _SCHEMA,
            "rows": self.rows,
            "empty_answers": self.empty_answers,
            "turns": {str(turns): self.turns[turns] for turns in sorted(self.turns)},
            **{name: _ranked(getattr(self, name)) for name in _NAME_COUNTERS},
            "language_sampling": self.language_sampling,
            "bins_per_doubling": BINS_PER_DOUBLING,
            "characters": self.characters.as_dict(),
            "words": self.words.as_dict(),
        }

    def to_json(self) -> str:
        """Return all figures as JSON text, the same for the same rows in any order."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RowStatistics":
        """Rebuild what `to_json` returned.

        Raises:
            DataError: the text is not of this form.
        """
        try:
            fields = json.loads(text)
            found = cls(fields["language_sampling"])
            found.rows, found.empty_answers = fields["rows"], fields["empty_answers"]
            found.turns = Counter({int(k): v for k, v in fields["turns"].items()})
            for name in _NAME_COUNTERS:
                setattr(found, name, Counter(fields[name]))
            found.characters = Lengths.from_dict(fields["characters"])
            found.words = Lengths.from_dict(fields["words"])
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise DataError(
                "these are no row statistics", found=f"{type(err).__name__}: {err}"
            ) from err
        return found


def _ranked(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _num_words(text: str) -> int:
    """Return the number of words; a character of a script without spaces counts as one."""
    if text.isascii():
        return len(text.split())
    runs = _UNSPACED_RUN.findall(text)
    if not runs:
        return len(text.split())
    return len(_UNSPACED_RUN.sub(" ", text).split()) + sum(map(len, runs))


def _called_names(text: str) -> tuple[str, ...]:
    """Return the names of the tools that a tool_call message calls."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        found = _NAME.search(text)  # calls in a model's own notation keep their name in quotes
        return (found[1],) if found else ()
    calls = call if isinstance(call, list) else [call]
    return tuple(str(item["name"]) for item in calls if isinstance(item, dict) and "name" in item)


def _names_of_tools(text: str) -> tuple[str, ...]:
    try:
        tools = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    names: list[str] = []
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            names.append(function["name"])
    return tuple(names)
