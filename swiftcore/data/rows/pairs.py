"""Rows with a column for each part: questions, answers, documents, sentences."""

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside, Message, Row
from swiftcore.data.rows.messages import is_dialogue, message_of, standard_messages, system_text
from swiftcore.data.rows.plan import PAIRS, Plan
from swiftcore.data.rows.values import is_clean, kind_of, number_of, parse_literal, text_of

# Columns of known sets that hold no conversation as they are, and what would make it one.
_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("context", "continuation"), "{'context': 'query', 'continuation': 'response'}"),
    (("premise", "hypothesis"), "{'premise': 'instruction', 'hypothesis': 'input'}"),
    (("chosen_messages",), "{'chosen_messages': 'messages'}"),
    (("paragraphs",), "{'paragraphs': 'text'}"),
)


def read_pair(row: Row, plan: Plan, system: object, aside: Aside) -> list[Message]:
    """Return the messages of a row with a question, an answer, or both.

    Raises:
        RejectedRow: it has neither, or one of them is no text.
    """
    messages = read_question(row, plan, system, aside)
    response = None if plan.response is None else row[plan.response]
    if isinstance(response, (list, tuple)) and not is_dialogue(response):
        response = _one_answer(response, bool(messages), aside)
    if response is not None:
        _add_turn(messages, "assistant", response, plan.response or "response", aside)
    if not messages:
        raise nothing_found(plan, row)
    _check_text(messages)
    return messages


def _check_text(messages: list[Message]) -> None:
    for message in messages:
        text = message["content"]
        if text and not str(text).isspace():
            return
    raise RejectedRow("query and response have no text")


def read_question(row: Row, plan: Plan, system: object, aside: Aside) -> list[Message]:
    """Return the messages up to the question: system prompt, history, question; or no message."""
    if plan.kind == "alpaca":
        query: object = _joined_instruction(row, plan)
    else:
        query = None if plan.query is None else row[plan.query]
    history = None if plan.history is None else row[plan.history]
    response = None if plan.response is None else row[plan.response]
    messages: list[Message] = []
    if query is None and response is None:
        return messages
    if system is not None:
        messages.append({"role": "system", "content": system_text(system, aside)})
    if history:
        for question, answer in _history(history):
            if question is not None:
                _add_turn(messages, "user", question, "history", aside)
            if answer is not None:
                _add_turn(messages, "assistant", answer, "history", aside)
    if query is not None:
        _add_turn(messages, "user", query, plan.query or "query", aside)
    return messages


def read_documents(row: Row, plan: Plan, system: object, aside: Aside) -> tuple[list[Message], Row]:
    """Return the query's messages, and the documents that fit it and those that don't.

    A document is a user message of its own, as embedding wants it; a document with a title is the
    title, a newline and the text.

    Raises:
        RejectedRow: there is no query, no fitting document, or one that is no text.
    """
    messages = read_question(row, plan, system, aside)
    if not messages:
        raise RejectedRow(f"documents without a query: columns are {_shown(plan.names)}")
    _check_text(messages)
    positive = _documents(row[plan.positive] if plan.positive else None, "positive")
    if not positive:
        raise RejectedRow("no document fits the query: the list of positives is empty")
    samples: Row = {"positive_messages": positive}
    negative = [doc for name in plan.negatives for doc in _documents(row[name], "negative")]
    if negative:
        samples["negative_messages"] = negative
    return messages, samples


def read_sentences(row: Row, plan: Plan) -> tuple[list[Message], Row]:
    """Return two sentences with a score of their likeness as an embedding row.

    Raises:
        RejectedRow: there is no such score, or a sentence is no text.
    """
    if plan.first is None or plan.second is None or plan.score is None:
        raise nothing_found(plan, row)
    first, second = (_document(row[name], name) for name in (plan.first, plan.second))
    label = number_of(row[plan.score], plan.score)
    samples: Row = {"positive_messages": [[{"role": "user", "content": second}]], "label": label}
    return [{"role": "user", "content": first}], samples


