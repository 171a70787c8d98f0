"""Rows with a chosen and a rejected side, in the spellings of their authors.

| chosen and rejected are | with a question | without |
|---|---|---|
| texts, or single messages | answers to it | hh-rlhf transcripts of Human and Assistant |
| lists of messages | answers to it; whole dialogues when a user speaks in them | whole dialogues |
"""

import re

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside, Message, Row
from swiftcore.data.rows.messages import is_dialogue, standard_messages
from swiftcore.data.rows.pairs import read_question
from swiftcore.data.rows.plan import Plan
from swiftcore.data.rows.standard import rejected_dialogue, rejected_response
from swiftcore.data.rows.values import parse_literal, text_of

_SPEAKER = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant):")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def read_preference(row: Row, plan: Plan, system: object, aside: Aside) -> Row:
    """Return `messages` with the chosen side, and `rejected_response` or `rejected_messages`.

    Raises:
        RejectedRow: a side is missing, both are equal, or there is no question.
    """
    question = _question(row, plan, system, aside)
    chosen = _side(row[plan.chosen or "chosen"], "chosen", bool(question))
    rejected = _side(row[plan.rejected or "rejected"], "rejected", bool(question))
    if chosen == rejected:
        raise RejectedRow("chosen equals rejected")
    whole = [_is_whole(side) or not question for side in (chosen, rejected)]
    if whole[0] != whole[1]:
        raise RejectedRow(
            "one of chosen and rejected is a whole dialogue, the other only an answer"
        )
    if whole[0]:
        if question:
            aside.notes.add("the question is left out: chosen and rejected are whole dialogues")
            aside.media.clear()
        out: Row = {"messages": standard_messages(chosen, system, "chosen", aside)}
        dialogue = rejected_dialogue(rejected, out, system, "rejected", aside)
        out["rejected_messages"] = dialogue
        if dialogue == out["messages"]:
            raise RejectedRow("chosen equals rejected")
        return out
    messages = question + standard_messages(chosen, column="chosen", aside=aside)
    worse: object = rejected_response(rejected, messages)
    if isinstance(worse, list) and len(worse) == 1 and set(worse[0]) == {"role", "content"}:
        worse = worse[0]["content"] if worse[0]["role"] == "assistant" else worse
    return {"messages": messages, "rejected_response": worse}


def _question(row: Row, plan: Plan, system: object, aside: Aside) -> list[Message]:
    if plan.kind == "messages":
        value = row[plan.messages or "messages"]
        return standard_messages(value, system, "messages", aside)
    return read_question(row, plan, system, aside)


def _side(value: object, column: str, has_question: bool) -> list[object]:
    """Return one side as a list of raw messages."""
    if value is None:
        raise RejectedRow(f"{column} is null")
    if isinstance(value, dict):
        return [value]
    if isinstance(value, str) and not has_question:
        return _transcript(value, column)
    if is_dialogue(value) and isinstance(value, (list, tuple)):
        return list(value)
    return [{"role": "assistant", "content": text_of(value, column)}]


def _is_whole(side: list[object]) -> bool:
    roles = [item.get("role", item.get("from")) for item in side if isinstance(item, dict)]
    return any(isinstance(role, str) and role.lower() in ("user", "human") for role in roles)


def _transcript(text: str, column: str) -> list[object]:
    """Take a transcript of hh-rlhf apart: turns that begin with `Human:` or `Assistant:`."""
    if text.lstrip().startswith(("[{", "[ {")):
        found = parse_literal(text, column)
        if isinstance(found, list) and is_dialogue(found):
            return found
    pieces = _SPEAKER.split(text_of(text, column))
    if len(pieces) < 3 or pieces[0].strip():
        raise RejectedRow(
            f"{column} is a text without a question: no column is the query, and it is no "
            "transcript of Human: and Assistant:"
        )
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [{"role": _SPEAKERS[name], "content": said.strip()} for name, said in turns]
