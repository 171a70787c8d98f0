"""Which columns of a row hold what, decided once for every set of column names.

The choice follows ms-swift: a column named messages, conversation or conversations decides for
messages; else instruction together with input for alpaca; else query and response with their
synonyms. Column names match in any case. Where two columns could be the same thing, a null one does
not count, and the one that already has the standard name wins; without one, neither is used and a
note says so. Preferences (chosen and rejected), documents with a query, and scored pairs of
sentences, which ms-swift reads only under its own names, come with the names their authors use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from swiftcore.data.rows.standard import CONVERTERS, SIDE_COLUMNS, STANDARD_COLUMNS, Converter

Kind = Literal["messages", "alpaca", "query", "retrieval", "pair", "none"]

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations"),
    "system": ("system", "system_prompt"),
    "images": ("images", "image"),
    "videos": ("videos", "video"),
    "audios": ("audios", "audio"),
    "query": ("query", "prompt", "input", "instruction", "question", "problem"),
    "response": (
        *("response", "answer", "output", "targets", "target", "answer_key", "answers"),
        *("solution", "text", "completion", "content"),
    ),
    "positive": ("positive", "positives", "pos", "positive_ctxs", "positive_passages"),
    "score": ("score", "similarity", "similarity_score"),
}
# Hard negatives come first: training takes the first ones when it wants few.
_NEGATIVES = (
    *("hard_negatives", "hard_negative_ctxs", "negative", "negatives", "neg"),
    *("negative_ctxs", "negative_passages"),
)
# Names that can't mean anything else, so that an answer column beside them changes nothing.
_DOCUMENT_LISTS = ("positive_ctxs", "positive_passages")
PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
KNOWN_COLUMNS = frozenset(
    {
        *STANDARD_COLUMNS,
        *(name for names in _SYNONYMS.values() for name in names),
        *_NEGATIVES,
        *("history", "anchor", "chosen", "rejected", "chosen_messages"),
        *(name for pair in PAIRS for name in pair),
    }
)


@dataclass(slots=True)
class Plan:
    """What to do with rows that have a certain set of columns.

    The fields from `messages` to `score` are names of columns of the row, None where it has none.

    Args:
        kind: which columns hold the conversation.
        names: the columns after renaming.
        standard: standard column, its name in the row, what brings it to one form.
        sides: standard column and name in the row of the columns read with the messages.
        kept: column and name in the row of what stays beside the standard columns.
        unused: columns that are dropped.
        rivals: columns that compete for one meaning.
        doubled: columns that `columns` renames to the same name; such rows have no standard form.
        clashes: meanings that several columns could have, so that none was taken.
        num_rows: standard rows made so far.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    messages: str | None = None
    system: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    instruction: str | None = None
    input: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    first: str | None = None
    second: str | None = None
    score: str | None = None
    standard: tuple[tuple[str, str, Converter], ...] = ()
    sides: tuple[tuple[str, str], ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    rivals: frozenset[str] = frozenset()
    doubled: str | None = None
    clashes: dict[str, list[str]] = field(default_factory=dict)
    has_media: bool = False
    num_rows: int = 0


def make_plan(
    names: tuple[str, ...], columns: Mapping[str, str], remove_unused_columns: bool
) -> Plan:
    """Decide what the columns of a row are.

    Args:
        names: the columns as they stand in the source.
        columns: lower-case source name to standard name, renamed first.
        remove_unused_columns: whether other columns are dropped.
    """
    return _Planner(names, columns).plan(remove_unused_columns)


class _Planner:
    """Works out one plan: `finals` maps each column, after renaming, to its name in the row."""

    def __init__(self, names: tuple[str, ...], columns: Mapping[str, str]) -> None:
        wanted = {name: columns[name.lower()] for name in names if name.lower() in columns}
        self.finals: dict[str, str] = {}
        self.overwritten: list[str] = []
        self.rivals: set[str] = set()
        self.doubled: str | None = None
        self.clashes: dict[str, list[str]] = {}
        for name, target in wanted.items():
            if target in self.finals:
                self.rivals |= {name, self.finals[target]}
                self.doubled = f"columns renames both {self.finals[target]} and {name} to {target}"
            self.finals[target] = name
        for name in names:
            if name in self.finals and name not in wanted:
                self.overwritten.append(name)
                self.rivals |= {name, self.finals[name]}
            elif name not in wanted:
                self.finals[name] = name
        self.lower = {name.lower() for name in self.finals}
        self.taken: set[str] = set()

    def plan(self, remove_unused_columns: bool) -> Plan:
        plan = Plan(self._kind(), tuple(self.finals))
        for target in ("system", "images", "videos", "audios"):
            found = self._take(target)
            if target == "system":
                plan.system = found
            elif found is not None:
                plan.standard += ((target, found, CONVERTERS[target]),)
        self._take_conversation(plan)
        for column in STANDARD_COLUMNS:
            if column in self.finals and column not in self.taken:
                self.taken.add(column)
                if column in SIDE_COLUMNS:
                    plan.sides += ((column, self.finals[column]),)
                elif column in CONVERTERS:
                    plan.standard += ((column, self.finals[column], CONVERTERS[column]),)
        others = [name for name in self.finals if name not in self.taken]
        if remove_unused_columns:
            plan.unused = (*others, *self.overwritten)
        else:
            # A second system prompt would become the first one when the row is read again.
            second = [name for name in others if name.lower() in _SYNONYMS["system"]]
            plan.unused = (*second, *self.overwritten)
            plan.kept = tuple((n, self.finals[n]) for n in (*others, *self._kept_too(plan)))
            plan.kept = tuple(item for item in plan.kept if item[0] not in second)
        plan.rivals, plan.clashes = frozenset(self.rivals), self.clashes
        plan.doubled = self.doubled
        media = {column for column, _, _ in plan.standard}
        plan.has_media = not media.isdisjoint(_MEDIA_COLUMNS)
        return plan

    def _kind(self) -> Kind:
        lower = self.lower
        if not lower.isdisjoint(_SYNONYMS["messages"]):
            return "messages"
        if "chosen_messages" in lower and "rejected_messages" in self.finals:
            return "messages"
        if {"instruction", "input"} <= lower:
            return "alpaca"
        queries = not lower.isdisjoint((*_SYNONYMS["query"], "anchor"))
        answers = not lower.isdisjoint(_SYNONYMS["response"])
        documents = not lower.isdisjoint(_SYNONYMS["positive"])
        if queries and documents and (not answers or not lower.isdisjoint(_DOCUMENT_LISTS)):
            return "retrieval"
        if queries or answers:
            return "query"
        if any(lower.issuperset(pair) for pair in PAIRS):
            return "pair"
        return "none"

    def _take_conversation(self, plan: Plan) -> None:
        if {"chosen", "rejected"} <= self.lower and self.lower.isdisjoint(
            ("rejected_response", "rejected_messages")
        ):
            plan.chosen, plan.rejected = self._take("chosen"), self._take("rejected")
        if plan.kind == "messages":
            plan.messages = self._take("messages")
            if plan.messages is None and "messages" not in self.clashes:
                plan.messages = self._take_named("chosen_messages")
            return
        if plan.kind == "pair":
            pair = next(pair for pair in PAIRS if self.lower.issuperset(pair))
            plan.first, plan.second = self._take_named(pair[0]), self._take_named(pair[1])
            plan.score = None if "label" in self.finals else self._take("score")
            return
        plan.history = self._take_named("history")
        if plan.kind == "alpaca":
            plan.instruction = self._take_named("instruction")
            plan.input = self._take_named("input")
        else:
            plan.query = self._take("query")
        if plan.kind == "retrieval":
            plan.query = plan.query or self._take_named("anchor")
            plan.positive = self._take("positive")
            found = [self._take_named(name) for name in _NEGATIVES]
            plan.negatives = tuple(name for name in found if name is not None)
        elif plan.chosen is None:
            plan.response = self._take("response")

    def _take(self, target: str) -> str | None:
        """Return the row's name of the column that means `target`; it is taken from then on."""
        synonyms = _SYNONYMS.get(target, (target,))
        present = [n for n in self.finals if n.lower() in synonyms and n not in self.taken]
        if len(present) > 1:
            self.rivals |= {self.finals[name] for name in present}
        chosen = target if target in present else present[0] if len(present) == 1 else None
        if chosen is None:
            if present:
                self.clashes[target] = present
            return None
        self.taken.add(chosen)
        return self.finals[chosen]

    def _take_named(self, name: str) -> str | None:
        found = name if name in self.finals else None
        if found is None:
            found = next((final for final in self.finals if final.lower() == name), None)
        if found is None or found in self.taken:
            return None
        self.taken.add(found)
        return self.finals[found]

    def _kept_too(self, plan: Plan) -> list[str]:
        """A solution that serves as the answer stays a column too: reward functions read it."""
        return (
            ["solution"] if plan.response and self.finals.get("solution") == plan.response else []
        )


_MEDIA_COLUMNS = frozenset(
    {
        side + name
        for side in ("", "rejected_")
        for name in ("images", "videos", "audios", "objects")
    }
)