def nothing_found(plan: Plan, row: Row) -> RejectedRow:
    """Return the reason why a row has no conversation, with the mapping that would give it one."""
    lower = {name.lower() for name in plan.names}
    reason = (
        f"no column holds a conversation: columns are {_shown(plan.names)}; expected messages, or "
        "query and response or their synonyms"
    )
    for wanted, mapping in _HINTS:
        if lower.issuperset(wanted):
            reason += f"; columns {mapping} would read it"
    for first, second in PAIRS:
        if lower.issuperset((first, second)):
            reason += (
                "; whether its label is a likeness or a class can't be seen: columns "
                f"{{{first!r}: 'query', {second!r}: 'positive'}} reads it for embedding, "
                f"{{{first!r}: 'instruction', {second!r}: 'input'}} for classification"
            )
    for name, value in row.items():
        if isinstance(value, list) and len(value) > 1 and all(isinstance(v, dict) for v in value):
            reason += f"; if {name[:40]} is a list of rows, give it as a file of its own"
            break
    return RejectedRow(reason)


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names)[:200] or "none"


def _add_turn(messages: list[Message], role: str, value: object, where: str, aside: Aside) -> None:
    if type(value) is str and "\0" not in value and (value.isascii() or is_clean(value)):
        messages.append({"role": role, "content": value})
    elif is_dialogue(value):
        messages.extend(standard_messages(value, column=where, aside=aside))
    elif role == "user" and _is_list_of_dialogues(value):
        raise RejectedRow(
            f"{where} is a list of dialogues; columns {{{where!r}: 'messages'}} reads one that "
            "stands alone, and a column of functions can be renamed to tools"
        )
    else:
        messages.extend(message_of(role, value, where, aside))


def _is_list_of_dialogues(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_dialogue, value))


def _joined_instruction(row: Row, plan: Plan) -> str | None:
    parts = [row[name] for name in (plan.instruction, plan.input) if name is not None]
    if all(part is None for part in parts):
        return None
    if len(parts) == 2 and parts[0] == "" and isinstance(parts[1], str):
        parts = parts[1:]
    texts = [text_of(part, "instruction") for part in parts if part is not None and part != ""]
    return "\n".join(texts)


def _one_answer(
    answers: list[object] | tuple[object, ...], has_question: bool, aside: Aside
) -> object:
    """Several answers to a question: the first. Without a question: a document's paragraphs."""
    if not answers:
        raise RejectedRow("the response is an empty list")
    if not has_question and all(isinstance(answer, str) for answer in answers):
        return "\n".join(map(str, answers))
    first = answers[0]
    if isinstance(first, dict) and "type" in first:
        return answers
    if len(answers) > 1:
        aside.notes.add("only the first of several responses is used")
    return first


def _history(value: object) -> list[tuple[object, object]]:
    items = parse_literal(value, "history") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise RejectedRow(f"history is {kind_of(items)}, expected a list of pairs")
    pairs: list[tuple[object, object]] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise RejectedRow(f"history[{number}] is no [question, answer] pair")
        pairs.append((item[0], item[1]))
    return pairs


def _documents(value: object, where: str) -> list[list[Message]]:
    if value is None:
        return []
    documents = value if isinstance(value, (list, tuple)) else [value]
    where = f"a {where} document"
    return [[{"role": "user", "content": _document(document, where)}] for document in documents]


def _document(value: object, where: str) -> str:
    parts: list[object] = [value]
    if isinstance(value, dict):
        text = next((value[key] for key in ("text", "passage", "content") if value.get(key)), None)
        parts = [part for part in (value.get("title") or None, text) if part is not None]
    found = "\n".join(text_of(part, where) for part in parts)
    if not found.strip():
        raise RejectedRow(f"{where} has no text")
    return found
