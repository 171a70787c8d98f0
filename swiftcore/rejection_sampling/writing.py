"""The rows that training reads, what was left out, and the figures of a run."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.atomic import synced_text, write_text_synced
from swiftcore.rejection_sampling.candidates import ScoredCandidates
from swiftcore.rejection_sampling.questions import NamedQuestion
from swiftcore.rejection_sampling.selection import Rule, Selection, select

# Columns that belong to the answer that is replaced.
_OF_THE_ANSWER = ("messages", "rejected_response", "rejected_messages", "label", "margin")
_OWN_COLUMN = "sampling"


@dataclass
class SamplingReport:
    """What came of a run.

    Args:
        questions: of the dataset, or of its part.
        kept: questions with at least one row.
        rows: written.
        drawn: answers that came.
        failed: answers that did not come.
        cut_off: answers that ended at the longest one.
        empty: answers without a word.
        right: answers with an outcome reward above 0; None without one.
        left_out: questions without a row, by reason.
        files: what was written.
    """

    questions: int = 0
    kept: int = 0
    rows: int = 0
    drawn: int = 0
    failed: int = 0
    cut_off: int = 0
    empty: int = 0
    right: int | None = None
    left_out: Counter[str] = field(default_factory=Counter[str])
    files: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        return {**vars(self), "left_out": dict(self.left_out.most_common())}

    def count(self, scored: ScoredCandidates, selection: Selection) -> None:
        """Count one question's candidates and what is kept of them."""
        drawn = scored.drawn
        failed = sum(each.error is not None for each in drawn)
        self.questions += 1
        self.rows += len(selection.kept)
        self.kept += bool(selection.kept)
        if selection.reason is not None:
            self.left_out[selection.reason] += 1
        self.failed += failed
        self.drawn += len(drawn) - failed
        self.cut_off += sum(each.is_cut_off for each in drawn)
        self.empty += sum(each.is_empty for each in drawn) - failed
        if scored.orm is not None:
            right = sum((reward or 0.0) > 0 for reward in scored.orm[: len(drawn)])
            self.right = (self.right or 0) + right


def write_rows(
    questions: Sequence[NamedQuestion],
    found: Iterable[ScoredCandidates],
    rule: Rule,
    output: Path,
) -> SamplingReport:
    """Choose among the candidates; write rows, questions left out, and the report.

    Each file is there whole or not at all, the rows last.

    Args:
        questions: that were asked.
        found: their candidates, in the same order.
        rule: how to choose.
        output: file of rows; the others stand beside it.
    """
    report = SamplingReport()
    stem = output.name.removesuffix(".jsonl")
    aside = output.with_name(f"{stem}.left_out.jsonl")
    told = output.with_name(f"{stem}.report.json")
    report.files = {"rows": str(output), "left_out": str(aside), "report": str(told)}
    with synced_text(output) as rows, synced_text(aside) as left_out:
        for question, scored in zip(questions, found, strict=True):
            selection = select(scored, rule)
            report.count(scored, selection)
            for row in rows_of(question, scored, selection):
                rows.write(_line(row))
            if selection.reason is not None:
                reason = {"origin": question.origin, "reason": selection.reason}
                left_out.write(_line({"id": question.id, **reason}))
        write_text_synced(told, json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n")
    return report


def rows_of(
    question: NamedQuestion, scored: ScoredCandidates, selection: Selection
) -> list[dict[str, Any]]:
    """Return a standard row for each kept answer; `rejected_response` is the worst one's text."""
    own = {name: value for name, value in question.row.items() if name not in _OF_THE_ANSWER}
    rows: list[dict[str, Any]] = []
    for place, rejected in zip(selection.kept, selection.rejected, strict=True):
        answer = {"role": "assistant", "content": scored.candidates[place].text}
        row: dict[str, Any] = {"messages": [*question.messages, answer], **own}
        if rejected is not None:
            row["rejected_response"] = scored.candidates[rejected].text
        rows.append({**row, _OWN_COLUMN: _facts(scored, place)})
    return rows


def _facts(scored: ScoredCandidates, place: int) -> Mapping[str, Any]:
    candidate = scored.candidates[place]
    return {
        "id": scored.id,
        "candidate": None if candidate.is_reference else place,
        "orm": None if scored.orm is None else scored.orm[place],
        "prm": None if scored.prm is None else scored.prm[place],
    }


def _line(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False) + "\n"
    # Half a surrogate pair, which a model may write, has no bytes in UTF-8, but an escape in JSON.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
