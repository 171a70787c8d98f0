"""Row formats: raw rows of every accepted spelling become standard rows.

What a column is, is decided once for every set of column names (`plan`); what remains for a row is
reading its messages and the few columns beside them.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping

from swiftcore.data.quarantine import QuarantinedRow, RejectedRow
from swiftcore.data.rows.aside import Aside, Row
from swiftcore.data.rows.media import settle_media
from swiftcore.data.rows.messages import standard_messages
from swiftcore.data.rows.pairs import nothing_found, read_documents, read_pair, read_sentences
from swiftcore.data.rows.plan import KNOWN_COLUMNS, Plan, make_plan
from swiftcore.data.rows.preference import read_preference
from swiftcore.data.rows.standard import read_side_columns
from swiftcore.data.rows.values import kind_of
from swiftcore.errors import DataError, UsageError

_MAX_CACHED_PLANS = 1000
# Column names and message keys come from the data: what is counted by name must end somewhere.
_MAX_COUNTED_NAMES = 10_000
_MAX_NOTES = 200
_MORE_NOTES = "further things are left out"


class RowNormalizer:
    """Turns raw rows into standard rows and remembers what it noticed about their columns.

    Args:
        columns: `{source name: standard name}`, renamed before anything else.
        remove_unused_columns: keep only standard columns; false keeps the others as they are.
        add_media_tags: put missing `<image>`, `<video>` and `<audio>` tags before the first user
            message; false leaves that to encoding, as ms-swift does.

    Attributes:
        renamed: names in `columns` that a row had, in lower case.
        clashes: meanings that several columns of a row could have, so that none was taken.
        notes: what standard rows lack although their source has it, with the number of rows.

    Raises:
        UsageError: a target of `columns` is no column this project knows.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        remove_unused_columns: bool = True,
        add_media_tags: bool = False,
    ) -> None:
        self._columns = {source.lower(): target for source, target in (columns or {}).items()}
        self._remove_unused = remove_unused_columns
        self._add_media_tags = add_media_tags
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._aside = Aside()
        self._other_unused: Counter[str] = Counter()
        self._seen: set[str] = set()
        self.renamed: set[str] = set()
        self.clashes: dict[str, list[str]] = {}
        self.notes: Counter[str] = Counter()
        if remove_unused_columns:
            _check_targets(self._columns)

    def standard_row(self, value: object) -> Row:
        """Return the standard form of one raw row.

        Raises:
            RejectedRow: it has none; the message says why.
        """
        row = value if type(value) is dict else _as_row(value)
        names = tuple(row)
        plan = self._plans.get(names) or self._new_plan(names)
        if plan.rivals:
            plan = self._settled(row, plan)
        aside = self._aside
        if aside.media or aside.notes or aside.tags_only:
            aside = self._aside = Aside()
        out = _read(row, plan, aside)
        for column, name, convert in plan.standard:
            given = row[name]
            if given is not None and (found := convert(given, column)) is not None:
                _put(out, column, found)
        if plan.has_media or aside.media or aside.tags_only:
            settle_media(out, aside, add_tags=self._add_media_tags)
            if "rejected_messages" in out:
                settle_media(out, Aside(), "rejected_", self._add_media_tags)
        for column, name in plan.kept:
            if row[name] is not None:
                out[column] = row[name]
        plan.num_rows += 1
        if aside.notes:
            self._count_notes(aside.notes)
        return out

    @property
    def unused_columns(self) -> Counter[str]:
        """Columns that were dropped, with the number of standard rows that had each."""
        counted = Counter(self._other_unused)
        for plan in self._plans.values():
            for name in plan.unused:
                if plan.num_rows:
                    counted[name] += plan.num_rows
        return counted

    def missing_columns(self) -> list[str]:
        """Return the names in `columns` that no row had so far."""
        return [name for name in self._columns if name not in self.renamed]

    def seen_columns(self) -> list[str]:
        """Return the names of the columns that rows had so far, after renaming."""
        return sorted(self._seen)

    def _new_plan(self, names: tuple[object, ...]) -> Plan:
        texts = tuple(name for name in names if isinstance(name, str))
        if len(texts) != len(names):
            raise RejectedRow("a column's name is no text")
        if names in self._plans:
            return self._plans[names]
        if len(self._plans) >= _MAX_CACHED_PLANS:
            self._forget_plans()
        plan = self._plans[names] = make_plan(texts, self._columns, self._remove_unused)
        self.renamed.update(name.lower() for name in texts if name.lower() in self._columns)
        if len(self._seen) < _MAX_COUNTED_NAMES:
            self._seen.update(plan.names)
        return plan

    def _forget_plans(self) -> None:
        """Start anew with plans, keeping their counts, so that memory ends whatever rows come."""
        self._other_unused = Counter(dict(self.unused_columns.most_common(_MAX_COUNTED_NAMES)))
        self._plans.clear()

    def _settled(self, row: Row, plan: Plan) -> Plan:
        """Return the plan of a row with rival columns: a null one does not count."""
        live = tuple(n for n in row if n not in plan.rivals or row[n] is not None)
        if len(live) < len(row):
            plan = self._plans.get(live) or self._new_plan(live)
        if plan.doubled is not None:
            raise RejectedRow(plan.doubled)
        if plan.clashes:
            self.clashes |= plan.clashes
        return plan

    def _count_notes(self, notes: set[str]) -> None:
        for note in sorted(notes):
            known = note in self.notes or len(self.notes) < _MAX_NOTES
            self.notes[note if known else _MORE_NOTES] += 1


