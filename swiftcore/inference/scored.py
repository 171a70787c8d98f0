"""Models that score texts instead of answering: classes, likeness, fitting documents.

Shapes: S texts, T tokens of the longest, C outputs, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from swiftcore.errors import DataError, RowTooLong, UsageError
from swiftcore.evaluation.answering import described, halved
from swiftcore.inference.answers import ANSWER_FIELDS
from swiftcore.inference.questions import Question
from swiftcore.inference.result_file import ResultFile
from swiftcore.models import load_model
from swiftcore.models.tasks import resolve_pooling
from swiftcore.progress import Progress
from swiftcore.recipe.sections import Dtype, TrainSection
from swiftcore.recipe.tasks import Pooling, Task
from swiftcore.template import Template
from swiftcore.template.tasks.encoder import SampleEncoder
from swiftcore.template.tasks.samples import read_sample
from swiftcore.training.forward import unwrapped
from swiftcore.training.objectives.classifying import ClassifyingObjective
from swiftcore.training.objectives.embedding import pool
from swiftcore.training.objectives.ranking import word_scores
from swiftcore.training.scored import pad_id_of
from swiftcore.tuners import load_adapter

Texts = list[list[int]]
_BATCHES_A_WRITE = 16


class ModelInFolders(Protocol):
    """Where a model is and what writes its texts."""

    @property
    def model_dir(self) -> Path:
        """Folder of the model."""
        ...

    @property
    def adapter_dir(self) -> Path | None:
        """Folder of an adapter over it."""
        ...

    @property
    def template(self) -> Template:
        """Writes texts as tokens."""
        ...

    @property
    def dtype(self) -> Dtype | None:
        """Type of the weights; None: as they are stored."""
        ...


@dataclass(frozen=True)
class Scorer:
    """A loaded model that scores texts.

    Args:
        model: as its folder's task loads it, on its device.
        task: what it was trained to do.
        template: writes texts as tokens.
        pooling: how an embedding model's states become a vector.
        uses_sigmoid: scores of documents become shares of 1.
    """

    model: Any
    task: Task
    template: Template
    pooling: Pooling = "last"
    uses_sigmoid: bool = True

    @classmethod
    def load(
        cls,
        asked: ModelInFolders,
        task: Task,
        *,
        device: str = "cpu",
        uses_sigmoid: bool = True,
    ) -> "Scorer":
        """Load the model of a folder, with an adapter over it where there is one.

        Raises:
            ModelMissing, ArtifactDamaged, UsageError: as loading any model.
        """
        folder = asked.adapter_dir or asked.model_dir
        if asked.adapter_dir is None:
            model: Any = load_model(asked.model_dir, device=device, dtype=asked.dtype)
        else:
            model = unwrapped(
                load_adapter(asked.model_dir, asked.adapter_dir, device=device, dtype=asked.dtype)
            )
        pooling = "last"
        if task.task_type == "embedding":
            pooling = resolve_pooling(model, folder, task)
        return cls(model, task, asked.template, pooling, uses_sigmoid)

    def texts(self, row: dict[str, Any]) -> Texts:
        """Return the tokens of each text of a row that gets a score.

        Raises:
            DataError: the row lacks what the task needs, or a text is too long.
        """
        encoder = SampleEncoder(self.template, self.task)
        if self.task.task_type == "embedding":
            return encoder.tokens([row["messages"]])
        sample = read_sample({**row, "label": self._any_label()}, self.task)
        return encoder.tokens(sample.texts)

    @torch.inference_mode()
    def scores(self, texts: Texts) -> list[Any]:
        """Return what the model says of each text: numbers of a classifier, a vector, a score."""
        pad_id = pad_id_of(self.template.tokenizer)
        longest = max(map(len, texts))
        ids_ST = torch.tensor([text + [pad_id] * (longest - len(text)) for text in texts])
        mask_ST = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        device = self.model.device
        return self._computed(ids_ST.to(device), mask_ST.to(device)).tolist()

    def answer(self, scores: Sequence[Any]) -> dict[str, Any]:
        """Return the fields of a row's line from the scores of its texts."""
        if self.task.task_type == "embedding":
            return {"response": scores[0]}
        if self.task.is_ranking:
            return {"response": list(scores)}
        return self._class_of(scores[0])

    def _computed(self, ids_ST: Tensor, mask_ST: Tensor) -> Tensor:
        task = self.task
        if task.task_type == "embedding":
            output = self.model(input_ids=ids_ST, attention_mask=mask_ST)
            return pool(output.last_hidden_state, mask_ST, self.pooling)
        if task.task_type == "generative_reranker":
            return self._activated(word_scores(self.model, ids_ST, mask_ST, self._words()))
        separator = getattr(self.template.tokenizer, "sep_token_id", None)
        reader = ClassifyingObjective(task, TrainSection(), pad_id=0, separator=separator)
        logits_SC = self.model(**reader.model_inputs(self.model, ids_ST, mask_ST)).logits.float()
        return self._activated(logits_SC[:, 0]) if task.is_ranking else self._shares(logits_SC)

    def _activated(self, scores_S: Tensor) -> Tensor:
        return scores_S.sigmoid() if self.uses_sigmoid else scores_S

    def _shares(self, logits_SC: Tensor) -> Tensor:
        """Return probabilities of classes; numbers of a regression as they are."""
        if self.task.problem_type == "single_label_classification":
            return logits_SC.softmax(-1)
        several = self.task.problem_type == "multi_label_classification"
        return logits_SC.sigmoid() if several else logits_SC

    def _class_of(self, values: list[float]) -> dict[str, Any]:
        if self.task.problem_type == "regression":
            return {"response": values[0] if len(values) == 1 else values}
        if self.task.problem_type == "multi_label_classification":
            chosen = [number for number, share in enumerate(values) if share > 0.5]
            return {"response": chosen, "scores": values}
        return {"response": max(range(len(values)), key=values.__getitem__), "scores": values}

    def _any_label(self) -> Any:
        """Return a label that a row may have, for rows are read as in training."""
        if self.task.problem_type == "regression":
            return [0.0] * (self.task.num_labels or 1)
        return [0] if self.task.problem_type == "multi_label_classification" else 0

    def _words(self) -> tuple[int, int]:
        names = TrainSection()
        words = (names.generative_reranker_positive_token, names.generative_reranker_negative_token)
        ids = [self.template.tokenizer.encode(word, add_special_tokens=False) for word in words]
        if any(len(found) != 1 for found in ids):
            raise UsageError(
                "The words of a generative reranker have to be one token each.",
                where="the tokenizer",
                found=", ".join(f"{word!r}: {len(i)}" for word, i in zip(words, ids, strict=True)),
            )
        return ids[0][0], ids[1][0]


