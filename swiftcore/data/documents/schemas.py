"""The four forms of an output row, and which data rows have one.

| format | row |
|---|---|
| pretraining | `{"text"}` |
| code | `{"text", "language", "path", "start_line", "end_line"}` |
| sft_messages | `{"messages"}`, and the other standard columns the source row has |
| sft_completion | `{"prompt", "completion"}`, and `system`, `history` and others where present |

Instruction data comes from rows that hold it and never from raw text: a text without a question is
refused under the sft formats, and a conversation is refused under the text formats.
"""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum

from swiftcore.data.documents.chunks import Chunk
from swiftcore.data.quarantine import RejectedRow

Row = dict[str, object]

NO_INSTRUCTION = "has no instruction and answer; use pretraining"
_IS_CONVERSATION = "is a conversation, not a text; use sft_messages"
_LANGUAGE_COLUMNS = ("language", "lang", "programming_language")
_PATH_COLUMNS = ("path", "max_stars_repo_path", "file_path", "filename")


class DatasetFormat(StrEnum):
    """The form of the rows that an ingestion writes."""

    PRETRAINING = "pretraining"
    SFT_MESSAGES = "sft_messages"
    SFT_COMPLETION = "sft_completion"
    CODE = "code"

    @property
    def holds_text(self) -> bool:
        """True for the formats whose rows are texts and not conversations."""
        return self in (DatasetFormat.PRETRAINING, DatasetFormat.CODE)


def text_of_row(standard: Row) -> str:
    """Return the text of a standard row that is nothing but a text.

    Raises:
        RejectedRow: it is a conversation.
    """
    messages = _messages(standard)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise RejectedRow(_IS_CONVERSATION)
    return str(messages[0]["content"])


def origin_of_row(raw: object, name: str, line: int) -> tuple[str, str]:
    """Return language and path of a row of code: its own columns, else `text` and its place."""
    columns = raw if isinstance(raw, dict) else {}
    language = next((columns[key] for key in _LANGUAGE_COLUMNS if columns.get(key)), "text")
    path = next((columns[key] for key in _PATH_COLUMNS if columns.get(key)), f"{name}:{line}")
    return str(language).lower(), str(path)


def text_rows(
    chunks: Sequence[Chunk], form: DatasetFormat, language: str, path: str
) -> Iterator[Row]:
    """Yield a row for each chunk of a text, in one of the text formats.

    Args:
        chunks: of one text, in order.
        form: pretraining or code.
        language: of source code, else the kind of document.
        path: where the text comes from.
    """
    line = 1
    previous: Chunk | None = None
    for chunk in chunks:
        if previous is not None:
            line += previous.text.count("\n", 0, chunk.start - previous.start)
        previous = chunk
        if form is DatasetFormat.PRETRAINING:
            yield {"text": chunk.text}
            continue
        last = line + chunk.text.removesuffix("\n").count("\n")
        lines = {"start_line": line, "end_line": last}
        yield {"text": chunk.text, "language": language, "path": path, **lines}


def conversation_row(standard: Row, form: DatasetFormat) -> Row:
    """Return a standard row in one of the sft formats.

    Raises:
        RejectedRow: it holds no instruction and answer, or something the form can't hold.
    """
    messages = _messages(standard)
    roles = [str(message["role"]) for message in messages]
    if not {"user", "assistant"} <= set(roles) and not {"user", "tool_call"} <= set(roles):
        only_text = roles == ["assistant"]
        raise RejectedRow(NO_INSTRUCTION if only_text else f"has no answer: {', '.join(roles)}")
    if form is DatasetFormat.SFT_MESSAGES:
        return standard
    return _completion_row(standard, messages, roles)


def _completion_row(standard: Row, messages: list[Row], roles: list[str]) -> Row:
    system = messages[0]["content"] if roles[0] == "system" else None
    turns = messages[1:] if roles[0] == "system" else messages
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or [turn["role"] for turn in turns] != expected:
        raise RejectedRow(
            f"prompt and completion can't hold the roles {', '.join(roles)[:200]}; use sft_messages"
        )
    if any(set(turn) - {"role", "content"} for turn in turns):
        raise RejectedRow("prompt and completion can't hold loss of a message; use sft_messages")
    texts = [str(turn["content"]) for turn in turns]
    row: Row = {"prompt": texts[-2], "completion": texts[-1]}
    if system is not None:
        row["system"] = system
    if len(texts) > 2:
        row["history"] = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return row | {name: value for name, value in standard.items() if name != "messages"}


def row_line(row: Row) -> bytes:
    """Return a row as one line of JSON, in UTF-8.

    Raises:
        RejectedRow: a value has no JSON form, or is no valid Unicode.
    """
    try:
        return _json(row).encode("utf-8") + b"\n"
    except UnicodeEncodeError as err:
        raise RejectedRow("holds a lone surrogate, which is no valid Unicode") from err
    except (TypeError, ValueError, RecursionError) as err:
        raise RejectedRow(f"has no JSON form: {err}") from err


def identity(row: Row, line: bytes) -> bytes:
    """Return what makes two rows the same: only the text of a document, all of a conversation.

    Args:
        row: the row.
        line: what `row_line` says of it.
    """
    if "text" in row:
        return str(row["text"]).encode()
    # Only the order of columns follows the source; what is in them is in standard order.
    return line if len(row) == 1 else _json({name: row[name] for name in sorted(row)}).encode()


def _json(value: Row) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _messages(standard: Row) -> list[Row]:
    messages = standard["messages"]
    assert isinstance(messages, list)
    return messages