def normalize_rows(
    rows: Iterable[object],
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    remove_unused_columns: bool = True,
) -> tuple[list[Row], list[QuarantinedRow]]:
    """Turn raw rows of any accepted format into standard rows.

    Args:
        rows: raw rows; each becomes one standard or one quarantined row.
        columns: `{source name: standard name}`, renamed first.
        strict: raise at the first row that has no standard form.
        remove_unused_columns: keep only standard columns.

    Returns:
        (standard rows, quarantined rows); their lengths add up to the number of rows given.

    Raises:
        DataError: with `strict`, naming the first bad row.
        UsageError: a target of `columns` is unknown.
    """
    normalizer = RowNormalizer(columns, remove_unused_columns)
    standard: list[Row] = []
    quarantine: list[QuarantinedRow] = []
    for index, value in enumerate(rows):
        try:
            standard.append(normalizer.standard_row(value))
        except RejectedRow as err:
            if strict:
                raise DataError(
                    "a row has no standard form",
                    where=f"row {index}",
                    found=err.message,
                    do="mend the row, or leave strict off to set bad rows aside",
                ) from err
            quarantine.append(QuarantinedRow(index, err.message, value))
    return standard, quarantine


def _read(row: Row, plan: Plan, aside: Aside) -> Row:
    """Return the row's messages and what belongs to them."""
    system = None if plan.system is None else row[plan.system]
    out: Row
    if plan.chosen is not None:
        out = read_preference(row, plan, system, aside)
    elif plan.kind == "messages":
        if plan.messages is None:
            names = " and ".join(plan.clashes["messages"])
            raise RejectedRow(f"{names} could both be the messages; rename one with columns")
        out = {"messages": standard_messages(row[plan.messages], system, "messages", aside)}
    elif plan.kind in ("alpaca", "query"):
        out = {"messages": read_pair(row, plan, system, aside)}
    elif plan.kind == "retrieval":
        messages, samples = read_documents(row, plan, system, aside)
        out = {"messages": messages, **samples}
    elif plan.kind == "pair":
        messages, samples = read_sentences(row, plan)
        out = {"messages": messages, **samples}
    else:
        raise nothing_found(plan, row)
    if plan.sides:
        given = {column: row[name] for column, name in plan.sides}
        read_side_columns(given, out, system, aside)
    return out


def _put(row: Row, column: str, value: object) -> None:
    if row.get(column):
        raise RejectedRow(f"{column} is given twice: in a column and in content parts")
    row[column] = value


def _check_targets(columns: Mapping[str, str]) -> None:
    for source, target in columns.items():
        if target not in KNOWN_COLUMNS:
            close = difflib.get_close_matches(target, sorted(KNOWN_COLUMNS), n=1)
            raise UsageError(
                "a column is renamed to a name nothing reads",
                where=f"columns[{source!r}]",
                found=target,
                expected=f"perhaps {close[0]}" if close else "query, response, messages, ...",
                do="name a standard column, or set remove_unused_columns to false to keep it",
            )


def _as_row(value: object) -> Row:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {"messages": value}
    if not isinstance(value, Mapping):
        raise RejectedRow(f"the row is {kind_of(value)}, expected an object")
    return dict(value)