def score_questions(
    scorer: Scorer,
    questions: Sequence[Question],
    file: ResultFile,
    batch_size: int,
    progress: Progress,
) -> None:
    """Append a line for each row that the file has none for yet, in order.

    Args:
        scorer: the model.
        questions: rows.
        file: takes the lines.
        batch_size: rows worked on together; -1: all.
        progress: hears of each group of lines.
    """
    together = len(questions) if batch_size < 0 else batch_size
    group_size = max(1, together) * _BATCHES_A_WRITE
    for start in range(file.num_lines, len(questions), group_size):
        group = questions[start : start + group_size]
        file.append(_lines(scorer, group, max(1, together)))
        progress.update(start + len(group), len(questions), "rows scored")


def _lines(scorer: Scorer, group: Sequence[Question], together: int) -> list[dict[str, Any]]:
    found = [_texts_or_error(scorer, question) for question in group]
    usable = [(place, texts) for place, texts in enumerate(found) if not isinstance(texts, str)]
    outcomes: dict[int, Any] = {}
    for first in range(0, len(usable), together):
        part = usable[first : first + together]
        done = halved(_work(scorer), [texts for _, texts in part])
        outcomes |= dict(zip([place for place, _ in part], done, strict=True))
    return [
        _line(question, outcomes.get(place, found[place])) for place, question in enumerate(group)
    ]


def _work(scorer: Scorer) -> Callable[[Sequence[Texts]], list[dict[str, Any]]]:
    def work(rows: Sequence[Texts]) -> list[dict[str, Any]]:
        scores = iter(scorer.scores([text for texts in rows for text in texts]))
        return [scorer.answer([next(scores) for _ in texts]) for texts in rows]

    return work


def _texts_or_error(scorer: Scorer, question: Question) -> Texts | str:
    if question.error is not None:
        return question.error
    try:
        return scorer.texts(dict(question.row))
    except (DataError, RowTooLong) as err:
        return described(err)


def _line(question: Question, outcome: dict[str, Any] | str) -> dict[str, Any]:
    kept = {"messages"}
    own = {n: v for n, v in question.row.items() if n in kept or n not in ANSWER_FIELDS}
    label = question.row.get("label")
    if isinstance(outcome, str):
        where = {} if "messages" in own else {"origin": question.origin}
        return {**own, **where, "response": None, "labels": label, "error": outcome}
    return {**own, **outcome, "labels": label}
