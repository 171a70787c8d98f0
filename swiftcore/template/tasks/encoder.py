"""Texts of a task's rows to tokens: batches of rows through one template."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from swiftcore.errors import DataError, RowTooLong
from swiftcore.recipe.tasks import Task
from swiftcore.template.encoder import Drop
from swiftcore.template.spans import Piece
from swiftcore.template.tasks.folder import EncodedSample
from swiftcore.template.tasks.samples import Messages, Row, read_sample
from swiftcore.template.template import Template


class SampleEncoder:
    """Encodes the rows of a task with one template.

    An embedded text ends with the template's stop token, at which a model that sees the past alone
    has seen all of it. A text that ends with a question is a prompt; one that ends with an answer
    is a whole conversation.

    Args:
        template: the template; its max_length is each text's, not the row's.
        task: the task.
    """

    def __init__(self, template: Template, task: Task) -> None:
        self._template = template
        self._task = task

    def encode(
        self, batches: Iterable[list[dict[str, Any]]]
    ) -> Iterator[tuple[int, EncodedSample | Drop]]:
        """Yield what becomes of each row: its index, and its tokens or the reason it has none."""
        start = 0
        for batch in batches:
            yield from enumerate(map(self._outcome, batch, range(start, start + len(batch))), start)
            start += len(batch)

    def tokens(self, texts: list[Messages]) -> list[list[int]]:
        """Return the ids of each text, all in one call of the tokenizer.

        Raises:
            DataError: a text is malformed.
            RowTooLong: one is longer than the template's max_length and can't be cut.
        """
        plans = [self._plan(text) for text in texts]
        ids = iter(self._template.pieces.encode([piece for plan in plans for piece in plan]))
        encoded = [self._ended([*chain.from_iterable(next(ids) for _ in plan)]) for plan in plans]
        return [self._fitted(*pair) for pair in zip(texts, encoded, strict=True)]

    def _outcome(self, row: Row, index: int) -> EncodedSample | Drop:
        try:
            sample = read_sample(row, self._task)
            return EncodedSample(index, self.tokens(sample.texts), sample.targets)
        except RowTooLong as err:
            tokens = int(str(err.found).split()[0])
            return Drop("longer than max_length", tokens, err.where, err.found)
        except DataError as err:
            return Drop(err.message, None, err.where, err.found)

    def _plan(self, messages: Messages) -> list[Piece]:
        answered = messages[-1].get("role") in ("assistant", "tool_call")
        return self._template.plan({"messages": messages}, "train" if answered else "infer")

    def _ended(self, ids: list[int]) -> list[int]:
        stop = self._template.stop_ids
        if self._task.task_type != "embedding" or not stop or ids[-len(stop) :] == stop:
            return ids
        return ids + stop

    def _fitted(self, messages: Messages, ids: list[int]) -> list[int]:
        """Shorten the longest message of a text until its tokens fit."""
        limit = self._template.options.max_length
        if limit is None or len(ids) <= limit:
            return ids
        strategy = self._template.options.truncation_strategy
        place = max(range(len(messages)), key=lambda at: len(str(messages[at].get("content"))))
        text = str(messages[place].get("content"))
        best: list[int] | None = None
        low, high = 0, 0 if strategy == "delete" else len(text)
        while low < high:
            kept = (low + high + 1) // 2
            shorter = text[len(text) - kept :] if strategy == "left" else text[:kept]
            changed = [*messages]
            changed[place] = {**messages[place], "content": shorter}
            found = self._ended(
                [*chain.from_iterable(self._template.pieces.encode(self._plan(changed)))]
            )
            if len(found) <= limit:
                low, best = kept, found
            else:
                high = kept - 1
        if best is None:
            raise RowTooLong(
                "a text of the row has more tokens than max_length",
                where="max_length",
                found=f"{len(ids)} tokens",
                expected=f"at most {limit}",
                do="raise template.max_length, or set truncation_strategy to left or right",
            )
        return best
