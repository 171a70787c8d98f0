"""From a standard row to the texts that are scored and the targets their scores are held against.

| task | texts | targets |
|---|---|---|
| seq_cls | the conversation | its class; the numbers of a regression; 1 or 0 for each class |
| embedding | anchor, positive, negatives | likeness of the positive (1 unless labelled); 0s |
| reranker | query and document, for each document | 1 for a document that fits, else 0 |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.errors import DataError
from swiftcore.recipe.tasks import Task

Row = Mapping[str, Any]
Messages = list[dict[str, Any]]

# What Qwen3-Reranker was trained on, and ms-swift writes around its rows.
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)


@dataclass(frozen=True)
class Sample:
    """One row of a task: its texts as messages, and its targets."""

    texts: list[Messages]
    targets: list[float]


def read_sample(row: Row, task: Task) -> Sample:
    """Return the texts and targets of a standard row.

    Raises:
        DataError: the row lacks what the task needs.
    """
    messages = [dict(message) for message in row.get("messages") or ()]
    if not messages:
        raise _lacks("messages", "nothing", "a conversation, a text or a query")
    if task.task_type == "seq_cls":
        return Sample([messages], _class_targets(row.get("label"), task))
    if task.task_type == "embedding":
        return _pairs(row, messages)
    return _documents(row, messages, task)


def _class_targets(label: Any, task: Task) -> list[float]:
    num = task.num_labels or 1
    if task.problem_type == "regression":
        values = label if isinstance(label, Sequence) else [label]
        if len(values) != num or any(not _is_number(value) for value in values):
            raise _lacks("label", label, f"{num} number{'s' if num > 1 else ''}")
        return [float(value) for value in values]
    if task.problem_type == "multi_label_classification":
        classes = label if isinstance(label, Sequence) and not isinstance(label, str) else [label]
        if any(not _is_class(value, num) for value in classes):
            raise _lacks("label", label, f"a list of classes, each from 0 to {num - 1}")
        chosen = {int(value) for value in classes}
        return [float(number in chosen) for number in range(num)]
    if not _is_class(label, num):
        raise _lacks("label", label, f"a class from 0 to {num - 1}")
    return [float(label)]


def _pairs(row: Row, messages: Messages) -> Sample:
    positives = row.get("positive_messages")
    rejected = row.get("rejected_response")
    if positives is None and messages[-1].get("role") == "assistant":
        # The form of ms-swift 3: the answer is the other text.
        messages, answer = messages[:-1], messages[-1]["content"]
        positives = [[{"role": "user", "content": answer}]]
    if not positives or not messages:
        raise _lacks("positive_messages", positives, "a text that is like the anchor")
    negatives: list[Messages] = list(row.get("negative_messages") or ())
    if isinstance(rejected, str):
        negatives.append([{"role": "user", "content": rejected}])
    label = row.get("label")
    if label is None:
        label = 1.0
    elif not _is_number(label):
        raise _lacks("label", label, "a number, how like the two texts are")
    texts = [messages, positives[0], *negatives]
    return Sample([list(text) for text in texts], [float(label), *[0.0] * len(negatives)])


def _documents(row: Row, messages: Messages, task: Task) -> Sample:
    positives, negatives = (row.get(f"{side}_messages") or () for side in ("positive", "negative"))
    if not positives and not negatives and messages[-1].get("role") == "assistant":
        label = row.get("label")
        if label not in (0, 1):
            raise _lacks("label", label, "1 for a document that fits its query, else 0")
        query, found = messages[:-1], [(messages[-1:], float(label))]
    else:
        query = messages
        found = [(document, 1.0) for document in positives]
        found += [(document, 0.0) for document in negatives]
    if not found:
        raise _lacks("positive_messages", None, "documents, or an answer with a label")
    write = _judged if task.task_type == "generative_reranker" else _answered
    texts = [write(query, _text(document)) for document, _ in found]
    return Sample(texts, [target for _, target in found])


def _answered(query: Messages, document: str) -> Messages:
    return [*query, {"role": "assistant", "content": document}]


def _judged(query: Messages, document: str) -> Messages:
    """Ask for yes or no, as Qwen3-Reranker is asked; a row's system prompt is the instruction."""
    instruction = query[0]["content"] if query[0]["role"] == "system" else _INSTRUCTION
    asked = f"<Instruct>: {instruction}\n<Query>: {query[-1]['content']}\n<Document>: {document}"
    return [{"role": "system", "content": _JUDGE}, {"role": "user", "content": asked}]


def _text(document: Messages) -> str:
    return "\n".join(str(message["content"]) for message in document)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_class(value: Any, num_labels: int) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and 0 <= value < num_labels


def _lacks(where: str, found: Any, expected: str) -> DataError:
    return DataError(
        f"the row's {where} is not what the task needs",
        where=where,
        found=str(found)[:120],
        expected=expected,
        do="mend the row, or change model.task_type",
    )
